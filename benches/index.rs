//! The vector index in the daemon's own database against Qdrant, over the same
//! 100,000 memories of 384 floats in one run; and what Qdrant and MongoDB add to the
//! memory of the daemon.
//!
//! `cargo bench --bench index` prints one table. Nothing here passes or fails.
//! `./dev servers` fetches the servers.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use friend_lite::base::clock::{Clock, Timestamp};
use friend_lite::config::{self, Secret};
use friend_lite::domain::ids::{MemoryId, UserId};
use friend_lite::domain::memory::{Learned, MemoryChange};
use friend_lite::domain::user::User;
use friend_lite::index::Index;
use friend_lite::index::qdrant::{Client, QdrantIndex};
use friend_lite::index::sqlite_vec::SqliteVecIndex;
use friend_lite::remote::Service;
use friend_lite::store::sqlite::{Access, SqliteStore};
use friend_lite::store::{Memories, Users};

#[path = "../tests/harness/mod.rs"]
mod harness;
mod noise;

use harness::daemon::Daemon;
use harness::mongod::{self, Mongod};
use harness::process::{cpu, resident};
use harness::services::{KEY, Server};
use harness::speech;
use noise::{Noise, WIDTH};

const MEMORIES: usize = 100_000;
const TOPICS: usize = 2_000;
const QUERIES: usize = 100;
/// Memories added in one transaction.
const BATCH: usize = 5_000;
const MIB: f64 = 1024.0 * 1024.0;
const NOW: Timestamp = Timestamp::from_millis(1_753_190_000_000);

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("{what:<62} {value:>12}");
}

fn here() -> u32 {
    std::process::id()
}

/// Queries with the ids of what is nearest to each, at most 80.
type Questions = Vec<(Vec<f32>, Vec<MemoryId>)>;

/// A store of 100,000 memories of one user, and what to ask of it.
async fn filled(store: &SqliteStore) -> (UserId, Questions) {
    let user = User {
        id: UserId::from_text(format!("{:024}", 1)),
        email: "bench@example.com".into(),
        password_hash: String::new(),
        display_name: None,
        is_active: true,
        is_superuser: true,
        is_verified: true,
        token_epoch: 0,
        created_at: NOW,
    };
    store.add_user(&user).await.unwrap();
    store.bind_embedding("bench", WIDTH).await.unwrap();
    let mut noise = Noise(1);
    let topics: Vec<_> = (0..TOPICS).map(|_| noise.vector()).collect();
    let queries: Vec<_> = (0..QUERIES).map(|n| noise.near(&topics[n])).collect();
    let mut nearest: Vec<Vec<(f32, MemoryId)>> = vec![Vec::new(); QUERIES];
    for batch in 0..MEMORIES / BATCH {
        let vectors: Vec<_> =
            (0..BATCH).map(|n| noise.near(&topics[(batch * BATCH + n) % TOPICS])).collect();
        let changes = vectors.iter().map(|vector| MemoryChange::Add {
            text: "One sentence, about as long as such sentences are.".into(),
            vector: vector.clone(),
        });
        let learned = Learned { changes: changes.collect(), ..Learned::default() };
        let ids = store.add_memories(&user.id, &learned, NOW).await.unwrap();
        for (query, nearest) in queries.iter().zip(&mut nearest) {
            let scored = ids.iter().zip(&vectors).map(|(id, v)| (dot(query, v), id.clone()));
            nearest.extend(scored);
            nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
            nearest.truncate(80);
        }
    }
    let ids = |near: Vec<(f32, MemoryId)>| near.into_iter().map(|(_, id)| id).collect();
    (user.id, queries.into_iter().zip(nearest.into_iter().map(ids)).collect())
}

/// Asks everything, for `k` results: time and CPU for each, and recall. `also` is
/// a process that works for the answers.
async fn ask(
    name: &str,
    index: &dyn Index,
    user: &UserId,
    questions: &Questions,
    k: usize,
    also: Option<u32>,
) {
    index.nearest(user, &questions[0].0, k).await.unwrap();
    let spent = || (cpu(here()), also.map_or(0.0, cpu));
    let (before, began, mut hits) = (spent(), Instant::now(), 0);
    for (query, expected) in questions {
        let found = index.nearest(user, query, k).await.unwrap();
        hits += expected[..k].iter().filter(|id| found.iter().any(|one| one.0 == **id)).count();
    }
    let (took, after) = (began.elapsed().as_secs_f64(), spent());
    let each = |seconds: f64| format!("{:.1}", seconds * 1e3 / QUERIES as f64);
    row(&format!("{name}, k = {k}: time of a search, ms"), each(took));
    row(&format!("{name}, k = {k}: CPU of the daemon's side, ms"), each(after.0 - before.0));
    if also.is_some() {
        row(&format!("{name}, k = {k}: CPU of the server, ms"), each(after.1 - before.1));
    }
    row(&format!("{name}, k = {k}: recall"), format!("{:.4}", hits as f64 / (k * QUERIES) as f64));
}

