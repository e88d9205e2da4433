//! Search over memories: by meaning and by words, fused.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::error::{Error, Kind, Result};
use crate::domain::ids::{MemoryId, UserId};
use crate::domain::memory::ScoredMemory;
use crate::embed::Embedder;
use crate::graph::Graph;
use crate::index::Index;
use crate::store::Store;

/// Rank constant of reciprocal rank fusion (Cormack, Clarke, Büttcher 2009).
const RRF_K: f32 = 60.0;

/// Hits from which a search is widened. They stay first: a memory that shares
/// somebody with a hit is less likely meant than the hit.
const WIDENED: usize = 3;

/// Finds memories. Cheap to clone.
#[derive(Clone)]
pub struct Recall {
    store: Arc<dyn Store>,
    index: Arc<dyn Index>,
    embedder: Arc<dyn Embedder>,
    graph: Option<Arc<dyn Graph>>,
    widen: usize,
}

impl Recall {
    /// A search over these.
    pub fn new(store: Arc<dyn Store>, index: Arc<dyn Index>, embedder: Arc<dyn Embedder>) -> Self {
        Self { store, index, embedder, graph: None, widen: 0 }
    }

    /// The same search, which looks at `widen` memories besides: those that `graph`
    /// has as neighbours of the best hits.
    #[must_use]
    pub fn with_graph(mut self, graph: Arc<dyn Graph>, widen: usize) -> Self {
        (self.graph, self.widen) = (Some(graph), widen);
        self
    }

    /// The `limit` memories of `user` that answer `query` best, best first, none
    /// scored below `threshold`. The score is the cosine similarity of meaning,
    /// clamped to 0..1; the order also counts shared words. When the embedding
    /// model or the index is away the search goes by words alone, with a score of
    /// 0.
    ///
    /// # Errors
    /// What the store returns, and the index but for what passes.
    pub async fn search(
        &self,
        user: &UserId,
        query: &str,
        limit: usize,
        threshold: f32,
    ) -> Result<Vec<ScoredMemory>> {
        if query.trim().is_empty() {
            return Ok(Vec::new());
        }
        let pool = limit.saturating_mul(4).max(20);
        let by_meaning = match self.embedder.embed(&[query.to_owned()]).await {
            Ok(vectors) => match vectors.first() {
                Some(vector) => match self.index.nearest(user, vector, pool).await {
                    Err(error) if error.is_transient() => by_words_alone(&error),
                    found => found?,
                },
                None => Vec::new(),
            },
            Err(error) => by_words_alone(&error),
        };
        let by_words = self.store.search_text(user, query, pool).await?;
        let meant: Vec<MemoryId> = by_meaning.iter().map(|(id, _)| id.clone()).collect();
        let mut ranked = fuse(&meant, &by_words);
        let others = ranked.split_off(WIDENED.min(ranked.len()));
        let near = self.near(user, &ranked).await;
        ranked.extend(if near.is_empty() { others } else { fuse(&others, &near) });

        let similarity: HashMap<&MemoryId, f32> =
            by_meaning.iter().map(|(id, score)| (id, score.clamp(0.0, 1.0))).collect();
        let score_of = |id: &MemoryId| similarity.get(id).copied().unwrap_or(0.0);
        let ids: Vec<MemoryId> =
            ranked.into_iter().filter(|id| score_of(id) >= threshold).take(limit).collect();
        let found = self.store.memories_by_id(&ids).await?;
        Ok(found
            .into_iter()
            .map(|memory| ScoredMemory { score: score_of(&memory.id), memory })
            .collect())
    }

    /// Memories that speak of what `hits` speak of.
    async fn near(&self, user: &UserId, hits: &[MemoryId]) -> Vec<MemoryId> {
        let Some(graph) = self.graph.as_ref().filter(|_| self.widen > 0) else {
            return Vec::new();
        };
        graph.neighbours(user, hits, self.widen).await.unwrap_or_else(|error| {
            // Of one that is away, its own breaker has told.
            if error.kind() != Kind::Away {
                tracing::warn!("searching without the graph: {}", error.report());
            }
            Vec::new()
        })
    }
}

/// Nothing is found by meaning, because of `error`.
fn by_words_alone(error: &Error) -> Vec<(MemoryId, f32)> {
    // Of one that is away, its own breaker has told.
    if error.kind() != Kind::Away {
        tracing::warn!("searching by words alone: {}", error.report());
    }
    Vec::new()
}

/// Reciprocal rank fusion of two rankings, best first.
fn fuse(one: &[MemoryId], other: &[MemoryId]) -> Vec<MemoryId> {
    let mut scores: HashMap<&MemoryId, f32> = HashMap::new();
    for ranking in [one, other] {
        for (rank, id) in ranking.iter().enumerate() {
            *scores.entry(id).or_default() += 1.0 / (RRF_K + rank as f32 + 1.0);
        }
    }
    let mut ranked: Vec<_> = scores.into_iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    ranked.into_iter().map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_rankings_find_comes_first() {
        let id = |text: &str| MemoryId::from_text(text);
        let by_meaning = [id("a"), id("b"), id("c")];
        let by_words = [id("b"), id("d")];
        let fused = fuse(&by_meaning, &by_words);
        assert_eq!(fused.first(), Some(&id("b")));
        assert_eq!(fused.len(), 4);
    }
}
