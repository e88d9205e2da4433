//! Memories, with their history. The index of words is the server's; vectors are
//! kept with their memories and compared one by one.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use mongodb::bson::{Binary, Document, doc};

use super::changes::{Changes, binary, bind, change, delete, find, meta};
use super::queue::{complete, find_record, hold_user, record, save, windows_of};
use super::record::Record;
use super::schema::{HISTORY, LISTED, MEMORIES, SHELF};
use super::tx::Tx;
use super::{MongoStore, outbox, shelf};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::Progress;
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::job::{JobKind, Lease, Payload};
use crate::domain::memory::{Learned, Memory, MemoryHistory};
use crate::store::Memories;
use crate::store::vectors::{added_meanwhile, check, other_model};
use crate::store::words::words;

#[async_trait]
impl Memories for MongoStore {
    async fn complete_memories(
        &self,
        lease: Lease,
        id: &ConversationId,
        learned: &Learned,
        at: Timestamp,
    ) -> Result<()> {
        transaction!(self, |tx| {
            complete(tx, lease, JobKind::Remember, Payload::Conversation(id.clone()), at).await?;
            let mut record = record(tx, id).await?;
            let version = record.pending_set().ok_or_else(|| {
                Error::new(Kind::Conflict, "no memories of this conversation are awaited")
            })?;
            shelf::deactivate(tx, &mut record, at).await?;
            let user = record.user_id.clone();
            let origin = Some((&record, version));
            let changes = Changes { user: &user, origin, learned, at };
            for change in &learned.changes {
                changes.apply(tx, change).await?;
            }

            let set = record.set(version)?;
            set.active = true;
            set.state = match learned.changes.is_empty() {
                true => Progress::Empty,
                false => Progress::Completed,
            };
            set.model = Some(learned.model.clone());
            set.prompt_version = Some(learned.prompt_version.clone());
            set.completed_at = Some(at);
            if learned.title.is_some() {
                record.title.clone_from(&learned.title);
            }
            record.summary.clone_from(&learned.summary);
            record.mirror();
            let windows = windows_of(tx, id).await?;
            record.clear_error(&windows);
            save(tx, &mut record).await
        })
        .await
    }

    async fn add_memories(
        &self,
        user: &UserId,
        learned: &Learned,
        at: Timestamp,
    ) -> Result<Vec<MemoryId>> {
        transaction!(self, |tx| {
            hold_user(tx, user).await?;
            let changes = Changes { user, origin: None, learned, at };
            let mut changed = Vec::new();
            for change in &learned.changes {
                changed.extend(changes.apply(tx, change).await?);
            }
            Ok(changed)
        })
        .await
    }

    async fn memories(&self, user: &UserId, limit: usize) -> Result<Vec<Memory>> {
        self.listed(doc! { "user_id": user.as_str() }, newest(), limit).await
    }

    async fn all_memories(&self, limit: usize) -> Result<Vec<Memory>> {
        self.listed(doc! {}, newest(), limit).await
    }

    async fn replaced_memories(&self, id: &ConversationId) -> Result<Vec<Memory>> {
        steps!(self, |tx| {
            let record = find_record(tx, id).await?;
            let Some(active) = record.and_then(|record| record.active_set()) else {
                return Ok(Vec::new());
            };
            let by = doc! { "by_conversation": id.as_str(), "by_version": i64::from(active) };
            let replaced = tx.all(SHELF, by, doc! { "_id": 1 }).await?;
            Ok(replaced.into_iter().map(|shelved| shelved.memory.listed.into()).collect())
        })
        .await
    }

    async fn memory_count(&self, user: &UserId) -> Result<u64> {
        let filter = doc! { "user_id": user.as_str() };
        steps!(self, |tx| tx.count(MEMORIES, filter).await).await
    }

    async fn conversation_memories(&self, id: &ConversationId) -> Result<Vec<Memory>> {
        let filter = doc! { "conversation_id": id.as_str() };
        self.listed(filter, doc! { "created_at": 1, "seq": 1 }, usize::MAX).await
    }

