//! Settles a closed conversation once all its windows are done: how its
//! transcription ended, and what happens next.

use std::sync::Arc;

use async_trait::async_trait;

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::config;
use crate::domain::conversation::{Progress, Window, WindowState};
use crate::domain::ids::ConversationId;
use crate::domain::job::{Job, JobKind, Lane, NewJob, Payload};
use crate::domain::transcript::{Segment, plain_text};
use crate::domain::version::{Settled, unsettled};
use crate::jobs::worker::Handler;
use crate::store::Store;

/// Does [`JobKind::Finish`].
pub struct Finish {
    store: Arc<dyn Store>,
    memory: config::Memory,
    crops: bool,
    clock: Clock,
}

impl Finish {
    /// With the rules on what is worth looking at for memories, and whether
    /// recordings are cropped.
    pub fn new(store: Arc<dyn Store>, memory: config::Memory, crops: bool, clock: Clock) -> Self {
        Self { store, memory, crops, clock }
    }

    /// How a transcript of `id` made of `windows` ended, and what follows.
    async fn settle(
        &self,
        id: &ConversationId,
        version: u32,
        windows: &[Window],
    ) -> Result<Settled> {
        let segments = transcript(windows);
        let characters = plain_text(&segments).chars().count();
        let job =
            |kind| NewJob { kind, payload: Payload::Conversation(id.clone()), lane: Lane::Backlog };
        let mut next = Vec::new();
        let memory = if self.memory.enabled && characters >= self.memory.min_characters {
            next.push(job(JobKind::Remember));
            Progress::Pending
        } else {
            Progress::Skipped
        };
        // The speech in a recording does not change with its transcript.
        if self.crops && self.store.crop(id).await?.is_none() {
            next.push(job(JobKind::Crop));
        }
        Ok(Settled { version, transcription: outcome(windows, &segments), memory, next })
    }
}

#[async_trait]
impl Handler for Finish {
    fn kinds(&self) -> &'static [JobKind] {
        &[JobKind::Finish]
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let gone = || Error::new(Kind::NotFound, "the conversation to settle is gone");
        let Payload::Conversation(id) = &job.payload else { return Err(gone()) };
        let versions = self.store.transcript_versions(id).await?;
        let version = unsettled(&versions).ok_or_else(gone)?;
        let windows = self.store.version_windows(id, version).await?;
        let settled = self.settle(id, version, &windows).await?;
        planned::before("settling a conversation")?;
        self.store.finish_conversation(job.lease(), id, &settled, self.clock.now()).await?;
        planned::after("settling a conversation")?;
        let transcription = settled.transcription.as_str();
        tracing::info!(conversation = %id, version, transcription, "transcribed");
        Ok(())
    }
}

/// The whole transcript of a conversation, in order.
pub fn transcript(windows: &[Window]) -> Vec<Segment> {
    let mut windows: Vec<&Window> = windows.iter().collect();
    windows.sort_by_key(|window| window.seq);
    windows.into_iter().flat_map(|window| window.segments.iter().cloned()).collect()
}

fn outcome(windows: &[Window], segments: &[Segment]) -> Progress {
    if windows.iter().any(|window| window.state == WindowState::Failed) {
        Progress::Failed
    } else if segments.iter().all(|segment| segment.text.trim().is_empty()) {
        Progress::Empty
    } else {
        Progress::Completed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::conversation::Span;

    fn window(seq: u32, state: WindowState, text: &str) -> Window {
        let segment = Segment {
            start: 0.0,
            end: 1.0,
            text: text.into(),
            speaker: None,
            confidence: 1.0,
            words: Vec::new(),
        };
        Window {
            id: i64::from(seq),
            conversation_id: ConversationId::from_text("c"),
            version: 1,
            seq,
            spans: vec![Span { start: 0, end: 16_000 }],
            state,
            segments: if text.is_empty() { Vec::new() } else { vec![segment] },
            engine: None,
        }
    }

    #[test]
    fn windows_join_in_order() {
        let windows = [window(1, WindowState::Done, "two"), window(0, WindowState::Done, "one")];
        assert_eq!(plain_text(&transcript(&windows)), "one two");
    }

    #[test]
    fn one_failed_window_is_not_hidden_by_the_others() {
        let windows = [window(0, WindowState::Done, "one"), window(1, WindowState::Failed, "")];
        assert_eq!(outcome(&windows, &transcript(&windows)), Progress::Failed);
        let silent = [window(0, WindowState::Done, "")];
        assert_eq!(outcome(&silent, &transcript(&silent)), Progress::Empty);
        assert_eq!(outcome(&[], &[]), Progress::Empty);
    }
}
