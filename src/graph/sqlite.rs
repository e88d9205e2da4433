//! The graph that lives in the store's own database: what hangs on a memory goes
//! in the same transaction as that.

use async_trait::async_trait;

use super::{EntityQuery, Graph};
use crate::base::error::Result;
use crate::domain::graph::{Entity, Reading, Relation};
use crate::domain::ids::{EntityId, MemoryId, UserId};
use crate::domain::memory::Memory;
use crate::store::sqlite::{SqliteStore, graph};

/// The graph that a [`SqliteStore`] keeps. Cheap to clone.
#[derive(Clone)]
pub struct SqliteGraph {
    store: SqliteStore,
}

impl SqliteGraph {
    /// The graph of `store`.
    pub fn new(store: &SqliteStore) -> Self {
        Self { store: store.clone() }
    }
}

#[async_trait]
impl Graph for SqliteGraph {
    async fn unread(&self, limit: usize) -> Result<Vec<Memory>> {
        self.store.read(move |db| graph::unread(db, limit)).await
    }

    async fn learn(&self, memory: &Memory, reading: &Reading) -> Result<()> {
        let (memory, reading) = (memory.clone(), reading.clone());
        self.store.write(move |tx| graph::learn(tx, &memory, &reading)).await
    }

    async fn failed(&self, memories: &[MemoryId]) -> Result<()> {
        let memories = memories.to_vec();
        self.store.write(move |tx| graph::failed(tx, &memories)).await
    }

    async fn entities(&self, user: &UserId, query: &EntityQuery) -> Result<(Vec<Entity>, u64)> {
        let (user, query) = (user.clone(), query.clone());
        self.store.read(move |db| graph::entities(db, &user, &query)).await
    }

    async fn entity(&self, id: &EntityId) -> Result<Option<Entity>> {
        let id = id.clone();
        self.store.read(move |db| graph::entity(db, &id)).await
    }

    async fn relations(&self, id: &EntityId, limit: usize) -> Result<Vec<Relation>> {
        let id = id.clone();
        self.store.read(move |db| graph::relations(db, &id, limit)).await
    }

    async fn memories(&self, id: &EntityId, limit: usize) -> Result<Vec<Memory>> {
        let id = id.clone();
        self.store.read(move |db| graph::memories(db, &id, limit)).await
    }

    async fn path(
        &self,
        from: &EntityId,
        to: &EntityId,
        hops: usize,
    ) -> Result<Option<Vec<Relation>>> {
        let (from, to) = (from.clone(), to.clone());
        self.store.read(move |db| graph::path(db, &from, &to, hops)).await
    }

    async fn neighbours(
        &self,
        user: &UserId,
        memories: &[MemoryId],
        limit: usize,
    ) -> Result<Vec<MemoryId>> {
        let (user, memories) = (user.clone(), memories.to_vec());
        self.store.read(move |db| graph::neighbours(db, &user, &memories, limit)).await
    }
}

#[cfg(test)]
mod tests;
