//! Files that were uploaded, and the requests they came in.

use super::conversation::named;
use super::ids::{ClientId, ConversationId, UserId};
use crate::base::clock::Timestamp;

named!(
    /// How far an uploaded file has come on its way into a conversation.
    UploadState {
        /// Received whole, and not recorded yet.
        Waiting = "waiting",
        /// Recorded, or found to be recorded already.
        Recorded = "recorded",
        /// Refused, or given up after its retries.
        Failed = "failed",
        /// Left out because it is longer than is allowed.
        Skipped = "skipped",
    }
);

/// One request with the files it brought.
#[derive(Clone, Debug, PartialEq)]
pub struct UploadJob {
    /// Identifier (`job_id` in the API).
    pub id: String,
    /// Who sent it.
    pub user_id: UserId,
    /// The device its conversations are from.
    pub client_id: ClientId,
    /// When it had been received.
    pub created_at: Timestamp,
    /// Its files, in order.
    pub files: Vec<Upload>,
}

/// One uploaded file.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// The name the sender gave it.
    pub filename: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hex; empty where it was not received whole.
    pub sha256: String,
    /// Its name among the spooled files, until it is recorded.
    pub spooled: Option<String>,
    /// How far it has come.
    pub state: UploadState,
    /// The conversation that it is, or was before, made into.
    pub conversation_id: Option<ConversationId>,
    /// The same bytes had been uploaded before.
    pub duplicate: bool,
    /// Seconds of audio, by its own header.
    pub seconds: Option<f64>,
    /// Why its recording may be less than it once was.
    pub note: Option<String>,
    /// Why it failed or was skipped.
    pub error: Option<String>,
    /// When its recording began.
    pub started_at: Option<Timestamp>,
    /// When it was recorded, or had failed.
    pub ended_at: Option<Timestamp>,
}
