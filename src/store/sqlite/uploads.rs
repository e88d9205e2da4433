//! Files that were uploaded.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::conversations::insert_conversation;
use super::queue::{complete, enqueue, finish_if_settled, release};
use super::{SqliteStore, rows, sql_limit};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{CloseReason, Conversation};
use crate::domain::ids::{ConversationId, UserId};
use crate::domain::job::{JobKind, Lane, Lease, NewJob, Payload};
use crate::domain::upload::{Upload, UploadJob, UploadState};
use crate::store::Uploads;

#[async_trait]
impl Uploads for SqliteStore {
    async fn add_uploads(
        &self,
        job: &UploadJob,
        conversations: &[Conversation],
        force: bool,
    ) -> Result<UploadJob> {
        let (mut job, conversations) = (job.clone(), conversations.to_vec());
        self.write(move |tx| {
            rows::run(
                tx,
                "insert into upload_jobs (id, user_id, client_id, created_at)
                 values (?1, ?2, ?3, ?4)",
                params![
                    job.id,
                    job.user_id.as_str(),
                    job.client_id.as_str(),
                    job.created_at.millis()
                ],
            )?;
            for (seq, file) in job.files.iter_mut().enumerate() {
                if file.state == UploadState::Waiting {
                    let earlier =
                        if force { None } else { earlier(tx, &job.user_id, &file.sha256)? };
                    match earlier {
                        Some(conversation) => recorded_before(file, conversation, job.created_at),
                        None => make_conversation(tx, file, &conversations, job.created_at)?,
                    }
                }
                insert(tx, &job.id, seq, file)?;
            }
            Ok(job)
        })
        .await
    }

    async fn upload_job(&self, id: &str) -> Result<Option<UploadJob>> {
        let id = id.to_owned();
        self.read(move |db| {
            let job =
                rows::first(db, "select * from upload_jobs where id = ?1", [id], rows::upload_job)?;
            job.map(|job| with_files(db, job)).transpose()
        })
        .await
    }

    async fn upload_jobs(&self, user: Option<&UserId>, limit: usize) -> Result<Vec<UploadJob>> {
        let user = user.cloned();
        self.read(move |db| {
            let jobs = match user {
                Some(user) => rows::all(
                    db,
                    "select * from upload_jobs where user_id = ?1
                     order by created_at desc, rowid desc limit ?2",
                    params![user.as_str(), sql_limit(limit)],
                    rows::upload_job,
                ),
                None => rows::all(
                    db,
                    "select * from upload_jobs order by created_at desc, rowid desc limit ?1",
                    [sql_limit(limit)],
                    rows::upload_job,
                ),
            };
            jobs?.into_iter().map(|job| with_files(db, job)).collect()
        })
        .await
    }

