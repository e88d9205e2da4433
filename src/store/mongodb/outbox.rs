//! What those who follow the memories have still to hear of. Its content is read when it is
//! told, so that each memory is told once, as it is.

use std::collections::HashMap;

use async_trait::async_trait;
use mongodb::bson::doc;

use super::MongoStore;
use super::changes::{self, change, find, show, take_numbers};
use super::documents::{MEMORIES_META, MemoryListed, MemoryRow, News};
use super::queue::find_record;
use super::record::Record;
use super::schema::{LISTED, MEMORIES, META, NEWS, USERS};
use super::tx::Tx;
use crate::base::error::Result;
use crate::domain::ids::MemoryId;
use crate::domain::memory::{IndexedMemory, MemoryNews};
use crate::store::vectors::from_blob;
use crate::store::{Follower, Outbox};

#[async_trait]
impl Outbox for MongoStore {
    async fn follow_memories(
        &self,
        follower: Follower,
        name: Option<&str>,
        anew: bool,
    ) -> Result<bool> {
        let follower = follower.as_str();
        let before = steps!(self, |tx| changes::meta(tx).await).await?;
        if before.followers.get(follower).map(String::as_str) == name && !anew {
            return Ok(false);
        }
        let field = format!("followers.{follower}");
        let update = match name {
            Some(name) => doc! { "$set": { field: name } },
            None => doc! { "$unset": { field: "" } },
        };
        transaction!(self, |tx| {
            tx.change(META, doc! { "_id": MEMORIES_META }, update.clone()).await?;
            tx.remove(NEWS, doc! { "follower": follower }).await?;
            if name.is_some() {
                let all = tx.all(LISTED, doc! {}, doc! { "seq": 1 }).await?;
                let many = i64::try_from(all.len()).unwrap_or(i64::MAX);
                let meta = take_numbers(tx, many).await?;
                let news: Vec<News> = (meta.number - many + 1..)
                    .zip(&all)
                    .map(|(number, row)| News::new(follower, &row.id, number))
                    .collect();
                tx.insert(NEWS, &news).await?;
            }
            Ok(true)
        })
        .await
    }

    async fn memory_news(&self, follower: Follower, limit: usize) -> Result<Vec<MemoryNews>> {
        let (filter, order) = (doc! { "follower": follower.as_str() }, doc! { "number": 1 });
        steps!(self, |tx| {
            let news = tx.page(NEWS, filter, order, 0, limit).await?;
            let ids: Vec<&str> = news.iter().map(|one| one.memory_id.as_str()).collect();
            let rows = tx.all(MEMORIES, doc! { "_id": { "$in": ids } }, doc! {}).await?;
            let mut rows: HashMap<MemoryId, MemoryRow> =
                rows.into_iter().map(|row| (row.listed.id.clone(), row)).collect();
            let tell = |one: News| MemoryNews {
                number: one.number,
                now: rows.remove(&one.memory_id).map(indexed),
                id: one.memory_id,
            };
            Ok(news.into_iter().map(tell).collect())
        })
        .await
    }

    async fn strike_memory_news(&self, follower: Follower, upto: i64) -> Result<()> {
        let told = doc! { "follower": follower.as_str(), "number": { "$lte": upto } };
        steps!(self, |tx| tx.remove(NEWS, told).await).await.map(drop)
    }

    async fn embedding_width(&self) -> Result<Option<usize>> {
        Ok(steps!(self, |tx| changes::meta(tx).await).await?.width())
    }

    async fn adopt_memories(&self, found: &[(MemoryId, IndexedMemory)]) -> Result<Vec<MemoryId>> {
        transaction!(self, |tx| {
            let mut kept = Vec::new();
            for (id, memory) in found {
                if find(tx, id).await?.is_some() || adopt(tx, id, memory).await? {
                    kept.push(id.clone());
                }
            }
            Ok(kept)
        })
        .await
    }
}

/// Notes what a follower is to hear of, in place of what was noted of the same
/// memory.
pub(super) async fn note(tx: &mut Tx, news: News) -> Result<()> {
    tx.put(NEWS, news.id.as_str(), &news).await
}

/// Notes that all who follow are to hear of those memories.
pub(super) async fn note_all<'a>(
    tx: &mut Tx,
    ids: impl Iterator<Item = &'a MemoryId>,
) -> Result<()> {
    let ids: Vec<&MemoryId> = ids.collect();
    let many = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    let meta = take_numbers(tx, many).await?;
    if meta.followers.is_empty() || ids.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    tx.remove(NEWS, doc! { "memory_id": { "$in": names } }).await?;
    for follower in meta.followers.keys() {
        let numbers = meta.number - many + 1..;
        let news: Vec<News> =
            numbers.zip(&ids).map(|(number, id)| News::new(follower, id, number)).collect();
        tx.insert(NEWS, &news).await?;
    }
    Ok(())
}

/// Adds a memory that the index has already; false when its user is not known.
async fn adopt(tx: &mut Tx, id: &MemoryId, memory: &IndexedMemory) -> Result<bool> {
    let added = insert(tx, id, memory).await?;
    if added {
        let known = doc! { "follower": Follower::Index.as_str(), "memory_id": id.as_str() };
        tx.remove(NEWS, known).await?;
    }
    Ok(added)
}

/// Adds a memory that others have made; false when its user is not known. It is of
/// the conversation that it names where its user has that.
pub(super) async fn insert(tx: &mut Tx, id: &MemoryId, memory: &IndexedMemory) -> Result<bool> {
    let user = doc! { "_id": memory.user_id.as_str() };
    if tx.change(USERS, user, doc! { "$inc": { "holds": 1_i64 } }).await? == 0 {
        return Ok(false);
    }
    let origin = match &memory.conversation_id {
        Some(id) => find_record(tx, id).await?.filter(|of| of.user_id == memory.user_id),
        None => None,
    };
    let change = change(tx).await?;
    let row = MemoryRow {
        listed: MemoryListed {
            id: id.clone(),
            seq: change.number,
            user_id: memory.user_id.clone(),
            text: memory.text.clone(),
            version: origin.as_ref().and_then(Record::active_set).map_or(1, i64::from),
            client_id: origin.as_ref().map(|origin| origin.client_id.clone()),
            conversation_id: origin.map(|origin| origin.id),
            prompt_version: String::new(),
            created_at: memory.created_at,
            updated_at: memory.updated_at,
        },
        vector: change.vector(&memory.vector)?,
    };
    show(tx, &change, row, memory.updated_at).await?;
    Ok(true)
}

fn indexed(row: MemoryRow) -> IndexedMemory {
    IndexedMemory {
        user_id: row.listed.user_id,
        text: row.listed.text,
        vector: from_blob(&row.vector.bytes),
        conversation_id: row.listed.conversation_id,
        created_at: row.listed.created_at,
        updated_at: row.listed.updated_at,
    }
}
