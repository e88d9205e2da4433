//! Memories, with their full-text and vector indexes and their history.

use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::queue::complete;
use super::{SqliteStore, conversations, rows, shelf, sql_limit, vectors, versions, words};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{Conversation, Progress};
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::job::{JobKind, Lease, Payload};
use crate::domain::memory::{Learned, Memory, MemoryChange, MemoryEvent, MemoryHistory};
use crate::store::Memories;
use crate::store::vectors::added_meanwhile;

#[async_trait]
impl Memories for SqliteStore {
    async fn complete_memories(
        &self,
        lease: Lease,
        id: &ConversationId,
        learned: &Learned,
        at: Timestamp,
    ) -> Result<()> {
        let (id, learned) = (id.clone(), learned.clone());
        self.write(move |tx| {
            complete(tx, lease, JobKind::Remember, Payload::Conversation(id.clone()), at)?;
            let conversation =
                conversations::one(tx, &id)?.ok_or_else(conversations::no_conversation)?;
            let version = versions::pending_memory(tx, &id)?;
            shelf::deactivate(tx, &id, at)?;
            let user = &conversation.user_id;
            let origin = Some((&conversation, version));
            let changes = Changes { tx, user, origin, learned: &learned, at };
            learned.changes.iter().try_for_each(|change| changes.apply(change).map(drop))?;

            let any = !learned.changes.is_empty();
            let state = if any { Progress::Completed } else { Progress::Empty };
            rows::run(
                tx,
                "update memory_versions set active = 1, state = ?3, model = ?4,
                                            prompt_version = ?5, completed_at = ?6
                 where conversation_id = ?1 and version = ?2",
                params![
                    id.as_str(),
                    version,
                    state.as_str(),
                    learned.model,
                    learned.prompt_version,
                    at.millis(),
                ],
            )?;
            rows::run(
                tx,
                "update conversations set title = coalesce(?2, title), summary = ?3 where id = ?1",
                params![id.as_str(), learned.title, learned.summary],
            )?;
            versions::mirror(tx, &id)?;
            conversations::clear_error(tx, &id)
        })
        .await
    }

    async fn add_memories(
        &self,
        user: &UserId,
        learned: &Learned,
        at: Timestamp,
    ) -> Result<Vec<MemoryId>> {
        let (user, learned) = (user.clone(), learned.clone());
        self.write(move |tx| {
            let changes = Changes { tx, user: &user, origin: None, learned: &learned, at };
            let changed: Result<Vec<_>> =
                learned.changes.iter().map(|change| changes.apply(change)).collect();
            Ok(changed?.into_iter().flatten().collect())
        })
        .await
    }

    async fn memories(&self, user: &UserId, limit: usize) -> Result<Vec<Memory>> {
        let user = user.clone();
        self.read(move |db| {
            let sql =
                select_memory("where user_id = ?1 order by created_at desc, seq desc limit ?2");
            rows::all(db, &sql, params![user.as_str(), sql_limit(limit)], rows::memory)
        })
        .await
    }

    async fn all_memories(&self, limit: usize) -> Result<Vec<Memory>> {
        self.read(move |db| {
            let sql = select_memory("order by created_at desc, seq desc limit ?1");
            rows::all(db, &sql, [sql_limit(limit)], rows::memory)
        })
        .await
    }

    async fn replaced_memories(&self, id: &ConversationId) -> Result<Vec<Memory>> {
        let id = id.clone();
        self.read(move |db| {
            let sql = "select s.* from shelved_memories s join memory_versions v
                           on v.conversation_id = s.by_conversation and v.version = s.by_version
                       where s.by_conversation = ?1 and v.active order by s.seq";
            rows::all(db, sql, [id.as_str()], rows::memory)
        })
        .await
    }

