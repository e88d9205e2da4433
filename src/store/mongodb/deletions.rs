//! Deleting documents, and writing down which files are to go with them.

use async_trait::async_trait;
use mongodb::bson::{Document, doc};

use super::documents::DeletionRow;
use super::queue::{live_jobs, record, save};
use super::record::Record;
use super::schema::{
    AUDIT, CHATS, CONVERSATIONS, DELETIONS, DEVICES, HISTORY, JOBS, MEMORIES, OBJECTS, SHELF,
    UPLOADS, USERS, WINDOWS,
};
use super::tx::{Of, Tx};
use super::{MongoStore, chats, memories, users};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{Conversation, Progress};
use crate::domain::ids::{ConversationId, MemoryId, UserId};
use crate::domain::job::{JobKind, JobState};
use crate::store::{Deleted, Deletions, UserData};

/// Documents of one collection that are deleted at once.
const HISTORY_AT_ONCE: usize = 5_000;

#[async_trait]
impl Deletions for MongoStore {
    async fn delete_conversation(
        &self,
        id: &ConversationId,
        memories: bool,
        actor: Option<&UserId>,
        at: Timestamp,
    ) -> Result<Deleted> {
        transaction!(self, |tx| {
            let mut found = record(tx, id).await?;
            if found.ended_at.is_none() {
                return Err(recording("this conversation"));
            }
            let memories = match memories {
                true => memories::forget_of_conversation(tx, &mut found, at).await?,
                false => 0,
            };
            let files = note_files(tx, std::slice::from_ref(&found), at).await?;
            remove(tx, &[id.as_str()]).await?;
            users::audit(tx, at, actor, "conversation-deleted", id.as_str()).await?;
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
        let of_user = doc! { "user_id": id.as_str() };
        transaction!(self, |tx| {
            let user = tx.first(USERS, doc! { "_id": id.as_str() }).await?;
            let user = user.ok_or_else(users::no_user)?;
            let mut deleted = Deleted::default();
            if data.memories {
                deleted.memories = memories::forget_of_user(tx, id).await?;
            }
            if data.conversations {
                let found = tx.all(CONVERSATIONS, of_user.clone(), doc! {}).await?;
                if found.iter().any(|record| record.ended_at.is_none()) {
                    return Err(recording("a conversation of this user"));
                }
                deleted.files = note_files(tx, &found, at).await?;
                let ids: Vec<&str> = found.iter().map(|record| record.id.as_str()).collect();
                remove(tx, &ids).await?;
                deleted.conversations = ids.len() as u64;
            }
            let left = |what: &str| {
                let message = format!("this user still has {what}; nothing was deleted");
                Error::new(Kind::Conflict, message)
            };
            if tx.has(CONVERSATIONS, of_user.clone()).await? {
                return Err(left("conversations"));
            }
            if tx.has(MEMORIES, of_user.clone()).await? {
                return Err(left("memories"));
            }
            tx.remove(SHELF, doc! { "memory.user_id": id.as_str() }).await?;
            tx.remove(HISTORY, of_user.clone()).await?;
            tx.remove(DEVICES, of_user.clone()).await?;
            tx.remove(UPLOADS, of_user.clone()).await?;
            let talks = tx.all(CHATS, of_user.clone(), doc! {}).await?;
            let talks: Vec<&str> = talks.iter().map(|talk| talk.id.as_str()).collect();
            chats::remove(tx, &talks).await?;
            tx.remove(USERS, doc! { "_id": id.as_str() }).await?;
            users::audit(tx, at, actor, "user-removed", &user.email).await?;
            Ok(deleted)
        })
        .await
    }

    async fn delete_audio(&self, id: &ConversationId, at: Timestamp) -> Result<Vec<String>> {
        transaction!(self, |tx| {
            let mut found = record(tx, id).await?;
            if found.audio_deleted_at.is_some() {
                return Ok(Vec::new());
            }
            if !is_transcribed(tx, &found).await? {
                return Err(Error::new(
                    Kind::Conflict,
                    "this conversation is not transcribed yet, so its audio is kept",
                ));
            }
            let files = note_files(tx, std::slice::from_ref(&found), at).await?;
            (found.audio_deleted_at, found.crop) = (Some(at), None);
            save(tx, &mut found).await?;
            users::audit(tx, at, None, "audio-deleted", id.as_str()).await?;
            Ok(files)
        })
        .await
    }

    /// Of this node's recordings.
    async fn transcribed_audio(
        &self,
        before: Option<Timestamp>,
        only_here: bool,
        limit: usize,
    ) -> Result<Vec<Conversation>> {
        steps!(self, |tx| {
            let mut filter = transcribed(tx).await?;
            filter.insert("node", self.node());
            if let Some(before) = before {
                filter.insert("started_at", doc! { "$lt": before.millis() });
            }
            let mut pipeline = vec![doc! { "$match": filter }];
            if only_here {
                pipeline.extend(unstored("audio_path"));
            }
            let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
            pipeline.extend([doc! { "$sort": oldest() }, doc! { "$limit": limit }]);
            let found: Vec<Record> = tx.aggregate(CONVERSATIONS, pipeline).await?;
            Ok(found.iter().map(Record::conversation).collect())
        })
        .await
    }

    async fn expired_conversations(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<ConversationId>> {
        steps!(self, |tx| {
            let transcribed = transcribed(tx).await?;
            let busy = subjects(tx, doc! { "live": true }).await?;
            let filter = doc! {
                "started_at": { "$lt": before.millis() },
                "ended_at": { "$ne": null },
                "_id": { "$nin": busy },
                "$or": [{ "audio_deleted_at": { "$ne": null } }, transcribed],
            };
            let found = tx.page(CONVERSATIONS, filter, oldest(), 0, limit).await?;
            Ok(found.into_iter().map(|record| record.id).collect())
        })
        .await
    }

    async fn expired_memories(&self, before: Timestamp, limit: usize) -> Result<Vec<MemoryId>> {
        let (old, order) =
            (doc! { "updated_at": { "$lt": before.millis() } }, doc! { "updated_at": 1 });
        let found = steps!(self, |tx| tx.page(super::schema::LISTED, old, order, 0, limit).await);
        Ok(found.await?.into_iter().map(|memory| memory.id).collect())
    }

    async fn forget_chats(&self, before: Timestamp) -> Result<usize> {
        let old = doc! { "updated_at": { "$lt": before.millis() } };
        let forgotten = transaction!(self, |tx| {
            let talks = tx.page(CHATS, old.clone(), doc! {}, 0, HISTORY_AT_ONCE).await?;
            let talks: Vec<&str> = talks.iter().map(|talk| talk.id.as_str()).collect();
            chats::remove(tx, &talks).await
        });
        Ok(usize::try_from(forgotten.await?).unwrap_or(usize::MAX))
    }

    async fn forget_history(&self, before: Timestamp) -> Result<usize> {
        let before = before.millis();
        let done = doc! { "state": JobState::Done.as_str(), "updated_at": { "$lt": before } };
        let old = doc! { "at": { "$lt": before } };
        steps!(self, |tx| {
            Ok(forget(tx, JOBS.name, done).await?
                + forget(tx, HISTORY.name, old.clone()).await?
                + forget(tx, AUDIT.name, old).await?)
        })
        .await
    }

    /// Those of this node.
    async fn deletions(&self) -> Result<Vec<String>> {
        let (own, order) = (doc! { "node": self.node() }, doc! { "_id": 1 });
        let found = steps!(self, |tx| tx.all(DELETIONS, own, order).await).await?;
        Ok(found.into_iter().map(|deletion| deletion.name).collect())
    }

    async fn strike_deletions(&self, gone: &[String]) -> Result<()> {
        let gone = doc! { "_id": { "$in": gone } };
        steps!(self, |tx| tx.remove(DELETIONS, gone).await).await.map(drop)
    }
}

/// Deletes some thousand documents of a collection; how many.
async fn forget(tx: &mut Tx, collection: &'static str, old: Document) -> Result<usize> {
    const fn ids(name: &'static str) -> Of<Document> {
        Of::new(name)
    }
    let of = ids(collection);
    let found = tx.page(of, old, doc! {}, 0, HISTORY_AT_ONCE).await?;
    let found: Vec<_> = found.iter().filter_map(|one| one.get("_id")).collect();
    let gone = tx.remove(of, doc! { "_id": { "$in": found } }).await?;
    Ok(usize::try_from(gone).unwrap_or(usize::MAX))
}

/// Conversations whose audio nothing waits for.
pub(super) async fn transcribed(tx: &mut Tx) -> Result<Document> {
    let cropped = subjects(tx, doc! { "kind": JobKind::Crop.as_str(), "live": true }).await?;
    let settled = [Progress::Completed, Progress::Empty, Progress::Skipped].map(Progress::as_str);
    Ok(doc! {
        "_id": { "$nin": cropped },
        "ended_at": { "$ne": null },
        "audio_deleted_at": null,
        "transcription": { "$in": settled.to_vec() },
        "transcripts.state": { "$ne": Progress::Pending.as_str() },
        "figures.unfinished": 0,
    })
}

/// The steps of a pipeline that leave out documents whose `name` is that of a file
/// in the bucket.
pub(super) fn unstored(name: &str) -> [Document; 3] {
    [
        doc! { "$lookup": {
            "from": OBJECTS.name, "localField": name, "foreignField": "_id", "as": "object",
        } },
        doc! { "$match": { "object.verified_at": { "$not": { "$type": "number" } } } },
        doc! { "$unset": "object" },
    ]
}

/// The same of one conversation.
pub(super) async fn is_transcribed(tx: &mut Tx, record: &Record) -> Result<bool> {
    Ok(record.is_transcribed() && live_jobs(tx, &record.id, JobKind::Crop).await?.is_empty())
}

/// The conversations that jobs work on.
pub(super) async fn subjects(tx: &mut Tx, jobs: Document) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Subject {
        #[serde(rename = "_id")]
        id: String,
    }
    let pipeline = vec![doc! { "$match": jobs }, doc! { "$group": { "_id": "$conversation_id" } }];
    let found: Vec<Subject> = tx.aggregate(JOBS, pipeline).await?;
    Ok(found.into_iter().map(|subject| subject.id).collect())
}

fn oldest() -> Document {
    doc! { "started_at": 1, "_id": 1 }
}

/// Whether a recording of that name is to go.
pub(super) async fn is_noted(tx: &mut Tx, name: &str) -> Result<bool> {
    tx.has(DELETIONS, doc! { "_id": name }).await
}

/// Notes that files of a node are to go; those that were not noted before.
pub(super) async fn note(
    tx: &mut Tx,
    node: &str,
    names: Vec<String>,
    at: Timestamp,
) -> Result<Vec<String>> {
    let mut new = Vec::new();
    for name in names {
        if !is_noted(tx, &name).await? && !new.contains(&name) {
            let row = DeletionRow { name: name.clone(), node: node.to_owned(), at };
            tx.insert(DELETIONS, &[row]).await?;
            new.push(name);
        }
    }
    Ok(new)
}

/// Notes that the files of some conversations are to go; their names. Every
/// field that names a file of a conversation belongs here.
async fn note_files(tx: &mut Tx, records: &[Record], at: Timestamp) -> Result<Vec<String>> {
    let mut noted = Vec::new();
    for record in records {
        let mut names = Vec::new();
        if record.audio_deleted_at.is_none() {
            names.push(record.audio_path.clone());
        }
        names.extend(record.crop.as_ref().and_then(|crop| crop.audio_path.clone()));
        if let Some(stem) = record.audio_path.strip_suffix(".wav") {
            // What an archiving that was cut short may have left.
            let begun = doc! {
                "conversation_id": record.id.as_str(), "kind": JobKind::Archive.as_str(),
                "state": { "$ne": JobState::Done.as_str() },
            };
            if tx.has(JOBS, begun).await? {
                names.push(format!("{stem}.opus"));
            }
        }
        noted.extend(note(tx, &record.node, names, at).await?);
    }
    Ok(noted)
}

/// Removes conversations, with all that hangs on them but memories that are left.
async fn remove(tx: &mut Tx, ids: &[&str]) -> Result<()> {
    let of_them = doc! { "conversation_id": { "$in": ids } };
    tx.remove(WINDOWS, of_them.clone()).await?;
    tx.remove(JOBS, of_them.clone()).await?;
    let uploads = doc! { "files.conversation_id": { "$in": ids } };
    tx.change(UPLOADS, uploads, doc! { "$pull": { "files": of_them } }).await?;
    memories::outlive(tx, ids).await?;
    tx.remove(CONVERSATIONS, doc! { "_id": { "$in": ids } }).await.map(drop)
}

fn recording(what: &str) -> Error {
    let message = format!("{what} is still being recorded; close it and try again");
    Error::new(Kind::Conflict, message)
}
