//! Memories, each with a vector of the model that is configured: those that the
//! original has are of a model of its own.

use futures_util::stream::TryStreamExt;

use super::people::Owner;
use super::{Fate, Memories, Row, Run, Takeover};
use crate::base::error::Result;
use crate::domain::ids::MemoryId;
use crate::domain::memory::IndexedMemory;
use crate::domain::past::{Imported, PastMemory};
use crate::embed::Embedder;

/// Memories embedded in one request.
const BATCH: usize = 32;

impl Takeover {
    pub(super) async fn memories(
        &self,
        mut found: Memories,
        embedder: &dyn Embedder,
        run: &mut Run<'_>,
    ) -> Result<()> {
        let known = self.store.imported(Imported::Memory).await?;
        let mut row = Row::default();
        let mut waiting: Vec<(MemoryId, IndexedMemory)> = Vec::new();
        while let Some(point) = found.try_next().await? {
            row.source += 1;
            (run.progress)("memories", row.source);
            let memory = match point {
                Ok(memory) => memory,
                Err(unreadable) => {
                    run.tally.note("memory", unreadable.id, unreadable.why);
                    row.add(Fate::Left, 1);
                    continue;
                }
            };
            let there = self.store.memory(&memory.id).await?.is_some();
            if there || known.contains_key(memory.id.as_str()) {
                row.add(if there { Fate::Before } else { Fate::Gone }, 1);
                continue;
            }
            match run.people.owner(Some(&memory.user), "") {
                Owner::User(user) => {
                    let now = self.clock.now();
                    waiting.push(indexed(memory, user, now));
                }
                Owner::Gone => row.add(Fate::Gone, 1),
                // A memory is nobody else's to know.
                Owner::Administrator(_) | Owner::Nobody => {
                    let why = format!("its user {} is not there", memory.user);
                    run.tally.note("memory", memory.id.as_str(), why);
                    row.add(Fate::Left, 1);
                }
            }
            if waiting.len() == BATCH {
                self.keep(&mut waiting, embedder, &mut row).await?;
            }
        }
        self.keep(&mut waiting, embedder, &mut row).await?;
        run.tally.memories = Some(row);
        Ok(())
    }

    async fn keep(
        &self,
        waiting: &mut Vec<(MemoryId, IndexedMemory)>,
        embedder: &dyn Embedder,
        row: &mut Row,
    ) -> Result<()> {
        let mut memories = std::mem::take(waiting);
        if self.dry || memories.is_empty() {
            row.add(Fate::Taken, memories.len() as u64);
            return Ok(());
        }
        let texts: Vec<String> = memories.iter().map(|(_, memory)| memory.text.clone()).collect();
        let vectors = embedder.embed(&texts).await?;
        if let Some(first) = vectors.first() {
            self.store.bind_embedding(&embedder.name(), first.len()).await?;
        }
        for ((_, memory), vector) in memories.iter_mut().zip(vectors) {
            memory.vector = vector;
        }
        self.store.import_memories(&memories).await?;
        let ids: Vec<MemoryId> = memories.iter().map(|(id, _)| id.clone()).collect();
        let stored = self.store.memories_by_id(&ids).await?;
        let same = |(id, given): &&(MemoryId, IndexedMemory)| {
            stored.iter().any(|memory| memory.id == *id && memory.text == given.text)
        };
        row.add(Fate::Taken, memories.iter().filter(same).count() as u64);
        Ok(())
    }
}

fn indexed(
    memory: PastMemory,
    user_id: crate::domain::ids::UserId,
    now: crate::base::clock::Timestamp,
) -> (MemoryId, IndexedMemory) {
    let created_at = memory.created_at.or(memory.updated_at).unwrap_or(now);
    let indexed = IndexedMemory {
        user_id,
        text: memory.text,
        vector: Vec::new(),
        conversation_id: memory.conversation_id,
        created_at,
        updated_at: memory.updated_at.unwrap_or(created_at),
    };
    (memory.id, indexed)
}