    async fn memory_count(&self, user: &UserId) -> Result<u64> {
        let user = user.clone();
        self.read(move |db| {
            let sql = "select count(*) from memories where user_id = ?1";
            let count: i64 =
                db.prepare_cached(sql)?.query_row([user.as_str()], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
        .await
    }

    async fn conversation_memories(&self, id: &ConversationId) -> Result<Vec<Memory>> {
        let id = id.clone();
        self.read(move |db| of_conversation(db, &id)).await
    }

    async fn memory(&self, id: &MemoryId) -> Result<Option<Memory>> {
        let id = id.clone();
        self.read(move |db| one(db, &id)).await
    }

    async fn memories_by_id(&self, ids: &[MemoryId]) -> Result<Vec<Memory>> {
        let ids = ids.to_vec();
        self.read(move |db| {
            let found = ids.iter().map(|id| one(db, id)).collect::<Result<Vec<_>>>()?;
            Ok(found.into_iter().flatten().collect())
        })
        .await
    }

    async fn delete_memory(&self, id: &MemoryId, at: Timestamp) -> Result<bool> {
        let id = id.clone();
        self.write(move |tx| match Row::find(tx, &id)? {
            Some(row) => {
                row.delete(tx, &id, at)?;
                shelf::forget(tx, &id).map(|()| true)
            }
            None => Ok(false),
        })
        .await
    }

    async fn delete_memories(&self, user: &UserId, at: Timestamp) -> Result<usize> {
        let user = user.clone();
        self.write(move |tx| {
            let sql = "select id from memories where user_id = ?1 order by seq";
            let ids = rows::all(tx, sql, [user.as_str()], rows::memory_id)?;
            for id in &ids {
                if let Some(row) = Row::find(tx, id)? {
                    row.delete(tx, id, at)?;
                }
            }
            rows::run(tx, "delete from shelved_memories where user_id = ?1", [user.as_str()])?;
            Ok(ids.len())
        })
        .await
    }

    async fn search_text(&self, user: &UserId, query: &str, limit: usize) -> Result<Vec<MemoryId>> {
        let Some(words) = words::any_word(query) else { return Ok(Vec::new()) };
        let user = user.clone();
        self.read(move |db| {
            rows::all(
                db,
                "select m.id from memories_fts f cross join memories m on m.seq = f.rowid
                 where memories_fts match ?1 and m.user_id = ?2
                 order by bm25(memories_fts), m.seq desc limit ?3",
                params![words, user.as_str(), sql_limit(limit)],
                rows::memory_id,
            )
        })
        .await
    }

    async fn memory_history(&self, id: &MemoryId) -> Result<Vec<MemoryHistory>> {
        let id = id.clone();
        self.read(move |db| {
            let sql = "select * from memory_history where memory_id = ?1 order by id";
            rows::all(db, sql, [id.as_str()], rows::history)
        })
        .await
    }

    async fn bind_embedding(&self, model: &str, width: usize) -> Result<()> {
        let model = model.to_owned();
        self.write(move |tx| vectors::bind(tx, &model, width)).await
    }

    async fn memory_texts(&self) -> Result<Vec<String>> {
        self.read(|db| {
            let sql = "select text from memories union select text from shelved_memories";
            rows::all(db, sql, [], |row| row.get(0))
        })
        .await
    }

    async fn replace_embeddings(
        &self,
        model: &str,
        width: usize,
        embeddings: HashMap<String, Vec<f32>>,
    ) -> Result<()> {
        let model = model.to_owned();
        self.write(move |tx| {
            let vector_of = |text: &str| embeddings.get(text).ok_or_else(added_meanwhile);
            vectors::rebind(tx, &model, width)?;
            let sql = "select seq, user_id, text from memories";
            for row in rows::all(tx, sql, [], Row::read)? {
                row.set_embedding(tx, vector_of(&row.text)?)?;
            }
            let sql = "select seq, user_id, text from shelved_memories";
            for row in rows::all(tx, sql, [], Row::read)? {
                let sql = "update shelved_memories set embedding = ?2 where seq = ?1";
                rows::run(tx, sql, params![row.seq, vectors::to_blob(vector_of(&row.text)?)])?;
            }
            Ok(())
        })
        .await
    }
}

/// What was learned of a user, on its way into the store.
struct Changes<'a> {
    tx: &'a Connection,
    user: &'a UserId,
    /// The conversation that taught it, and which set of its memories it makes.
    origin: Option<(&'a Conversation, u32)>,
    learned: &'a Learned,
    at: Timestamp,
}

impl Changes<'_> {
    /// Applies a change; the memory that is new or says more.
    fn apply(&self, change: &MemoryChange) -> Result<Option<MemoryId>> {
        match change {
            MemoryChange::Add { text, vector } => self.add(text, vector).map(Some),
            MemoryChange::Update { id, text, vector } => match self.own(id)? {
                Some(row) => {
                    self.update(&row, id, text, vector)?;
                    Ok(Some(id.clone()))
                }
                // Deleted since it was decided; the fact is no less new.
                None => self.add(text, vector).map(Some),
            },
            MemoryChange::Delete { id } => {
                if let Some(row) = self.own(id)? {
                    self.keep(&row)?;
                    row.delete(self.tx, id, self.at)?;
                }
                Ok(None)
            }
        }
    }

    /// The row of a memory. `Forbidden` when it is somebody else's.
    fn own(&self, id: &MemoryId) -> Result<Option<Row>> {
        let row = Row::find(self.tx, id)?;
        match &row {
            Some(row) if row.user != *self.user => {
                Err(Error::new(Kind::Forbidden, "this memory belongs to another user"))
            }
            _ => Ok(row),
        }
    }

    /// Keeps a memory as it is, to come back should the set be put away.
    fn keep(&self, row: &Row) -> Result<()> {
        match self.origin {
            Some((conversation, version)) => {
                shelf::keep(self.tx, row, Some((&conversation.id, version)))
            }
            None => Ok(()),
        }
    }

    fn conversation(&self) -> Option<&str> {
        self.origin.map(|(conversation, _)| conversation.id.as_str())
    }

    fn client(&self) -> Option<&str> {
        self.origin.map(|(conversation, _)| conversation.client_id.as_str())
    }

    fn version(&self) -> u32 {
        self.origin.map_or(1, |(_, version)| version)
    }

    fn add(&self, text: &str, vector: &[f32]) -> Result<MemoryId> {
        let id = MemoryId::generate();
        rows::run(
            self.tx,
            "insert into memories (id, user_id, text, conversation_id, client_id,
                                   prompt_version, created_at, updated_at, embedding, version)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, x'', ?8)",
            params![
                id.as_str(),
                self.user.as_str(),
                text,
                self.conversation(),
                self.client(),
                self.learned.prompt_version,
                self.at.millis(),
                self.version(),
            ],
        )?;
        let seq = self.tx.last_insert_rowid();
        let row = Row { seq, user: self.user.clone(), text: text.to_owned() };
        row.set_embedding(self.tx, vector)?;
        row.index_text(self.tx, text)?;
        row.note(self.tx, &id, MemoryEvent::Add, None, Some(text), self.at)?;
        Ok(id)
    }

