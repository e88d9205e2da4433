//! Files that were uploaded.

use std::collections::HashMap;

use async_trait::async_trait;
use mongodb::bson::{Document, doc};
use serde::{Deserialize, Serialize};

use super::MongoStore;
use super::queue::{
    complete, enqueue_kind, find_record, finish_if_settled, hold_user, insert_record, record,
    release, save, windows_of,
};
use super::record::Record;
use super::schema::{CONVERSATIONS, JOBS, UPLOADS, WINDOWS, counter};
use super::tx::Tx;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{CloseReason, Conversation};
use crate::domain::ids::{ClientId, ConversationId, UserId};
use crate::domain::job::{JobKind, Lane, Lease, Payload};
use crate::domain::upload::{Upload, UploadJob, UploadState};
use crate::store::Uploads;

/// A request with the files that it brought.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UploadRow {
    #[serde(rename = "_id")]
    pub(super) id: String,
    /// In the order of their arrival.
    pub(super) seq: i64,
    pub(super) user_id: UserId,
    pub(super) client_id: ClientId,
    pub(super) created_at: Timestamp,
    pub(super) files: Vec<FileRow>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FileRow {
    filename: String,
    bytes: u64,
    sha256: String,
    pub(super) spooled: Option<String>,
    pub(super) state: UploadState,
    pub(super) conversation_id: Option<ConversationId>,
    pub(super) duplicate: bool,
    seconds: Option<f64>,
    pub(super) note: Option<String>,
    pub(super) error: Option<String>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
}

impl From<&Upload> for FileRow {
    fn from(file: &Upload) -> Self {
        Self {
            filename: file.filename.clone(),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
            spooled: file.spooled.clone(),
            state: file.state,
            conversation_id: file.conversation_id.clone(),
            duplicate: file.duplicate,
            seconds: file.seconds,
            note: file.note.clone(),
            error: file.error.clone(),
            started_at: file.started_at,
            ended_at: file.ended_at,
        }
    }
}

impl From<FileRow> for Upload {
    fn from(row: FileRow) -> Self {
        Self {
            filename: row.filename,
            bytes: row.bytes,
            sha256: row.sha256,
            spooled: row.spooled,
            state: row.state,
            conversation_id: row.conversation_id,
            duplicate: row.duplicate,
            seconds: row.seconds,
            note: row.note,
            error: row.error,
            started_at: row.started_at,
            ended_at: row.ended_at,
        }
    }
}

impl From<UploadRow> for UploadJob {
    fn from(row: UploadRow) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            client_id: row.client_id,
            created_at: row.created_at,
            files: row.files.into_iter().map(Upload::from).collect(),
        }
    }
}

#[async_trait]
impl Uploads for MongoStore {
    async fn add_uploads(
        &self,
        job: &UploadJob,
        conversations: &[Conversation],
        force: bool,
    ) -> Result<UploadJob> {
        transaction!(self, |tx| {
            let mut job = job.clone();
            // Two requests of one user come one after the other.
            hold_user(tx, &job.user_id).await?;
            let mut files: Vec<Upload> = Vec::new();
            for mut file in std::mem::take(&mut job.files) {
                if file.state == UploadState::Waiting {
                    let earlier = match force {
                        true => None,
                        false => earlier(tx, &job.user_id, &file.sha256, &files).await?,
                    };
                    match earlier {
                        Some(conversation) => {
                            recorded_before(&mut file, conversation, job.created_at);
                        }
                        None => {
                            let new = self.becomes(&file, conversations)?;
                            insert_record(tx, &new).await?;
                            let (kind, lane) = (JobKind::Import, Lane::Backlog);
                            enqueue_kind(tx, &new, kind, lane, job.created_at).await?;
                        }
                    }
                }
                files.push(file);
            }
            let row = UploadRow {
                id: job.id.clone(),
                seq: tx.number(counter::UPLOADS).await?,
                user_id: job.user_id.clone(),
                client_id: job.client_id.clone(),
                created_at: job.created_at,
                files: files.iter().map(FileRow::from).collect(),
            };
            tx.insert(UPLOADS, &[row]).await?;
            job.files = files;
            Ok(job)
        })
        .await
    }

    async fn upload_job(&self, id: &str) -> Result<Option<UploadJob>> {
        let found = steps!(self, |tx| tx.first(UPLOADS, doc! { "_id": id }).await).await?;
        Ok(found.map(UploadJob::from))
    }

    async fn upload_jobs(&self, user: Option<&UserId>, limit: usize) -> Result<Vec<UploadJob>> {
        let filter = user.map_or_else(Document::new, |user| doc! { "user_id": user.as_str() });
        let order = doc! { "created_at": -1, "seq": -1 };
        let found = steps!(self, |tx| tx.page(UPLOADS, filter, order, 0, limit).await).await?;
        Ok(found.into_iter().map(UploadJob::from).collect())
    }

    async fn begin_upload(&self, id: &ConversationId, at: Timestamp) -> Result<Option<Upload>> {
        transaction!(self, |tx| {
            let mut begun = None;
            each_file(tx, id, |file| {
                if file.state == UploadState::Waiting && !file.duplicate {
                    file.started_at.get_or_insert(at);
                    begun = Some(Upload::from(file.clone()));
                }
            })
            .await?;
            if begun.is_some()
                && let Some(mut record) = find_record(tx, id).await?
            {
                let jobs = doc! { "conversation_id": id.as_str(), "window_id": { "$ne": null } };
                tx.remove(JOBS, jobs).await?;
                tx.remove(WINDOWS, doc! { "conversation_id": id.as_str() }).await?;
                record.samples = 0;
                record.count(&[]);
                save(tx, &mut record).await?;
            }
            Ok(begun)
        })
        .await
    }

