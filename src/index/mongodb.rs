//! The vector index that is MongoDB's memories themselves: every vector of a user
//! is compared.

use async_trait::async_trait;

use super::Index;
use crate::base::error::Result;
use crate::domain::ids::{MemoryId, UserId};
use crate::store::mongodb::MongoStore;

/// Searches the vectors that a [`MongoStore`] keeps, one by one as they come from
/// the server: exact, and good for some ten thousand memories a user. Cheap to
/// clone.
#[derive(Clone)]
pub struct MongoScanIndex {
    store: MongoStore,
}

impl MongoScanIndex {
    /// The index of `store`.
    pub fn new(store: &MongoStore) -> Self {
        Self { store: store.clone() }
    }
}

#[async_trait]
impl Index for MongoScanIndex {
    async fn nearest(
        &self,
        user: &UserId,
        vector: &[f32],
        k: usize,
    ) -> Result<Vec<(MemoryId, f32)>> {
        self.store.nearest(user, vector, k).await
    }
}
