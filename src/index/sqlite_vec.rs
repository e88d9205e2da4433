//! The vector index that lives in the store's own database, through sqlite-vec:
//! it changes in the same transactions as the memories it points to.

use async_trait::async_trait;

use super::Index;
use crate::base::error::Result;
use crate::domain::ids::{MemoryId, UserId};
use crate::store::sqlite::{SqliteStore, vectors};

/// Searches the vectors that a [`SqliteStore`] keeps. Cheap to clone.
#[derive(Clone)]
pub struct SqliteVecIndex {
    store: SqliteStore,
}

impl SqliteVecIndex {
    /// The index of `store`.
    pub fn new(store: &SqliteStore) -> Self {
        Self { store: store.clone() }
    }
}

#[async_trait]
impl Index for SqliteVecIndex {
    async fn nearest(
        &self,
        user: &UserId,
        vector: &[f32],
        k: usize,
    ) -> Result<Vec<(MemoryId, f32)>> {
        let (user, vector) = (user.clone(), vector.to_vec());
        self.store.read(move |db| vectors::nearest(db, &user, &vector, k)).await
    }
}
