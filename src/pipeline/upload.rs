//! Keeps the bucket in step: recordings are copied there once they do not change
//! any more, and go from there when they are deleted. Those on this machine are let
//! go when their disk needs the room, and not before they have been seen to be in
//! the bucket.
//!
//! It works through the recordings on this machine by itself rather than by jobs,
//! which another machine with the same store might take.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::error::{Kind, Result};
use crate::base::{metrics, planned};
use crate::config;
use crate::domain::object::Object;
use crate::recording::Recordings;
use crate::remote::bucket::Bucket;
use crate::store::Store;

/// How long a WAV recording may wait for its archiving before it is copied as it
/// is: its transcript may be long in coming.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(3600);
/// Names that the store is asked of at a time.
const BATCH: usize = 200;

/// The one who keeps it in step.
pub struct Uploader {
    store: Arc<dyn Store>,
    recordings: Recordings,
    bucket: Bucket,
    archived_within: Duration,
    clock: Clock,
    /// Those that cannot be copied, whenever it is tried.
    refused: HashSet<String>,
}

impl Uploader {
    /// From `recordings` to `bucket`, by the rules of `config`.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        bucket: Bucket,
        config: &config::Recording,
        clock: Clock,
    ) -> Self {
        let archived_within = match config.archive.as_str() {
            "wav" => Duration::ZERO,
            _ => ARCHIVED_WITHIN,
        };
        Self { store, recordings, bucket, archived_within, clock, refused: HashSet::new() }
    }

    /// Looks every `interval` until `stop`.
    ///
    /// # Errors
    /// When the store cannot be reached; the supervisor starts it again.
    pub async fn run(mut self, interval: Duration, stop: CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                done = self.once() => done?,
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(interval) => {}
            }
        }
        Ok(())
    }

    /// One pass; one that ends early when the bucket is away goes on with the next.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn once(&mut self) -> Result<()> {
        self.remove_deleted().await?;
        let wav_before = self.clock.now().moved(-millis(self.archived_within));
        for name in self.store.unstored_recordings(wav_before).await? {
            if !self.bucket.service().is_ready() {
                return Ok(());
            }
            if !self.refused.contains(&name) {
                self.copy(name).await?;
            }
        }
        Ok(())
    }

    /// Has what was deleted go from the bucket. The sweep strikes it off then.
    async fn remove_deleted(&self) -> Result<()> {
        for names in self.store.deletions().await?.chunks(BATCH) {
            let objects = self.store.objects(names).await?;
            let names: Vec<String> = objects.into_iter().map(|object| object.name).collect();
            if names.is_empty() {
                continue;
            }
            if let Err(error) = self.bucket.delete(&names).await {
                tracing::debug!("left in the bucket for now: {}", error.report());
                return Ok(());
            }
            planned::before("striking off objects")?;
            self.store.forget_objects(&names).await?;
            tracing::info!(objects = names.len(), "deleted from the bucket");
        }
        Ok(())
    }

    async fn copy(&mut self, name: String) -> Result<()> {
        if self.recordings.is_here(&name).await? {
            // Before there is an object, so that one of a deleted recording is known.
            self.store.begin_object(&name).await?;
        }
        planned::before("copying to the bucket")?;
        let (bytes, sha256) = match self.recordings.copy_to_bucket(&name).await {
            Ok(copied) => copied,
            // On another machine, or deleted meanwhile.
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) if error.is_transient() => {
                tracing::debug!(recording = name, "copied later: {}", error.report());
                return Ok(());
            }
            Err(error) => {
                tracing::error!(recording = name, "stays here alone: {}", error.report());
                self.refused.insert(name);
                return Ok(());
            }
        };
        planned::after("copying to the bucket")?;
        let now = self.clock.now();
        let object = Object { name, bytes, sha256, verified_at: Some(now) };
        if self.store.complete_object(&object, now).await? {
            metrics::AUDIO_STORED.add(&[], bytes as f64);
            tracing::info!(recording = object.name, bytes, "copied to the bucket");
        }
        Ok(())
    }
}

/// Lets recordings on this machine go that are in the bucket, oldest first, until
/// `bytes` are freed or there is no more; the bytes that were.
///
/// # Errors
/// When the store cannot be reached, or the disk does not answer.
pub async fn free(store: &dyn Store, recordings: &Recordings, bytes: u64) -> Result<u64> {
    let Some(bucket) = recordings.bucket() else { return Ok(0) };
    let names: Vec<String> = recordings.scan().await?.into_iter().map(|found| found.name).collect();
    let (mut freed, mut count) = (0, 0);
    'all: for names in names.chunks(BATCH) {
        for object in store.objects(names).await? {
            if freed >= bytes {
                break 'all;
            }
            if is_stored(store, bucket, &object).await? {
                freed += recordings.remove(std::slice::from_ref(&object.name)).await?.bytes;
                count += 1;
            }
        }
    }
    if count > 0 {
        tracing::info!(files = count, bytes = freed, "kept in the bucket alone, to make room");
    }
    Ok(freed)
}

/// Whether an object was seen to be there, and is as far as anybody can tell now.
async fn is_stored(store: &dyn Store, bucket: &Bucket, object: &Object) -> Result<bool> {
    if object.verified_at.is_none() {
        return Ok(false);
    }
    match bucket.head(&object.name).await {
        Ok(Some(found)) if found.bytes == object.bytes => Ok(true),
        Ok(_) => {
            tracing::warn!(recording = object.name, "is gone from the bucket; copied again");
            store.begin_object(&object.name).await?;
            Ok(false)
        }
        // To trust what was seen loses less than to delete audio for good.
        Err(_) => Ok(true),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
