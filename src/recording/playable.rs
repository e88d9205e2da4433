//! Recordings sent as they are, whole or in part.

use std::fs::File;
use std::io::SeekFrom;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::{Recordings, check, failed, no_recording};
use crate::base::error::{Error, Kind, Result, io_kind};
use crate::remote::bucket::Bucket;
use crate::supervisor::blocking;

/// Bytes read from disk at a time.
const CHUNK: usize = 32 * 1024;
/// Bytes asked of the bucket at a time.
const PIECE: u64 = 1 << 20;

/// The bytes of a recording.
#[derive(Debug)]
pub struct Playable {
    /// Its length in bytes.
    pub bytes: u64,
    /// When it was last written, since 1970.
    pub modified: Duration,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Disk(File),
    Bucket(Bucket, String),
}

impl Recordings {
    /// The file of a recording, on disk or in the bucket.
    ///
    /// # Errors
    /// `NotFound` (also for any name that is not a plain file name), `Storage`, or
    /// as [`crate::remote::Service::call`].
    pub async fn playable(&self, name: &str) -> Result<Playable> {
        check(name)?;
        let (path, local) = (self.dir.join(name), name.to_owned());
        let found = blocking(move || {
            let cannot = |error| failed("cannot read", &local, error);
            let file = File::open(&path).map_err(cannot)?;
            let metadata = file.metadata().map_err(cannot)?;
            if !metadata.is_file() {
                return Err(no_recording());
            }
            let modified = metadata.modified().map_err(cannot)?;
            let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(Playable { bytes: metadata.len(), modified, place: Place::Disk(file) })
        })
        .await;
        match (found, &self.bucket) {
            (Err(error), Some(bucket)) if error.kind() == Kind::NotFound => {
                let stored = bucket.head(name).await?.ok_or(error)?;
                let millis = u64::try_from(stored.modified.millis()).unwrap_or_default();
                Ok(Playable {
                    bytes: stored.bytes,
                    modified: Duration::from_millis(millis),
                    place: Place::Bucket(bucket.clone(), name.to_owned()),
                })
            }
            (found, _) => found,
        }
    }
}

impl Playable {
    /// `length` bytes of it from `start` on, in pieces that are read when they are
    /// asked for.
    ///
    /// # Errors
    /// `Storage` when the file cannot be read. What fails later fails the stream.
    pub async fn stream(
        self,
        start: u64,
        length: u64,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        match self.place {
            Place::Disk(file) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(SeekFrom::Start(start)).await.map_err(unreadable)?;
                let pieces = ReaderStream::with_capacity(file.take(length), CHUNK);
                Ok(pieces.map_err(unreadable).boxed())
            }
            Place::Bucket(bucket, name) => {
                let end = start.saturating_add(length).min(self.bytes);
                let pieces = stream::try_unfold(
                    (bucket, name, start),
                    move |(bucket, name, at)| async move {
                        if at >= end {
                            return Ok(None);
                        }
                        let to = end.min(at + PIECE);
                        let piece = bucket.read(&name, at..to).await?;
                        Ok(Some((piece, (bucket, name, to))))
                    },
                );
                Ok(pieces.boxed())
            }
        }
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(io_kind(&error), "cannot read the recording").with_source(error)
}
