//! Who and what memories speak of: a few of them are read at a time, in the
//! background, by the language model; what it says counts as far as the memory
//! itself says it.

use std::sync::Arc;
use std::time::Duration;

use super::grounding::{Ground, is_a_name, is_negated};
use super::prompts;
use crate::base::error::{Kind, Result};
use crate::domain::graph::{Reading, Sighting, Statement, key};
use crate::domain::ids::MemoryId;
use crate::domain::job::{LONGEST_PAUSE, Lane};
use crate::domain::memory::Memory;
use crate::graph::Graph;
use crate::jobs::Wake;
use crate::llm::LanguageModel;

/// Memories that are read at once, and their characters: with the fixed part and
/// the longest answer inside 2,048 tokens.
const BATCH: usize = 6;
const BATCH_CHARACTERS: usize = 1_000;

/// Longest wait before it is looked again for what is to be read.
const POLL: Duration = Duration::from_secs(30);

/// Reads memories into the graph.
pub struct Relate {
    graph: Arc<dyn Graph>,
    llm: Arc<dyn LanguageModel>,
    pause: Duration,
}

impl Relate {
    /// With who reads and where it is kept. `pause`: the time that is left after
    /// a failure; each one after it doubles that.
    pub fn new(graph: Arc<dyn Graph>, llm: Arc<dyn LanguageModel>, pause: Duration) -> Self {
        Self { graph, llm, pause }
    }

    /// Reads whatever is to be read, for ever.
    pub async fn run(&self, wake: &Wake) {
        let mut wakes = wake.listen();
        let mut pause = self.pause;
        loop {
            match self.step().await {
                Ok(true) => pause = self.pause,
                Ok(false) => tokio::select! {
                    () = wakes.wait() => {}
                    () = tokio::time::sleep(POLL) => {}
                },
                Err(error) => {
                    // Of one that is away, its own breaker has told.
                    if error.kind() != Kind::Away {
                        tracing::warn!("memories could not be related: {}", error.report());
                    }
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Reads a few memories of one user; false when there is nothing to read, or
    /// nobody to read it.
    ///
    /// # Errors
    /// What the model and the graph return.
    pub async fn step(&self) -> Result<bool> {
        self.graph.catch_up().await?;
        if !self.llm.is_ready() {
            return Ok(false);
        }
        let batch = batch(self.graph.unread(BATCH).await?);
        if batch.is_empty() {
            return Ok(false);
        }
        let texts: Vec<&str> = batch.iter().map(|memory| memory.text.as_str()).collect();
        let answered = self.llm.generate(prompts::relate(&texts, Lane::Backlog)).await;
        let read = answered.and_then(|answer| prompts::read_relations(&answer));
        let (entities, relations) = match read {
            Ok(read) => read,
            Err(error) => {
                if error.kind() != Kind::Away {
                    let ids: Vec<MemoryId> = batch.into_iter().map(|memory| memory.id).collect();
                    self.graph.failed(&ids).await?;
                }
                return Err(error);
            }
        };
        for memory in &batch {
            let reading = borne_out(&memory.text, &entities, &relations);
            self.graph.learn(memory, &reading).await?;
        }
        tracing::debug!(memories = batch.len(), "related");
        Ok(true)
    }
}

/// Those of `memories` that are read at once: of the first one's user, as many as
/// there is room for, and at least that one.
fn batch(memories: Vec<Memory>) -> Vec<Memory> {
    let user = memories.first().map(|memory| memory.user_id.clone());
    let mut room = BATCH_CHARACTERS;
    let fits = |(place, memory): &(usize, Memory)| {
        let left = room.checked_sub(memory.text.chars().count());
        room = left.unwrap_or_default();
        (left.is_some() || *place == 0) && Some(&memory.user_id) == user.as_ref()
    };
    memories.into_iter().enumerate().take_while(fits).map(|(_, memory)| memory).collect()
}

/// What `text` itself says of what a model has read: names that are in it, and
/// relations between two of them in words that stand between them there, and turn
/// nothing round.
fn borne_out(text: &str, entities: &[Sighting], relations: &[Statement]) -> Reading {
    let ground = Ground::new(text);
    let named = |seen: &&Sighting| is_a_name(&seen.name) && ground.contains(&seen.name);
    let entities: Vec<Sighting> = entities.iter().filter(named).cloned().collect();
    let known = |name: &str| entities.iter().any(|seen| key(&seen.name) == key(name));
    let said = |stated: &&Statement| {
        let (subject, object) = (&stated.subject, &stated.object);
        let apart = key(subject) != key(object);
        let same_sense = is_negated(&stated.predicate) == is_negated(text);
        let joined = ground.contains_in_turn(&[subject, &stated.predicate, object]);
        apart && same_sense && joined && known(subject) && known(object)
    };
    let relations = relations.iter().filter(said).cloned().collect();
    Reading { entities, relations }
}

#[cfg(test)]
mod tests;
