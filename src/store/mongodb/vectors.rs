//! The search through the vectors of memories.

use mongodb::bson::{Binary, doc};
use serde::Deserialize;

use super::MongoStore;
use super::changes::meta;
use super::schema::MEMORIES;
use super::tx::Of;
use crate::base::error::Result;
use crate::domain::ids::{MemoryId, UserId};
use crate::store::vectors::{check, dot};

/// Results that are kept beyond those that are wanted, before the worst go.
const SLACK: usize = 256;

#[derive(Deserialize)]
struct Near {
    #[serde(rename = "_id")]
    id: MemoryId,
    vector: Binary,
}

const VECTORS: Of<Near> = Of::<Near>::new(MEMORIES.name).without(&["text"]);

impl MongoStore {
    /// The `k` memories of `user` nearest to `vector`, nearest first, with their
    /// cosine similarity; none while no model is bound. `Conflict` for a vector of
    /// another width than they have.
    pub(crate) async fn nearest(
        &self,
        user: &UserId,
        vector: &[f32],
        k: usize,
    ) -> Result<Vec<(MemoryId, f32)>> {
        steps!(self, |tx| {
            let Some(width) = meta(tx).await?.width() else { return Ok(Vec::new()) };
            check(vector, width)?;
            let mut best: Vec<(MemoryId, f32)> = Vec::new();
            tx.each(VECTORS, doc! { "user_id": user.as_str() }, |near| {
                best.push((near.id, dot(vector, &near.vector.bytes)));
                if best.len() >= k.saturating_add(SLACK) {
                    keep_best(&mut best, k);
                }
            })
            .await?;
            keep_best(&mut best, k);
            Ok(best)
        })
        .await
    }
}

fn keep_best(best: &mut Vec<(MemoryId, f32)>, k: usize) {
    best.sort_by(|a, b| b.1.total_cmp(&a.1));
    best.truncate(k);
}
