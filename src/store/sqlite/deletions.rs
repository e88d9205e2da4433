//! Deleting rows, and writing down which files are to go with them.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::{SqliteStore, conversations, memories, rows, sql_limit, users};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::Conversation;
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::store::{Deleted, Deletions, UserData};

/// Closed conversations whose audio nothing waits for: every word of it is
/// there, or there is none in it, and no step is still to read it.
pub(super) const TRANSCRIBED: &str = "ended_at is not null and audio_deleted_at is null
    and transcription in ('COMPLETED', 'EMPTY', 'SKIPPED')
    and not exists (select 1 from transcript_versions v
                    where v.conversation_id = conversations.id and v.state = 'PENDING')
    and not exists (select 1 from windows w
                    where w.conversation_id = conversations.id and w.state <> 'done')
    and not exists (select 1 from jobs j
                    where j.conversation_id = conversations.id and j.kind = 'crop'
                      and j.state in ('ready', 'leased'))";

/// Conversations whose recording is in the bucket.
const STORED: &str = "audio_path in (select name from objects where verified_at is not null)";

/// Rows of one table that are deleted in one transaction: others wait for it.
const HISTORY_AT_ONCE: u32 = 5_000;

#[async_trait]
impl Deletions for SqliteStore {
    async fn delete_conversation(
        &self,
        id: &ConversationId,
        memories: bool,
        actor: Option<&UserId>,
        at: Timestamp,
    ) -> Result<Deleted> {
        let (id, actor) = (id.clone(), actor.cloned());
        self.write(move |tx| {
            let found = conversations::one(tx, &id)?.ok_or_else(conversations::no_conversation)?;
            if found.is_open() {
                return Err(recording("this conversation"));
            }
            let memories = match memories {
                true => memories::forget_of_conversation(tx, &id, at)?,
                false => 0,
            };
            let files = note_files(tx, "id = ?1", id.as_str(), at)?;
            rows::run(tx, "delete from conversations where id = ?1", [id.as_str()])?;
            users::audit(tx, at, actor.as_ref(), "conversation-deleted", id.as_str())?;
            Ok(Deleted { conversations: 1, memories, files })
        })
        .await
    }

    async fn delete_user(
        &self,
        id: &UserId,
        data: UserData,
        actor: Option<&UserId>,
        at: Timestamp,
    ) -> Result<Deleted> {
        let (id, actor) = (id.clone(), actor.cloned());
        self.write(move |tx| {
            let user =
                rows::first(tx, "select * from users where id = ?1", [id.as_str()], rows::user)?
                    .ok_or_else(users::no_user)?;
            let mut deleted = Deleted::default();
            if data.memories {
                deleted.memories = memories::forget_of_user(tx, &id)?;
            }
            if data.conversations {
                if exists(tx, "conversations where user_id = ?1 and ended_at is null", &id)? {
                    return Err(recording("a conversation of this user"));
                }
                deleted.files = note_files(tx, "user_id = ?1", id.as_str(), at)?;
                let sql = "delete from conversations where user_id = ?1";
                deleted.conversations = rows::run(tx, sql, [id.as_str()])? as u64;
            }
            let left = |what: &str| {
                let message = format!("this user still has {what}; nothing was deleted");
                Error::new(Kind::Conflict, message)
            };
            if exists(tx, "conversations where user_id = ?1", &id)? {
                return Err(left("conversations"));
            }
            if exists(tx, "memories where user_id = ?1", &id)? {
                return Err(left("memories"));
            }
            rows::run(tx, "delete from users where id = ?1", [id.as_str()])?;
            users::audit(tx, at, actor.as_ref(), "user-removed", &user.email)?;
            Ok(deleted)
        })
        .await
    }

    async fn delete_audio(&self, id: &ConversationId, at: Timestamp) -> Result<Vec<String>> {
        let id = id.clone();
        self.write(move |tx| {
            let found = conversations::one(tx, &id)?.ok_or_else(conversations::no_conversation)?;
            if !found.has_audio() {
                return Ok(Vec::new());
            }
            let sql = format!(
                "update conversations set audio_deleted_at = ?2
                               where id = ?1 and {TRANSCRIBED}"
            );
            let files = note_files(tx, "id = ?1", id.as_str(), at)?;
            if rows::run(tx, &sql, params![id.as_str(), at.millis()])? == 0 {
                return Err(Error::new(
                    Kind::Conflict,
                    "this conversation is not transcribed yet, so its audio is kept",
                ));
            }
            let sql = "delete from crops where conversation_id = ?1";
            rows::run(tx, sql, [id.as_str()])?;
            users::audit(tx, at, None, "audio-deleted", id.as_str())?;
            Ok(files)
        })
        .await
    }

