//! The vector index over memories: the port, with its adapters beside it.

use async_trait::async_trait;

use crate::base::error::{Error, Kind, Result};
use crate::domain::ids::{MemoryId, UserId};

pub mod mongodb;
pub mod qdrant;
pub mod sqlite_vec;

/// Finds a user's memories by nearness of their vectors: those that the store has
/// by now, whatever was changed a moment ago.
#[async_trait]
pub trait Index: Send + Sync {
    /// The `k` memories of `user` nearest to `vector` (unit length), nearest
    /// first, each with its cosine similarity, -1 to 1.
    ///
    /// # Errors
    /// `Conflict` when the index was built with another embedding model or
    /// width; `Storage` when it cannot be read; `Unavailable`, `Timeout` or
    /// `Away` when a service outside fails or is being brought up to date.
    async fn nearest(
        &self,
        user: &UserId,
        vector: &[f32],
        k: usize,
    ) -> Result<Vec<(MemoryId, f32)>>;

    /// Whether it may be asked now.
    fn is_ready(&self) -> bool {
        true
    }

    /// Takes in what has changed in the store, all of it. Where the index is part
    /// of the store there is nothing to do.
    ///
    /// # Errors
    /// As [`Index::nearest`].
    async fn catch_up(&self) -> Result<()> {
        Ok(())
    }

    /// Is made again from what the store has, for vectors of the width that it
    /// has by now.
    ///
    /// # Errors
    /// As [`Index::nearest`]; `Conflict` when that would take away what others
    /// have put there.
    async fn renew(&self) -> Result<()> {
        Ok(())
    }
}

/// A vector has not the width of those in the index.
pub(crate) fn other_width(indexed: usize, given: usize) -> Error {
    Error::new(
        Kind::Conflict,
        format!(
            "memories are indexed by vectors {indexed} wide, and this one is {given} wide; run \
             `friend-lite reindex` after changing the embedding model"
        ),
    )
}
