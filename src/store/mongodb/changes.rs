//! Changes of memories, each with its number, its line of history, and its note
//! for those outside who follow them.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, doc};

use super::documents::{HistoryRow, MEMORIES_META, MemoryListed, MemoryRow, Meta, News};
use super::record::Record;
use super::schema::{HISTORY, MEMORIES, META};
use super::tx::Tx;
use super::{outbox, shelf};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::ids::{MemoryId, UserId};
use crate::domain::memory::{Learned, MemoryChange, MemoryEvent};
use crate::store::vectors::{WIDEST, check, not_bound, to_blob, unusable};

/// What was learned of a user, on its way into the store.
pub(super) struct Changes<'a> {
    pub(super) user: &'a UserId,
    /// The conversation that taught it, and which set of its memories it makes.
    pub(super) origin: Option<(&'a Record, u32)>,
    pub(super) learned: &'a Learned,
    pub(super) at: Timestamp,
}

impl Changes<'_> {
    /// Applies a change; the memory that is new or says more.
    pub(super) async fn apply(
        &self,
        tx: &mut Tx,
        change: &MemoryChange,
    ) -> Result<Option<MemoryId>> {
        match change {
            MemoryChange::Add { text, vector } => self.add(tx, text, vector).await.map(Some),
            MemoryChange::Update { id, text, vector } => match self.own(tx, id).await? {
                Some(row) => {
                    self.update(tx, &row, text, vector).await?;
                    Ok(Some(id.clone()))
                }
                // Deleted since it was decided; the fact is no less new.
                None => self.add(tx, text, vector).await.map(Some),
            },
            MemoryChange::Delete { id } => {
                if let Some(row) = self.own(tx, id).await? {
                    let change = self::change(tx).await?;
                    self.keep(tx, &change, &row).await?;
                    delete(tx, &change, &row, self.at).await?;
                }
                Ok(None)
            }
        }
    }

    /// The row of a memory. `Forbidden` when it is somebody else's.
    async fn own(&self, tx: &mut Tx, id: &MemoryId) -> Result<Option<MemoryRow>> {
        let row = find(tx, id).await?;
        match &row {
            Some(row) if row.listed.user_id != *self.user => {
                Err(Error::new(Kind::Forbidden, "this memory belongs to another user"))
            }
            _ => Ok(row),
        }
    }

    /// Keeps a memory as it is, to come back should the set be put away.
    async fn keep(&self, tx: &mut Tx, change: &Change, row: &MemoryRow) -> Result<()> {
        match self.origin {
            Some((record, version)) => {
                shelf::keep(tx, change, row, Some((&record.id, version))).await
            }
            None => Ok(()),
        }
    }

    async fn add(&self, tx: &mut Tx, text: &str, vector: &[f32]) -> Result<MemoryId> {
        let change = change(tx).await?;
        let id = MemoryId::generate();
        let row = MemoryRow {
            listed: MemoryListed {
                id: id.clone(),
                seq: change.number,
                user_id: self.user.clone(),
                text: text.to_owned(),
                conversation_id: None,
                version: 1,
                client_id: None,
                prompt_version: String::new(),
                created_at: self.at,
                updated_at: self.at,
            },
            vector: change.vector(vector)?,
        };
        let row = self.learned_here(row);
        tx.insert(MEMORIES, std::slice::from_ref(&row)).await?;
        note(tx, &change, &row.listed, (MemoryEvent::Add, None, Some(text)), self.at).await?;
        Ok(id)
    }

    async fn update(&self, tx: &mut Tx, row: &MemoryRow, text: &str, vector: &[f32]) -> Result<()> {
        let change = change(tx).await?;
        self.keep(tx, &change, row).await?;
        let mut new = self.learned_here(row.clone());
        text.clone_into(&mut new.listed.text);
        new.listed.updated_at = self.at;
        new.vector = change.vector(vector)?;
        tx.put(MEMORIES, new.listed.id.as_str(), &new).await?;
        let event = (MemoryEvent::Update, Some(row.listed.text.as_str()), Some(text));
        note(tx, &change, &new.listed, event, self.at).await
    }

    /// The same memory, as one that was learned from what these changes are.
    fn learned_here(&self, mut row: MemoryRow) -> MemoryRow {
        let listed = &mut row.listed;
        listed.conversation_id = self.origin.map(|(record, _)| record.id.clone());
        listed.client_id = self.origin.map(|(record, _)| record.client_id.clone());
        listed.version = self.origin.map_or(1, |(_, version)| version.into());
        listed.prompt_version.clone_from(&self.learned.prompt_version);
        row
    }
}

