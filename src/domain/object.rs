//! Recordings outside this machine.

use crate::base::clock::Timestamp;

/// A recording in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The name of the recording.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// When it was seen to be there whole. None: its upload has begun, and no more
    /// is known of it.
    pub verified_at: Option<Timestamp>,
}