    async fn memory(&self, id: &MemoryId) -> Result<Option<Memory>> {
        let filter = doc! { "_id": id.as_str() };
        Ok(self.listed(filter, doc! {}, 1).await?.into_iter().next())
    }

    async fn memories_by_id(&self, ids: &[MemoryId]) -> Result<Vec<Memory>> {
        let wanted: Vec<&str> = ids.iter().map(MemoryId::as_str).collect();
        let found = self.listed(doc! { "_id": { "$in": wanted } }, doc! {}, usize::MAX).await?;
        let found: HashMap<MemoryId, Memory> =
            found.into_iter().map(|memory| (memory.id.clone(), memory)).collect();
        Ok(ids.iter().filter_map(|id| found.get(id).cloned()).collect())
    }

    async fn delete_memory(&self, id: &MemoryId, at: Timestamp) -> Result<bool> {
        transaction!(self, |tx| {
            let Some(row) = find(tx, id).await? else { return Ok(false) };
            let change = change(tx).await?;
            delete(tx, &change, &row, at).await?;
            shelf::forget(tx, id).await.map(|()| true)
        })
        .await
    }

    async fn delete_memories(&self, user: &UserId, at: Timestamp) -> Result<usize> {
        let of_user = doc! { "user_id": user.as_str() };
        transaction!(self, |tx| {
            let rows = tx.all(MEMORIES, of_user.clone(), doc! { "seq": 1 }).await?;
            for row in &rows {
                let change = change(tx).await?;
                delete(tx, &change, row, at).await?;
            }
            tx.remove(SHELF, doc! { "memory.user_id": user.as_str() }).await?;
            Ok(rows.len())
        })
        .await
    }

    async fn search_text(&self, user: &UserId, query: &str, limit: usize) -> Result<Vec<MemoryId>> {
        // Words side by side are looked for each by itself.
        let words = words(query).join(" ");
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let filter = doc! { "user_id": user.as_str(), "$text": { "$search": words } };
        let best = doc! { "score": { "$meta": "textScore" }, "seq": -1 };
        Ok(self.listed(filter, best, limit).await?.into_iter().map(|memory| memory.id).collect())
    }

    async fn memory_history(&self, id: &MemoryId) -> Result<Vec<MemoryHistory>> {
        let (filter, order) = (doc! { "memory_id": id.as_str() }, doc! { "_id": 1 });
        let found = steps!(self, |tx| tx.all(HISTORY, filter, order).await).await?;
        Ok(found.into_iter().map(MemoryHistory::from).collect())
    }

    async fn bind_embedding(&self, model: &str, width: usize) -> Result<()> {
        transaction!(self, |tx| {
            let meta = meta(tx).await?;
            match (meta.model.as_deref(), meta.width()) {
                (Some(known), Some(wide)) if (known, wide) == (model, width) => Ok(()),
                (Some(known), Some(wide)) => Err(other_model((known, wide), (model, width))),
                _ => bind(tx, model, width).await,
            }
        })
        .await
    }

    async fn memory_texts(&self) -> Result<Vec<String>> {
        steps!(self, |tx| {
            let listed = tx.all(LISTED, doc! {}, doc! {}).await?;
            let shelved = tx.all(SHELF, doc! {}, doc! {}).await?;
            let shelved = shelved.into_iter().map(|one| one.memory.listed.text);
            let texts = listed.into_iter().map(|memory| memory.text).chain(shelved);
            let texts: HashSet<String> = texts.collect();
            let mut texts: Vec<String> = texts.into_iter().collect();
            texts.sort();
            Ok(texts)
        })
        .await
    }