/// A change of one memory, which has its number.
pub(super) struct Change {
    pub(super) number: i64,
    /// Who is to hear of it.
    followers: Vec<String>,
    width: Option<usize>,
}

impl Change {
    /// A vector as it is kept. `Conflict` when it is not one of the model that
    /// the others are of.
    pub(super) fn vector(&self, vector: &[f32]) -> Result<Binary> {
        check(vector, self.width.ok_or_else(not_bound)?)?;
        Ok(binary(vector))
    }
}

impl Meta {
    pub(super) fn width(&self) -> Option<usize> {
        self.width.and_then(|width| usize::try_from(width).ok())
    }
}

/// Begins the change of a memory. Others that change memories wait for the end of
/// this transaction, or are made anew.
pub(super) async fn change(tx: &mut Tx) -> Result<Change> {
    let meta = take_numbers(tx, 1).await?;
    let width = meta.width();
    Ok(Change { number: meta.number, followers: meta.followers.into_keys().collect(), width })
}

/// Takes so many numbers, of which the last is the one that is returned.
pub(super) async fn take_numbers(tx: &mut Tx, many: i64) -> Result<Meta> {
    let next = doc! { "$inc": { "number": many } };
    let meta = tx.take(META, doc! { "_id": MEMORIES_META }, next, doc! {}).await?;
    meta.ok_or_else(no_meta)
}

/// What the memories have in common.
pub(super) async fn meta(tx: &mut Tx) -> Result<Meta> {
    tx.first(META, doc! { "_id": MEMORIES_META }).await?.ok_or_else(no_meta)
}

fn no_meta() -> Error {
    Error::new(Kind::Storage, "the collection fl_meta lacks what it was opened with")
}

pub(super) async fn bind(tx: &mut Tx, model: &str, width: usize) -> Result<()> {
    if width == 0 || width > WIDEST {
        return Err(unusable(width));
    }
    let bound = doc! { "$set": { "model": model, "width": i64::try_from(width).unwrap_or(0) } };
    tx.change(META, doc! { "_id": MEMORIES_META }, bound).await.map(drop)
}

pub(super) fn binary(vector: &[f32]) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: to_blob(vector) }
}

pub(super) async fn find(tx: &mut Tx, id: &MemoryId) -> Result<Option<MemoryRow>> {
    tx.first(MEMORIES, doc! { "_id": id.as_str() }).await
}

/// Puts a memory among those that are shown, where it has been before.
pub(super) async fn show(
    tx: &mut Tx,
    change: &Change,
    mut row: MemoryRow,
    at: Timestamp,
) -> Result<()> {
    row.listed.seq = change.number;
    tx.insert(MEMORIES, std::slice::from_ref(&row)).await?;
    let event = (MemoryEvent::Add, None, Some(row.listed.text.as_str()));
    note(tx, change, &row.listed, event, at).await
}

pub(super) async fn delete(
    tx: &mut Tx,
    change: &Change,
    row: &MemoryRow,
    at: Timestamp,
) -> Result<()> {
    tx.remove(MEMORIES, doc! { "_id": row.listed.id.as_str() }).await?;
    let event = (MemoryEvent::Delete, Some(row.listed.text.as_str()), None);
    note(tx, change, &row.listed, event, at).await
}

/// Writes down what happened to a memory, and what it said before and after.
async fn note(
    tx: &mut Tx,
    change: &Change,
    memory: &MemoryListed,
    (event, old, new): (MemoryEvent, Option<&str>, Option<&str>),
    at: Timestamp,
) -> Result<()> {
    let row = HistoryRow {
        number: change.number,
        memory_id: memory.id.clone(),
        user_id: memory.user_id.clone(),
        event,
        old_text: old.map(str::to_owned),
        new_text: new.map(str::to_owned),
        at,
    };
    tx.insert(HISTORY, &[row]).await?;
    for follower in &change.followers {
        outbox::note(tx, News::new(follower, &memory.id, change.number)).await?;
    }
    Ok(())
}
