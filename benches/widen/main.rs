//! What it does to a search to look at the memories besides that speak of the same
//! people and things: questions whose answer is in a memory that names somebody
//! only whom another memory names as they are asked for (`two_steps`), and
//! questions that one memory answers (`one_step`).
//!
//! `cargo bench --bench widen` prints one table. Nothing here passes or fails. The
//! memories are read as a faultless reader would: what a language model misses is
//! not found by way of it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use friend_lite::app;
use friend_lite::base::clock::Timestamp;
use friend_lite::config::Config;
use friend_lite::domain::graph::{EntityKind, Reading, Sighting};
use friend_lite::domain::ids::{MemoryId, UserId};
use friend_lite::domain::memory::{Learned, MemoryChange};
use friend_lite::domain::user::User;
use friend_lite::graph::Graph;
use friend_lite::graph::sqlite::SqliteGraph;
use friend_lite::index::sqlite_vec::SqliteVecIndex;
use friend_lite::pipeline::recall::Recall;
use friend_lite::store::sqlite::{Access, SqliteStore};
use friend_lite::store::{Memories, Users};
use friend_lite::supervisor::Supervisor;
use serde::Deserialize;

const NOW: Timestamp = Timestamp::from_millis(1_753_190_000_000);
/// Memories that a search returns.
const LIMIT: usize = 5;

#[derive(Deserialize)]
struct Data {
    /// With the names in each.
    memories: Vec<(String, Vec<String>)>,
    /// With the number of the memory that answers.
    two_steps: Vec<(String, usize)>,
    one_step: Vec<(String, usize)>,
}

#[tokio::main]
async fn main() {
    let data: Data = serde_json::from_str(include_str!("memories.json")).unwrap();
    let mut config = Config::default();
    config.engines.dir = std::path::Path::new(env!("CARGO_BIN_EXE_friend-lite"))
        .parent()
        .unwrap()
        .display()
        .to_string();
    let supervisor = Supervisor::new();
    let embedder = app::embedder(&config, &supervisor).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
    let user = UserId::from_text(format!("{:024}", 1));
    store.add_user(&somebody(&user)).await.unwrap();

    let texts: Vec<String> = data.memories.iter().map(|(text, _)| text.clone()).collect();
    let vectors = embedder.embed(&texts).await.unwrap();
    store.bind_embedding(&embedder.name(), vectors[0].len()).await.unwrap();
    let changes = texts
        .iter()
        .zip(vectors)
        .map(|(text, vector)| MemoryChange::Add { text: text.clone(), vector });
    let learned = Learned { changes: changes.collect(), ..Learned::default() };
    let ids = store.add_memories(&user, &learned, NOW).await.unwrap();
    let graph = SqliteGraph::new(&store);
    for (memory, (_, names)) in store.memories_by_id(&ids).await.unwrap().iter().zip(&data.memories)
    {
        let sighting = |name: &String| Sighting { name: name.clone(), kind: EntityKind::Thing };
        let entities = names.iter().map(sighting).collect();
        graph.learn(memory, &Reading { entities, relations: Vec::new() }).await.unwrap();
    }
    let index = Arc::new(SqliteVecIndex::new(&store));
    let recall = Recall::new(Arc::new(store), index, embedder);
    let graph: Arc<dyn Graph> = Arc::new(graph);

    println!(
        "{} memories; the answer among the first {LIMIT}, and its mean reciprocal rank",
        ids.len()
    );
    println!("{:<8} {:>16} {:>16}", "widen", "two steps", "one step");
    for widen in [0, 3, 5, 10, 20] {
        let recall = recall.clone().with_graph(graph.clone(), widen);
        let two = answered(&recall, &user, &ids, &data.two_steps).await;
        let one = answered(&recall, &user, &ids, &data.one_step).await;
        println!("{widen:<8} {two:>16} {one:>16}");
    }
    supervisor.drain(std::time::Duration::from_secs(5)).await;
}

/// How many of `questions` are answered, and how soon.
async fn answered(
    recall: &Recall,
    user: &UserId,
    ids: &[MemoryId],
    questions: &[(String, usize)],
) -> String {
    let (mut hits, mut soon) = (0, 0.0);
    for (question, answer) in questions {
        let found = recall.search(user, question, LIMIT, 0.0).await.unwrap();
        if let Some(rank) = found.iter().position(|one| one.memory.id == ids[*answer]) {
            hits += 1;
            soon += 1.0 / (rank as f64 + 1.0);
        }
    }
    format!("{hits}/{} {:.2}", questions.len(), soon / questions.len() as f64)
}

fn somebody(id: &UserId) -> User {
    User {
        id: id.clone(),
        email: "somebody@example.com".into(),
        password_hash: String::new(),
        display_name: None,
        is_active: true,
        is_superuser: true,
        is_verified: true,
        token_epoch: 0,
        created_at: NOW,
    }
}
