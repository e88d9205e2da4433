//! What to change in a user's memories, given what was said: extract facts,
//! compare each with what is known, decide.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::extract::extract;
use super::prompts;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::planned;
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::job::Lane;
use crate::domain::memory::{Learned, Memory, MemoryChange, MemoryEvent};
use crate::embed::Embedder;
use crate::index::Index;
use crate::llm::LanguageModel;
use crate::store::Store;

/// Two facts closer than this (cosine) say the same.
const SAME: f32 = 0.93;
/// Below this (cosine) a known memory has nothing to do with a fact.
const RELATED: f32 = 0.5;
/// Known memories shown to the model for one fact.
const CANDIDATES: usize = 4;

/// Decides what is to be remembered. Cheap to clone.
#[derive(Clone)]
pub struct Learner {
    store: Arc<dyn Store>,
    index: Arc<dyn Index>,
    embedder: Arc<dyn Embedder>,
    llm: Arc<dyn LanguageModel>,
    deadline: Duration,
    clock: Clock,
}

impl Learner {
    /// With the models to ask and the places to look. `deadline`: the time, from
    /// the start of one look, in which facts are compared by asking the language
    /// model; what is left then is added as it is.
    pub fn new(
        store: Arc<dyn Store>,
        index: Arc<dyn Index>,
        embedder: Arc<dyn Embedder>,
        llm: Arc<dyn LanguageModel>,
        deadline: Duration,
        clock: Clock,
    ) -> Self {
        Self { store, index, embedder, llm, deadline, clock }
    }

    /// Whether both models and the index can be asked.
    pub fn is_ready(&self) -> bool {
        self.llm.is_ready() && self.embedder.is_ready() && self.index.is_ready()
    }

    /// What the `lines` that were said teach about `user`. What was learned of
    /// `conversation` before is to be replaced by it.
    ///
    /// # Errors
    /// What the models, the index and the store return.
    pub async fn learn(
        &self,
        user: &UserId,
        conversation: Option<&ConversationId>,
        lines: &[String],
        lane: Lane,
    ) -> Result<Learned> {
        let until = self.clock.monotonic() + self.deadline;
        planned::before("asking for the facts")?;
        let facts = extract(self.llm.as_ref(), lines, lane).await?;
        planned::after("asking for the facts")?;
        let summary = summary(&facts);
        let mut changes = Vec::new();
        if !facts.is_empty() {
            let known = Known::besides(self.store.as_ref(), user, conversation).await?;
            planned::before("embedding the facts")?;
            let vectors = self.embedder.embed(&facts).await?;
            planned::after("embedding the facts")?;
            if let Some(width) = vectors.first().map(Vec::len) {
                self.store.bind_embedding(&self.embedder.name(), width).await?;
            }
            for (fact, vector) in facts.into_iter().zip(vectors) {
                changes.extend(self.decide(&known, fact, vector, &changes, lane, until).await?);
            }
        }
        Ok(Learned {
            changes,
            title: None,
            summary,
            model: self.llm.name(),
            prompt_version: prompts::VERSION.into(),
        })
    }

