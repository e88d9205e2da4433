//! Memories out of a conversation, applied in one transaction.

use std::sync::Arc;

use async_trait::async_trait;

use super::finish::transcript;
use super::learn::Learner;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::domain::conversation::Progress;
use crate::domain::job::{Job, JobKind, Payload};
use crate::domain::transcript::plain_text;
use crate::jobs::worker::Handler;
use crate::store::Store;

/// Does [`JobKind::Remember`].
pub struct Remember {
    store: Arc<dyn Store>,
    learner: Learner,
    clock: Clock,
}

impl Remember {
    /// With what decides.
    pub fn new(store: Arc<dyn Store>, learner: Learner, clock: Clock) -> Self {
        Self { store, learner, clock }
    }
}

#[async_trait]
impl Handler for Remember {
    fn kinds(&self) -> &'static [JobKind] {
        &[JobKind::Remember]
    }

    fn is_ready(&self) -> bool {
        self.learner.is_ready()
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let gone = || Error::new(Kind::NotFound, "the conversation to remember is gone");
        let Payload::Conversation(id) = &job.payload else { return Err(gone()) };
        let conversation = self.store.conversation(id).await?.ok_or_else(gone)?;
        let versions = self.store.memory_versions(id).await?;
        let awaited = versions.iter().find(|version| version.state == Progress::Pending);
        let source = awaited.ok_or_else(gone)?.transcript_version;
        let segments = transcript(&self.store.version_windows(id, source).await?);
        let lines: Vec<String> = segments.iter().map(|s| s.text.trim().to_owned()).collect();
        let user = &conversation.user_id;
        let mut learned = self.learner.learn(user, Some(id), &lines, job.lane).await?;
        learned.title = title(&plain_text(&segments));
        planned::before("keeping memories")?;
        self.store.complete_memories(job.lease(), id, &learned, self.clock.now()).await?;
        planned::after("keeping memories")?;
        tracing::info!(conversation = %id, changes = learned.changes.len(), "remembered");
        Ok(())
    }
}

/// The first words of a transcript, as a title: nothing that was not said.
fn title(text: &str) -> Option<String> {
    const LONGEST: usize = 60;
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let sentence = text.split_inclusive(['.', '!', '?']).next().unwrap_or(text).trim();
    if sentence.chars().count() <= LONGEST {
        return Some(sentence.to_owned());
    }
    let mut title = String::new();
    for word in sentence.split_whitespace() {
        if title.chars().count() + word.chars().count() >= LONGEST {
            break;
        }
        title.push_str(word);
        title.push(' ');
    }
    Some(format!("{}…", title.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_cut_at_words() {
        assert_eq!(title("Hello there. More."), Some("Hello there.".into()));
        assert_eq!(title("  "), None);
        let long = title(&"word ".repeat(40)).unwrap();
        assert!(long.chars().count() <= 61 && long.ends_with('…'), "{long}");
    }
}
