//! The vector index in Qdrant, a service of its own.
//!
//! The store has the memories, and notes each change of one until it has arrived
//! here ([`Outbox`](crate::store::Outbox)). Whoever asks for neighbours first has
//! the changes that wait taken in, so that nobody is shown what was forgotten or
//! learns twice what was learned a moment ago; nothing but the time it takes
//! tells the index from one in the store's own database.
//!
//! A collection that is not there is made; one that is there is used as it is,
//! or refused. Points that others have put there, such as mem0's, are never taken
//! away: those that are memories of known users become memories of the store.

mod client;
mod found;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{Distance, PointId, PointStruct, Value, VectorParams};
use tokio::sync::Semaphore;

pub use self::client::Client;
use super::{Index, other_width};
use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::ids::{MemoryId, UserId};
use crate::domain::memory::{IndexedMemory, MemoryNews};
use crate::remote::{Fault, Phase, Service};
use crate::store::{Follower, Store, name_of};

/// Changes told in one request.
const BATCH: usize = 256;
/// Points looked at in one request.
const PAGE: u32 = 256;
/// In place of a width: the store has no vectors, and nothing was found for it.
const NOTHING: usize = usize::MAX;

/// The memories of a store in a collection of Qdrant.
pub struct QdrantIndex {
    store: Arc<dyn Store>,
    service: Arc<Service>,
    client: Client,
    /// Where the points are, and so who follows the store.
    place: String,
    /// The model that makes vectors.
    model: String,
    /// The width that the collection has been found to have; 0 before.
    prepared: AtomicUsize,
    /// One at a time tells of changes: an older one must not arrive last.
    turn: Semaphore,
}

impl QdrantIndex {
    /// The index of `store` at `client`, for vectors of the embedding model
    /// `model`. Nothing is asked yet.
    pub fn new(
        store: Arc<dyn Store>,
        service: Arc<Service>,
        client: Client,
        model: impl Into<String>,
    ) -> Self {
        let (place, model) = (client.place(), model.into());
        let (prepared, turn) = (AtomicUsize::new(0), Semaphore::new(1));
        Self { store, service, client, place, model, prepared, turn }
    }

    /// Tells of the next changes; whether there are more.
    async fn tell(&self) -> Result<bool> {
        let turn = self.turn.acquire().await;
        let _turn = turn.context(Kind::Internal, "nobody closes it")?;
        let width = match self.store.embedding_width().await? {
            Some(width) => Some(width),
            None => self.look().await?,
        };
        // No vector, no memory.
        let Some(width) = width else { return Ok(false) };
        self.prepare(width).await?;
        let news = self.store.memory_news(Follower::Index, BATCH).await?;
        let Some(last) = news.last().map(|one| one.number) else { return Ok(false) };
        let more = news.len() == BATCH;
        let name = name_of(self.store.as_ref()).await?;
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for MemoryNews { id, now, .. } in news {
            match now {
                Some(memory) => put.push(point(&id, memory, &name)),
                None => gone.push(point_id(&id)),
            }
        }
        if !put.is_empty() {
            self.ask(|| self.client.put(put.clone())).await?;
        }
        if !gone.is_empty() {
            self.ask(|| self.client.delete(gone.clone())).await?;
        }
        self.store.strike_memory_news(Follower::Index, last).await?;
        Ok(more)
    }

    /// Looks once for memories that others have left, while the store has none
    /// yet; the width of their vectors. They are taken to be of the model that is
    /// configured now.
    async fn look(&self) -> Result<Option<usize>> {
        if self.prepared.load(Ordering::Relaxed) == NOTHING {
            return Ok(None);
        }
        if let Some(Some(vectors)) = self.ask(|| self.client.vectors()).await? {
            let (first, _) = self.ask(|| self.client.page(None, None, 1, false)).await?;
            let width = usize::try_from(vectors.size).unwrap_or(usize::MAX);
            if !first.is_empty() {
                self.check(Some(&vectors), width)?;
                self.store.bind_embedding(&self.model, width).await?;
                return Ok(Some(width));
            }
        }
        self.prepared.store(NOTHING, Ordering::Relaxed);
        Ok(None)
    }

    /// Sees to it that there is a collection for vectors `width` wide, and that
    /// the store notes its changes for it.
    async fn prepare(&self, width: usize) -> Result<()> {
        if self.prepared.load(Ordering::Relaxed) == width {
            return Ok(());
        }
        match self.ask(|| self.client.vectors()).await? {
            Some(vectors) => {
                self.check(vectors.as_ref(), width)?;
                if self.store.follow_memories(Follower::Index, Some(&self.place), false).await? {
                    self.tidy().await?;
                }
                self.adopt().await?;
            }
            None => {
                // First: an empty collection is one that everything waits for.
                self.store.follow_memories(Follower::Index, Some(&self.place), true).await?;
                match self.ask(|| self.client.create(width)).await {
                    // Another daemon has made it meanwhile.
                    Err(error) if error.kind() == Kind::Conflict => {}
                    made => made?,
                }
            }
        }
        self.ask(|| self.client.index_users()).await?;
        self.prepared.store(width, Ordering::Relaxed);
        Ok(())
    }