    fn update(&self, row: &Row, id: &MemoryId, text: &str, vector: &[f32]) -> Result<()> {
        self.keep(row)?;
        rows::run(
            self.tx,
            "update memories set text = ?2, conversation_id = ?3, client_id = ?4,
                                 prompt_version = ?5, updated_at = ?6, version = ?7
             where seq = ?1",
            params![
                row.seq,
                text,
                self.conversation(),
                self.client(),
                self.learned.prompt_version,
                self.at.millis(),
                self.version(),
            ],
        )?;
        row.set_embedding(self.tx, vector)?;
        row.index_text(self.tx, text)?;
        row.note(self.tx, id, MemoryEvent::Update, Some(&row.text), Some(text), self.at)
    }
}

/// A stored memory, as far as changing it needs.
pub(super) struct Row {
    pub(super) seq: i64,
    user: UserId,
    text: String,
}

impl Row {
    pub(super) fn find(db: &Connection, id: &MemoryId) -> Result<Option<Self>> {
        let sql = "select seq, user_id, text from memories where id = ?1";
        rows::first(db, sql, [id.as_str()], Self::read)
    }

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            user: UserId::from_text(row.get::<_, String>(1)?),
            text: row.get(2)?,
        })
    }

    /// Indexes a memory that has come back with its embedding.
    pub(super) fn show(&self, tx: &Connection, id: &MemoryId, at: Timestamp) -> Result<()> {
        let sql = "select embedding from memories where seq = ?1";
        let blob: Vec<u8> = tx.prepare_cached(sql)?.query_row([self.seq], |row| row.get(0))?;
        vectors::put(tx, self.seq, &self.user, &vectors::from_blob(&blob))?;
        self.index_text(tx, &self.text)?;
        self.note(tx, id, MemoryEvent::Add, None, Some(&self.text), at)
    }

    fn set_embedding(&self, tx: &Connection, vector: &[f32]) -> Result<()> {
        let sql = "update memories set embedding = ?2 where seq = ?1";
        rows::run(tx, sql, params![self.seq, vectors::to_blob(vector)])?;
        vectors::put(tx, self.seq, &self.user, vector)
    }

    fn index_text(&self, tx: &Connection, text: &str) -> Result<()> {
        let sql = "insert or replace into memories_fts (rowid, text) values (?1, ?2)";
        rows::run(tx, sql, params![self.seq, text])?;
        Ok(())
    }

    pub(super) fn delete(&self, tx: &Connection, id: &MemoryId, at: Timestamp) -> Result<()> {
        unindex(tx, self.seq)?;
        rows::run(tx, "delete from memories where seq = ?1", [self.seq])?;
        self.note(tx, id, MemoryEvent::Delete, Some(&self.text), None, at)
    }

    fn note(
        &self,
        tx: &Connection,
        id: &MemoryId,
        event: MemoryEvent,
        old: Option<&str>,
        new: Option<&str>,
        at: Timestamp,
    ) -> Result<()> {
        rows::run(
            tx,
            "insert into memory_history (memory_id, user_id, event, old_text, new_text, at)
             values (?1, ?2, ?3, ?4, ?5, ?6)",
            params![id.as_str(), self.user.as_str(), event.as_str(), old, new, at.millis()],
        )?;
        Ok(())
    }
}