    /// What to do about one fact, given what is known. The model is asked until
    /// the clock stands at `until`.
    async fn decide(
        &self,
        known: &Known,
        fact: String,
        vector: Vec<f32>,
        taken: &[MemoryChange],
        lane: Lane,
        until: Duration,
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
        if related.is_empty() || self.clock.monotonic() >= until {
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
    user: UserId,
    conversation: Option<ConversationId>,
    own: usize,
    before: HashMap<MemoryId, Memory>,
}

impl Known {
    async fn besides(
        store: &dyn Store,
        user: &UserId,
        conversation: Option<&ConversationId>,
    ) -> Result<Self> {
        let (user, mut own, mut before) = (user.clone(), 0, HashMap::new());
        if let Some(id) = conversation {
            own = store.conversation_memories(id).await?.len();
            let replaced = store.replaced_memories(id).await?;
            before = replaced.into_iter().map(|memory| (memory.id.clone(), memory)).collect();
        }
        Ok(Self { user, conversation: conversation.cloned(), own, before })
    }

    /// The known memories nearest to `vector`, with their likeness.
    async fn near(&self, from: &Learner, vector: &[f32]) -> Result<Vec<(Memory, f32)>> {
        let wanted = CANDIDATES.saturating_add(self.own);
        let near = from.index.nearest(&self.user, vector, wanted).await?;
        let likeness: HashMap<MemoryId, f32> = near.iter().cloned().collect();
        let ids: Vec<MemoryId> = near.into_iter().map(|(id, _)| id).collect();
        let found = from.store.memories_by_id(&ids).await?.into_iter();
        Ok(found
            .filter_map(|memory| {
                let likeness = likeness.get(&memory.id).copied()?;
                let own =
                    self.conversation.is_some() && memory.conversation_id == self.conversation;
                if own {
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use serde_json::json;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::error::{Error, Kind};
    use crate::index::sqlite_vec::SqliteVecIndex;
    use crate::llm::Generate;
    use crate::store::sqlite::testing::{Fixture, WIDTH, add, at, unit, vector};
    use crate::store::{Memories, Versions};

    /// Takes four minutes to find that a fact is known, whatever it is.
    struct Slow(Clock);

    #[async_trait]
    impl LanguageModel for Slow {
        fn name(&self) -> String {
            "slow".into()
        }

        fn is_ready(&self) -> bool {
            true
        }

        async fn generate(&self, _: Generate) -> Result<String> {
            self.0.advance(Duration::from_secs(240));
            Ok(r#"{"event":"NONE","memory":0}"#.into())
        }
    }

    struct Unasked;

    #[async_trait]
    impl Embedder for Unasked {
        fn name(&self) -> String {
            "unasked".into()
        }

        fn is_ready(&self) -> bool {
            false
        }

        async fn embed(&self, _: &[String]) -> Result<Vec<Vec<f32>>> {
            Err(Error::new(Kind::Unavailable, "not asked here"))
        }
    }

    #[tokio::test]
    async fn after_its_deadline_the_model_is_asked_no_more_and_no_fact_is_dropped() {
        let fixture = Fixture::new();
        let user = fixture.user("ann").await;
        fixture.remember(&user, &[add("Ann has a dog.", 0)]).await;
        let known = Known::besides(&fixture.store, &user.id, None).await.unwrap();
        let clock = Clock::simulated(at(0));
        let until = clock.monotonic() + crate::config::Memory::default().deadline.get();
        let learner = Learner::new(
            Arc::new(fixture.store.clone()),
            Arc::new(SqliteVecIndex::new(&fixture.store)),
            Arc::new(Unasked),
            Arc::new(Slow(clock.clone())),
            Duration::from_secs(300),
            clock.clone(),
        );
        let mut added = Vec::new();
        for fact in 1..=4 {
            // Related to what is known, and not the same.
            let mut vector = vec![0.0; WIDTH];
            (vector[0], vector[fact]) = (0.7, 0.7);
            let text = format!("Fact {fact}.");
            let decided = learner.decide(&known, text, unit(vector), &[], Lane::Backlog, until);
            added.push(matches!(decided.await.unwrap(), Some(MemoryChange::Add { .. })));
        }
        assert_eq!(added, [false, false, true, true], "asked at 0 and 4 minutes of 5");
    }

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

    /// Picks out every line as a point, and takes a fact for news of the first
    /// memory it is shown.
    struct Literal;

    #[async_trait]
    impl LanguageModel for Literal {
        fn name(&self) -> String {
            "test/literal".into()
        }

        fn is_ready(&self) -> bool {
            true
        }

        async fn generate(&self, request: Generate) -> Result<String> {
            let heard = &request.messages.last().unwrap().content;
            let Some(said) = heard.strip_prefix("Transcript:\n") else {
                return Ok(json!({ "event": "UPDATE", "memory": 0 }).to_string());
            };
            let point = |line| json!({ "quote": line, "kind": "place", "fact": line });
            Ok(json!({ "points": said.lines().map(point).collect::<Vec<_>>() }).to_string())
        }
    }

    /// Places texts about tea on one axis and all others on another.
    struct Topics;

    #[async_trait]
    impl Embedder for Topics {
        fn name(&self) -> String {
            "test-model".into()
        }

        fn is_ready(&self) -> bool {
            true
        }

        async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
            Ok(texts.iter().map(|text| vector(if text.contains("tea") { 9 } else { 1 })).collect())
        }
    }

    #[tokio::test]
    async fn a_second_look_finds_again_what_the_first_one_learned() {
        let f = Fixture::new();
        let anna = f.user("anna").await;
        let lives = f.remember(&anna, &[add("Anna lives in Bern", 1)]).await.remove(0);
        let moved = MemoryChange::Update {
            id: lives.id.clone(),
            text: "Anna lives in Basel".into(),
            vector: vector(1),
        };
        let first = f.remember(&anna, &[moved, add("Anna likes green tea", 9)]).await;
        let conversation = first[0].conversation_id.clone().unwrap();

        let store: Arc<dyn Store> = Arc::new(f.store.clone());
        let index = Arc::new(SqliteVecIndex::new(&f.store));
        let (deadline, clock) = (Duration::from_secs(60), Clock::simulated(at(10)));
        let (embedder, llm) = (Arc::new(Topics), Arc::new(Literal));
        let learner = Learner::new(store, index, embedder, llm, deadline, clock);
        let lines = ["Anna moved to Basel".to_owned(), "Anna likes green tea".to_owned()];
        let learn = async |conversation: Option<&ConversationId>| {
            learner.learn(&anna.id, conversation, &lines, Lane::Backlog).await.unwrap().changes
        };
        let again = learn(Some(&conversation)).await;
        assert!(
            matches!(&again[0], MemoryChange::Update { id, .. } if *id == lives.id),
            "it updates what the set before had updated: {again:?}"
        );
        assert!(matches!(&again[1], MemoryChange::Add { .. }), "its own is replaced: {again:?}");
        assert_eq!(learn(None).await, [], "to anybody else it is known");

        f.store.reprocess_memory(&conversation, None, at(20)).await.unwrap();
        f.learn(&conversation, &again).await;
        let texts = async || {
            let all = f.store.memories(&anna.id, 10).await.unwrap();
            let mut texts: Vec<String> = all.into_iter().map(|memory| memory.text).collect();
            texts.sort();
            texts
        };
        assert_eq!(texts().await, ["Anna likes green tea.", "Anna moved to Basel."]);
        f.store.activate_memory(&conversation, 1, at(21)).await.unwrap();
        assert_eq!(texts().await, ["Anna likes green tea", "Anna lives in Basel"]);
    }
}
