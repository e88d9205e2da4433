//! Conversations, their windows and transcripts.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::queue::{complete, enqueue, finish_if_settled, release};
use super::{SqliteStore, deletions, rows, sql_limit, versions};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{CloseReason, Conversation, NewWindow, Window};
use crate::domain::ids::{ConversationId, UserId, WindowId};
use crate::domain::job::{JobKind, Lane, Lease, NewJob, Payload};
use crate::domain::version::{Settled, Transcribed};
use crate::store::Conversations;

#[async_trait]
impl Conversations for SqliteStore {
    async fn open_conversation(&self, conversation: &Conversation) -> Result<()> {
        let new = conversation.clone();
        self.write(move |tx| {
            let sql = "select is_active from users where id = ?1";
            let user = [new.user_id.as_str()];
            if rows::first(tx, sql, user, |row| row.get(0))? == Some(false) {
                let message = "this user may not log in any more, so nothing is recorded";
                return Err(Error::new(Kind::Forbidden, message));
            }
            insert_conversation(tx, &new)
        })
        .await
    }

    async fn adopt_conversation(&self, conversation: &Conversation) -> Result<bool> {
        let new = conversation.clone();
        self.write(move |tx| {
            if deletions::is_noted(tx, &new.audio_path)? {
                return Ok(false);
            }
            insert_conversation(tx, &new).map(|()| true)
        })
        .await
    }

    async fn add_window(
        &self,
        id: &ConversationId,
        samples: u64,
        window: &NewWindow,
        lane: Lane,
        at: Timestamp,
    ) -> Result<()> {
        let (id, window) = (id.clone(), window.clone());
        self.write(move |tx| {
            let known = rows::run(
                tx,
                "update conversations set samples = max(samples, ?2) where id = ?1",
                params![id.as_str(), rows::signed(samples)],
            )?;
            if known == 0 {
                return Err(no_conversation());
            }
            insert_window(tx, &id, &window, lane, at)
        })
        .await
    }

    async fn close_conversation(
        &self,
        id: &ConversationId,
        samples: u64,
        windows: &[NewWindow],
        reason: CloseReason,
        at: Timestamp,
    ) -> Result<()> {
        let (id, windows) = (id.clone(), windows.to_vec());
        self.write(move |tx| {
            let closed = rows::run(
                tx,
                "update conversations
                 set samples = max(samples, ?2), ended_at = ?3, close_reason = ?4
                 where id = ?1 and ended_at is null",
                params![id.as_str(), rows::signed(samples), at.millis(), reason.as_str()],
            )?;
            if closed == 0 {
                return match one(tx, &id)? {
                    Some(_) => Ok(()),
                    None => Err(no_conversation()),
                };
            }
            let lane = lane_of_close(tx, &id, reason)?;
            release(tx, &id, lane)?;
            for window in &windows {
                insert_window(tx, &id, window, lane, at)?;
            }
            finish_if_settled(tx, &id, lane, at)
        })
        .await
    }

    async fn conversation(&self, id: &ConversationId) -> Result<Option<Conversation>> {
        let id = id.clone();
        self.read(move |db| one(db, &id)).await
    }

    async fn conversation_by_audio(&self, audio_path: &str) -> Result<Option<Conversation>> {
        let path = audio_path.to_owned();
        self.read(move |db| {
            let sql = "select * from conversations where audio_path = ?1";
            rows::first(db, sql, [path], rows::conversation)
        })
        .await
    }

