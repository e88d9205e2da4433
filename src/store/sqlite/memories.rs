//! Memories, with their full-text and vector indexes and their history.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::queue::complete;
use super::{SqliteStore, conversations, rows, sql_limit, vectors, words};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{Conversation, Progress};
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::job::{JobKind, Lease, Payload};
use crate::domain::memory::{Memory, MemoryChange, MemoryEvent, MemoryHistory};
use crate::store::Memories;

#[async_trait]
impl Memories for SqliteStore {
    async fn complete_memories(
        &self,
        lease: Lease,
        conversation: &Conversation,
        changes: &[MemoryChange],
        title: Option<&str>,
        prompt_version: &str,
        at: Timestamp,
    ) -> Result<()> {
        let (id, changes) = (conversation.id.clone(), changes.to_vec());
        let (title, prompt_version) = (title.map(str::to_owned), prompt_version.to_owned());
        self.write(move |tx| {
            complete(tx, lease, JobKind::Remember, Payload::Conversation(id.clone()), at)?;
            let conversation = conversations::one(tx, &id)?
                .ok_or_else(|| Error::new(Kind::NotFound, "there is no such conversation"))?;
            let learned = Learned { tx, conversation, prompt_version, at };
            changes.iter().try_for_each(|change| learned.apply(change))?;

            let any = !changes.is_empty() || !of_conversation(tx, &id)?.is_empty();
            let memory = if any { Progress::Completed } else { Progress::Empty };
            rows::run(
                tx,
                "update conversations set memory = ?2, title = coalesce(?3, title) where id = ?1",
                params![id.as_str(), memory.as_str(), title],
            )?;
            conversations::clear_error(tx, &id)
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
            Some(row) => row.delete(tx, &id, at).map(|()| true),
            None => Ok(false),
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

    async fn replace_embeddings(
        &self,
        model: &str,
        width: usize,
        embeddings: &[(MemoryId, Vec<f32>)],
    ) -> Result<()> {
        let (model, embeddings) = (model.to_owned(), embeddings.to_vec());
        self.write(move |tx| {
            vectors::rebind(tx, &model, width)?;
            for (id, vector) in &embeddings {
                // One that was deleted meanwhile needs no vector.
                if let Some(row) = Row::find(tx, id)? {
                    row.set_embedding(tx, vector)?;
                }
            }
            let indexed = vectors::count(tx)?;
            let memories: i64 =
                tx.query_row("select count(*) from memories", [], |row| row.get(0))?;
            if indexed != memories {
                return Err(Error::new(
                    Kind::Conflict,
                    "memories were added meanwhile; run `friend-lite reindex` again",
                ));
            }
            Ok(())
        })
        .await
    }
}

/// What one conversation taught, on its way into the store.
struct Learned<'a> {
    tx: &'a Connection,
    conversation: Conversation,
    prompt_version: String,
    at: Timestamp,
}

impl Learned<'_> {
    fn apply(&self, change: &MemoryChange) -> Result<()> {
        match change {
            MemoryChange::Add { text, vector } => self.add(text, vector),
            MemoryChange::Update { id, text, vector } => match self.own(id)? {
                Some(row) => self.update(&row, id, text, vector),
                // Deleted since it was decided; the fact is no less new.
                None => self.add(text, vector),
            },
            MemoryChange::Delete { id } => match self.own(id)? {
                Some(row) => row.delete(self.tx, id, self.at),
                None => Ok(()),
            },
        }
    }

    /// The row of a memory. `Forbidden` when it is somebody else's.
    fn own(&self, id: &MemoryId) -> Result<Option<Row>> {
        let row = Row::find(self.tx, id)?;
        match &row {
            Some(row) if row.user != self.conversation.user_id => {
                Err(Error::new(Kind::Forbidden, "this memory belongs to another user"))
            }
            _ => Ok(row),
        }
    }

    fn add(&self, text: &str, vector: &[f32]) -> Result<()> {
        let (id, user) = (MemoryId::generate(), &self.conversation.user_id);
        rows::run(
            self.tx,
            "insert into memories (id, user_id, text, conversation_id, client_id,
                                   prompt_version, created_at, updated_at, embedding)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, x'')",
            params![
                id.as_str(),
                user.as_str(),
                text,
                self.conversation.id.as_str(),
                self.conversation.client_id.as_str(),
                self.prompt_version,
                self.at.millis(),
            ],
        )?;
        let row =
            Row { seq: self.tx.last_insert_rowid(), user: user.clone(), text: text.to_owned() };
        row.set_embedding(self.tx, vector)?;
        row.index_text(self.tx, text)?;
        row.note(self.tx, &id, MemoryEvent::Add, None, Some(text), self.at)
    }

    fn update(&self, row: &Row, id: &MemoryId, text: &str, vector: &[f32]) -> Result<()> {
        rows::run(
            self.tx,
            "update memories set text = ?2, conversation_id = ?3, client_id = ?4,
                                 prompt_version = ?5, updated_at = ?6
             where seq = ?1",
            params![
                row.seq,
                text,
                self.conversation.id.as_str(),
                self.conversation.client_id.as_str(),
                self.prompt_version,
                self.at.millis(),
            ],
        )?;
        row.set_embedding(self.tx, vector)?;
        row.index_text(self.tx, text)?;
        row.note(self.tx, id, MemoryEvent::Update, Some(&row.text), Some(text), self.at)
    }
}

/// A stored memory, as far as changing it needs.
struct Row {
    seq: i64,
    user: UserId,
    text: String,
}

impl Row {
    fn find(db: &Connection, id: &MemoryId) -> Result<Option<Self>> {
        rows::first(
            db,
            "select seq, user_id, text from memories where id = ?1",
            [id.as_str()],
            |row| {
                Ok(Self {
                    seq: row.get(0)?,
                    user: UserId::from_text(row.get::<_, String>(1)?),
                    text: row.get(2)?,
                })
            },
        )
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

    fn delete(&self, tx: &Connection, id: &MemoryId, at: Timestamp) -> Result<()> {
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

/// Forgets every memory whose `column` is `key`, and its history too; how many
/// there were.
pub(super) fn forget(tx: &Connection, column: &str, key: &str) -> Result<u64> {
    let sql = format!("select seq, id from memories where {column} = ?1");
    let found = rows::all(tx, &sql, [key], |row| {
        Ok((row.get::<_, i64>(0)?, MemoryId::from_text(row.get::<_, String>(1)?)))
    })?;
    for (seq, id) in &found {
        unindex(tx, *seq)?;
        rows::run(tx, "delete from memories where seq = ?1", [seq])?;
        rows::run(tx, "delete from memory_history where memory_id = ?1", [id.as_str()])?;
    }
    if column == "user_id" {
        // Also of those that were forgotten one by one.
        rows::run(tx, "delete from memory_history where user_id = ?1", [key])?;
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
fn select_memory(rest: &str) -> String {
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
