//! Searching 10,000 memories of 384 floats: processor time, all threads.
//!
//! `index` is what the daemon runs; the rest are other ways to the same answer,
//! over the same vectors: sqlite-vec over whole floats (`vec0-f32`), and reading
//! and comparing every vector in plain Rust (`scan`).

#![allow(clippy::expect_used, missing_docs)]

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use friend_lite::base::clock::Timestamp;
use friend_lite::domain::conversation::{CloseReason, Conversation, Progress};
use friend_lite::domain::ids::{ClientId, ConversationId, UserId};
use friend_lite::domain::job::{JobKind, Lane, NewJob, Payload};
use friend_lite::domain::memory::{Learned, MemoryChange};
use friend_lite::domain::user::User;
use friend_lite::domain::version::Settled;
use friend_lite::index::Index;
use friend_lite::index::sqlite_vec::SqliteVecIndex;
use friend_lite::store::sqlite::{Access, SqliteStore};
use friend_lite::store::{Conversations, Jobs, Memories, Users};
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::runtime::Runtime;

mod noise;

use noise::{Noise, WIDTH};

const MEMORIES: usize = 10_000;
const TOPICS: usize = 200;
const QUERIES: usize = 50;
const NOW: Timestamp = Timestamp::from_millis(1_753_190_000_000);

/// Processor time of all threads of this process, from the scheduler.
struct ProcessorTime;

impl Measurement for ProcessorTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        nanoseconds_on_cpu()
    }

    fn end(&self, start: u64) -> u64 {
        nanoseconds_on_cpu().saturating_sub(start)
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Milliseconds
    }
}

struct Milliseconds;

impl ValueFormatter for Milliseconds {
    fn scale_values(&self, _typical: f64, values: &mut [f64]) -> &'static str {
        values.iter_mut().for_each(|value| *value /= 1e6);
        "ms CPU"
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        _throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        self.scale_values(0.0, values)
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        self.scale_values(0.0, values)
    }
}

fn nanoseconds_on_cpu() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads of this process");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// A store filled the way the daemon fills it.
struct Filled {
    runtime: Runtime,
    store: SqliteStore,
    user: UserId,
    queries: Vec<Vec<f32>>,
    dir: TempDir,
}

fn filled(users: usize) -> Filled {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(dir.path(), Access::Exclusive).expect("a store");
    let mut noise = Noise(1);
    let topics: Vec<_> = (0..TOPICS).map(|_| noise.vector()).collect();
    let mut first = None;
    for n in 0..users {
        let changes: Vec<_> = (0..MEMORIES / users)
            .map(|i| MemoryChange::Add {
                text: format!("Fact {i}: one sentence, about as long as such sentences are."),
                vector: noise.near(&topics[i % TOPICS]),
            })
            .collect();
        let user = runtime.block_on(remember(&store, n, &changes));
        first.get_or_insert(user);
    }
    let queries = (0..QUERIES).map(|i| noise.near(&topics[i])).collect();
    Filled { runtime, store, user: first.expect("one user"), queries, dir }
}

async fn remember(store: &SqliteStore, n: usize, changes: &[MemoryChange]) -> UserId {
    let user = User {
        id: UserId::from_text(format!("{n:024}")),
        email: format!("{n}@example.com"),
        password_hash: String::new(),
        display_name: None,
        is_active: true,
        is_superuser: false,
        is_verified: true,
        token_epoch: 0,
        created_at: NOW,
    };
    store.add_user(&user).await.expect("a user");
    let conversation = Conversation::begin(
        ConversationId::generate(),
        user.id.clone(),
        ClientId::from_text("bench"),
        format!("{n}.wav"),
        NOW,
    );
    let id = &conversation.id;
    store.open_conversation(&conversation).await.expect("opened");
    store.close_conversation(id, 0, &[], CloseReason::Request, NOW).await.expect("closed");
    let job = claim(store, JobKind::Finish).await;
    let next = NewJob {
        kind: JobKind::Remember,
        payload: Payload::Conversation(id.clone()),
        lane: Lane::Live,
    };
    let settled = Settled {
        version: 1,
        transcription: Progress::Completed,
        memory: Progress::Pending,
        next: vec![next],
    };
    store.finish_conversation(job, id, &settled, NOW).await.expect("finished");
    let job = claim(store, JobKind::Remember).await;
    store.bind_embedding("bench", WIDTH).await.expect("bound");
    let learned = Learned { changes: changes.to_vec(), ..Learned::default() };
    store.complete_memories(job, id, &learned, NOW).await.expect("remembered");
    user.id
}