    async fn conversations(
        &self,
        user: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Conversation>> {
        let user = user.cloned();
        self.read(move |db| match user {
            Some(user) => rows::all(
                db,
                "select * from conversations where user_id = ?1
                 order by started_at desc, id desc limit ?2",
                params![user.as_str(), sql_limit(limit)],
                rows::conversation,
            ),
            None => rows::all(
                db,
                "select * from conversations order by started_at desc, id desc limit ?1",
                [sql_limit(limit)],
                rows::conversation,
            ),
        })
        .await
    }

    async fn open_conversations(&self) -> Result<Vec<Conversation>> {
        self.read(|db| {
            rows::all(
                db,
                "select * from conversations c
                 where ended_at is null and not exists (
                     select 1 from uploads u
                     where u.conversation_id = c.id and u.spooled is not null)
                 order by started_at",
                [],
                rows::conversation,
            )
        })
        .await
    }

    async fn windows(&self, id: &ConversationId) -> Result<Vec<Window>> {
        let id = id.clone();
        self.read(move |db| {
            let sql = format!("{} where w.conversation_id = ?1 order by w.seq", ACTIVE_WINDOWS);
            rows::all(db, &sql, [id.as_str()], rows::window)
        })
        .await
    }

    async fn window(&self, id: WindowId) -> Result<Option<Window>> {
        self.read(move |db| {
            rows::first(db, "select * from windows where id = ?1", [id], rows::window)
        })
        .await
    }

    async fn complete_windows(&self, windows: &[Transcribed], at: Timestamp) -> Result<()> {
        let windows = windows.to_vec();
        self.write(move |tx| {
            let mut last = None;
            for done in &windows {
                let subject = Payload::Window(done.window);
                let lane = complete(tx, done.lease, JobKind::Transcribe, subject, at)?;
                let conversation = rows::first(
                    tx,
                    "update windows set state = 'done', segments = ?2, engine = ?3
                     where id = ?1 returning conversation_id",
                    params![done.window, rows::to_json(&done.segments)?, done.engine],
                    |row| Ok(ConversationId::from_text(row.get::<_, String>(0)?)),
                )?
                .ok_or_else(|| Error::new(Kind::NotFound, "there is no such window"))?;
                last = Some((conversation, lane));
            }
            match last {
                Some((conversation, lane)) => finish_if_settled(tx, &conversation, lane, at),
                None => Ok(()),
            }
        })
        .await
    }

    async fn finish_conversation(
        &self,
        lease: Lease,
        id: &ConversationId,
        settled: &Settled,
        at: Timestamp,
    ) -> Result<()> {
        let (id, settled) = (id.clone(), settled.clone());
        self.write(move |tx| {
            let subject = Payload::Conversation(id.clone());
            let lane = complete(tx, lease, JobKind::Finish, subject, at)?;
            if versions::settle_transcript(tx, &id, &settled, at)? {
                if settled.next.iter().any(|job| job.kind == JobKind::Remember) {
                    versions::begin_memory(tx, &id, settled.version, at)?;
                }
                settled.next.iter().try_for_each(|job| enqueue(tx, job, at))?;
            }
            clear_error(tx, &id)?;
            if versions::pending_transcript(tx, &id)?.is_some() {
                finish_if_settled(tx, &id, lane, at)?;
            }
            Ok(())
        })
        .await
    }

    async fn requeue_lost(&self, at: Timestamp) -> Result<usize> {
        self.write(move |tx| {
            let lost = lost_jobs(tx)?;
            lost.iter().try_for_each(|job| enqueue(tx, job, at))?;
            let put_off = super::queue::make_due(tx, at)?;
            super::queue::prune(tx, at)?;
            Ok(lost.len() + put_off)
        })
        .await
    }
}

/// Windows of active transcripts.
pub(super) const ACTIVE_WINDOWS: &str = "select w.* from windows w
     join transcript_versions v on v.conversation_id = w.conversation_id
                               and v.version = w.version and v.active";

/// The conversation of that id.
pub(super) fn one(db: &Connection, id: &ConversationId) -> Result<Option<Conversation>> {
    let sql = "select * from conversations where id = ?1";
    rows::first(db, sql, [id.as_str()], rows::conversation)
}

/// Forgets why a step failed, once no step is left failed, and no window of the
/// active transcript or of the latest.
pub(super) fn clear_error(tx: &Connection, id: &ConversationId) -> Result<()> {
    rows::run(
        tx,
        "update conversations set error = null
         where id = ?1 and transcription <> 'FAILED' and memory <> 'FAILED' and not exists (
             select 1 from windows w join transcript_versions v
                 on v.conversation_id = w.conversation_id and v.version = w.version
             where w.conversation_id = ?1 and w.state = 'failed' and (v.active or v.version = (
                 select max(version) from transcript_versions where conversation_id = ?1)))",
        [id.as_str()],
    )?;
    Ok(())
}

/// Adds the row of `new`, with the version its transcript will be.
pub(super) fn insert_conversation(tx: &Connection, new: &Conversation) -> Result<()> {
    insert_row(tx, new)?;
    rows::run(
        tx,
        "insert into transcript_versions (conversation_id, version, active, state, created_at)
         values (?1, 1, 1, ?2, ?3)",
        params![new.id.as_str(), new.transcription.as_str(), new.started_at.millis()],
    )?;
    Ok(())
}

/// Adds the row of `new` alone.
pub(super) fn insert_row(tx: &Connection, new: &Conversation) -> Result<()> {
    rows::run(
        tx,
        "insert into conversations (id, user_id, client_id, audio_path, started_at, ended_at,
             close_reason, samples, transcription, memory, error, title, audio_deleted_at,
             time_estimated)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            new.id.as_str(),
            new.user_id.as_str(),
            new.client_id.as_str(),
            new.audio_path,
            new.started_at.millis(),
            new.ended_at.map(Timestamp::millis),
            new.close_reason.map(CloseReason::as_str),
            rows::signed(new.samples),
            new.transcription.as_str(),
            new.memory.as_str(),
            new.error,
            new.title,
            new.audio_deleted_at.map(Timestamp::millis),
            new.time_estimated,
        ],
    )?;
    Ok(())
}

