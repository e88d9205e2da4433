//! Recordings in the bucket: copied there, and read from there as those on disk
//! are.

use std::fs::File;
use std::io::{ErrorKind, Result as Io};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::runtime::Handle as Runtime;

use super::files::{Files, Handle, Use};
use super::{Recordings, check, failed, no_recording};
use crate::base::error::{Error, Kind, Result};
use crate::remote::bucket::Bucket;
use crate::supervisor::blocking;

/// Bytes hashed at a time.
const PIECE: usize = 1 << 20;

impl Recordings {
    /// The same, with a bucket that holds what is not on this disk any more.
    #[must_use]
    pub fn with_bucket(self, bucket: Option<Bucket>) -> Self {
        Self { bucket, ..self }
    }

    /// The bucket, if there is one.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.bucket.as_ref()
    }

    /// Whether a file is on this disk.
    ///
    /// # Errors
    /// `NotFound` for a name that is none.
    pub async fn is_here(&self, name: &str) -> Result<bool> {
        check(name)?;
        let path = self.dir.join(name);
        blocking(move || Ok(path.is_file())).await
    }

    /// Copies a recording to the bucket, where it is whole and seen to be when this
    /// returns: its bytes, and their SHA-256 in hex. One that is there alone is
    /// taken as it is. Not for a recording that still changes.
    ///
    /// # Errors
    /// `NotFound` when it is in neither place, `Storage`, or as
    /// [`crate::remote::Service::call`]; `Internal` without a bucket.
    pub async fn copy_to_bucket(&self, name: &str) -> Result<(u64, String)> {
        let none = || Error::new(Kind::Internal, "there is no bucket");
        let bucket = self.bucket.as_ref().ok_or_else(none)?;
        check(name)?;
        let (path, local) = (self.dir.join(name), name.to_owned());
        let read = blocking(move || {
            let cannot = |error| failed("cannot read", &local, error);
            let file = File::open(path).map_err(cannot)?;
            let (bytes, sha256) = digest(&file).map_err(cannot)?;
            Ok((file, bytes, sha256))
        });
        match read.await {
            Ok((file, bytes, sha256)) => {
                bucket.put(name, file, bytes, &sha256).await?;
                Ok((bytes, sha256))
            }
            Err(error) if error.kind() == Kind::NotFound => {
                let stored = bucket.head(name).await?.ok_or(error)?;
                Ok((stored.bytes, stored.sha256.unwrap_or_default()))
            }
            Err(error) => Err(error),
        }
    }
}

/// The length of a file, and the SHA-256 of its bytes in hex.
fn digest(file: &File) -> Io<(u64, String)> {
    let (mut hasher, mut at) = (Sha256::new(), 0);
    let mut piece = vec![0; PIECE];
    loop {
        let count = Handle::read_at(file, &mut piece, at)?;
        hasher.update(piece.get(..count).unwrap_or_default());
        at += count as u64;
        if count < PIECE {
            let hex = hex::encode(hasher.finalize());
            return Ok((at, hex));
        }
    }
}

/// Where recordings are read from: the disk, and the bucket where there is none.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) files: Arc<dyn Files>,
    pub(super) bucket: Option<Bucket>,
}

impl Shelf {
    /// Opens a recording to be read, on a thread that may wait.
    ///
    /// # Errors
    /// `NotFound`, `Storage`, or as [`crate::remote::Service::call`].
    pub(super) fn open(&self, name: &str) -> Result<Box<dyn Handle>> {
        match (self.files.open(name, Use::Read), &self.bucket) {
            (Err(error), Some(bucket)) if error.kind() == ErrorKind::NotFound => {
                let found = Runtime::current().block_on(bucket.head(name))?;
                let bytes = found.ok_or_else(no_recording)?.bytes;
                let (bucket, name) = (bucket.clone(), name.to_owned());
                Ok(Box::new(Object { bucket, name, bytes }))
            }
            (opened, _) => opened.map_err(|error| failed("cannot read", name, error)),
        }
    }
}

/// A recording in the bucket, open to be read on a thread that may wait.
#[derive(Debug)]
struct Object {
    bucket: Bucket,
    name: String,
    bytes: u64,
}

impl Handle for Object {
    fn len(&self) -> Io<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> Io<usize> {
        let end = self.bytes.min(at.saturating_add(bytes.len() as u64));
        let range = at.min(end)..end;
        let read = Runtime::current().block_on(self.bucket.read(&self.name, range));
        let read = read.map_err(std::io::Error::other)?;
        let into = bytes.get_mut(..read.len()).ok_or(ErrorKind::InvalidData)?;
        into.copy_from_slice(&read);
        Ok(read.len())
    }

    fn write_at(&self, _: &[u8], _: u64) -> Io<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> Io<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> Io<()> {
        Err(ErrorKind::Unsupported.into())
    }
}
