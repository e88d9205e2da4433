use super::*;
use crate::base::error::Kind;
use crate::domain::memory::MemoryChange;
use crate::store::sqlite::testing::{Fixture, WIDTH, unit, vector};

/// Repeatable numbers between -1 and 1 (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn vector(&mut self) -> Vec<f32> {
        unit((0..WIDTH).map(|_| self.next()).collect())
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn an_unbound_index_is_empty_and_another_width_is_refused() {
    let f = Fixture::new();
    let anna = f.user("anna").await;
    let index = SqliteVecIndex::new(&f.store);
    assert!(index.nearest(&anna.id, &[1.0], 5).await.unwrap().is_empty());

    f.remember(&anna, &[MemoryChange::Add { text: "x".into(), vector: vector(1) }]).await;
    let error = index.nearest(&anna.id, &[1.0, 0.0], 5).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("64"), "{}", error.message());
    assert!(index.nearest(&anna.id, &vector(1), 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn neighbours_are_the_users_own_in_order_of_cosine() {
    let f = Fixture::new();
    let (anna, bert) = (f.user("anna").await, f.user("bert").await);
    let mut noise = Noise(7);
    // Few enough that every one of them is compared in full: the order is exact.
    let vectors: Vec<Vec<f32>> = (0..60).map(|_| noise.vector()).collect();
    let add = |v: &Vec<f32>| MemoryChange::Add { text: "fact".into(), vector: v.clone() };
    let hers = f.remember(&anna, &vectors.iter().map(add).collect::<Vec<_>>()).await;
    let his = f.remember(&bert, &[add(&vectors[0])]).await;

    let index = SqliteVecIndex::new(&f.store);
    let query = noise.vector();
    let mut expected: Vec<_> =
        hers.iter().zip(&vectors).map(|(m, v)| (m.id.clone(), dot(v, &query))).collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1));

    let found = index.nearest(&anna.id, &query, 30).await.unwrap();
    assert_eq!(found.len(), 30);
    for ((id, score), (want, cosine)) in found.iter().zip(&expected) {
        assert_eq!(id, want);
        assert!((score - cosine).abs() < 1e-5, "{score} {cosine}");
    }
    assert_eq!(index.nearest(&anna.id, &query, 10_000).await.unwrap().len(), 60);
    let of_bert = index.nearest(&bert.id, &query, 30).await.unwrap();
    assert_eq!(of_bert.iter().map(|n| &n.0).collect::<Vec<_>>(), [&his[0].id]);
}

/// Sentences cluster by what they are about; so do these vectors.
#[tokio::test]
async fn among_thousands_the_nearest_are_still_found() {
    const MEMORIES: usize = 4_000;
    const TOPICS: usize = 100;
    const K: usize = 10;
    let f = Fixture::new();
    let anna = f.user("anna").await;
    let mut noise = Noise(11);
    let topics: Vec<Vec<f32>> = (0..TOPICS).map(|_| noise.vector()).collect();
    let near = |noise: &mut Noise, topic: &[f32]| {
        let off = noise.vector();
        unit(topic.iter().zip(&off).map(|(t, o)| t + 0.9 * o).collect())
    };
    let vectors: Vec<_> = (0..MEMORIES).map(|i| near(&mut noise, &topics[i % TOPICS])).collect();
    let changes: Vec<_> = vectors
        .iter()
        .map(|v| MemoryChange::Add { text: "fact".into(), vector: v.clone() })
        .collect();
    let stored = f.remember(&anna, &changes).await;

    let index = SqliteVecIndex::new(&f.store);
    let mut hits = 0;
    for topic in &topics {
        let query = near(&mut noise, topic);
        let mut exact: Vec<_> = (0..MEMORIES).map(|i| (dot(&vectors[i], &query), i)).collect();
        exact.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = index.nearest(&anna.id, &query, K).await.unwrap();
        hits += exact[..K].iter().filter(|e| found.iter().any(|n| n.0 == stored[e.1].id)).count();
    }
    let recall = hits as f64 / (TOPICS * K) as f64;
    assert!(recall > 0.97, "recall {recall}");
}
