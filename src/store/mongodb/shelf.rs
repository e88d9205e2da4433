//! Memories that no list shows. Those of a set that is not active are put on the
//! shelf; and before a set changes or deletes a memory of another conversation,
//! the memory as it was goes there too, to come back if that set is put away.

use mongodb::bson::doc;

use super::changes::{self, Change};
use super::documents::{MemoryRow, Shelved};
use super::record::Record;
use super::schema::{CONVERSATIONS, MEMORIES, SHELF};
use super::tx::Tx;
use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::ids::{ConversationId, MemoryId};

/// The set of memories that a conversation made at one time.
pub(super) type Set<'a> = (&'a ConversationId, u32);

/// Keeps a memory as it is, before `change` is made by the set `by`.
pub(super) async fn keep(
    tx: &mut Tx,
    change: &Change,
    row: &MemoryRow,
    by: Option<Set<'_>>,
) -> Result<()> {
    let shelved = Shelved {
        number: change.number,
        by_conversation: by.map(|by| by.0.clone()),
        by_version: by.map(|by| by.1.into()),
        memory: row.clone(),
    };
    tx.insert(SHELF, &[shelved]).await
}

/// Forgets what is kept of a memory.
pub(super) async fn forget(tx: &mut Tx, id: &MemoryId) -> Result<()> {
    tx.remove(SHELF, doc! { "memory._id": id.as_str() }).await.map(drop)
}

/// Shows the memories of a set in place of those of the set that is active.
pub(super) async fn activate(
    tx: &mut Tx,
    record: &mut Record,
    version: u32,
    at: Timestamp,
) -> Result<()> {
    if record.active_set() == Some(version) {
        return Ok(());
    }
    deactivate(tx, record, at).await?;
    let set = record.set(version)?;
    set.active = true;
    for id in set.replaced.clone() {
        if let Some(row) = changes::find(tx, &id).await? {
            put_away(tx, &row, Some((&record.id, version)), at).await?;
        }
    }
    let own = doc! {
        "memory.conversation_id": record.id.as_str(),
        "memory.version": i64::from(version),
        "by_conversation": null,
    };
    for shelved in tx.all(SHELF, own, doc! { "_id": 1 }).await? {
        if changes::find(tx, &shelved.memory.listed.id).await?.is_none() {
            restore(tx, shelved, at).await?;
        }
    }
    Ok(())
}

/// Puts the memories of the active set away, and brings back what they had
/// replaced.
pub(super) async fn deactivate(tx: &mut Tx, record: &mut Record, at: Timestamp) -> Result<()> {
    let Some(version) = record.active_set() else { return Ok(()) };
    let own = doc! { "conversation_id": record.id.as_str() };
    for row in tx.all(MEMORIES, own, doc! { "seq": 1 }).await? {
        put_away(tx, &row, None, at).await?;
    }
    let mut back: Vec<MemoryId> = Vec::new();
    let replaced = doc! { "by_conversation": record.id.as_str(), "by_version": i64::from(version) };
    for shelved in tx.all(SHELF, replaced, doc! { "_id": -1 }).await? {
        let filter = doc! { "_id": shelved.number };
        if let Some(row) = changes::find(tx, &shelved.memory.listed.id).await? {
            // Somebody else has changed it since: from now on, this.
            let by = row.listed.conversation_id.as_ref().map(ConversationId::as_str);
            let by = doc! { "by_conversation": by, "by_version": row.listed.version };
            tx.change(SHELF, filter, doc! { "$set": by }).await?;
        } else if is_shown(tx, record, &shelved).await? {
            back.push(shelved.memory.listed.id.clone());
            restore(tx, shelved, at).await?;
        } else {
            let nobody = doc! { "by_conversation": null, "by_version": null };
            tx.change(SHELF, filter, doc! { "$set": nobody }).await?;
        }
    }
    let set = record.set(version)?;
    (set.active, set.replaced) = (false, back);
    Ok(())
}

/// Whether the set that a memory is from is active; `record` may be ahead of what
/// is written.
async fn is_shown(tx: &mut Tx, record: &Record, shelved: &Shelved) -> Result<bool> {
    let memory = &shelved.memory.listed;
    match &memory.conversation_id {
        None => Ok(true),
        Some(id) if *id == record.id => {
            Ok(record.active_set().map(i64::from) == Some(memory.version))
        }
        Some(id) => {
            let active = doc! { "$elemMatch": { "version": memory.version, "active": true } };
            tx.has(CONVERSATIONS, doc! { "_id": id.as_str(), "sets": active }).await
        }
    }
}

/// Puts a shown memory on the shelf.
async fn put_away(tx: &mut Tx, row: &MemoryRow, by: Option<Set<'_>>, at: Timestamp) -> Result<()> {
    let change = changes::change(tx).await?;
    keep(tx, &change, row, by).await?;
    changes::delete(tx, &change, row, at).await
}

/// Takes a memory from the shelf.
async fn restore(tx: &mut Tx, shelved: Shelved, at: Timestamp) -> Result<()> {
    tx.remove(SHELF, doc! { "_id": shelved.number }).await?;
    let change = changes::change(tx).await?;
    changes::show(tx, &change, shelved.memory, at).await
}