    async fn transcribed_audio(
        &self,
        before: Option<Timestamp>,
        only_here: bool,
        limit: usize,
    ) -> Result<Vec<Conversation>> {
        self.read(move |db| {
            let sql = format!(
                "select * from conversations where {TRANSCRIBED} and started_at < ?1
                   and not (?2 and {STORED})
                 order by started_at, id limit ?3"
            );
            let before = before.map_or(i64::MAX, Timestamp::millis);
            rows::all(db, &sql, params![before, only_here, sql_limit(limit)], rows::conversation)
        })
        .await
    }

    async fn expired_conversations(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<ConversationId>> {
        self.read(move |db| {
            let sql = format!(
                "select id from conversations
                 where started_at < ?1 and ended_at is not null
                   and (audio_deleted_at is not null or {TRANSCRIBED})
                   and not exists (select 1 from jobs j
                                   where j.conversation_id = conversations.id
                                     and j.state in ('ready', 'leased'))
                 order by started_at, id limit ?2"
            );
            let params = params![before.millis(), sql_limit(limit)];
            rows::all(db, &sql, params, |row| {
                Ok(ConversationId::from_text(row.get::<_, String>(0)?))
            })
        })
        .await
    }

    async fn expired_memories(&self, before: Timestamp, limit: usize) -> Result<Vec<MemoryId>> {
        self.read(move |db| {
            let sql = "select id from memories where updated_at < ?1 order by updated_at limit ?2";
            rows::all(db, sql, params![before.millis(), sql_limit(limit)], rows::memory_id)
        })
        .await
    }

    async fn forget_chats(&self, before: Timestamp) -> Result<usize> {
        self.write(move |tx| {
            rows::run(tx, "delete from chats where updated_at < ?1", [before.millis()])
        })
        .await
    }

    async fn forget_history(&self, before: Timestamp) -> Result<usize> {
        self.write(move |tx| {
            let mut forgotten = 0;
            for (table, old) in [
                ("jobs", "state = 'done' and updated_at < ?1"),
                ("memory_history", "at < ?1"),
                ("audit", "at < ?1"),
            ] {
                let sql = format!(
                    "delete from {table} where id in
                     (select id from {table} where {old} limit {HISTORY_AT_ONCE})"
                );
                forgotten += rows::run(tx, &sql, [before.millis()])?;
            }
            Ok(forgotten)
        })
        .await
    }

    async fn deletions(&self) -> Result<Vec<String>> {
        self.read(|db| {
            rows::all(db, "select name from deletions order by name", [], |row| row.get(0))
        })
        .await
    }

    async fn strike_deletions(&self, gone: &[String]) -> Result<()> {
        let gone = rows::to_json(gone)?;
        self.write(move |tx| {
            let sql = "delete from deletions where name in (select value from json_each(?1))";
            rows::run(tx, sql, [gone])?;
            Ok(())
        })
        .await
    }
}

/// Notes that the file of that name is to go.
pub(super) fn note(tx: &Connection, name: &str, at: Timestamp) -> Result<()> {
    let sql = "insert into deletions (name, at) values (?1, ?2) on conflict do nothing";
    rows::run(tx, sql, params![name, at.millis()])?;
    Ok(())
}

/// Whether a recording of that name is to go.
pub(super) fn is_noted(tx: &Connection, name: &str) -> Result<bool> {
    let found = rows::first(tx, "select 1 from deletions where name = ?1", [name], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Notes that the files of some conversations are to go; their names. Every
/// column that names a file of a conversation belongs here.
fn note_files(tx: &Connection, which: &str, key: &str, at: Timestamp) -> Result<Vec<String>> {
    let sql = format!(
        "insert into deletions (name, at)
         select audio_path, ?2 from conversations where {which} and audio_deleted_at is null
         union
         select x.audio_path, ?2 from crops x join conversations c on c.id = x.conversation_id
         where c.{which} and x.audio_path is not null
         union
         -- What an archiving that was cut short may have left.
         select substr(c.audio_path, 1, length(c.audio_path) - 3) || 'opus', ?2
         from conversations c join jobs j on j.conversation_id = c.id
         where c.{which} and substr(c.audio_path, -4) = '.wav'
           and j.kind = 'archive' and j.state <> 'done'
         on conflict do nothing returning name"
    );
    rows::all(tx, &sql, params![key, at.millis()], |row| row.get(0))
}

fn exists(tx: &Connection, rows_of_user: &str, user: &UserId) -> Result<bool> {
    let sql = format!("select exists (select 1 from {rows_of_user})");
    Ok(tx.prepare_cached(&sql)?.query_row([user.as_str()], |row| row.get(0))?)
}

fn recording(what: &str) -> Error {
    let message = format!("{what} is still being recorded; close it and try again");
    Error::new(Kind::Conflict, message)
}
