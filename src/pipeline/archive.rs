//! A transcribed WAV recording made anew as Ogg Opus.
//!
//! The new file is whole, synced and read back before the row names it, and the
//! row names it before the old file goes. A crash in between leaves a second
//! file, which the next attempt writes again, or the sweep removes.

use std::sync::Arc;

use async_trait::async_trait;

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::domain::job::{Job, JobKind, Payload};
use crate::jobs::worker::Handler;
use crate::recording::{Format, Recordings};
use crate::store::Store;

/// Does [`JobKind::Archive`].
pub struct Archive {
    store: Arc<dyn Store>,
    recordings: Recordings,
    bits_per_second: i32,
    clock: Clock,
}

impl Archive {
    /// With the recordings to make anew, and how many kilobits a second are used.
    pub fn new(store: Arc<dyn Store>, recordings: Recordings, kbps: u32, clock: Clock) -> Self {
        let bits_per_second = i32::try_from(kbps.saturating_mul(1000)).unwrap_or(i32::MAX);
        Self { store, recordings, bits_per_second, clock }
    }
}

#[async_trait]
impl Handler for Archive {
    fn kinds(&self) -> &'static [JobKind] {
        &[JobKind::Archive]
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let gone = || Error::new(Kind::NotFound, "the conversation to archive is gone");
        let Payload::Conversation(id) = &job.payload else { return Err(gone()) };
        let conversation = self.store.conversation(id).await?.ok_or_else(gone)?;
        let name = &conversation.audio_path;
        if !conversation.has_audio() || Format::of(name) != Some(Format::Wav) {
            // Deleted, or archived, since the job was made.
            self.store.complete_archive(job.lease(), id, name, self.clock.now()).await?;
            return Ok(());
        }
        // A new file is audio that is written, too.
        self.recordings.accepting()?;
        let (archived, bytes) = self.recordings.archive(name, self.bits_per_second).await?;
        let now = self.clock.now();
        let completed = self.store.complete_archive(job.lease(), id, &archived, now).await;
        if completed.is_err() && self.store.conversation(id).await.is_ok_and(|row| row.is_none()) {
            // Deleted meanwhile: a sweep may have struck the note of this file off
            // before it was there.
            self.recordings.discard(&archived).await?;
        }
        let goes = completed?;
        // From here on the note of the store sees to it that this file goes.
        if let Some(goes) = goes
            && let Err(error) = self.recordings.remove(std::slice::from_ref(&goes)).await
        {
            tracing::warn!(file = goes, "left to the sweep: {}", error.report());
        }
        tracing::info!(conversation = %id, bytes, "archived");
        Ok(())
    }
}
