//! The sweep: puts right what a crash, a power cut or a lost job left behind.
//! Runs at start and every few minutes. It deletes no recording but those that
//! somebody deleted.
//!
//! - Those files go, if they were left when that was done.
//! - A recording with no row gets one, under the user whose device its name says,
//!   or an administrator when nobody knows that device.
//! - A conversation whose recording has another name gets to know that.
//! - A conversation left open by a source that is gone is repaired, cut into
//!   windows from where the store's knowledge ends, and closed.
//! - Windows and conversations waiting without a job get one.
//! - A cropped recording of no conversation is removed, and what was left half
//!   written.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::deletion::Deletion;
use crate::audio::segmenter::Segmenter;
use crate::audio::vad::FRAME;
use crate::base::clock::Clock;
use crate::base::error::{Kind, Result};
use crate::base::planned;
use crate::config;
use crate::domain::conversation::{CloseReason, Conversation, SAMPLE_RATE, Span};
use crate::domain::ids::{ClientId, ConversationId, UserId};
use crate::jobs::Wake;
use crate::recording::{Found, Recordings};
use crate::store::Store;
use crate::supervisor::heart::Pulse;

/// Samples read at a time: a minute, so that hours of audio take little memory.
const PIECE: u64 = 60 * SAMPLE_RATE as u64;
/// What the detector hears again before it goes on: more than it looks back on.
const LEAD: u64 = 300 * FRAME as u64;

/// The most conversations whose audio one sweep deletes.
const DELETED_AT_ONCE: usize = 1000;

/// Tells which conversations have a live source. The sweep leaves those alone.
#[async_trait]
pub trait LiveConversations: Send + Sync {
    /// Whether that conversation is being recorded or closed right now.
    fn is_live(&self, id: &ConversationId) -> bool;
    /// Whether any is.
    fn any_live(&self) -> bool;

    /// Asks the source of a live conversation to close it, and waits until it
    /// has.
    async fn close(&self, id: &ConversationId);
}

/// For tests of those who ask whether a conversation is live.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Nothing is being recorded.
    pub(crate) struct Nobody;

    #[async_trait]
    impl LiveConversations for Nobody {
        fn is_live(&self, _: &ConversationId) -> bool {
            false
        }

        fn any_live(&self) -> bool {
            false
        }

        async fn close(&self, _: &ConversationId) {}
    }
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Recordings that had no row.
    pub adopted: usize,
    /// Conversations that had been left open.
    pub closed: usize,
    /// Jobs made for work that waited without one.
    pub requeued: usize,
}

/// The sweep and what it looks at.
pub struct Sweep {
    store: Arc<dyn Store>,
    recordings: Recordings,
    live: Arc<dyn LiveConversations>,
    deletion: Deletion,
    transcribe: config::Transcribe,
    archive: Archiving,
    wake: Wake,
    clock: Clock,
    start: Start,
}

/// How far a start has come. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Start {
    /// Beats with each step, so that a slow start is told from a stuck one.
    pub progress: Pulse,
    /// Cancelled once the first sweep is through.
    pub done: CancellationToken,
}

impl Start {
    /// A start that has just begun.
    pub fn new(clock: Clock) -> Self {
        let progress = Pulse::new(clock);
        progress.beat();
        Self { progress, done: CancellationToken::new() }
    }
}

/// What becomes of a recording that nothing waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Archiving {
    Opus,
    Keep,
    Delete,
}

