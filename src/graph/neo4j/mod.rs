//! The graph in Neo4j, or another server that speaks Bolt and Cypher.
//!
//! The store has the memories, and notes each change of one until it has arrived
//! here ([`Outbox`](crate::store::Outbox)), as a node that is to be read. What is
//! read from it are entities that it mentions and relations between them, which
//! say which memory they are from. Whoever asks first has the changes that wait
//! taken in. All nodes have labels that no other program gives, so that a database
//! may be shared.

mod client;
mod cypher;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use neo4rs::Query;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

pub use self::client::Client;
use super::{EntityQuery, Graph, MAX_ATTEMPTS};
use crate::base::clock::Timestamp;
use crate::base::error::{Context, Kind, Result};
use crate::domain::graph::{End, Entity, EntityKind, Reading, Relation};
use crate::domain::ids::{EntityId, MemoryId, UserId};
use crate::domain::memory::{IndexedMemory, Memory};
use crate::remote::{Fault, Phase, Service};
use crate::store::{Follower, Store, name_of};

/// Changes told in one request.
const BATCH: usize = 256;

/// The graph of a store's memories in a database of Neo4j.
pub struct Neo4jGraph {
    store: Arc<dyn Store>,
    service: Arc<Service>,
    client: Client,
    prepared: AtomicBool,
    /// One at a time tells of changes: an older one must not arrive last.
    turn: Semaphore,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
struct Known {
    id: String,
    text: String,
}

#[derive(Deserialize)]
struct Count {
    count: i64,
}

#[derive(Deserialize)]
struct Seen {
    id: String,
    user: String,
    name: String,
    kind: String,
    first: i64,
    last: i64,
}

#[derive(Deserialize)]
struct Stated {
    subject: String,
    subject_name: String,
    predicate: String,
    object: String,
    object_name: String,
    memory: String,
}

impl From<Stated> for Relation {
    fn from(stated: Stated) -> Self {
        let end = |id: String, name| End { id: EntityId::from_text(id), name };
        Self {
            subject: end(stated.subject, stated.subject_name),
            predicate: stated.predicate,
            object: end(stated.object, stated.object_name),
            memory_id: MemoryId::from_text(stated.memory),
        }
    }
}

impl From<Seen> for Entity {
    fn from(seen: Seen) -> Self {
        Self {
            id: EntityId::from_text(seen.id),
            user_id: UserId::from_text(seen.user),
            name: seen.name,
            kind: EntityKind::from_name(&seen.kind).unwrap_or(EntityKind::Thing),
            first_seen: Timestamp::from_millis(seen.first),
            last_seen: Timestamp::from_millis(seen.last),
        }
    }
}

fn ids(found: Vec<Id>) -> Vec<MemoryId> {
    found.into_iter().map(|one| MemoryId::from_text(one.id)).collect()
}

impl Neo4jGraph {
    /// The graph of `store` at `client`. Nothing is asked yet.
    pub fn new(store: Arc<dyn Store>, service: Arc<Service>, client: Client) -> Self {
        let (prepared, turn) = (AtomicBool::new(false), Semaphore::new(1));
        Self { store, service, client, prepared, turn }
    }