    async fn complete_upload(
        &self,
        lease: Lease,
        id: &ConversationId,
        samples: u64,
        note: Option<&str>,
        at: Timestamp,
    ) -> Result<()> {
        transaction!(self, |tx| {
            complete(tx, lease, JobKind::Import, Payload::Conversation(id.clone()), at).await?;
            each_file(tx, id, |file| {
                if file.state == UploadState::Waiting {
                    (file.state, file.spooled) = (UploadState::Recorded, None);
                    (file.note, file.ended_at) = (note.map(str::to_owned), Some(at));
                }
            })
            .await?;
            let mut record = record(tx, id).await?;
            if record.ended_at.is_none() {
                record.samples = record.samples.max(samples);
                record.close(CloseReason::EndOfFile, at);
            }
            release(tx, id, Lane::Backlog).await?;
            let windows = windows_of(tx, id).await?;
            finish_if_settled(tx, &record, &windows, Lane::Backlog, at).await?;
            save(tx, &mut record).await
        })
        .await
    }

    /// Those of this node.
    async fn spooled_uploads(&self) -> Result<Vec<String>> {
        let spooled = doc! { "files.spooled": { "$type": "string" } };
        steps!(self, |tx| {
            let found = tx.all(UPLOADS, spooled, doc! {}).await?;
            let files = found.into_iter().flat_map(|upload| upload.files);
            let files: HashMap<ConversationId, String> =
                files.filter_map(|file| Some((file.conversation_id?, file.spooled?))).collect();
            let ids: Vec<&str> = files.keys().map(ConversationId::as_str).collect();
            let here = doc! { "_id": { "$in": ids }, "node": self.node() };
            let here = tx.all(CONVERSATIONS, here, doc! {}).await?;
            Ok(here.iter().filter_map(|record| files.get(&record.id).cloned()).collect())
        })
        .await
    }
}

impl MongoStore {
    /// The conversation that `file` is to become.
    fn becomes(&self, file: &Upload, conversations: &[Conversation]) -> Result<Record> {
        conversations
            .iter()
            .find(|conversation| Some(&conversation.id) == file.conversation_id.as_ref())
            .map(|conversation| Record::new(conversation, self.node()))
            .ok_or_else(|| Error::new(Kind::Internal, "an upload has no conversation to become"))
    }
}

/// The conversation that the user's file of that content was made into, in an
/// earlier request or in this one, of which those are the `files` before it.
async fn earlier(
    tx: &mut Tx,
    user: &UserId,
    sha256: &str,
    files: &[Upload],
) -> Result<Option<ConversationId>> {
    let states = [UploadState::Waiting, UploadState::Recorded];
    let names: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
    let same = doc! {
        "user_id": user.as_str(),
        "files": { "$elemMatch": {
            "sha256": sha256, "state": { "$in": names }, "conversation_id": { "$ne": null },
        } },
    };
    let before = tx.first_by(UPLOADS, same, doc! { "created_at": 1, "seq": 1 }).await?;
    let before: Vec<Upload> =
        before.into_iter().flat_map(|upload| upload.files).map(Upload::from).collect();
    let same = |file: &&Upload| file.sha256 == sha256 && states.contains(&file.state);
    let mut all = before.iter().chain(files).filter(same);
    Ok(all.find_map(|file| file.conversation_id.clone()))
}

fn recorded_before(file: &mut Upload, conversation: ConversationId, at: Timestamp) {
    file.state = UploadState::Recorded;
    file.spooled = None;
    file.duplicate = true;
    file.conversation_id = Some(conversation);
    (file.started_at, file.ended_at) = (Some(at), Some(at));
}

/// Changes the files that are, or were before, made into that conversation.
async fn each_file(
    tx: &mut Tx,
    id: &ConversationId,
    mut change: impl FnMut(&mut FileRow),
) -> Result<()> {
    let of = doc! { "files.conversation_id": id.as_str() };
    for mut upload in tx.all(UPLOADS, of, doc! { "seq": 1 }).await? {
        let files = upload.files.iter_mut();
        files.filter(|file| file.conversation_id.as_ref() == Some(id)).for_each(&mut change);
        tx.put(UPLOADS, upload.id.as_str(), &upload).await?;
    }
    Ok(())
}

/// Marks the file behind a given-up job as failed, and closes its conversation.
pub(super) async fn give_up(
    tx: &mut Tx,
    record: &mut Record,
    error: &str,
    at: Timestamp,
) -> Result<()> {
    each_file(tx, &record.id, |file| {
        if file.state == UploadState::Waiting {
            file.state = UploadState::Failed;
            (file.error, file.ended_at) = (Some(error.to_owned()), Some(at));
        }
    })
    .await?;
    if record.ended_at.is_none() {
        record.close(CloseReason::EndOfFile, at);
    }
    Ok(())
}

/// Lets the file behind a given-up job wait again.
pub(super) async fn reopen(tx: &mut Tx, record: &mut Record) -> Result<()> {
    each_file(tx, &record.id, |file| {
        if file.state == UploadState::Failed && file.spooled.is_some() {
            file.state = UploadState::Waiting;
            (file.error, file.ended_at) = (None, None);
        }
    })
    .await?;
    (record.ended_at, record.close_reason) = (None, None);
    Ok(())
}
