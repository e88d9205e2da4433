//! Memories out of a conversation: extract facts, compare each with what is
//! known, and apply what was decided in one transaction.

use std::sync::Arc;

use async_trait::async_trait;

use super::extract::extract;
use super::finish::transcript;
use super::prompts;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::domain::conversation::Conversation;
use crate::domain::job::{Job, JobKind, Lane, Payload};
use crate::domain::memory::{Memory, MemoryChange, MemoryEvent};
use crate::domain::transcript::plain_text;
use crate::embed::Embedder;
use crate::index::Index;
use crate::jobs::worker::Handler;
use crate::llm::LanguageModel;
use crate::store::Store;

/// Two facts closer than this (cosine) say the same.
const SAME: f32 = 0.93;
/// Below this (cosine) a known memory has nothing to do with a fact.
const RELATED: f32 = 0.5;
/// Known memories shown to the model for one fact.
const CANDIDATES: usize = 4;

/// Does [`JobKind::Remember`].
pub struct Remember {
    store: Arc<dyn Store>,
    index: Arc<dyn Index>,
    embedder: Arc<dyn Embedder>,
    llm: Arc<dyn LanguageModel>,
    clock: Clock,
}

impl Remember {
    /// With the models to ask and the places to look.
    pub fn new(
        store: Arc<dyn Store>,
        index: Arc<dyn Index>,
        embedder: Arc<dyn Embedder>,
        llm: Arc<dyn LanguageModel>,
        clock: Clock,
    ) -> Self {
        Self { store, index, embedder, llm, clock }
    }

    /// What to do about one fact, given what is known.
    async fn decide(
        &self,
        conversation: &Conversation,
        fact: String,
        vector: Vec<f32>,
        taken: &[MemoryChange],
        lane: Lane,
    ) -> Result<Option<MemoryChange>> {
        let said_already = taken.iter().any(|change| match change {
            MemoryChange::Add { vector: other, .. }
            | MemoryChange::Update { vector: other, .. } => cosine(&vector, other) >= SAME,
            MemoryChange::Delete { .. } => false,
        });
        if said_already {
            return Ok(None);
        }
        let near = self.index.nearest(&conversation.user_id, &vector, CANDIDATES).await?;
        if near.first().is_some_and(|(_, likeness)| *likeness >= SAME) {
            return Ok(None);
        }
        let related: Vec<_> = near
            .into_iter()
            .filter(|(id, likeness)| *likeness >= RELATED && !touches(taken, id.as_str()))
            .map(|(id, _)| id)
            .collect();
        let known = self.store.memories_by_id(&related).await?;
        if known.is_empty() {
            return Ok(Some(MemoryChange::Add { text: fact, vector }));
        }
        let texts: Vec<&str> = known.iter().map(|memory| memory.text.as_str()).collect();
        let answer = self.llm.generate(prompts::decide(&fact, &texts, lane)).await?;
        let (event, number) = prompts::read_decision(&answer)?;
        Ok(change(event, number.and_then(|n| known.get(n)), fact, vector))
    }
}

/// The change that a decision asks for. One that names no known memory, where it
/// needs to, adds the fact: nothing that was learned is dropped.
fn change(
    event: MemoryEvent,
    target: Option<&Memory>,
    fact: String,
    vector: Vec<f32>,
) -> Option<MemoryChange> {
    match (event, target) {
        (MemoryEvent::None, _) => None,
        (MemoryEvent::Update, Some(memory)) => {
            Some(MemoryChange::Update { id: memory.id.clone(), text: fact, vector })
        }
        (MemoryEvent::Delete, Some(memory)) => Some(MemoryChange::Delete { id: memory.id.clone() }),
        _ => Some(MemoryChange::Add { text: fact, vector }),
    }
}

fn touches(taken: &[MemoryChange], memory: &str) -> bool {
    taken.iter().any(|change| match change {
        MemoryChange::Update { id, .. } | MemoryChange::Delete { id } => id.as_str() == memory,
        MemoryChange::Add { .. } => false,
    })
}

/// Of two vectors of unit length.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[async_trait]
impl Handler for Remember {
    fn kinds(&self) -> &'static [JobKind] {
        &[JobKind::Remember]
    }

    fn is_ready(&self) -> bool {
        self.llm.is_ready() && self.embedder.is_ready()
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let gone = || Error::new(Kind::NotFound, "the conversation to remember is gone");
        let Payload::Conversation(id) = &job.payload else { return Err(gone()) };
        let conversation = self.store.conversation(id).await?.ok_or_else(gone)?;
        let segments = transcript(&self.store.windows(id).await?);
        let lines: Vec<String> = segments.iter().map(|s| s.text.trim().to_owned()).collect();

        planned::before("asking for the facts")?;
        let facts = extract(self.llm.as_ref(), &lines, job.lane).await?;
        planned::after("asking for the facts")?;
        let mut changes = Vec::new();
        if !facts.is_empty() {
            planned::before("embedding the facts")?;
            let vectors = self.embedder.embed(&facts).await?;
            planned::after("embedding the facts")?;
            if let Some(width) = vectors.first().map(Vec::len) {
                self.store.bind_embedding(&self.embedder.name(), width).await?;
            }
            for (fact, vector) in facts.into_iter().zip(vectors) {
                let decided = self.decide(&conversation, fact, vector, &changes, job.lane).await?;
                changes.extend(decided);
            }
        }
        let title = title(&plain_text(&segments));
        planned::before("keeping memories")?;
        self.store
            .complete_memories(
                job.lease(),
                &conversation,
                &changes,
                title.as_deref(),
                prompts::VERSION,
                self.clock.now(),
            )
            .await?;
        planned::after("keeping memories")?;
        tracing::info!(conversation = %id, changes = changes.len(), "remembered");
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
    use crate::base::clock::Timestamp;
    use crate::domain::ids::{MemoryId, UserId};

    fn memory(id: &str) -> Memory {
        Memory {
            id: MemoryId::from_text(id),
            user_id: UserId::from_text("u"),
            text: "Old.".into(),
            conversation_id: None,
            client_id: None,
            prompt_version: "1".into(),
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn a_decision_without_its_memory_adds() {
        let old = memory("m");
        let decide = |event, target| change(event, target, "New.".into(), vec![1.0]);
        assert!(matches!(
            decide(MemoryEvent::Update, Some(&old)),
            Some(MemoryChange::Update { .. })
        ));
        assert!(matches!(decide(MemoryEvent::Update, None), Some(MemoryChange::Add { .. })));
        assert!(matches!(decide(MemoryEvent::Delete, None), Some(MemoryChange::Add { .. })));
        assert!(decide(MemoryEvent::None, Some(&old)).is_none());
    }

    #[test]
    fn titles_are_cut_at_words() {
        assert_eq!(title("Hello there. More."), Some("Hello there.".into()));
        assert_eq!(title("  "), None);
        let long = title(&"word ".repeat(40)).unwrap();
        assert!(long.chars().count() <= 61 && long.ends_with('…'), "{long}");
    }
}