    /// Tells of the next changes; whether there are more.
    async fn tell(&self) -> Result<bool> {
        let turn = self.turn.acquire().await;
        let _turn = turn.context(Kind::Internal, "nobody closes it")?;
        let store = name_of(self.store.as_ref()).await?;
        self.prepare(&store).await?;
        let news = self.store.memory_news(Follower::Graph, BATCH).await?;
        let Some(last) = news.last().map(|one| one.number) else { return Ok(false) };
        let more = news.len() == BATCH;
        let all: Vec<MemoryId> = news.iter().map(|one| one.id.clone()).collect();
        let known: Vec<Known> = self.rows(&cypher::texts(&all)).await?;
        let known: HashMap<String, String> =
            known.into_iter().map(|one| (one.id, one.text)).collect();
        let (mut fresh, mut same, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for one in news {
            match one.now {
                Some(now) if known.get(one.id.as_str()) == Some(&now.text) => {
                    same.push((one.id, now));
                }
                Some(now) => fresh.push((one.id, now)),
                None => gone.push(one.id),
            }
        }
        self.take_in(&store, &fresh, &same, &gone).await?;
        self.store.strike_memory_news(Follower::Graph, last).await?;
        Ok(more)
    }

    /// Takes in memories that are `fresh` or say something else now, those that
    /// say the `same`, and what is `gone`.
    async fn take_in(
        &self,
        store: &str,
        fresh: &[(MemoryId, IndexedMemory)],
        same: &[(MemoryId, IndexedMemory)],
        gone: &[MemoryId],
    ) -> Result<()> {
        let unsaid: Vec<MemoryId> = fresh.iter().map(|(id, _)| id).chain(gone).cloned().collect();
        let spoken_of: Vec<Id> = self.rows(&cypher::mentioned_by(&unsaid)).await?;
        let mut changes = cypher::unsay(&unsaid).to_vec();
        changes.push(cypher::put(store, same, false));
        changes.push(cypher::put(store, fresh, true));
        changes.push(cypher::remove_memories(gone));
        changes.push(cypher::remove_unmentioned(&texts(spoken_of)));
        self.change(&changes).await
    }

    /// Sees to it that what is needed is there, and that the store notes its
    /// changes for it.
    async fn prepare(&self, store: &str) -> Result<()> {
        if self.prepared.load(Ordering::Relaxed) {
            return Ok(());
        }
        for statement in cypher::PREPARE {
            let _: Vec<Id> = self.rows(&Query::new((*statement).into())).await?;
        }
        let anew: Vec<Count> = self.rows(&cypher::count(store)).await?;
        // An empty one has lost what it was told.
        let anew = anew.first().is_none_or(|counted| counted.count == 0);
        if self.store.follow_memories(Follower::Graph, Some(self.client.place()), anew).await? {
            self.tidy(store).await?;
        }
        self.prepared.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Takes out memories that were forgotten while the store did not note it for
    /// this graph.
    async fn tidy(&self, store: &str) -> Result<()> {
        let mut after = String::new();
        loop {
            let page: Vec<Id> = self.rows(&cypher::page(store, &after, BATCH)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.id);
            let page = ids(page);
            let known = self.store.memories_by_id(&page).await?;
            let gone: Vec<MemoryId> = page
                .into_iter()
                .filter(|id| !known.iter().any(|memory| memory.id == *id))
                .collect();
            if !gone.is_empty() {
                self.take_in(store, &[], &[], &gone).await?;
            }
        }
    }

    async fn rows<T: DeserializeOwned>(&self, query: &Query) -> Result<Vec<T>> {
        self.ask(|| self.client.rows(query.clone())).await
    }

    async fn change(&self, changes: &[Query]) -> Result<()> {
        self.ask(|| self.client.change(changes.to_vec())).await
    }

    async fn ask<T, F>(&self, request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let answer = self.service.call(request).await;
        if answer.is_err() {
            // It may come back with nothing in it.
            self.prepared.store(false, Ordering::Relaxed);
        }
        answer
    }
}

fn texts(found: Vec<Id>) -> Vec<String> {
    found.into_iter().map(|one| one.id).collect()
}

#[async_trait]
impl Graph for Neo4jGraph {
    async fn unread(&self, limit: usize) -> Result<Vec<Memory>> {
        self.catch_up().await?;
        let store = name_of(self.store.as_ref()).await?;
        let found = self.rows(&cypher::unread(&store, MAX_ATTEMPTS, limit)).await?;
        self.store.memories_by_id(&ids(found)).await
    }

    async fn learn(&self, memory: &Memory, reading: &Reading) -> Result<()> {
        self.catch_up().await?;
        let store = name_of(self.store.as_ref()).await?;
        let id = std::slice::from_ref(&memory.id);
        let spoken_of: Vec<Id> = self.rows(&cypher::mentioned_by(id)).await?;
        let mut changes = cypher::learn(&store, memory, reading);
        changes.push(cypher::remove_unmentioned(&texts(spoken_of)));
        self.change(&changes).await
    }

    async fn failed(&self, memories: &[MemoryId]) -> Result<()> {
        self.change(&[cypher::failed(memories)]).await
    }

    async fn entities(&self, user: &UserId, query: &EntityQuery) -> Result<(Vec<Entity>, u64)> {
        self.catch_up().await?;
        let total: Vec<Count> = self.rows(&cypher::count_entities(user, query)).await?;
        let total = total.first().map_or(0, |counted| counted.count.unsigned_abs());
        let page: Vec<Seen> = self.rows(&cypher::entities(user, query)).await?;
        Ok((page.into_iter().map(Entity::from).collect(), total))
    }

    async fn entity(&self, id: &EntityId) -> Result<Option<Entity>> {
        self.catch_up().await?;
        let found: Vec<Seen> = self.rows(&cypher::entity(id)).await?;
        Ok(found.into_iter().next().map(Entity::from))
    }

    async fn relations(&self, id: &EntityId, limit: usize) -> Result<Vec<Relation>> {
        self.catch_up().await?;
        let found: Vec<Stated> = self.rows(&cypher::relations(id, limit)).await?;
        Ok(found.into_iter().map(Relation::from).collect())
    }

    async fn memories(&self, id: &EntityId, limit: usize) -> Result<Vec<Memory>> {
        self.catch_up().await?;
        let found = self.rows(&cypher::memories(id, limit)).await?;
        self.store.memories_by_id(&ids(found)).await
    }

    async fn path(
        &self,
        from: &EntityId,
        to: &EntityId,
        hops: usize,
    ) -> Result<Option<Vec<Relation>>> {
        if from == to {
            return Ok(Some(Vec::new()));
        }
        self.catch_up().await?;
        let found: Vec<Stated> = self.rows(&cypher::path(from, to, hops)).await?;
        Ok((!found.is_empty()).then(|| found.into_iter().map(Relation::from).collect()))
    }

    async fn neighbours(
        &self,
        user: &UserId,
        memories: &[MemoryId],
        limit: usize,
    ) -> Result<Vec<MemoryId>> {
        self.catch_up().await?;
        Ok(ids(self.rows(&cypher::neighbours(user, memories, limit)).await?))
    }

    async fn catch_up(&self) -> Result<()> {
        while self.tell().await? {}
        // With nothing to tell, whether it is back shows when it is asked.
        if self.service.standing().phase != Phase::Closed {
            self.ask(|| self.client.check()).await?;
        }
        Ok(())
    }
}
