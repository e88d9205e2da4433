//! The graph of a store that has none: nothing is known of anybody.

use async_trait::async_trait;

use super::{EntityQuery, Graph};
use crate::base::error::Result;
use crate::domain::graph::{Entity, Reading, Relation};
use crate::domain::ids::{EntityId, MemoryId, UserId};
use crate::domain::memory::Memory;

/// A graph without anything in it, which learns nothing.
#[derive(Clone, Copy, Debug)]
pub struct EmptyGraph;

#[async_trait]
impl Graph for EmptyGraph {
    async fn unread(&self, _: usize) -> Result<Vec<Memory>> {
        Ok(Vec::new())
    }

    async fn learn(&self, _: &Memory, _: &Reading) -> Result<()> {
        Ok(())
    }

    async fn failed(&self, _: &[MemoryId]) -> Result<()> {
        Ok(())
    }

    async fn entities(&self, _: &UserId, _: &EntityQuery) -> Result<(Vec<Entity>, u64)> {
        Ok((Vec::new(), 0))
    }

    async fn entity(&self, _: &EntityId) -> Result<Option<Entity>> {
        Ok(None)
    }

    async fn relations(&self, _: &EntityId, _: usize) -> Result<Vec<Relation>> {
        Ok(Vec::new())
    }

    async fn memories(&self, _: &EntityId, _: usize) -> Result<Vec<Memory>> {
        Ok(Vec::new())
    }

    async fn neighbours(&self, _: &UserId, _: &[MemoryId], _: usize) -> Result<Vec<MemoryId>> {
        Ok(Vec::new())
    }

    async fn path(&self, _: &EntityId, _: &EntityId, _: usize) -> Result<Option<Vec<Relation>>> {
        Ok(None)
    }
}
