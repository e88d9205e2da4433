//! The graph of who and what memories speak of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use friend_lite::config::{self, Interval, Secret};
use friend_lite::domain::graph::{EntityKind, Reading, Sighting, Statement};
use friend_lite::domain::ids::{EntityId, MemoryId, UserId};
use friend_lite::domain::memory::{Learned, Memory, MemoryChange};
use friend_lite::graph::neo4j::{Client, Neo4jGraph};
use friend_lite::graph::sqlite::SqliteGraph;
use friend_lite::graph::{EntityQuery, Graph};
use friend_lite::remote::Service;
use friend_lite::store::sqlite::{Access, SqliteStore};
use friend_lite::store::{Deletions, Memories, UserData};
use tempfile::TempDir;

use super::faults::{self, DEADLINE};
use super::index::{MODEL, NOW, add_user};
use super::{Report, remote, service};
use crate::harness::faulty::Proxy;
use crate::harness::services::{KEY, Server};

/// A store with its graph.
struct World {
    store: SqliteStore,
    graph: Arc<dyn Graph>,
    dir: TempDir,
    /// Its users are nobody else's.
    number: usize,
}

/// Makes the graph of a store, each time one that holds nothing yet.
trait Adapter {
    async fn graph(&self, store: &SqliteStore) -> Arc<dyn Graph>;

    async fn world(&self) -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
        static WORLDS: AtomicUsize = AtomicUsize::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        World { graph: self.graph(&store).await, store, dir, number }
    }
}

fn reading(names: &[&str], relations: &[(&str, &str, &str)]) -> Reading {
    let sighting = |name: &&str| Sighting { name: (*name).into(), kind: EntityKind::Person };
    let statement = |(subject, predicate, object): &(&str, &str, &str)| Statement {
        subject: (*subject).into(),
        predicate: (*predicate).into(),
        object: (*object).into(),
    };
    Reading {
        entities: names.iter().map(sighting).collect(),
        relations: relations.iter().map(statement).collect(),
    }
}

fn all() -> EntityQuery {
    EntityQuery { limit: 100, ..EntityQuery::default() }
}

impl World {
    async fn user(&self, n: usize) -> UserId {
        add_user(&self.store, 10 * self.number + n).await
    }

    async fn change(&self, user: &UserId, changes: Vec<MemoryChange>) -> Vec<Memory> {
        self.store.bind_embedding(MODEL, 2).await.unwrap();
        let learned = Learned { changes, ..Learned::default() };
        let ids = self.store.add_memories(user, &learned, NOW).await.unwrap();
        self.store.memories_by_id(&ids).await.unwrap()
    }

    async fn remember(&self, user: &UserId, texts: &[&str]) -> Vec<Memory> {
        let add = |text: &&str| MemoryChange::Add { text: (*text).into(), vector: vec![1.0, 0.0] };
        self.change(user, texts.iter().map(add).collect()).await
    }