    async fn begin_upload(&self, id: &ConversationId, at: Timestamp) -> Result<Option<Upload>> {
        let id = id.clone();
        self.write(move |tx| {
            let upload = rows::first(
                tx,
                "update uploads set started_at = coalesce(started_at, ?2)
                 where conversation_id = ?1 and state = 'waiting' and not duplicate returning *",
                params![id.as_str(), at.millis()],
                rows::upload,
            )?;
            if upload.is_some() {
                rows::run(tx, "delete from windows where conversation_id = ?1", [id.as_str()])?;
                rows::run(tx, "update conversations set samples = 0 where id = ?1", [id.as_str()])?;
            }
            Ok(upload)
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
        let (id, note) = (id.clone(), note.map(str::to_owned));
        self.write(move |tx| {
            complete(tx, lease, JobKind::Import, Payload::Conversation(id.clone()), at)?;
            rows::run(
                tx,
                "update uploads set state = 'recorded', spooled = null, note = ?2, ended_at = ?3
                 where conversation_id = ?1 and state = 'waiting'",
                params![id.as_str(), note, at.millis()],
            )?;
            rows::run(
                tx,
                "update conversations
                 set samples = max(samples, ?2), ended_at = ?3, close_reason = ?4
                 where id = ?1 and ended_at is null",
                params![
                    id.as_str(),
                    rows::signed(samples),
                    at.millis(),
                    CloseReason::EndOfFile.as_str()
                ],
            )?;
            release(tx, &id, Lane::Backlog)?;
            finish_if_settled(tx, &id, Lane::Backlog, at)
        })
        .await
    }

    async fn spooled_uploads(&self) -> Result<Vec<String>> {
        self.read(|db| {
            let sql = "select spooled from uploads where spooled is not null";
            rows::all(db, sql, [], |row| row.get(0))
        })
        .await
    }
}

/// The conversation that the user's file of that content was made into.
fn earlier(tx: &Connection, user: &UserId, sha256: &str) -> Result<Option<ConversationId>> {
    rows::first(
        tx,
        "select u.conversation_id from uploads u join upload_jobs j on j.id = u.job_id
         where u.sha256 = ?1 and j.user_id = ?2 and u.state in ('waiting', 'recorded')
           and u.conversation_id is not null
         order by j.created_at limit 1",
        [sha256, user.as_str()],
        |row| Ok(ConversationId::from_text(row.get::<_, String>(0)?)),
    )
}

fn recorded_before(file: &mut Upload, conversation: ConversationId, at: Timestamp) {
    file.state = UploadState::Recorded;
    file.spooled = None;
    file.duplicate = true;
    file.conversation_id = Some(conversation);
    (file.started_at, file.ended_at) = (Some(at), Some(at));
}

/// The row of the conversation that `file` is to become, and the job for it.
fn make_conversation(
    tx: &Connection,
    file: &Upload,
    conversations: &[Conversation],
    at: Timestamp,
) -> Result<()> {
    let conversation = conversations
        .iter()
        .find(|conversation| Some(&conversation.id) == file.conversation_id.as_ref())
        .ok_or_else(|| Error::new(Kind::Internal, "an upload has no conversation to become"))?;
    insert_conversation(tx, conversation)?;
    let payload = Payload::Conversation(conversation.id.clone());
    enqueue(tx, &NewJob { kind: JobKind::Import, payload, lane: Lane::Backlog }, at)
}

fn insert(tx: &Connection, job: &str, seq: usize, file: &Upload) -> Result<()> {
    rows::run(
        tx,
        "insert into uploads (job_id, seq, filename, bytes, sha256, spooled, state,
             conversation_id, duplicate, seconds, note, error, started_at, ended_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            job,
            sql_limit(seq),
            file.filename,
            rows::signed(file.bytes),
            file.sha256,
            file.spooled,
            file.state.as_str(),
            file.conversation_id.as_ref().map(ConversationId::as_str),
            file.duplicate,
            file.seconds,
            file.note,
            file.error,
            file.started_at.map(Timestamp::millis),
            file.ended_at.map(Timestamp::millis),
        ],
    )?;
    Ok(())
}

fn with_files(db: &Connection, mut job: UploadJob) -> Result<UploadJob> {
    let sql = "select * from uploads where job_id = ?1 order by seq";
    job.files = rows::all(db, sql, [&job.id], rows::upload)?;
    Ok(job)
}

/// Marks the file behind a given-up job as failed, and closes its conversation.
pub(super) fn give_up(
    tx: &Connection,
    id: &ConversationId,
    error: &str,
    at: Timestamp,
) -> Result<()> {
    rows::run(
        tx,
        "update uploads set state = 'failed', error = ?2, ended_at = ?3
         where conversation_id = ?1 and state = 'waiting'",
        params![id.as_str(), error, at.millis()],
    )?;
    rows::run(
        tx,
        "update conversations set ended_at = ?2, close_reason = ?3
         where id = ?1 and ended_at is null",
        params![id.as_str(), at.millis(), CloseReason::EndOfFile.as_str()],
    )?;
    Ok(())
}

/// Lets the file behind a given-up job wait again.
pub(super) fn reopen(tx: &Connection, id: &ConversationId) -> Result<()> {
    rows::run(
        tx,
        "update uploads set state = 'waiting', error = null, ended_at = null
         where conversation_id = ?1 and state = 'failed' and spooled is not null",
        [id.as_str()],
    )?;
    rows::run(
        tx,
        "update conversations set ended_at = null, close_reason = null where id = ?1",
        [id.as_str()],
    )?;
    Ok(())
}
