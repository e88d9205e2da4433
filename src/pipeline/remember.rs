//! Memories out of a conversation: extract facts, compare each with what is
//! known, and apply what was decided in one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::extract::extract;
use super::finish::transcript;
use super::prompts;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{Conversation, Progress};
use crate::domain::ids::MemoryId;
use crate::domain::job::{Job, JobKind, Lane, Payload};
use crate::domain::memory::{Learned, Memory, MemoryChange, MemoryEvent};
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
        known: &Known,
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
        let near = known.near(self, &vector).await?;
        if let Some((memory, likeness)) = near.first()
            && *likeness >= SAME
        {
            return Ok(match known.before.contains_key(&memory.id) {
                // It says so thanks to the set that is being replaced.
                true => Some(MemoryChange::Update { id: memory.id.clone(), text: fact, vector }),
                false => None,
            });
        }
        let related: Vec<_> = near
            .into_iter()
            .filter(|(memory, likeness)| *likeness >= RELATED && !touches(taken, &memory.id))
            .map(|(memory, _)| memory)
            .take(CANDIDATES)
            .collect();
        if related.is_empty() {
            return Ok(Some(MemoryChange::Add { text: fact, vector }));
        }
        let texts: Vec<&str> = related.iter().map(|memory| memory.text.as_str()).collect();
        let answer = self.llm.generate(prompts::decide(&fact, &texts, lane)).await?;
        let (event, number) = prompts::read_decision(&answer)?;
        Ok(change(event, number.and_then(|n| related.get(n)), fact, vector))
    }
}

/// What is known besides the set of memories that a conversation has now: that
/// one is to be replaced, and what it changed will say again what it said before.
struct Known {
    conversation: Conversation,
    own: usize,
    before: HashMap<MemoryId, Memory>,
}

impl Known {
    async fn besides(store: &dyn Store, conversation: Conversation) -> Result<Self> {
        let own = store.conversation_memories(&conversation.id).await?.len();
        let replaced = store.replaced_memories(&conversation.id).await?;
        let before = replaced.into_iter().map(|memory| (memory.id.clone(), memory)).collect();
        Ok(Self { conversation, own, before })
    }

    /// The known memories nearest to `vector`, with their likeness.
    async fn near(&self, from: &Remember, vector: &[f32]) -> Result<Vec<(Memory, f32)>> {
        let wanted = CANDIDATES.saturating_add(self.own);
        let near = from.index.nearest(&self.conversation.user_id, vector, wanted).await?;
        let likeness: HashMap<MemoryId, f32> = near.iter().cloned().collect();
        let ids: Vec<MemoryId> = near.into_iter().map(|(id, _)| id).collect();
        let found = from.store.memories_by_id(&ids).await?.into_iter();
        Ok(found
            .filter_map(|memory| {
                let likeness = likeness.get(&memory.id).copied()?;
                if memory.conversation_id.as_ref() == Some(&self.conversation.id) {
                    return Some((self.before.get(&memory.id)?.clone(), likeness));
                }
                Some((memory, likeness))
            })
            .collect())
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

fn touches(taken: &[MemoryChange], memory: &MemoryId) -> bool {
    taken.iter().any(|change| match change {
        MemoryChange::Update { id, .. } | MemoryChange::Delete { id } => id == memory,
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
        let versions = self.store.memory_versions(id).await?;
        let awaited = versions.iter().find(|version| version.state == Progress::Pending);
        let source = awaited.ok_or_else(gone)?.transcript_version;
        let segments = transcript(&self.store.version_windows(id, source).await?);
        let lines: Vec<String> = segments.iter().map(|s| s.text.trim().to_owned()).collect();

        let facts = extract(self.llm.as_ref(), &lines, job.lane).await?;
        let summary = summary(&facts);
        let mut changes = Vec::new();
        if !facts.is_empty() {
            let known = Known::besides(self.store.as_ref(), conversation).await?;
            let vectors = self.embedder.embed(&facts).await?;
            if let Some(width) = vectors.first().map(Vec::len) {
                self.store.bind_embedding(&self.embedder.name(), width).await?;
            }
            for (fact, vector) in facts.into_iter().zip(vectors) {
                changes.extend(self.decide(&known, fact, vector, &changes, job.lane).await?);
            }
        }
        let learned = Learned {
            changes,
            title: title(&plain_text(&segments)),
            summary,
            model: self.llm.name(),
            prompt_version: prompts::VERSION.into(),
        };
        self.store.complete_memories(job.lease(), id, &learned, self.clock.now()).await?;
        tracing::info!(conversation = %id, changes = learned.changes.len(), "remembered");
        Ok(())
    }
}

/// The facts of a conversation as a summary: each is borne out by what was said.
fn summary(facts: &[String]) -> Option<String> {
    const LONGEST: usize = 400;
    let mut summary = String::new();
    for fact in facts {
        if !summary.is_empty() && summary.chars().count() + fact.chars().count() >= LONGEST {
            break;
        }
        if !summary.is_empty() {
            summary.push(' ');
        }
        summary.push_str(fact);
    }
    (!summary.is_empty()).then_some(summary)
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
    use crate::domain::ids::UserId;

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
