//! An uploaded file into the recording of its conversation.

use std::sync::Arc;

use async_trait::async_trait;

use crate::audio::decode::AudioFile;
use crate::audio::reading::{Piece, Reading};
use crate::audio::segmenter::Segmenter;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::domain::conversation::{Conversation, SAMPLE_RATE};
use crate::domain::ids::ConversationId;
use crate::domain::job::{Job, JobKind, Lane, Payload};
use crate::domain::upload::Upload;
use crate::jobs::Wake;
use crate::jobs::worker::Handler;
use crate::recording::{Recorder, Recordings};
use crate::store::Store;
use crate::supervisor::blocking;

/// Does [`JobKind::Import`]. One that was interrupted begins anew: the file is
/// still whole.
pub struct Import {
    store: Arc<dyn Store>,
    recordings: Recordings,
    config: Arc<Config>,
    wake: Wake,
    clock: Clock,
}

impl Import {
    /// Into `recordings`, from where uploads are spooled; `wake` is told of each new job.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        config: Arc<Config>,
        wake: Wake,
        clock: Clock,
    ) -> Self {
        Self { store, recordings, config, wake, clock }
    }

    /// Records all of `upload`; returns its samples, and why they may be fewer
    /// than it once had.
    async fn record(
        &self,
        conversation: &Conversation,
        upload: &Upload,
    ) -> Result<(u64, Option<String>)> {
        let path = self.recordings.spool().path(upload.spooled.as_deref().unwrap_or_default())?;
        let (name, spool) = (upload.filename.clone(), self.recordings.spool().clone());
        let file = blocking(move || {
            let file = AudioFile::open_as(&path, name)?;
            spool.has_room(file.shape().samples.unwrap_or(0) * 2)?;
            Ok(file)
        })
        .await?;
        // What an earlier attempt left.
        self.recordings.discard(&conversation.audio_path).await?;
        let mut recorder = self.recordings.create(conversation).await?;
        let length = self.config.uploads.max_length;
        let limit = length.get().as_secs().saturating_mul(u64::from(SAMPLE_RATE));
        let mut segmenter = Segmenter::new(&self.config.transcribe);
        // All of it is there: the fewest passes of the model are the soonest done.
        segmenter.pack(true);
        let mut reading = Reading::new(file, segmenter, limit);
        while let Some(piece) = reading.next().await? {
            self.accept(&conversation.id, &mut recorder, piece).await?;
        }
        let note = match reading.was_cut() {
            true => Some(format!("{}: what comes after {length} is left out", upload.filename)),
            false => reading.note().map(str::to_owned),
        };
        match recorder.close().await {
            (samples, None) => Ok((samples, note)),
            (_, Some(error)) => Err(error),
        }
    }

    /// Records `piece`, then stores the windows that end with it.
    async fn accept(
        &self,
        id: &ConversationId,
        recorder: &mut Recorder,
        piece: &mut Piece,
    ) -> Result<()> {
        recorder.append(&piece.samples).await?;
        if piece.windows.is_empty() {
            return Ok(());
        }
        recorder.sync().await?;
        let lane = if self.config.hears_whole() { Lane::Held } else { Lane::Backlog };
        for window in piece.windows.drain(..) {
            let (samples, now) = (recorder.samples(), self.clock.now());
            self.store.add_window(id, samples, &window, lane, now).await?;
        }
        self.wake.wake();
        Ok(())
    }
}

#[async_trait]
impl Handler for Import {
    fn kinds(&self) -> &'static [JobKind] {
        &[JobKind::Import]
    }

    /// While nothing can be recorded, uploads wait in the spool.
    fn is_ready(&self) -> bool {
        self.recordings.refusal().is_none()
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let gone = || Error::new(Kind::NotFound, "the upload to record is gone");
        let Payload::Conversation(id) = &job.payload else { return Err(gone()) };
        let conversation = self.store.conversation(id).await?.ok_or_else(gone)?;
        let upload = self.store.begin_upload(id, self.clock.now()).await?.ok_or_else(gone)?;
        let (samples, note) = self.record(&conversation, &upload).await?;
        let now = self.clock.now();
        self.store.complete_upload(job.lease(), id, samples, note.as_deref(), now).await?;
        if let Some(name) = &upload.spooled
            && let Err(error) = self.recordings.spool().remove(name).await
        {
            tracing::warn!("left to the next start: {}", error.report());
        }
        let seconds = samples / u64::from(SAMPLE_RATE);
        tracing::info!(conversation = %id, seconds, note, "upload recorded");
        Ok(())
    }
}
