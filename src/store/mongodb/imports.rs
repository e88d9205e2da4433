//! What comes from another database.

use std::collections::HashMap;

use async_trait::async_trait;
use mongodb::bson::doc;

use super::documents::{ImportedRow, UserRow, WindowRow};
use super::queue::{find_record, insert_record, save, windows_of};
use super::record::{CropRow, Record, Set, Transcript};
use super::schema::{CHATS, IMPORTED, USERS, WINDOWS, counter};
use super::tx::Tx;
use super::{MongoStore, changes, chats, outbox};
use crate::base::error::Result;
use crate::domain::chat::Chat;
use crate::domain::conversation::{NewWindow, Progress, Span, WindowState};
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::memory::IndexedMemory;
use crate::domain::past::{
    Arrived, Imported, PastConversation, PastMessage, PastTranscript, PastWindow,
};
use crate::domain::user::User;
use crate::store::Imports;

#[async_trait]
impl Imports for MongoStore {
    async fn imported(&self, kind: Imported) -> Result<HashMap<String, String>> {
        let of_kind = doc! { "kind": kind.as_str() };
        let all = steps!(self, |tx| tx.all(IMPORTED, of_kind, doc! {}).await).await?;
        Ok(all.into_iter().map(|row| (row.id, row.became)).collect())
    }

    async fn import_user(&self, user: &User) -> Result<Arrived> {
        let row = UserRow::from(user);
        transaction!(self, |tx| {
            if let Some(id) = became(tx, Imported::User, row.id.as_str()).await? {
                return Ok(Arrived { id: UserId::from_text(id), new: false });
            }
            let known = match tx.first(USERS, doc! { "_id": row.id.as_str() }).await? {
                None => tx.first(USERS, doc! { "email": &row.email }).await?,
                known => known,
            };
            let new = known.is_none();
            if new {
                tx.insert(USERS, std::slice::from_ref(&row)).await?;
            }
            let id = known.map_or_else(|| row.id.clone(), |known| known.id);
            note(tx, Imported::User, row.id.as_str(), id.as_str()).await?;
            Ok(Arrived { id, new })
        })
        .await
    }