impl Sweep {
    /// Over these recordings and rows.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        live: Arc<dyn LiveConversations>,
        config: &config::Config,
        wake: Wake,
        clock: Clock,
    ) -> Self {
        let deletion =
            Deletion::new(store.clone(), recordings.clone(), live.clone(), clock.clone());
        let archive = match config.recording.archive.as_str() {
            "opus" => Archiving::Opus,
            "none" => Archiving::Delete,
            _ => Archiving::Keep,
        };
        let transcribe = config.transcribe.clone();
        let start = Start::new(clock.clone());
        Self { store, recordings, live, deletion, transcribe, archive, wake, clock, start }
    }

    /// The same sweep, which takes part in `start`.
    #[must_use]
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sweeps every `interval` until `stop`, at once to begin with.
    ///
    /// # Errors
    /// When the store cannot be reached; the supervisor starts it again.
    pub async fn run(&self, interval: Duration, stop: CancellationToken) -> Result<()> {
        loop {
            let swept = self.once().await?;
            self.start.done.cancel();
            if swept != Swept::default() {
                tracing::warn!(
                    adopted = swept.adopted,
                    closed = swept.closed,
                    requeued = swept.requeued,
                    "picked up work that an earlier run left behind"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// One sweep. One recording that cannot be read does not keep the others
    /// from being looked at.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn once(&self) -> Result<Swept> {
        self.deletion.remove_left().await?;
        let mut swept = Swept { adopted: self.adopt().await?, ..Swept::default() };
        for conversation in self.store.open_conversations().await? {
            if self.live.is_live(&conversation.id) {
                continue;
            }
            self.start.progress.beat();
            match self.close(&conversation).await {
                Ok(()) => swept.closed += 1,
                Err(error) => tracing::error!(
                    conversation = %conversation.id,
                    "cannot close what was left open: {}", error.report()
                ),
            }
        }
        self.remove_orphans().await?;
        planned::before("queueing lost work")?;
        swept.requeued = self.store.requeue_lost(self.clock.now()).await?;
        planned::after("queueing lost work")?;
        let archiving = self.archive().await?;
        if swept != Swept::default() || archiving {
            self.wake.wake();
        }
        Ok(swept)
    }

    /// Sees to recordings that nothing waits for; whether there are jobs to do.
    async fn archive(&self) -> Result<bool> {
        match self.archive {
            Archiving::Keep => Ok(false),
            Archiving::Opus => Ok(self.store.queue_archives(self.clock.now()).await? > 0),
            Archiving::Delete => {
                for conversation in
                    self.store.transcribed_audio(None, false, DELETED_AT_ONCE).await?
                {
                    self.deletion.audio(&conversation.id).await?;
                }
                Ok(false)
            }
        }
    }

    /// Removes cropped recordings that no conversation has: their rows come after
    /// them, and go before them.
    async fn remove_orphans(&self) -> Result<()> {
        self.recordings.remove_half_written().await?;
        for name in self.recordings.scan_cropped().await? {
            if self.store.conversation_by_crop(&name).await?.is_none() {
                self.recordings.remove_cropped(&name).await?;
                tracing::info!(file = name, "removed a cropped recording of no conversation");
            }
        }
        Ok(())
    }

    /// Gives every recording without a row one, left open for [`Sweep::close`].
    async fn adopt(&self) -> Result<usize> {
        let mut adopted = 0;
        for Found { name, .. } in self.recordings.scan().await? {
            let Some(origin) = Recordings::origin(&name) else { continue };
            // A session makes the row before the file, so a live one has both. One
            // that is being archived has two files for a while.
            self.start.progress.beat();
            if let Some(row) = self.store.conversation(&origin.conversation_id).await? {
                adopted += usize::from(self.follow(&row, &name).await?);
                continue;
            }
            let Some(user_id) = self.owner(&origin.client_id).await? else {
                tracing::warn!(recording = name, "there is no user to give it to; left alone");
                continue;
            };
            let conversation = Conversation::begin(
                origin.conversation_id,
                user_id,
                origin.client_id,
                name,
                origin.started_at,
            );
            planned::before("adopting a recording")?;
            let new = self.store.adopt_conversation(&conversation).await?;
            planned::after("adopting a recording")?;
            adopted += usize::from(new);
        }
        Ok(adopted)
    }

    /// Whose a recording of that device is: a row that came from a backup may
    /// know neither the device nor its user.
    async fn owner(&self, client: &ClientId) -> Result<Option<UserId>> {
        let devices = self.store.devices(None).await?;
        if let Some(device) = devices.into_iter().find(|device| device.client_id == *client) {
            return Ok(Some(device.user_id));
        }
        let users = self.store.users().await?;
        let by_name = users.iter().find(|user| {
            let rest = client.as_str().strip_prefix(user.id.suffix());
            rest.is_some_and(|rest| rest.starts_with('-'))
        });
        let owner = by_name.or_else(|| users.iter().find(|user| user.is_superuser));
        if let Some(owner) = owner {
            tracing::warn!(device = %client, user = owner.email, "adopted from an unknown device");
        }
        Ok(owner.map(|user| user.id.clone()))
    }

    /// Lets a conversation whose recording is gone know of its file `name`: a row
    /// that came from a backup may be older than its recording's archive.
    async fn follow(&self, row: &Conversation, name: &str) -> Result<bool> {
        if row.audio_path == name || !row.has_audio() {
            return Ok(false);
        }
        let objects = self.store.objects(std::slice::from_ref(&row.audio_path)).await?;
        if objects.iter().any(|object| object.verified_at.is_some()) {
            return Ok(false);
        }
        match self.recordings.samples(&row.audio_path).await {
            Err(error) if error.kind() == Kind::NotFound => {
                self.store.rename_recording(&row.id, &row.audio_path, name).await
            }
            _ => Ok(false),
        }
    }

    /// Repairs the recording, cuts what no window covers yet, and closes.
    async fn close(&self, conversation: &Conversation) -> Result<()> {
        let name = &conversation.audio_path;
        let samples = match self.recordings.repair(name).await {
            // The row is made before the file: a crash in between leaves no audio.
            Err(error) if error.kind() == Kind::NotFound => 0,
            other => other?,
        };
        let known = self.store.windows(&conversation.id).await?;
        let from =
            known.iter().flat_map(|w| w.spans.iter().map(|span| span.end)).max().unwrap_or(0);
        let seq = known.iter().map(|window| window.seq + 1).max().unwrap_or(0);
        let mut segmenter = Segmenter::resume(&self.transcribe, from, seq);
        // Nobody waits for what was left behind.
        segmenter.pack(true);
        if from > 0 && from <= samples {
            let lead = Span { start: from - from.min(LEAD), end: from };
            segmenter.hear_before(&self.recordings.read(name, &[lead]).await?);
        }
        let mut tail = Vec::new();
        let mut at = from;
        while at < samples {
            let end = samples.min(at + PIECE);
            let audio = self.recordings.read(name, &[Span { start: at, end }]).await?;
            segmenter.push(&audio, &mut tail);
            at = end;
        }
        tail.extend(segmenter.finish());
        let now = self.clock.now();
        planned::before("closing what was left open")?;
        self.store
            .close_conversation(&conversation.id, samples, &tail, CloseReason::Sweep, now)
            .await?;
        planned::after("closing what was left open")
    }
}
