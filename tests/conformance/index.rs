//! The vector index over memories.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use friend_lite::base::clock::Timestamp;
use friend_lite::base::error::Kind;
use friend_lite::config::{self, Interval, Secret};
use friend_lite::domain::conversation::{CloseReason, Conversation, Progress};
use friend_lite::domain::ids::{ClientId, ConversationId, MemoryId, UserId};
use friend_lite::domain::job::{JobKind, Lane, Lease, NewJob, Payload};
use friend_lite::domain::memory::{Learned, Memory, MemoryChange};
use friend_lite::domain::user::User;
use friend_lite::domain::version::Settled;
use friend_lite::index::Index;
use friend_lite::index::qdrant::{Client, QdrantIndex};
use friend_lite::index::sqlite_vec::SqliteVecIndex;
use friend_lite::remote::Service;
use friend_lite::store::sqlite::{Access, SqliteStore};
use friend_lite::store::{
    Conversations, Deletions, Follower, Jobs, Memories, Outbox, UserData, Users,
};
use qdrant_client::Qdrant;
use qdrant_client::qdrant::{
    CountPointsBuilder, CreateCollectionBuilder, Distance, PointStruct, UpsertPointsBuilder,
    VectorParamsBuilder,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::faults::{self, DEADLINE};
use super::{Report, remote, service};
use crate::harness::faulty::Proxy;
use crate::harness::services::{KEY, Server};

const WIDTH: usize = 64;
pub(super) const MODEL: &str = "test-model";
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_753_190_000_000);

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

fn unit(mut v: Vec<f32>) -> Vec<f32> {
    let norm = dot(&v, &v).sqrt();
    v.iter_mut().for_each(|x| *x /= norm);
    v
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Adds the user of that number; the first is an administrator.
pub(super) async fn add_user(store: &SqliteStore, n: usize) -> UserId {
    let user = User {
        id: UserId::from_text(format!("{n:024}")),
        email: format!("{n}@example.com"),
        password_hash: String::new(),
        display_name: None,
        is_active: true,
        is_superuser: n == 1,
        is_verified: true,
        token_epoch: 0,
        created_at: NOW,
    };
    store.add_user(&user).await.unwrap();
    user.id
}

/// A store with its index.
struct World {
    store: SqliteStore,
    index: Arc<dyn Index>,
    dir: TempDir,
}

/// Makes the index of a store, each time one that holds nothing yet.
trait Adapter {
    async fn index(&self, store: &SqliteStore) -> Arc<dyn Index>;

    async fn world(&self) -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
        World { index: self.index(&store).await, store, dir }
    }
}

impl World {
    async fn user(&self, n: usize) -> UserId {
        add_user(&self.store, n).await
    }

    /// Has `user` remember a fact for each vector.
    async fn remember(&self, user: &UserId, vectors: &[Vec<f32>]) -> Vec<MemoryId> {
        let add = |v: &Vec<f32>| MemoryChange::Add { text: "fact".into(), vector: v.clone() };
        self.change(user, vectors.iter().map(add).collect()).await
    }

    async fn change(&self, user: &UserId, changes: Vec<MemoryChange>) -> Vec<MemoryId> {
        self.store.bind_embedding(MODEL, WIDTH).await.unwrap();
        let learned = Learned { changes, ..Learned::default() };
        self.store.add_memories(user, &learned, NOW).await.unwrap()
    }

    /// A conversation of `user` that taught a fact for each vector.
    async fn converse(&self, user: &UserId, vectors: &[Vec<f32>]) -> (ConversationId, Vec<Memory>) {
        let id = ConversationId::generate();
        let audio = format!("{id}.wav");
        let client = ClientId::from_text("test");
        let conversation = Conversation::begin(id.clone(), user.clone(), client, audio, NOW);
        let store = &self.store;
        store.open_conversation(&conversation).await.unwrap();
        store.close_conversation(&id, 0, &[], CloseReason::Request, NOW).await.unwrap();
        let payload = Payload::Conversation(id.clone());
        let settled = Settled {
            version: 1,
            transcription: Progress::Completed,
            memory: Progress::Pending,
            next: vec![NewJob { kind: JobKind::Remember, payload, lane: Lane::Live }],
        };
        let job = self.claim(JobKind::Finish).await;
        store.finish_conversation(job, &id, &settled, NOW).await.unwrap();
        let job = self.claim(JobKind::Remember).await;
        store.bind_embedding(MODEL, WIDTH).await.unwrap();
        let add = |v: &Vec<f32>| MemoryChange::Add { text: "fact".into(), vector: v.clone() };
        let changes = vectors.iter().map(add).collect();
        let learned = Learned { changes, ..Learned::default() };
        store.complete_memories(job, &id, &learned, NOW).await.unwrap();
        let memories = store.conversation_memories(&id).await.unwrap();
        (id, memories)
    }

