//! What comes from another database.

use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::memories::Row;
use super::{SqliteStore, chats, conversations, outbox, rows, users, versions};
use crate::base::error::Result;
use crate::domain::chat::Chat;
use crate::domain::conversation::{NewWindow, WindowState};
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::memory::IndexedMemory;
use crate::domain::past::{Arrived, Imported, PastConversation, PastMessage, PastSet};
use crate::domain::user::User;
use crate::store::Imports;

#[async_trait]
impl Imports for SqliteStore {
    async fn imported(&self, kind: Imported) -> Result<HashMap<String, String>> {
        self.read(move |db| {
            let sql = "select id, became from imported where kind = ?1";
            let all = rows::all(db, sql, [kind.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(all.into_iter().collect())
        })
        .await
    }

    async fn import_user(&self, user: &User) -> Result<Arrived> {
        let user = user.clone();
        self.write(move |tx| {
            if let Some(id) = became(tx, Imported::User, user.id.as_str())? {
                return Ok(Arrived { id: UserId::from_text(id), new: false });
            }
            let by_id = rows::first(
                tx,
                "select * from users where id = ?1",
                [user.id.as_str()],
                rows::user,
            )?;
            let known = match by_id {
                None => users::by_email(tx, &user.email)?,
                known => known,
            };
            let new = known.is_none();
            let id = known.map_or_else(|| user.id.clone(), |known| known.id);
            if new {
                users::insert(tx, &user)?;
            }
            note(tx, Imported::User, user.id.as_str(), id.as_str())?;
            Ok(Arrived { id, new })
        })
        .await
    }

    async fn import_conversation(&self, past: &PastConversation) -> Result<bool> {
        let past = past.clone();
        self.write(move |tx| {
            let id = &past.conversation.id;
            let known = became(tx, Imported::Conversation, id.as_str())?.is_some();
            let there = conversations::one(tx, id)?.is_some();
            if !known {
                note(tx, Imported::Conversation, id.as_str(), id.as_str())?;
            }
            if known || there {
                return Ok(false);
            }
            insert(tx, &past)?;
            Ok(true)
        })
        .await
    }

    async fn import_audio(
        &self,
        id: &ConversationId,
        samples: u64,
        windows: &[NewWindow],
    ) -> Result<bool> {
        let (id, windows) = (id.clone(), windows.to_vec());
        self.write(move |tx| {
            if became(tx, Imported::Audio, id.as_str())?.is_some() {
                return Ok(false);
            }
            if conversations::one(tx, &id)?.is_none() {
                return Ok(false);
            }
            note(tx, Imported::Audio, id.as_str(), id.as_str())?;
            let given = rows::run(
                tx,
                "update conversations set audio_deleted_at = null, samples = max(samples, ?2)
                 where id = ?1 and audio_deleted_at is not null",
                params![id.as_str(), rows::signed(samples)],
            )?;
            if given > 0 {
                await_transcript(tx, &id, &windows)?;
            }
            Ok(true)
        })
        .await
    }

    async fn import_memories(&self, found: &[(MemoryId, IndexedMemory)]) -> Result<Vec<MemoryId>> {
        let found = found.to_vec();
        self.write(move |tx| {
            let mut new = Vec::new();
            for (id, memory) in found {
                if became(tx, Imported::Memory, id.as_str())?.is_some() {
                    continue;
                }
                let there = Row::find(tx, &id)?.is_some();
                if there || outbox::insert(tx, &id, &memory)? {
                    note(tx, Imported::Memory, id.as_str(), id.as_str())?;
                    if !there {
                        new.push(id);
                    }
                }
            }
            Ok(new)
        })
        .await
    }

    async fn import_chat(&self, chat: &Chat, messages: &[PastMessage]) -> Result<Vec<String>> {
        let (chat, messages) = (chat.clone(), messages.to_vec());
        self.write(move |tx| {
            let sql = "select 1 from chats where id = ?1";
            let mut there = rows::first(tx, sql, [chat.id.as_str()], |_| Ok(()))?.is_some();
            if became(tx, Imported::Chat, chat.id.as_str())?.is_none() {
                if !there {
                    chats::insert(tx, &chat)?;
                    there = true;
                }
                note(tx, Imported::Chat, chat.id.as_str(), chat.id.as_str())?;
            }
            if !there {
                return Ok(Vec::new());
            }
            let mut new = Vec::new();
            for message in messages {
                if became(tx, Imported::Message, &message.id)?.is_some() {
                    continue;
                }
                let PastMessage { role, content, memories, at, .. } = &message;
                let number = chats::insert_message(tx, &chat.id, *role, content, memories, *at)?;
                note(tx, Imported::Message, &message.id, &number.to_string())?;
                new.push(message.id);
            }
            Ok(new)
        })
        .await
    }
}

/// Has a conversation that nobody could transcribe wait for it.
fn await_transcript(tx: &Connection, id: &ConversationId, windows: &[NewWindow]) -> Result<()> {
    let untold = rows::run(
        tx,
        "update transcript_versions set state = 'PENDING', completed_at = null
         where conversation_id = ?1 and version = 1 and state = 'FAILED' and not exists (
             select 1 from windows where conversation_id = ?1)",
        [id.as_str()],
    )?;
    if untold == 0 {
        return Ok(());
    }
    for window in windows {
        let sql = "insert into windows (conversation_id, version, seq, spans, state)
                   values (?1, 1, ?2, ?3, 'waiting')";
        rows::run(tx, sql, params![id.as_str(), window.seq, rows::to_json(&window.spans)?])?;
    }
    let sql = "update conversations set memory = 'PENDING', error = null where id = ?1";
    rows::run(tx, sql, [id.as_str()])?;
    versions::mirror(tx, id)
}

fn became(db: &Connection, kind: Imported, id: &str) -> Result<Option<String>> {
    let sql = "select became from imported where kind = ?1 and id = ?2";
    rows::first(db, sql, [kind.as_str(), id], |row| row.get(0))
}

fn note(tx: &Connection, kind: Imported, id: &str, became: &str) -> Result<()> {
    let sql = "insert into imported (kind, id, became) values (?1, ?2, ?3)";
    rows::run(tx, sql, [kind.as_str(), id, became]).map(drop)
}

fn insert(tx: &Connection, past: &PastConversation) -> Result<()> {
    let new = &past.conversation;
    let id = new.id.as_str();
    conversations::insert_row(tx, new)?;
    rows::run(
        tx,
        "update conversations set summary = ?2, speakers = ?3 where id = ?1",
        params![id, past.summary, rows::to_json(&past.speakers)?],
    )?;
    for (version, transcript) in (1_u32..).zip(&past.transcripts) {
        rows::run(
            tx,
            "insert into transcript_versions (conversation_id, version, active, state,
                                              created_at, completed_at)
             values (?1, ?2, ?3, ?4, ?5, iif(?4 = 'PENDING', null, ?5))",
            params![
                id,
                version,
                transcript.active,
                transcript.state.as_str(),
                transcript.created_at.millis(),
            ],
        )?;
        for (seq, window) in (0_u32..).zip(&transcript.windows) {
            let done = window.state == WindowState::Done;
            rows::run(
                tx,
                "insert into windows (conversation_id, version, seq, spans, state, segments,
                                      engine)
                 values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    id,
                    version,
                    seq,
                    rows::to_json(&window.spans)?,
                    window.state.as_str(),
                    rows::to_json(&window.segments)?,
                    transcript.engine.as_ref().filter(|_| done),
                ],
            )?;
        }
    }
    if let Some(set) = &past.memories {
        insert_set(tx, past, set)?;
    }
    if let Some(crop) = &past.crop {
        rows::run(
            tx,
            "insert into crops (conversation_id, audio_path, spans, at) values (?1, ?2, ?3, ?4)",
            params![id, crop.audio_path, rows::to_json(&crop.spans)?, crop.at.millis()],
        )?;
    }
    Ok(())
}

fn insert_set(tx: &Connection, past: &PastConversation, set: &PastSet) -> Result<()> {
    rows::run(
        tx,
        "insert into memory_versions (conversation_id, version, active, transcript_version, state,
                                      model, created_at, completed_at)
         values (?1, 1, ?2, ?3, ?4, ?5, ?6, iif(?2, ?6, null))",
        params![
            past.conversation.id.as_str(),
            set.is_active(),
            past.active_transcript(),
            set.state.as_str(),
            set.model,
            set.created_at.millis(),
        ],
    )
    .map(drop)
}
