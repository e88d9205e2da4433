//! The vector index over memories: the port, with its adapters beside it.

use async_trait::async_trait;

use crate::base::error::Result;
use crate::domain::ids::{MemoryId, UserId};

pub mod sqlite_vec;

/// Finds a user's memories by nearness of their vectors.
#[async_trait]
pub trait Index: Send + Sync {
    /// The `k` memories of `user` nearest to `vector` (unit length), nearest
    /// first, each with its cosine similarity, -1 to 1.
    ///
    /// # Errors
    /// `Conflict` when the index was built with another embedding model or
    /// width; `Storage` when it cannot be read.
    async fn nearest(
        &self,
        user: &UserId,
        vector: &[f32],
        k: usize,
    ) -> Result<Vec<(MemoryId, f32)>>;
}
