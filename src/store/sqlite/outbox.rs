//! What those who follow the memories have still to hear of. Triggers note the changes; their
//! content is read when it is told, so that each memory is told once, as it is.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::memories::Row;
use super::{SqliteStore, rows, sql_limit, vectors};
use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::memory::{IndexedMemory, MemoryNews};
use crate::store::{Follower, Outbox};

#[async_trait]
impl Outbox for SqliteStore {
    async fn follow_memories(
        &self,
        follower: Follower,
        name: Option<&str>,
        anew: bool,
    ) -> Result<bool> {
        let name = name.map(str::to_owned);
        let before = self.read(move |db| followed_as(db, follower)).await?;
        if before == name && !anew {
            return Ok(false);
        }
        self.write(move |tx| {
            let follower = follower.as_str();
            // Its news goes with it.
            rows::run(tx, "delete from memory_follower where follower = ?1", [follower])?;
            if let Some(name) = name {
                rows::run(tx, "insert into memory_follower values (?1, ?2)", [follower, &name])?;
                let sql = "insert into memory_news (follower, memory_id)
                           select ?1, id from memories";
                rows::run(tx, sql, [follower])?;
            }
            Ok(true)
        })
        .await
    }

    async fn memory_news(&self, follower: Follower, limit: usize) -> Result<Vec<MemoryNews>> {
        self.read(move |db| {
            let sql = "select n.number, n.memory_id, m.user_id, m.text, m.conversation_id,
                              m.created_at, m.updated_at, m.embedding
                       from memory_news n left join memories m on m.id = n.memory_id
                       where n.follower = ?1 order by n.number limit ?2";
            rows::all(db, sql, params![follower.as_str(), sql_limit(limit)], news)
        })
        .await
    }

    async fn strike_memory_news(&self, follower: Follower, upto: i64) -> Result<()> {
        self.write(move |tx| {
            let sql = "delete from memory_news where follower = ?1 and number <= ?2";
            rows::run(tx, sql, params![follower.as_str(), upto]).map(drop)
        })
        .await
    }

    async fn embedding_width(&self) -> Result<Option<usize>> {
        self.read(vectors::width).await
    }

    async fn adopt_memories(&self, found: &[(MemoryId, IndexedMemory)]) -> Result<Vec<MemoryId>> {
        let found = found.to_vec();
        self.write(move |tx| {
            let mut kept = Vec::new();
            for (id, memory) in found {
                if Row::find(tx, &id)?.is_some() || adopt(tx, &id, &memory)? {
                    kept.push(id);
                }
            }
            Ok(kept)
        })
        .await
    }
}

/// Lets go of those who follow a database which is a copy: by the time the copy is
/// used, they have heard of other changes, and are to hear of everything again.
pub(super) fn unfollow(copy: &Connection) -> Result<()> {
    let sql = "select 1 from sqlite_schema where name = 'memory_follower'";
    // A copy may be of an older schema.
    if rows::first(copy, sql, [], |_| Ok(()))?.is_some() {
        copy.execute_batch("delete from memory_follower; delete from memory_news")?;
    }
    Ok(())
}

/// Adds a memory that the index has already; false when its user is not known.
fn adopt(tx: &Connection, id: &MemoryId, memory: &IndexedMemory) -> Result<bool> {
    let added = insert(tx, id, memory)?;
    if added {
        let sql = "delete from memory_news where follower = ?1 and memory_id = ?2";
        rows::run(tx, sql, [Follower::Index.as_str(), id.as_str()])?;
    }
    Ok(added)
}

/// Adds a memory that others have made; false when its user is not known. It is of
/// the conversation that it names where its user has that.
pub(super) fn insert(tx: &Connection, id: &MemoryId, memory: &IndexedMemory) -> Result<bool> {
    let added = rows::run(
        tx,
        "insert into memories (id, user_id, text, conversation_id, client_id, prompt_version,
                               created_at, updated_at, embedding, version)
         select ?1, u.id, ?3, c.id, c.client_id, '', ?4, ?5, ?6,
                coalesce((select version from memory_versions
                          where conversation_id = c.id and active), 1)
         from users u left join conversations c on c.id = ?7 and c.user_id = u.id
         where u.id = ?2",
        params![
            id.as_str(),
            memory.user_id.as_str(),
            memory.text,
            memory.created_at.millis(),
            memory.updated_at.millis(),
            vectors::to_blob(&memory.vector),
            memory.conversation_id.as_ref().map(ConversationId::as_str),
        ],
    )?;
    if added > 0
        && let Some(row) = Row::find(tx, id)?
    {
        row.show(tx, id, memory.updated_at)?;
    }
    Ok(added > 0)
}

fn followed_as(db: &Connection, follower: Follower) -> Result<Option<String>> {
    let sql = "select name from memory_follower where follower = ?1";
    rows::first(db, sql, [follower.as_str()], |row| row.get(0))
}

fn news(row: &rusqlite::Row<'_>) -> rusqlite::Result<MemoryNews> {
    let user: Option<String> = row.get("user_id")?;
    let now = user.map(|user| -> rusqlite::Result<_> {
        Ok(IndexedMemory {
            user_id: UserId::from_text(user),
            text: row.get("text")?,
            vector: vectors::from_blob(&row.get::<_, Vec<u8>>("embedding")?),
            conversation_id: row
                .get::<_, Option<String>>("conversation_id")?
                .map(ConversationId::from_text),
            created_at: Timestamp::from_millis(row.get("created_at")?),
            updated_at: Timestamp::from_millis(row.get("updated_at")?),
        })
    });
    Ok(MemoryNews {
        number: row.get("number")?,
        id: MemoryId::from_text(row.get::<_, String>("memory_id")?),
        now: now.transpose()?,
    })
}
