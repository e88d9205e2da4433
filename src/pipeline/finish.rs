//! Settles a closed conversation once all its windows are done: how its
//! transcription ended, and what happens next.

use std::sync::Arc;

use async_trait::async_trait;

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::config;
use crate::domain::conversation::{Progress, Window, WindowState};
use crate::domain::job::{Job, JobKind, Lane, NewJob, Payload};
use crate::domain::transcript::{Segment, plain_text};
use crate::jobs::worker::Handler;
use crate::store::Store;

/// Does [`JobKind::Finish`].
pub struct Finish {
    store: Arc<dyn Store>,
    memory: config::Memory,
    clock: Clock,
}

impl Finish {
    /// With the rules on what is worth looking at for memories.
    pub fn new(store: Arc<dyn Store>, memory: config::Memory, clock: Clock) -> Self {
        Self { store, memory, clock }
    }
}

#[async_trait]
impl Handler for Finish {
    fn kinds(&self) -> &'static [JobKind] {
        &[JobKind::Finish]
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let Payload::Conversation(id) = &job.payload else {
            return Err(Error::new(Kind::NotFound, "the conversation to settle is gone"));
        };
        let windows = self.store.windows(id).await?;
        let segments = transcript(&windows);
        let transcription = outcome(&windows, &segments);
        let characters = plain_text(&segments).chars().count();
        let remember = self.memory.enabled && characters >= self.memory.min_characters;
        let (memory, next) = if remember {
            let job = NewJob {
                kind: JobKind::Remember,
                payload: Payload::Conversation(id.clone()),
                lane: Lane::Backlog,
            };
            (Progress::Pending, vec![job])
        } else {
            (Progress::Skipped, Vec::new())
        };
        planned::before("settling a conversation")?;
        self.store
            .finish_conversation(job.lease(), id, transcription, memory, &next, self.clock.now())
            .await?;
        planned::after("settling a conversation")?;
        tracing::info!(conversation = %id, transcription = transcription.as_str(), characters, "transcribed");
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
    use crate::domain::ids::ConversationId;

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