    async fn import_conversation(&self, past: &PastConversation) -> Result<bool> {
        let id = &past.conversation.id;
        transaction!(self, |tx| {
            let known = became(tx, Imported::Conversation, id.as_str()).await?.is_some();
            let there = find_record(tx, id).await?.is_some();
            if !known {
                note(tx, Imported::Conversation, id.as_str(), id.as_str()).await?;
            }
            if known || there {
                return Ok(false);
            }
            let mut record = Record::of_past(past, self.node());
            insert_record(tx, &record).await?;
            for (version, transcript) in (1_u32..).zip(&past.transcripts) {
                insert_windows(tx, id, version, transcript).await?;
            }
            record.count(&windows_of(tx, id).await?);
            save(tx, &mut record).await?;
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
        transaction!(self, |tx| {
            if became(tx, Imported::Audio, id.as_str()).await?.is_some() {
                return Ok(false);
            }
            let Some(mut record) = find_record(tx, id).await? else { return Ok(false) };
            note(tx, Imported::Audio, id.as_str(), id.as_str()).await?;
            if record.audio_deleted_at.take().is_none() {
                return Ok(true);
            }
            self.node().clone_into(&mut record.node);
            record.samples = record.samples.max(samples);
            if record.transcription == Progress::Failed && windows_of(tx, id).await?.is_empty() {
                insert_windows(tx, id, 1, &awaited(&record, windows)).await?;
                (record.memory, record.error) = (Progress::Pending, None);
                record.reopen_transcript(Some(1));
                record.count(&windows_of(tx, id).await?);
            }
            save(tx, &mut record).await?;
            Ok(true)
        })
        .await
    }

    async fn import_memories(&self, found: &[(MemoryId, IndexedMemory)]) -> Result<Vec<MemoryId>> {
        transaction!(self, |tx| {
            let mut new = Vec::new();
            for (id, memory) in found {
                if became(tx, Imported::Memory, id.as_str()).await?.is_some() {
                    continue;
                }
                let there = changes::find(tx, id).await?.is_some();
                if there || outbox::insert(tx, id, memory).await? {
                    note(tx, Imported::Memory, id.as_str(), id.as_str()).await?;
                    if !there {
                        new.push(id.clone());
                    }
                }
            }
            Ok(new)
        })
        .await
    }

    async fn import_chat(&self, chat: &Chat, messages: &[PastMessage]) -> Result<Vec<String>> {
        let id = chat.id.as_str();
        transaction!(self, |tx| {
            let mut there = tx.has(CHATS, doc! { "_id": id }).await?;
            if became(tx, Imported::Chat, id).await?.is_none() {
                if !there {
                    chats::insert(tx, chat).await?;
                    there = true;
                }
                note(tx, Imported::Chat, id, id).await?;
            }
            if !there {
                return Ok(Vec::new());
            }
            let mut new = Vec::new();
            for message in messages {
                if became(tx, Imported::Message, &message.id).await?.is_some() {
                    continue;
                }
                let PastMessage { role, content, memories, at, .. } = message;
                let number =
                    chats::insert_message(tx, &chat.id, *role, content, memories, *at).await?;
                note(tx, Imported::Message, &message.id, &number.to_string()).await?;
                new.push(message.id.clone());
            }
            if !new.is_empty() {
                let more =
                    doc! { "$inc": { "messages": i64::try_from(new.len()).unwrap_or(i64::MAX) } };
                tx.change(CHATS, doc! { "_id": id }, more).await?;
            }
            Ok(new)
        })
        .await
    }
}

async fn became(tx: &mut Tx, kind: Imported, id: &str) -> Result<Option<String>> {
    let key = ImportedRow::key(kind, id);
    Ok(tx.first(IMPORTED, doc! { "_id": key }).await?.map(|row| row.became))
}

async fn note(tx: &mut Tx, kind: Imported, id: &str, became: &str) -> Result<()> {
    let row = ImportedRow {
        key: ImportedRow::key(kind, id),
        kind,
        id: id.to_owned(),
        became: became.to_owned(),
    };
    tx.insert(IMPORTED, &[row]).await
}

/// A transcript that is still to be made.
fn awaited(record: &Record, windows: &[NewWindow]) -> PastTranscript {
    let waiting = |window: &NewWindow| PastWindow {
        spans: window.spans.clone(),
        state: WindowState::Waiting,
        segments: Vec::new(),
    };
    PastTranscript {
        active: true,
        state: Progress::Pending,
        engine: None,
        created_at: record.started_at,
        windows: windows.iter().map(waiting).collect(),
    }
}

async fn insert_windows(
    tx: &mut Tx,
    id: &ConversationId,
    version: u32,
    transcript: &PastTranscript,
) -> Result<()> {
    let mut rows = Vec::with_capacity(transcript.windows.len());
    for (seq, window) in (0_u32..).zip(&transcript.windows) {
        let done = window.state == WindowState::Done;
        rows.push(WindowRow {
            id: tx.number(counter::WINDOWS).await?,
            conversation_id: id.clone(),
            version,
            seq,
            spans: window.spans.clone(),
            samples: window.spans.iter().copied().map(Span::len).sum(),
            state: window.state,
            segments: window.segments.clone(),
            engine: transcript.engine.clone().filter(|_| done),
        });
    }
    tx.insert(WINDOWS, &rows).await
}

impl Record {
    /// Of a conversation that ended elsewhere.
    fn of_past(past: &PastConversation, node: &str) -> Self {
        let done = |state, at| (state != Progress::Pending).then_some(at);
        let transcript = |(version, of): (u32, &PastTranscript)| Transcript {
            version,
            active: of.active,
            state: of.state,
            engine: of.engine.clone(),
            created_at: of.created_at,
            completed_at: done(of.state, of.created_at),
        };
        let set = past.memories.iter().map(|set| Set {
            version: 1,
            active: set.is_active(),
            transcript_version: past.active_transcript(),
            state: set.state,
            model: set.model.clone(),
            prompt_version: None,
            created_at: set.created_at,
            completed_at: set.is_active().then_some(set.created_at),
            replaced: Vec::new(),
        });
        let crop = past.crop.as_ref().map(|crop| CropRow {
            audio_path: crop.audio_path.clone(),
            spans: crop.spans.clone(),
            at: crop.at,
        });
        Self {
            summary: past.summary.clone(),
            speakers: past.speakers.clone(),
            transcripts: (1..).zip(&past.transcripts).map(transcript).collect(),
            sets: set.collect(),
            crop,
            ..Self::new(&past.conversation, node)
        }
    }
}