    fn check(&self, vectors: Option<&VectorParams>, width: usize) -> Result<()> {
        let name = self.client.collection();
        let wrong = |what: String| {
            let remedy = "run `friend-lite reindex`, or name another in qdrant.collection";
            Err(Error::new(Kind::Conflict, format!("qdrant's collection {name} {what}; {remedy}")))
        };
        match vectors {
            None => wrong("has several vectors to a point, which memories have not".into()),
            Some(vectors) if vectors.size != width as u64 => wrong(format!(
                "holds vectors {} wide, and those of the memories are {width} wide",
                vectors.size
            )),
            Some(vectors) if vectors.distance != Distance::Cosine as i32 => {
                wrong("does not compare by cosine".into())
            }
            Some(_) => Ok(()),
        }
    }

    /// Takes out points of memories that were forgotten while the store did not
    /// note it for this index.
    async fn tidy(&self) -> Result<()> {
        let name = name_of(self.store.as_ref()).await?;
        let mut from = None;
        loop {
            let (points, next) =
                self.ask(|| self.client.page(Some(&name), from.clone(), PAGE, false)).await?;
            let ids: Vec<MemoryId> =
                points.into_iter().filter_map(|point| client::memory(point.id?)).collect();
            let known = self.store.memories_by_id(&ids).await?;
            let stale = ids.iter().filter(|id| !known.iter().any(|memory| memory.id == **id));
            let stale: Vec<PointId> = stale.map(point_id).collect();
            if !stale.is_empty() {
                self.ask(|| self.client.delete(stale.clone())).await?;
            }
            if next.is_none() {
                return Ok(());
            }
            from = next;
        }
    }

    /// Makes memories of the points that no store has put there, where they are
    /// some; the points stay as they are.
    async fn adopt(&self) -> Result<()> {
        let name = name_of(self.store.as_ref()).await?;
        let (mut adopted, mut left, mut from) = (0, 0, None);
        loop {
            let (points, next) =
                self.ask(|| self.client.page(None, from.clone(), PAGE, true)).await?;
            left += points.len();
            let found: Vec<_> = points.into_iter().filter_map(found::memory).collect();
            let kept = self.store.adopt_memories(&found).await?;
            let mut by_user: HashMap<UserId, Vec<PointId>> = HashMap::new();
            for (id, memory) in found.into_iter().filter(|(id, _)| kept.contains(id)) {
                by_user.entry(memory.user_id).or_default().push(point_id(&id));
            }
            for (user, ids) in by_user {
                self.ask(|| self.client.mark(ids.clone(), &name, &user)).await?;
            }
            (adopted, left) = (adopted + kept.len(), left - kept.len());
            if next.is_none() {
                break;
            }
            from = next;
        }
        if adopted > 0 {
            tracing::info!(adopted, left, "found memories in qdrant that the store did not have");
        }
        Ok(())
    }

    /// What Qdrant answers. A collection that is gone is made again by the next
    /// to ask.
    async fn ask<T, F>(&self, request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        match self.service.call(request).await {
            Err(error) if error.kind() == Kind::NotFound => {
                self.prepared.store(0, Ordering::Relaxed);
                let message = "qdrant has lost its collection, which is made again";
                Err(Error::new(Kind::Away, message).with_source(error))
            }
            answer => answer,
        }
    }
}

#[async_trait]
impl Index for QdrantIndex {
    async fn nearest(
        &self,
        user: &UserId,
        vector: &[f32],
        k: usize,
    ) -> Result<Vec<(MemoryId, f32)>> {
        let Some(width) = self.store.embedding_width().await? else { return Ok(Vec::new()) };
        if vector.len() != width {
            return Err(other_width(width, vector.len()));
        }
        if k == 0 {
            return Ok(Vec::new());
        }
        if self.tell().await? {
            let message = "qdrant is being brought up to date; try again in a moment";
            return Err(Error::new(Kind::Away, message));
        }
        self.ask(|| self.client.nearest(user, vector.to_vec(), k)).await
    }

    fn is_ready(&self) -> bool {
        self.service.is_ready()
    }

    async fn catch_up(&self) -> Result<()> {
        while self.tell().await? {}
        // With nothing to tell, whether it is back shows when it is asked.
        if self.service.standing().phase != Phase::Closed {
            self.ask(|| self.client.vectors()).await?;
        }
        Ok(())
    }

    async fn renew(&self) -> Result<()> {
        if self.ask(|| self.client.vectors()).await?.is_some() {
            let name = name_of(self.store.as_ref()).await?;
            let strangers = self.ask(|| self.client.strangers(&name)).await?;
            if strangers > 0 {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "qdrant's collection {} holds {strangers} points that are not from here, \
                         and stays as it is; name another in qdrant.collection",
                        self.client.collection()
                    ),
                ));
            }
            self.ask(|| self.client.remove()).await?;
        }
        self.prepared.store(0, Ordering::Relaxed);
        self.catch_up().await
    }
}

fn point_id(id: &MemoryId) -> PointId {
    PointIdOptions::Uuid(id.to_string()).into()
}

/// A memory in the payload that mem0 gives it, and whose it is to tidy.
fn point(id: &MemoryId, memory: IndexedMemory, store: &str) -> PointStruct {
    let payload: [(&str, Value); 5] = [
        (client::USER, memory.user_id.to_string().into()),
        (found::TEXT, memory.text.into()),
        (found::CREATED, memory.created_at.to_rfc3339().into()),
        (found::UPDATED, memory.updated_at.to_rfc3339().into()),
        (client::STORE, store.to_owned().into()),
    ];
    PointStruct::new(point_id(id), memory.vector, payload)
}