async fn side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
    let (user, questions) = filled(&store).await;
    drop(store);
    // Opened again: what filling it took is not its own.
    let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
    let before = resident(here());
    let own = SqliteVecIndex::new(&store);
    for k in [10, 80] {
        ask("sqlite-vec", &own, &user, &questions, k, None).await;
    }
    row("sqlite-vec: resident memory it adds, MiB", mib(resident(here()) - before));

    let server = Server::qdrant();
    let empty = resident(server.pid());
    let config = config::Qdrant {
        url: format!("http://{}", server.address()),
        api_key: Secret::new(KEY),
        // It makes its graph meanwhile.
        deadline: config::Interval::from_secs(60),
        ..config::Qdrant::default()
    };
    let service = Service::new("qdrant", Duration::from_secs(1), Clock::system());
    let client = Client::new(&config, &config::Remote::default()).unwrap();
    let before = resident(here());
    let index = QdrantIndex::new(Arc::new(store), Arc::new(service), client, "bench");
    let began = Instant::now();
    index.catch_up().await.unwrap();
    row("qdrant: all memories told, s", format!("{:.1}", began.elapsed().as_secs_f64()));
    // Until it has made its graph.
    while busy(server.pid()).await {}
    row("qdrant: and its graph made, s", format!("{:.1}", began.elapsed().as_secs_f64()));
    for k in [10, 80] {
        ask("qdrant", &index, &user, &questions, k, Some(server.pid())).await;
    }
    row("qdrant: resident memory of the server, MiB", mib(resident(server.pid())));
    row("qdrant: that of one without memories, MiB", mib(empty));
    row("qdrant: resident memory here that it adds, MiB", mib(resident(here()) - before));
}

fn mib(bytes: f64) -> String {
    format!("{:.1}", bytes / MIB)
}

/// Whether a process has used a tenth of a processor over some seconds.
async fn busy(pid: u32) -> bool {
    let before = cpu(pid);
    tokio::time::sleep(Duration::from_secs(3)).await;
    cpu(pid) - before > 0.3
}

/// Resident memory of a daemon that has learned and searched.
async fn daemon(keys: &[(&str, &str)]) -> f64 {
    let small = [("STT__MODEL", "whisper-tiny"), ("LLM__MODEL", "qwen2.5-coder-0.5b")];
    let daemon = Daemon::with(&[&small[..], keys].concat());
    let client = daemon.admin().await;
    let mut socket = client.socket("bench").await;
    socket.session(&speech::samples(&speech::jfk().path), 0.0).await;
    socket.close().await;
    client.settled().await;
    for _ in 0..50 {
        client.get("/api/memories/search?query=what+to+ask+of+a+country").await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    resident(daemon.pid())
}

async fn what_it_adds() {
    let without = daemon(&[]).await;
    let qdrant = with_qdrant(&[]).await;
    let mongod = Mongod::start(0, &mongod::directory());
    let uri = mongod.uri();
    let both = with_qdrant(&[("STORE__ENGINE", "mongodb"), ("MONGODB_URI", &uri)]).await;
    row("resident memory of a daemon with SQLite alone, MiB", mib(without));
    row("what Qdrant adds to that, MiB", mib(qdrant - without));
    row("what MongoDB and Qdrant add to it, MiB", mib(both - without));
}

/// As [`daemon`], with a Qdrant of its own.
async fn with_qdrant(keys: &[(&str, &str)]) -> f64 {
    let server = Server::qdrant();
    let url = format!("http://{}", server.address());
    let qdrant = [("INDEX__ENGINE", "qdrant"), ("QDRANT__URL", &*url), ("QDRANT__API_KEY", KEY)];
    daemon(&[&qdrant[..], keys].concat()).await
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        what_it_adds().await;
        side_by_side().await;
    });
}