    /// A memory of `user` for each pair of friends, read.
    async fn friends(&self, user: &UserId, pairs: &[(&str, &str)]) -> Vec<Memory> {
        let texts: Vec<String> = pairs.iter().map(|(a, b)| format!("{a} knows {b}.")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let memories = self.remember(user, &texts).await;
        for (memory, (a, b)) in memories.iter().zip(pairs) {
            let read = reading(&[a, b], &[(a, "knows", b)]);
            self.graph.learn(memory, &read).await.unwrap();
        }
        memories
    }

    async fn names(&self, user: &UserId, query: EntityQuery) -> (Vec<String>, u64) {
        let (found, total) = self.graph.entities(user, &query).await.unwrap();
        let mut names: Vec<String> = found.into_iter().map(|entity| entity.name).collect();
        names.sort_unstable();
        (names, total)
    }

    async fn unread(&self) -> Vec<String> {
        let unread = self.graph.unread(10).await.unwrap();
        unread.into_iter().map(|memory| memory.text).collect()
    }
}

async fn suite(report: &mut Report, adapter: &impl Adapter) {
    entities(&adapter.world().await).await;
    report.passed("names meet in any case, and users do not meet");
    paths(&adapter.world().await).await;
    report.passed("a path is a shortest one, and goes either way");
    forgotten(&adapter.world().await).await;
    report.passed("what no memory says any more is gone, at once");
    given_up(&adapter.world().await).await;
    report.passed("what cannot be read is left alone in the end");
    neighbours(&adapter.world().await).await;
    report.passed("neighbours share what few speak of first");
}

async fn entities(world: &World) {
    let (ann, ben) = (world.user(1).await, world.user(2).await);
    let memories = world.friends(&ann, &[("Max", "Zoe"), ("MAX", "Tom")]).await;
    world.friends(&ben, &[("Max", "Eva")]).await;
    let (found, total) = world.names(&ann, all()).await;
    assert_eq!((found.len(), total), (3, 3), "{found:?}");
    let max = EntityId::of(&ann, "max");
    let relations = world.graph.relations(&max, 10).await.unwrap();
    let said: Vec<_> = relations
        .iter()
        .map(|r| (r.subject.name.as_str(), r.predicate.as_str(), r.object.name.as_str()))
        .collect();
    assert_eq!(said, [("Max", "knows", "Zoe"), ("Max", "knows", "Tom")]);
    assert_eq!(relations[1].memory_id, memories[1].id);
    assert_eq!(world.graph.relations(&max, 1).await.unwrap(), relations[..1]);
    assert_eq!(world.graph.memories(&max, 10).await.unwrap().len(), 2);
    assert_eq!(world.graph.memories(&max, 1).await.unwrap().len(), 1);
    let entity = world.graph.entity(&max).await.unwrap().unwrap();
    assert_eq!((&entity.user_id, entity.kind), (&ann, EntityKind::Person));
    assert_eq!((entity.first_seen, entity.last_seen), (NOW, NOW));
    assert!(world.graph.entity(&EntityId::of(&ann, "Eva")).await.unwrap().is_none());

    let one = |change: fn(&mut EntityQuery)| {
        let mut query = all();
        change(&mut query);
        world.names(&ann, query)
    };
    assert_eq!(one(|q| q.name = "ZO".into()).await, (vec!["Zoe".into()], 1));
    assert_eq!(one(|q| q.name = "'} ) //".into()).await, (vec![], 0));
    assert_eq!(one(|q| q.kind = Some(EntityKind::Place)).await, (vec![], 0));
    assert_eq!(one(|q| q.kind = Some(EntityKind::Person)).await.1, 3);
    let (page, total) = one(|q| (q.limit, q.offset) = (2, 2)).await;
    assert_eq!((page.len(), total), (1, 3));
}

async fn paths(world: &World) {
    let ann = world.user(1).await;
    let pairs =
        [("A1", "B1"), ("C1", "B1"), ("C1", "D1"), ("A1", "E1"), ("E1", "D1"), ("X1", "Y1")];
    world.friends(&ann, &pairs).await;
    let id = |name: &str| EntityId::of(&ann, name);
    let path = async |from, to, hops| {
        let chain = world.graph.path(&id(from), &id(to), hops).await.unwrap()?;
        Some(chain.iter().map(|r| format!("{}-{}", r.subject.name, r.object.name)).collect())
    };
    let chain: Option<Vec<String>> = path("A1", "D1", 6).await;
    assert_eq!(chain, Some(vec!["A1-E1".into(), "E1-D1".into()]));
    assert_eq!(path("A1", "C1", 2).await, Some(vec!["A1-B1".into(), "C1-B1".into()]));
    assert_eq!(path("A1", "C1", 1).await, None, "it is two hops away");
    assert_eq!(path("A1", "Y1", 6).await, None, "nothing leads there");
    assert_eq!(path("A1", "A1", 6).await, Some(vec![]));
}

async fn forgotten(world: &World) {
    let ann = world.user(1).await;
    let memories = world.friends(&ann, &[("Max", "Zoe"), ("Max", "Tom")]).await;
    assert!(world.unread().await.is_empty());
    world.store.delete_memory(&memories[1].id, NOW).await.unwrap();
    assert_eq!(world.names(&ann, all()).await.0, ["Max", "Zoe"]);
    let max = EntityId::of(&ann, "Max");
    assert_eq!(world.graph.relations(&max, 10).await.unwrap().len(), 1);

    // One that changes is to be read again; what it said counts no more.
    let changed = MemoryChange::Update {
        id: memories[0].id.clone(),
        text: "Eva sings.".into(),
        vector: vec![0.0, 1.0],
    };
    let later = world.change(&ann, vec![changed]).await.remove(0);
    assert_eq!(world.names(&ann, all()).await.1, 0);
    assert_eq!(world.unread().await, ["Eva sings."]);
    // A reading of what it was before comes too late.
    world.graph.learn(&memories[0], &reading(&["Zoe"], &[])).await.unwrap();
    assert_eq!(world.names(&ann, all()).await.1, 0);
    world.graph.learn(&later, &reading(&["Eva"], &[])).await.unwrap();
    assert_eq!(world.names(&ann, all()).await.0, ["Eva"]);
    assert!(world.unread().await.is_empty());

    let with = UserData { conversations: true, memories: true };
    world.store.delete_user(&ann, with, None, NOW).await.unwrap();
    assert_eq!(world.names(&ann, all()).await.1, 0);
    assert!(world.graph.entity(&EntityId::of(&ann, "Eva")).await.unwrap().is_none());
}

async fn given_up(world: &World) {
    let ann = world.user(1).await;
    world.remember(&ann, &["Max sings.", "Zoe paints."]).await;
    let first = world.graph.unread(1).await.unwrap().remove(0);
    for _ in 0..4 {
        world.graph.failed(std::slice::from_ref(&first.id)).await.unwrap();
        let unread = world.unread().await;
        assert_eq!((unread.len(), &unread[1]), (2, &first.text), "it comes last");
    }
    world.graph.failed(std::slice::from_ref(&first.id)).await.unwrap();
    assert_eq!(world.unread().await.len(), 1);
}

async fn neighbours(world: &World) {
    let (ann, ben) = (world.user(1).await, world.user(2).await);
    let pairs = [("Max", "Zoe"), ("Max", "Tom"), ("Max", "Ida"), ("Zoe", "Eva"), ("Pia", "Leo")];
    let memories = world.friends(&ann, &pairs).await;
    world.friends(&ben, &[("Max", "Zoe")]).await;
    let near = async |memory: &Memory, limit| {
        let hits = std::slice::from_ref(&memory.id);
        world.graph.neighbours(&ann, hits, limit).await.unwrap()
    };
    let of_zoe = near(&memories[0], 10).await;
    assert_eq!(of_zoe.len(), 3, "those that speak of Max or Zoe");
    assert_eq!(of_zoe[0], memories[3].id, "fewer speak of Zoe than of Max");
    assert_eq!(near(&memories[0], 2).await, of_zoe[..2]);
    assert!(near(&memories[4], 10).await.is_empty());
    let none: &[MemoryId] = &[];
    assert!(world.graph.neighbours(&ann, none, 10).await.unwrap().is_empty());
    let hits = [memories[0].id.clone()];
    assert!(world.graph.neighbours(&ben, &hits, 10).await.unwrap().is_empty(), "of another user");
}

struct Sqlite;

impl Adapter for Sqlite {
    async fn graph(&self, store: &SqliteStore) -> Arc<dyn Graph> {
        Arc::new(SqliteGraph::new(store))
    }
}

#[tokio::test]
async fn sqlite() {
    suite(&mut Report::of("graph", "sqlite"), &Sqlite).await;
}

/// One database, in which all graphs are.
struct Database {
    server: Server,
}

/// A graph in the database of a server.
fn open(port: u16, store: &SqliteStore, key: &str) -> (Arc<Service>, Neo4jGraph) {
    let config = config::Neo4j {
        uri: format!("127.0.0.1:{port}"),
        user: "root".into(),
        password: Secret::new(key),
        database: "neo4j".into(),
        deadline: Interval::from_millis(DEADLINE.as_millis() as u64),
    };
    let (client, service) = (Client::new(&config, &remote()).unwrap(), service("neo4j"));
    (service.clone(), Neo4jGraph::new(Arc::new(store.clone()), service, client))
}

impl Adapter for Database {
    async fn graph(&self, store: &SqliteStore) -> Arc<dyn Graph> {
        Arc::new(open(self.server.port, store, KEY).1)
    }
}

#[tokio::test]
async fn neo4j() {
    let mut report = Report::of("graph", "neo4j (ArcadeDB)");
    let mut database = Database { server: Server::arcadedb() };
    suite(&mut report, &database).await;
    lost_and_changed_behind_its_back(&mut database).await;
    report.passed("what changed while it was away arrives");

    let world = database.world().await;
    let ann = world.user(1).await;
    world.friends(&ann, &[("Max", "Zoe")]).await;
    let (_, refused) = open(database.server.port, &world.store, "wrong");
    let error = refused.entities(&ann, &all()).await.unwrap_err();
    assert!(error.message().contains("neo4j.password"), "{}", error.report());
    report.passed("a wrong password is told, and what to correct");

    let proxy = Proxy::before(database.server.port).await;
    let (service, graph) = open(proxy.port, &world.store, KEY);
    let ask =
        async || graph.entities(&ann, &all()).await.map(|(found, _)| assert_eq!(found.len(), 2));
    faults::suite(&mut report, &mut database.server, &proxy, &service, ask).await;
}

async fn lost_and_changed_behind_its_back(database: &mut Database) {
    let world = database.world().await;
    let ann = world.user(1).await;
    let memories = world.friends(&ann, &[("Max", "Zoe"), ("Max", "Tom")]).await;
    database.server.kill();
    world.store.delete_memory(&memories[0].id, NOW).await.unwrap();
    world.remember(&ann, &["Ida paints."]).await;
    let error = world.graph.entities(&ann, &all()).await.unwrap_err();
    assert!(error.is_transient(), "{}", error.report());
    // The store is opened again meanwhile, and the graph with it.
    let World { store, graph, dir, number } = world;
    drop((store, graph));
    let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
    database.server.restart();
    let (service, graph) = open(database.server.port, &store, KEY);
    let world = World { store, graph: Arc::new(graph), dir, number };
    assert_eq!(world.unread().await, ["Ida paints."]);
    assert_eq!(world.names(&ann, all()).await.0, ["Max", "Tom"]);
    assert!(service.is_ready());

    // Another graph is used for a while.
    use friend_lite::store::{Follower, Outbox};
    world.store.follow_memories(Follower::Graph, None, false).await.unwrap();
    world.store.delete_memory(&memories[1].id, NOW).await.unwrap();
    let (_, graph) = open(database.server.port, &world.store, KEY);
    let world = World { graph: Arc::new(graph), ..world };
    assert_eq!(world.names(&ann, all()).await.1, 0);
    assert_eq!(world.unread().await, ["Ida paints."]);
}