    async fn claim(&self, kind: JobKind) -> Lease {
        let job = self.store.claim_job(&[kind], Lane::Backlog, "test", NOW).await.unwrap();
        job.unwrap().lease()
    }

    async fn nearest(&self, user: &UserId, vector: &[f32], k: usize) -> Vec<MemoryId> {
        let found = self.index.nearest(user, vector, k).await.unwrap();
        found.into_iter().map(|(id, _)| id).collect()
    }
}

async fn suite(report: &mut Report, adapter: &impl Adapter) {
    let mut noise = Noise(7);
    let vectors: Vec<Vec<f32>> = (0..60).map(|_| noise.vector()).collect();
    let query = noise.vector();

    let world = adapter.world().await;
    let (anna, bert) = (world.user(1).await, world.user(2).await);
    assert!(world.nearest(&anna, &[1.0], 5).await.is_empty());
    report.passed("empty before the first memory");

    let hers = world.remember(&anna, &vectors).await;
    let his = world.remember(&bert, &vectors[..1]).await;
    let error = world.index.nearest(&anna, &[1.0, 0.0], 5).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    for part in ["64", "2 wide", "friend-lite reindex"] {
        assert!(error.message().contains(part), "{}", error.message());
    }
    report.passed("a vector of another width is refused");

    // Few enough that every one of them is compared in full: the order is exact.
    let mut expected: Vec<_> =
        hers.iter().zip(&vectors).map(|(id, v)| (id, dot(v, &query))).collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1));
    let found = world.index.nearest(&anna, &query, 30).await.unwrap();
    assert_eq!(found.len(), 30);
    for ((id, score), (want, cosine)) in found.iter().zip(&expected) {
        assert_eq!(id, *want);
        assert!((score - cosine).abs() < 1e-5, "{score} {cosine}");
    }
    report.passed("the nearest first, with their cosine");
    assert_eq!(world.nearest(&anna, &query, 10_000).await.len(), 60);
    assert!(world.nearest(&anna, &query, 0).await.is_empty());
    report.passed("as many as there are, or none");
    assert_eq!(world.nearest(&bert, &query, 30).await, his);
    report.passed("of one user alone");

    let other = noise.vector();
    let update =
        MemoryChange::Update { id: hers[0].clone(), text: "more".into(), vector: other.clone() };
    world.change(&anna, vec![update]).await;
    assert_eq!(world.nearest(&anna, &other, 1).await, hers[..1]);
    assert_ne!(world.nearest(&anna, &vectors[0], 1).await, hers[..1]);
    report.passed("a changed memory is found where it is now, at once");

    assert!(world.store.delete_memory(&hers[0], NOW).await.unwrap());
    assert!(!world.nearest(&anna, &other, 100).await.contains(&hers[0]));
    let learned = vec![noise.vector(), noise.vector()];
    let (conversation, taught) = world.converse(&anna, &learned).await;
    assert_eq!(world.nearest(&anna, &learned[1], 1).await, [taught[1].id.clone()]);
    world.store.delete_conversation(&conversation, true, None, NOW).await.unwrap();
    assert_eq!(world.nearest(&anna, &learned[1], 100).await.len(), 59);
    let all = UserData { conversations: true, memories: true };
    world.store.delete_user(&bert, all, None, NOW).await.unwrap();
    assert!(world.nearest(&bert, &query, 5).await.is_empty());
    assert_eq!(world.store.delete_memories(&anna, NOW).await.unwrap(), 59);
    assert!(world.nearest(&anna, &query, 5).await.is_empty());
    report.passed("what is forgotten is gone: a memory, a conversation's, a user's");

    reindexed(adapter, &vectors).await;
    report.passed("made again for another model");
    let recall = among_thousands(adapter).await;
    assert!(recall > 0.97, "recall {recall}");
    report.passed("the nearest are found among thousands");
}

