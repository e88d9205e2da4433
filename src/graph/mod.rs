//! The graph of who and what memories speak of: the port, with its adapters beside
//! it.

use async_trait::async_trait;

use crate::base::error::Result;
use crate::domain::graph::{Entity, EntityKind, Reading, Relation};
use crate::domain::ids::{EntityId, MemoryId, UserId};
use crate::domain::memory::Memory;

pub mod empty;
pub mod neo4j;
pub mod sqlite;

/// How often reading a memory may fail before it is left alone.
pub(crate) const MAX_ATTEMPTS: i64 = 5;

/// Which entities to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityQuery {
    /// Of one kind; `None` is all of them.
    pub kind: Option<EntityKind>,
    /// With this in their name, in any case.
    pub name: String,
    /// At most so many.
    pub limit: usize,
    /// After so many.
    pub offset: usize,
}

/// Entities and relations, each borne out by a memory: they go when it goes, and
/// are made anew when it changes: what is asked is true of the memories that the
/// store has by now. Every method returns `Storage` when the graph cannot be read
/// or written, `Unavailable`, `Timeout` or `Away` when a service outside fails.
#[async_trait]
pub trait Graph: Send + Sync {
    /// Memories that have not been read as they are now: those that have failed
    /// last, and not at all once that was too often; those of a user together.
    async fn unread(&self, limit: usize) -> Result<Vec<Memory>>;
    /// Puts `reading` in place of what is known from `memory`, which is read by
    /// now. Nothing happens when the memory has changed meanwhile.
    async fn learn(&self, memory: &Memory, reading: &Reading) -> Result<()>;
    /// Notes that reading `memories` has failed.
    async fn failed(&self, memories: &[MemoryId]) -> Result<()>;
    /// Entities of `user`, the one that was spoken of last first; and how many
    /// there are in all.
    async fn entities(&self, user: &UserId, query: &EntityQuery) -> Result<(Vec<Entity>, u64)>;
    /// The entity of that id.
    async fn entity(&self, id: &EntityId) -> Result<Option<Entity>>;
    /// The relations of an entity, oldest first.
    async fn relations(&self, id: &EntityId, limit: usize) -> Result<Vec<Relation>>;
    /// The memories that speak of an entity, newest first.
    async fn memories(&self, id: &EntityId, limit: usize) -> Result<Vec<Memory>>;
    /// A shortest chain of at most `hops` relations between two entities, whoever
    /// is the subject; `None` without one. Of an entity to itself it is empty.
    async fn path(
        &self,
        from: &EntityId,
        to: &EntityId,
        hops: usize,
    ) -> Result<Option<Vec<Relation>>>;
    /// Memories of `user` that speak of what `memories` speak of, and are none of
    /// those: first the ones that share what few memories speak of.
    async fn neighbours(
        &self,
        user: &UserId,
        memories: &[MemoryId],
        limit: usize,
    ) -> Result<Vec<MemoryId>>;
    /// Takes in what has changed in the store, all of it. Where the graph is part
    /// of the store there is nothing to do.
    async fn catch_up(&self) -> Result<()> {
        Ok(())
    }
}