async fn claim(store: &SqliteStore, kind: JobKind) -> friend_lite::domain::job::Lease {
    store
        .claim_job(&[kind], Lane::Backlog, "bench", NOW)
        .await
        .expect("a claim")
        .expect("a job")
        .lease()
}

/// A table of whole vectors beside the store's own, in a file of its own.
fn whole_floats(filled: &Filled, name: &str, sql: &str) -> Connection {
    let path = filled.dir.path().join(name);
    let db = Connection::open(path).expect("a database");
    let store = filled.dir.path().join("friend-lite.db");
    db.execute("attach ?1 as store", [store.to_string_lossy()]).expect("attached");
    db.execute_batch(sql).expect("copied");
    db
}

fn main_search(c: &mut Criterion<ProcessorTime>) {
    for users in [1, 4] {
        let filled = filled(users);
        let index = SqliteVecIndex::new(&filled.store);
        let mut group = c.benchmark_group(format!("{users}x{}", MEMORIES / users));
        let mut next = 0;
        let mut query = || {
            next += 1;
            &filled.queries[next % QUERIES]
        };

        for k in [10, 80] {
            group.bench_function(format!("index k={k}"), |b| {
                b.iter(|| {
                    let near = index.nearest(&filled.user, query(), k);
                    filled.runtime.block_on(near).expect("an answer")
                });
            });
        }

        let vec0 = whole_floats(
            &filled,
            "vec0.db",
            "create virtual table v using vec0 (
                 seq integer primary key, user_id text partition key, vector float[384]);
             insert into v select seq, user_id, embedding from store.memories",
        );
        for k in [10, 80] {
            group.bench_function(format!("vec0-f32 k={k}"), |b| {
                let mut nearest = vec0
                    .prepare("select seq from v where vector match ?1 and k = ?2 and user_id = ?3")
                    .expect("a query");
                b.iter(|| {
                    let rows = nearest
                        .query_map(params![blob(query()), k, filled.user.as_str()], |row| {
                            row.get::<_, i64>(0)
                        })
                        .expect("an answer");
                    rows.map(|row| row.expect("a row")).collect::<Vec<_>>()
                });
            });
        }
        group.bench_function("scan k=80", |b| {
            b.iter(|| scan(&vec0, &filled.user, query(), 80));
        });
        group.finish();

        for k in [10, 80] {
            println!("recall of index at k={k}: {:.4}", recall(&filled, &index, &vec0, k));
        }
    }
}

fn recall(filled: &Filled, index: &SqliteVecIndex, db: &Connection, k: usize) -> f64 {
    let mut hits = 0;
    for query in &filled.queries {
        let found = filled.runtime.block_on(index.nearest(&filled.user, query, k)).expect("found");
        let found: Vec<_> = found.iter().map(|(id, _)| id.as_str().to_owned()).collect();
        let exact = scan(db, &filled.user, query, k);
        hits += exact.iter().filter(|(_, id)| found.contains(id)).count();
    }
    hits as f64 / (k * QUERIES) as f64
}

/// Every vector of a user, read and compared.
fn scan(db: &Connection, user: &UserId, query: &[f32], k: usize) -> Vec<(f32, String)> {
    let mut all = db
        .prepare_cached("select id, embedding from store.memories where user_id = ?1")
        .expect("a query");
    let mut rows = all.query([user.as_str()]).expect("rows");
    let mut best: Vec<(f32, String)> = Vec::new();
    while let Some(row) = rows.next().expect("a row") {
        let stored = row.get_ref(1).expect("a column").as_blob().expect("a blob");
        let score = dot(query, stored);
        let rank = best.partition_point(|(other, _)| *other >= score);
        if rank < k {
            best.insert(rank, (score, row.get(0).expect("an id")));
            best.truncate(k);
        }
    }
    best
}

fn dot(query: &[f32], stored: &[u8]) -> f32 {
    let mut sums = [0.0_f32; 16];
    for (a, b) in query.chunks_exact(16).zip(stored.chunks_exact(64)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b.as_chunks::<4>().0) {
            *sum += a * f32::from_le_bytes(*b);
        }
    }
    sums.iter().sum()
}

fn blob(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

criterion_group!(
    name = search;
    config = Criterion::default()
        .with_measurement(ProcessorTime)
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1))
        .sample_size(20);
    targets = main_search
);
criterion_main!(search);
