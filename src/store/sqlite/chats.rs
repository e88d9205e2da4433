//! Talks with the assistant.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{SqliteStore, rows, sql_limit};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::chat::{Chat, ChatCounts, ChatMessage, ChatRole};
use crate::domain::ids::{ChatId, MemoryId, UserId};
use crate::store::Chats;

const CHATS: &str = "select c.*, (select count(*) from chat_messages m where m.chat_id = c.id)
                         as messages from chats c";

#[async_trait]
impl Chats for SqliteStore {
    async fn add_chat(&self, chat: &Chat) -> Result<()> {
        let chat = chat.clone();
        self.write(move |tx| insert(tx, &chat)).await
    }

    async fn chat(&self, id: &ChatId) -> Result<Option<Chat>> {
        let id = id.clone();
        self.read(move |db| {
            let sql = format!("{CHATS} where c.id = ?1");
            rows::first(db, &sql, [id.as_str()], rows::chat)
        })
        .await
    }

    async fn chats(&self, user: &UserId, limit: usize) -> Result<Vec<Chat>> {
        let user = user.clone();
        self.read(move |db| {
            let sql = format!(
                "{CHATS} where c.user_id = ?1 order by c.updated_at desc, c.id desc limit ?2"
            );
            rows::all(db, &sql, params![user.as_str(), sql_limit(limit)], rows::chat)
        })
        .await
    }

    async fn rename_chat(&self, id: &ChatId, title: &str, at: Timestamp) -> Result<()> {
        let (id, title) = (id.clone(), title.to_owned());
        self.write(move |tx| {
            let sql = "update chats set title = ?2, updated_at = ?3 where id = ?1";
            match rows::run(tx, sql, params![id.as_str(), title, at.millis()])? {
                0 => Err(no_chat()),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn delete_chat(&self, id: &ChatId) -> Result<()> {
        let id = id.clone();
        self.write(move |tx| {
            match rows::run(tx, "delete from chats where id = ?1", [id.as_str()])? {
                0 => Err(no_chat()),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn add_chat_message(
        &self,
        id: &ChatId,
        role: ChatRole,
        content: &str,
        memories: &[MemoryId],
        at: Timestamp,
    ) -> Result<i64> {
        let (id, content, memories) = (id.clone(), content.to_owned(), memories.to_vec());
        self.write(move |tx| {
            let sql = "update chats set updated_at = ?2 where id = ?1";
            if rows::run(tx, sql, params![id.as_str(), at.millis()])? == 0 {
                return Err(no_chat());
            }
            insert_message(tx, &id, role, &content, &memories, at)
        })
        .await
    }

    async fn chat_messages(&self, id: &ChatId, limit: usize) -> Result<Vec<ChatMessage>> {
        let id = id.clone();
        self.read(move |db| {
            let sql = "select * from (
                           select * from chat_messages where chat_id = ?1
                           order by id desc limit ?2)
                       order by id";
            rows::all(db, sql, params![id.as_str(), sql_limit(limit)], rows::chat_message)
        })
        .await
    }

    async fn chat_counts(&self, user: &UserId) -> Result<ChatCounts> {
        let user = user.clone();
        self.read(move |db| {
            let sql = "select count(distinct c.id), count(m.id), max(c.updated_at)
                       from chats c left join chat_messages m on m.chat_id = c.id
                       where c.user_id = ?1";
            let counts = rows::first(db, sql, [user.as_str()], |row| {
                Ok(ChatCounts {
                    chats: row.get::<_, i64>(0)?.unsigned_abs(),
                    messages: row.get::<_, i64>(1)?.unsigned_abs(),
                    last: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
                })
            })?;
            Ok(counts.unwrap_or_default())
        })
        .await
    }
}

/// Adds a talk without messages.
pub(super) fn insert(tx: &Connection, chat: &Chat) -> Result<()> {
    rows::run(
        tx,
        "insert into chats (id, user_id, title, created_at, updated_at)
         values (?1, ?2, ?3, ?4, ?5)",
        params![
            chat.id.as_str(),
            chat.user_id.as_str(),
            chat.title,
            chat.created_at.millis(),
            chat.updated_at.millis(),
        ],
    )
    .map(drop)
}

/// Adds a message to a talk, and returns its number.
pub(super) fn insert_message(
    tx: &Connection,
    id: &ChatId,
    role: ChatRole,
    content: &str,
    memories: &[MemoryId],
    at: Timestamp,
) -> Result<i64> {
    rows::run(
        tx,
        "insert into chat_messages (chat_id, role, content, memories, at)
         values (?1, ?2, ?3, ?4, ?5)",
        params![id.as_str(), role.as_str(), content, rows::to_json(memories)?, at.millis()],
    )?;
    Ok(tx.last_insert_rowid())
}

fn no_chat() -> Error {
    Error::new(Kind::NotFound, "there is no such chat")
}