    async fn replace_embeddings(
        &self,
        model: &str,
        width: usize,
        embeddings: HashMap<String, Vec<f32>>,
    ) -> Result<()> {
        let vector_of = |text: &str| -> Result<Binary> {
            let vector = embeddings.get(text).ok_or_else(added_meanwhile)?;
            check(vector, width)?;
            Ok(binary(vector))
        };
        transaction!(self, |tx| {
            bind(tx, model, width).await?;
            let shown = tx.all(LISTED, doc! {}, doc! { "seq": 1 }).await?;
            let mut updates = Vec::new();
            for row in &shown {
                let vector = vector_of(&row.text)?;
                let update = doc! { "$set": { "vector": vector } };
                updates.push((doc! { "_id": row.id.as_str() }, update));
            }
            tx.change_each(MEMORIES, updates).await?;
            let mut updates = Vec::new();
            for row in tx.all(SHELF, doc! {}, doc! { "_id": 1 }).await? {
                let vector = vector_of(&row.memory.listed.text)?;
                let update = doc! { "$set": { "memory.vector": vector } };
                updates.push((doc! { "_id": row.number }, update));
            }
            tx.change_each(SHELF, updates).await?;
            outbox::note_all(tx, shown.iter().map(|row| &row.id)).await
        })
        .await
    }
}

impl MongoStore {
    async fn listed(&self, filter: Document, order: Document, limit: usize) -> Result<Vec<Memory>> {
        let found = steps!(self, |tx| tx.page(LISTED, filter, order, 0, limit).await).await?;
        Ok(found.into_iter().map(Memory::from).collect())
    }
}

fn newest() -> Document {
    doc! { "created_at": -1, "seq": -1 }
}

/// Forgets the memories of a conversation for good, in all their versions and
/// with their history; what they had replaced comes back. How many were shown.
pub(super) async fn forget_of_conversation(
    tx: &mut Tx,
    record: &mut Record,
    at: Timestamp,
) -> Result<u64> {
    let id = record.id.clone();
    let shown = tx.count(MEMORIES, doc! { "conversation_id": id.as_str() }).await?;
    shelf::deactivate(tx, record, at).await?;
    purge(tx, doc! { "conversation_id": id.as_str() }).await?;
    let of_it = doc! { "memory.conversation_id": id.as_str() };
    for shelved in tx.all(SHELF, of_it.clone(), doc! {}).await? {
        let memory = shelved.memory.listed.id;
        if !tx.has(MEMORIES, doc! { "_id": memory.as_str() }).await? {
            tx.remove(HISTORY, doc! { "memory_id": memory.as_str() }).await?;
        }
    }
    tx.remove(SHELF, of_it).await?;
    Ok(shown)
}

/// Forgets all memories of a user for good; how many were shown.
pub(super) async fn forget_of_user(tx: &mut Tx, id: &UserId) -> Result<u64> {
    let shown = purge(tx, doc! { "user_id": id.as_str() }).await?;
    tx.remove(SHELF, doc! { "memory.user_id": id.as_str() }).await?;
    tx.remove(HISTORY, doc! { "user_id": id.as_str() }).await?;
    Ok(shown)
}

/// Deletes memories with their history; how many.
async fn purge(tx: &mut Tx, which: Document) -> Result<u64> {
    let found = tx.all(LISTED, which.clone(), doc! {}).await?;
    let ids: Vec<&str> = found.iter().map(|row| row.id.as_str()).collect();
    tx.remove(HISTORY, doc! { "memory_id": { "$in": ids } }).await?;
    outbox::note_all(tx, found.iter().map(|row| &row.id)).await?;
    tx.remove(MEMORIES, which).await
}

/// Lets memories outlive the conversations that they came from.
pub(super) async fn outlive(tx: &mut Tx, conversations: &[&str]) -> Result<()> {
    let of_them = doc! { "conversation_id": { "$in": conversations } };
    let alone = doc! { "$set": { "conversation_id": null } };
    tx.change(MEMORIES, of_them, alone).await?;
    let shelved = doc! { "$or": [
        { "memory.conversation_id": { "$in": conversations } },
        { "by_conversation": { "$in": conversations } },
    ] };
    tx.remove(SHELF, shelved).await.map(drop)
}