/// Forgets the memories of a conversation for good, in all their versions and
/// with their history; what they had replaced comes back. How many were shown.
pub(super) fn forget_of_conversation(
    tx: &Connection,
    id: &ConversationId,
    at: Timestamp,
) -> Result<u64> {
    let shown = of_conversation(tx, id)?.len();
    shelf::deactivate(tx, id, at)?;
    purge(tx, "conversation_id = ?1", id.as_str())?;
    rows::run(
        tx,
        "delete from memory_history where memory_id in (
             select id from shelved_memories where conversation_id = ?1)
         and memory_id not in (select id from memories)",
        [id.as_str()],
    )?;
    rows::run(tx, "delete from shelved_memories where conversation_id = ?1", [id.as_str()])?;
    Ok(shown as u64)
}

/// Forgets all memories of a user for good; how many were shown.
pub(super) fn forget_of_user(tx: &Connection, id: &UserId) -> Result<u64> {
    let shown = purge(tx, "user_id = ?1", id.as_str())?;
    for table in ["shelved_memories", "memory_history"] {
        rows::run(tx, &format!("delete from {table} where user_id = ?1"), [id.as_str()])?;
    }
    Ok(shown)
}

/// Deletes memories with their history; how many.
fn purge(tx: &Connection, which: &str, key: &str) -> Result<u64> {
    let sql = format!("select seq, id from memories where {which}");
    let found = rows::all(tx, &sql, [key], |row| {
        Ok((row.get::<_, i64>(0)?, MemoryId::from_text(row.get::<_, String>(1)?)))
    })?;
    for (seq, id) in &found {
        unindex(tx, *seq)?;
        rows::run(tx, "delete from memories where seq = ?1", [seq])?;
        rows::run(tx, "delete from memory_history where memory_id = ?1", [id.as_str()])?;
    }
    Ok(found.len() as u64)
}

/// Takes a memory out of the indexes.
fn unindex(tx: &Connection, seq: i64) -> Result<()> {
    vectors::delete(tx, seq)?;
    rows::run(tx, "delete from memories_fts where rowid = ?1", [seq])?;
    Ok(())
}

/// A query for memories without their embedding, which is large.
pub(super) fn select_memory(rest: &str) -> String {
    format!(
        "select id, user_id, text, conversation_id, client_id, prompt_version,
                created_at, updated_at
         from memories {rest}"
    )
}

fn one(db: &Connection, id: &MemoryId) -> Result<Option<Memory>> {
    rows::first(db, &select_memory("where id = ?1"), [id.as_str()], rows::memory)
}

fn of_conversation(db: &Connection, id: &ConversationId) -> Result<Vec<Memory>> {
    let sql = select_memory("where conversation_id = ?1 order by created_at, seq");
    rows::all(db, &sql, [id.as_str()], rows::memory)
}