/// The same memories with vectors of another model, of another width.
async fn reindexed(adapter: &impl Adapter, vectors: &[Vec<f32>]) {
    let world = adapter.world().await;
    let anna = world.user(1).await;
    let texts: Vec<String> = (0..vectors.len()).map(|n| format!("fact {n}")).collect();
    let add = |(text, vector): (&String, &Vec<f32>)| MemoryChange::Add {
        text: text.clone(),
        vector: vector.clone(),
    };
    let ids = world.change(&anna, texts.iter().zip(vectors).map(add).collect()).await;
    assert_eq!(world.nearest(&anna, &vectors[5], 1).await, ids[5..6]);
    let half = |v: &Vec<f32>| unit(v[..WIDTH / 2].to_vec());
    let made: HashMap<_, _> = texts.iter().cloned().zip(vectors.iter().map(half)).collect();
    world.store.replace_embeddings("another", WIDTH / 2, made).await.unwrap();
    world.index.renew().await.unwrap();
    assert_eq!(world.nearest(&anna, &half(&vectors[5]), 1).await, ids[5..6]);
    assert_eq!(world.nearest(&anna, &half(&vectors[5]), 100).await.len(), 60);
    let error = world.index.nearest(&anna, &vectors[5], 1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
}

/// Sentences cluster by what they are about; so do these vectors.
async fn among_thousands(adapter: &impl Adapter) -> f64 {
    const MEMORIES: usize = 4_000;
    const TOPICS: usize = 100;
    const K: usize = 10;
    let world = adapter.world().await;
    let anna = world.user(1).await;
    let mut noise = Noise(11);
    let topics: Vec<Vec<f32>> = (0..TOPICS).map(|_| noise.vector()).collect();
    let near = |noise: &mut Noise, topic: &[f32]| {
        let off = noise.vector();
        unit(topic.iter().zip(&off).map(|(t, o)| t + 0.9 * o).collect())
    };
    let vectors: Vec<_> = (0..MEMORIES).map(|i| near(&mut noise, &topics[i % TOPICS])).collect();
    let stored = world.remember(&anna, &vectors).await;
    world.index.catch_up().await.unwrap();
    let mut hits = 0;
    for topic in &topics {
        let query = near(&mut noise, topic);
        let mut exact: Vec<_> = (0..MEMORIES).map(|i| (dot(&vectors[i], &query), i)).collect();
        exact.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = world.nearest(&anna, &query, K).await;
        hits += exact[..K].iter().filter(|e| found.contains(&stored[e.1])).count();
    }
    hits as f64 / (TOPICS * K) as f64
}

struct SqliteVec;

impl Adapter for SqliteVec {
    async fn index(&self, store: &SqliteStore) -> Arc<dyn Index> {
        Arc::new(SqliteVecIndex::new(store))
    }
}

#[tokio::test]
async fn sqlite_vec() {
    suite(&mut Report::of("index", "sqlite-vec"), &SqliteVec).await;
}

/// Collections of one server.
struct Collections {
    port: u16,
    made: AtomicUsize,
}

impl Collections {
    fn at(port: u16) -> Self {
        Self { port, made: AtomicUsize::new(0) }
    }

    /// The name of the collection that was made last.
    fn last(&self) -> String {
        format!("memories-{}", self.made.load(Ordering::Relaxed))
    }

    /// An index in the collection of that name.
    fn open(
        &self,
        store: &SqliteStore,
        name: &str,
        deadline: Duration,
    ) -> (Arc<Service>, QdrantIndex) {
        let config = config::Qdrant {
            url: format!("http://127.0.0.1:{}", self.port),
            api_key: Secret::new(KEY),
            collection: name.into(),
            deadline: Interval::from_millis(deadline.as_millis() as u64),
        };
        let (client, service) = (Client::new(&config, &remote()).unwrap(), service("qdrant"));
        let index = QdrantIndex::new(Arc::new(store.clone()), service.clone(), client, MODEL);
        (service, index)
    }

    /// Qdrant's own client.
    fn client(&self) -> Qdrant {
        let url = format!("http://127.0.0.1:{}", self.port);
        Qdrant::from_url(&url).api_key(KEY).skip_compatibility_check().build().unwrap()
    }

    async fn count(&self, name: &str) -> u64 {
        let count = self.client().count(CountPointsBuilder::new(name).exact(true)).await;
        count.unwrap().result.unwrap().count
    }

    /// Makes a collection as mem0 does, with points that hold `payloads`.
    async fn filled(&self, name: &str, width: usize, payloads: &[Value]) -> Vec<Vec<f32>> {
        let client = self.client();
        let vectors = VectorParamsBuilder::new(width as u64, Distance::Cosine);
        let made = CreateCollectionBuilder::new(name).vectors_config(vectors);
        client.create_collection(made).await.unwrap();
        let mut noise = Noise(3);
        let vectors: Vec<Vec<f32>> =
            payloads.iter().map(|_| (0..width).map(|_| noise.next()).collect()).collect();
        let points: Vec<PointStruct> = payloads
            .iter()
            .zip(&vectors)
            .enumerate()
            .map(|(n, (payload, vector))| {
                PointStruct::new(point_id(n), vector.clone(), plain(payload))
            })
            .collect();
        client.upsert_points(UpsertPointsBuilder::new(name, points).wait(true)).await.unwrap();
        vectors.into_iter().map(unit).collect()
    }
}

fn point_id(n: usize) -> String {
    format!("5c56c793-69f3-4fbf-87e6-{n:012}")
}

/// A JSON object as Qdrant takes it.
fn plain(payload: &Value) -> HashMap<String, qdrant_client::qdrant::Value> {
    use qdrant_client::qdrant::{Struct, Value as Plain, value::Kind as PlainKind};
    let fields = payload.as_object().unwrap().iter();
    fields
        .map(|(key, value)| {
            let value = match value {
                Value::String(text) => Plain::from(text.clone()),
                other => {
                    Plain { kind: Some(PlainKind::StructValue(Struct { fields: plain(other) })) }
                }
            };
            (key.clone(), value)
        })
        .collect()
}

impl Adapter for Collections {
    async fn index(&self, store: &SqliteStore) -> Arc<dyn Index> {
        self.made.fetch_add(1, Ordering::Relaxed);
        Arc::new(self.open(store, &self.last(), DEADLINE).1)
    }
}

#[tokio::test]
async fn qdrant() {
    let mut report = Report::of("index", "qdrant");
    let mut server = Server::qdrant();
    let collections = Collections::at(server.port);
    suite(&mut report, &collections).await;
    lost_and_changed_behind_its_back(&collections, &mut server).await;
    report.passed("what changed while it was away or lost arrives");
    memories_of_mem0(&collections).await;
    report.passed("memories of both payloads of the original are found");
    of_another_width(&collections).await;
    report.passed("a collection of another width is refused and stays");

    let world = collections.world().await;
    let anna = world.user(1).await;
    let vector = Noise(5).vector();
    world.remember(&anna, std::slice::from_ref(&vector)).await;
    let proxy = Proxy::before(server.port).await;
    let behind = Collections::at(proxy.port);
    let (service, index) = behind.open(&world.store, &collections.last(), DEADLINE);
    let ask =
        async || index.nearest(&anna, &vector, 1).await.map(|found| assert_eq!(found.len(), 1));
    faults::suite(&mut report, &mut server, &proxy, &service, ask).await;
}

async fn lost_and_changed_behind_its_back(collections: &Collections, server: &mut Server) {
    let world = collections.world().await;
    let (name, anna) = (collections.last(), world.user(1).await);
    let mut noise = Noise(13);
    let vectors: Vec<_> = (0..5).map(|_| noise.vector()).collect();
    let ids = world.remember(&anna, &vectors[..4]).await;
    world.index.catch_up().await.unwrap();
    assert_eq!(collections.count(&name).await, 4);

    server.kill();
    world.store.delete_memory(&ids[0], NOW).await.unwrap();
    world.remember(&anna, &vectors[4..]).await;
    let error = world.index.nearest(&anna, &vectors[1], 1).await.unwrap_err();
    assert!(error.is_transient(), "{}", error.report());
    // The store is opened again meanwhile, and the index with it.
    let World { store, index, dir } = world;
    drop((store, index));
    let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
    server.restart();
    let index = collections.open(&store, &name, DEADLINE).1;
    index.catch_up().await.unwrap();
    assert_eq!(collections.count(&name).await, 4);
    assert_eq!(index.nearest(&anna, &vectors[0], 9).await.unwrap().len(), 4);

    // Another index is used for a while.
    store.follow_memories(Follower::Index, None, false).await.unwrap();
    store.delete_memory(&ids[1], NOW).await.unwrap();
    let index = collections.open(&store, &name, DEADLINE).1;
    index.catch_up().await.unwrap();
    assert_eq!(collections.count(&name).await, 3);

    collections.client().delete_collection(&name).await.unwrap();
    let error = index.nearest(&anna, &vectors[2], 1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Away, "{}", error.report());
    index.catch_up().await.unwrap();
    assert_eq!(index.nearest(&anna, &vectors[2], 9).await.unwrap().len(), 3);
}

async fn memories_of_mem0(collections: &Collections) {
    let (anna, bert) = (format!("{:024}", 1), format!("{:024}", 2));
    let payloads = [
        json!({
            "user_id": anna, "data": "Anna plays the cello.", "hash": "0123456789abcdef",
            "source": "offline_streaming", "created_at": "2025-07-22T06:13:20.250000-07:00",
            "metadata": { "audio_uuid": "a" },
        }),
        json!({
            "content": "Bert has a boat.", "metadata": { "user_id": bert },
            "created_at": "1753190000",
        }),
        json!({ "user_id": "nobody", "data": "Nobody knows.", "created_at": "1753190000" }),
        json!({ "note": "no memory at all" }),
    ];
    let name = "omi_memories";
    let vectors = collections.filled(name, WIDTH, &payloads).await;
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
    let index: Arc<dyn Index> = Arc::new(collections.open(&store, name, DEADLINE).1);
    let world = World { store, index, dir };
    let (anna, bert) = (world.user(1).await, world.user(2).await);
    world.index.catch_up().await.unwrap();

    let of = async |user: &UserId| world.store.memories(user, 10).await.unwrap();
    let (hers, his) = (of(&anna).await, of(&bert).await);
    assert_eq!((hers.len(), his.len()), (1, 1));
    assert_eq!(
        (hers[0].text.as_str(), hers[0].id.to_string()),
        ("Anna plays the cello.", point_id(0))
    );
    assert_eq!(hers[0].created_at, Timestamp::from_millis(1_753_190_000_250));
    assert_eq!((his[0].text.as_str(), his[0].created_at), ("Bert has a boat.", NOW));
    assert_eq!(world.store.search_text(&anna, "cello", 5).await.unwrap(), [hers[0].id.clone()]);
    let near = world.index.nearest(&anna, &vectors[0], 5).await.unwrap();
    assert_eq!(near.len(), 1);
    assert!(near[0].1 > 0.999, "{near:?}");
    assert_eq!(world.nearest(&bert, &vectors[1], 5).await, [his[0].id.clone()]);
    // What is theirs stays, with all that is in it; what is ours is told from it.
    assert_eq!(collections.count(name).await, 4);
    let error = world.index.renew().await.unwrap_err();
    assert!(error.kind() == Kind::Conflict && error.message().contains("2 points"), "{error}");
    assert!(world.store.delete_memory(&hers[0].id, NOW).await.unwrap());
    world.index.catch_up().await.unwrap();
    assert_eq!(collections.count(name).await, 3);
}

async fn of_another_width(collections: &Collections) {
    let world = collections.world().await;
    let anna = world.user(1).await;
    collections.filled(&collections.last(), 96, &[json!({ "user_id": "x", "data": "y" })]).await;
    let vector = Noise(1).vector();
    world.remember(&anna, std::slice::from_ref(&vector)).await;
    for _ in 0..2 {
        let error = world.index.nearest(&anna, &vector, 1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        for part in ["96 wide", "64 wide", "friend-lite reindex", &collections.last()] {
            assert!(error.message().contains(part), "{}", error.message());
        }
    }
    assert_eq!(collections.count(&collections.last()).await, 1);
}