fn insert_window(
    tx: &Connection,
    id: &ConversationId,
    window: &NewWindow,
    lane: Lane,
    at: Timestamp,
) -> Result<()> {
    let inserted: Option<WindowId> = rows::first(
        tx,
        // Only the first transcript is made while audio arrives.
        "insert into windows (conversation_id, version, seq, spans, state)
         values (?1, 1, ?2, ?3, 'waiting')
         on conflict (conversation_id, version, seq) do nothing returning id",
        params![id.as_str(), window.seq, rows::to_json(&window.spans)?],
        |row| row.get(0),
    )?;
    match inserted {
        Some(window) => {
            let payload = Payload::Window(window);
            enqueue(tx, &NewJob { kind: JobKind::Transcribe, payload, lane }, at)
        }
        None => Ok(()),
    }
}

/// The tail goes where the windows before it went; nobody waits for what the
/// sweep closes.
fn lane_of_close(tx: &Connection, id: &ConversationId, reason: CloseReason) -> Result<Lane> {
    if reason == CloseReason::Sweep {
        return Ok(Lane::Backlog);
    }
    let earlier = rows::first(
        tx,
        "select j.lane from windows w join jobs j on j.window_id = w.id
         where w.conversation_id = ?1 and w.version = 1
         order by w.seq desc, j.id desc limit 1",
        [id.as_str()],
        rows::lane,
    )?;
    Ok(earlier.filter(|lane| *lane != Lane::Held).unwrap_or(Lane::Live))
}

/// What ought to have a live job and has none.
pub(super) fn lost_jobs(tx: &Connection) -> Result<Vec<NewJob>> {
    let job = |kind, payload| NewJob { kind, payload, lane: Lane::Backlog };
    let windows = rows::all(
        tx,
        "select id from windows w where state = 'waiting' and not exists (
             select 1 from jobs j where j.window_id = w.id and j.state in ('ready', 'leased'))
         order by w.id",
        [],
        |row| row.get::<_, WindowId>(0),
    )?;
    let unrecorded = conversations_without(
        tx,
        "select conversation_id from uploads u
         where state = 'waiting' and conversation_id is not null and not exists (
             select 1 from jobs j where j.conversation_id = u.conversation_id
             and j.kind = 'import' and j.state in ('ready', 'leased'))",
    )?;
    let unsettled = conversations_without(
        tx,
        "select id from conversations c
         where ended_at is not null and exists (
             select 1 from transcript_versions v
             where v.conversation_id = c.id and v.state = 'PENDING')
         and not exists (
             select 1 from windows w where w.conversation_id = c.id and w.state = 'waiting')
         and not exists (
             select 1 from jobs j where j.conversation_id = c.id and j.kind = 'finish'
             and j.state in ('ready', 'leased'))
         order by started_at",
    )?;
    let unremembered = conversations_without(
        tx,
        "select id from conversations c
         where exists (
             select 1 from memory_versions v
             where v.conversation_id = c.id and v.state = 'PENDING')
         and not exists (
             select 1 from jobs j where j.conversation_id = c.id
             and j.kind in ('finish', 'remember') and j.state in ('ready', 'leased'))
         order by started_at",
    )?;
    let windows = windows.into_iter().map(|id| job(JobKind::Transcribe, Payload::Window(id)));
    let import = unrecorded.into_iter().map(|id| job(JobKind::Import, Payload::Conversation(id)));
    let finish = unsettled.into_iter().map(|id| job(JobKind::Finish, Payload::Conversation(id)));
    let remember =
        unremembered.into_iter().map(|id| job(JobKind::Remember, Payload::Conversation(id)));
    Ok(import.chain(windows).chain(finish).chain(remember).collect())
}

fn conversations_without(tx: &Connection, sql: &str) -> Result<Vec<ConversationId>> {
    rows::all(tx, sql, [], |row| Ok(ConversationId::from_text(row.get::<_, String>(0)?)))
}

pub(super) fn no_conversation() -> Error {
    Error::new(Kind::NotFound, "there is no such conversation")
}
