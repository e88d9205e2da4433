//! Jobs and windows, as steps inside a transaction.

use std::time::Duration;

use mongodb::bson::doc;

use super::documents::{JobRow, WindowRow};
use super::record::{Record, WindowSummary, any_waits};
use super::schema::{CONVERSATIONS, JOBS, OBJECTS, USERS, WINDOWS, counter};
use super::tx::{Of, Tx};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{NewWindow, Span, WindowState};
use crate::domain::ids::{ConversationId, JobId, UserId};
use crate::domain::job::{JobKind, JobState, LONGEST_PAUSE, Lane, Lease, NewJob, Payload};

/// How long a finished job is kept to be looked at: its result lives elsewhere.
const DONE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

const SUMMARIES: Of<WindowSummary> = Of::<WindowSummary>::new(WINDOWS.name).without(&["segments"]);

/// The conversation of that id. `NotFound` without one.
pub(super) async fn record(tx: &mut Tx, id: &ConversationId) -> Result<Record> {
    find_record(tx, id).await?.ok_or_else(no_conversation)
}

pub(super) async fn find_record(tx: &mut Tx, id: &ConversationId) -> Result<Option<Record>> {
    tx.first(CONVERSATIONS, doc! { "_id": id.as_str() }).await
}

/// Writes a conversation down. Every transaction that depends on one does so,
/// also where nothing is changed: that orders them.
pub(super) async fn save(tx: &mut Tx, record: &mut Record) -> Result<()> {
    record.revision += 1;
    tx.put(CONVERSATIONS, record.id.as_str(), record).await
}

/// Adds a conversation. `Conflict` when its user is not there, or it is.
pub(super) async fn insert_record(tx: &mut Tx, record: &Record) -> Result<()> {
    hold_user(tx, &record.user_id).await?;
    tx.insert(CONVERSATIONS, std::slice::from_ref(record)).await
}

/// Keeps a user from going before the transaction is through, which adds
/// something of theirs.
pub(super) async fn hold_user(tx: &mut Tx, id: &UserId) -> Result<()> {
    let held = doc! { "$inc": { "holds": 1_i64 } };
    match tx.change(USERS, doc! { "_id": id.as_str() }, held).await? {
        0 => Err(Error::new(Kind::Conflict, "this does not fit what is stored already")),
        _ => Ok(()),
    }
}

/// The windows of all transcripts of a conversation, in order.
pub(super) async fn windows_of(tx: &mut Tx, id: &ConversationId) -> Result<Vec<WindowSummary>> {
    let order = doc! { "version": 1, "seq": 1 };
    tx.all(SUMMARIES, doc! { "conversation_id": id.as_str() }, order).await
}

/// Adds a window of a transcript, and the job to transcribe it, unless there is
/// one of that number.
pub(super) async fn insert_window(
    tx: &mut Tx,
    record: &Record,
    windows: &mut Vec<WindowSummary>,
    (version, new): (u32, &NewWindow),
    lane: Lane,
    at: Timestamp,
) -> Result<()> {
    if windows.iter().any(|window| (window.version, window.seq) == (version, new.seq)) {
        return Ok(());
    }
    let row = WindowRow {
        id: tx.number(counter::WINDOWS).await?,
        conversation_id: record.id.clone(),
        version,
        seq: new.seq,
        spans: new.spans.clone(),
        samples: new.spans.iter().copied().map(Span::len).sum(),
        state: WindowState::Waiting,
        segments: Vec::new(),
        engine: None,
    };
    tx.insert(WINDOWS, std::slice::from_ref(&row)).await?;
    windows.push(WindowSummary::from(&row));
    let job = NewJob { kind: JobKind::Transcribe, payload: Payload::Window(row.id), lane };
    enqueue(tx, record, &job, at).await
}

/// Makes a job. While one with its key waits, that one stands for both; one that
/// a worker holds is taken back and started over, since it may have looked at
/// its subject before the change that asks for this job.
pub(super) async fn enqueue(
    tx: &mut Tx,
    record: &Record,
    job: &NewJob,
    at: Timestamp,
) -> Result<()> {
    let key = job.unique_key();
    let rank = i32::from(job.lane.rank());
    let audio_at = audio_at(tx, record, job.kind).await?;
    let held = doc! { "$cond": [{ "$eq": ["$state", JobState::Leased.as_str()] }, 1, 0] };
    let again = vec![doc! { "$set": {
        "lane": { "$min": ["$lane", rank] },
        "attempts": { "$subtract": ["$attempts", held] },
        "state": JobState::Ready.as_str(),
        "owner": null,
        "node": null,
        "audio_at": { "$literal": audio_at.as_deref() },
        "updated_at": at.millis(),
    } }];
    if tx.change(JOBS, doc! { "key": &key, "live": true }, again).await? > 0 {
        return Ok(());
    }
    let row = JobRow {
        id: tx.number(counter::JOBS).await?,
        kind: job.kind,
        key,
        window_id: match &job.payload {
            Payload::Window(id) => Some(*id),
            Payload::Conversation(_) => None,
        },
        conversation_id: record.id.clone(),
        user_id: record.user_id.clone(),
        client_id: record.client_id.clone(),
        lane: job.lane.rank(),
        state: JobState::Ready,
        live: true,
        attempts: 0,
        epoch: 0,
        run_at: at,
        owner: None,
        node: None,
        audio_at,
        last_error: None,
        created_at: at,
        updated_at: at,
    };
    tx.insert(JOBS, &[row]).await
}

/// The node that alone can do a job of that kind. A recording in the bucket can be
/// read anywhere; what makes a file anew makes it beside the others of its
/// conversation.
async fn audio_at(tx: &mut Tx, record: &Record, kind: JobKind) -> Result<Option<String>> {
    // One that is open is in no bucket.
    let anywhere = kind == JobKind::Transcribe
        && record.ended_at.is_some()
        && is_stored(tx, &record.audio_path).await?;
    Ok((needs_audio(kind) && !anywhere).then(|| record.node.clone()))
}

/// Whether a job of that kind reads or writes files.
pub(super) fn needs_audio(kind: JobKind) -> bool {
    match kind {
        JobKind::Finish | JobKind::Remember => false,
        JobKind::Import | JobKind::Transcribe | JobKind::Crop | JobKind::Archive => true,
    }
}

/// Whether a recording has been seen to be in the bucket.
async fn is_stored(tx: &mut Tx, name: &str) -> Result<bool> {
    tx.has(OBJECTS, doc! { "_id": name, "verified_at": { "$ne": null } }).await
}

/// Makes a job on a conversation itself.
pub(super) async fn enqueue_kind(
    tx: &mut Tx,
    record: &Record,
    kind: JobKind,
    lane: Lane,
    at: Timestamp,
) -> Result<()> {
    let payload = Payload::Conversation(record.id.clone());
    enqueue(tx, record, &NewJob { kind, payload, lane }, at).await
}

/// Marks a job done, and returns its lane. `Conflict` unless the lease is good
/// and the job is of that kind for that subject.
pub(super) async fn complete(
    tx: &mut Tx,
    lease: Lease,
    kind: JobKind,
    payload: Payload,
    at: Timestamp,
) -> Result<Lane> {
    let key = NewJob { kind, payload, lane: Lane::Backlog }.unique_key();
    let mut filter = leased(lease);
    filter.insert("key", key);
    let done = doc! { "$set": {
        "state": JobState::Done.as_str(), "live": false, "owner": null, "node": null,
        "last_error": null, "updated_at": at.millis(),
    } };
    let job = tx.take(JOBS, filter, done, doc! {}).await?.ok_or_else(stale)?;
    Ok(job.lane())
}

/// Has the windows of a conversation that were held wait in `lane` from now on.
pub(super) async fn release(tx: &mut Tx, id: &ConversationId, lane: Lane) -> Result<()> {
    let held = doc! {
        "conversation_id": id.as_str(), "lane": i32::from(Lane::Held.rank()), "live": true,
    };
    tx.change(JOBS, held, doc! { "$set": { "lane": i32::from(lane.rank()) } }).await.map(drop)
}

/// The job of that lease, while it is good.
pub(super) fn leased(lease: Lease) -> mongodb::bson::Document {
    doc! { "_id": lease.job, "epoch": lease.epoch, "state": JobState::Leased.as_str() }
}

/// Makes the job that settles a conversation, if it is closed and no window of
/// it waits.
pub(super) async fn finish_if_settled(
    tx: &mut Tx,
    record: &Record,
    windows: &[WindowSummary],
    lane: Lane,
    at: Timestamp,
) -> Result<()> {
    if record.ended_at.is_none() || any_waits(windows) {
        return Ok(());
    }
    enqueue_kind(tx, record, JobKind::Finish, lane, at).await
}

/// The jobs of that kind on a conversation that are to be done, by number.
pub(super) async fn live_jobs(
    tx: &mut Tx,
    id: &ConversationId,
    kind: JobKind,
) -> Result<Vec<JobRow>> {
    let filter = doc! { "conversation_id": id.as_str(), "kind": kind.as_str(), "live": true };
    tx.all(JOBS, filter, doc! { "_id": 1 }).await
}

/// The numbers of jobs.
pub(super) fn numbers(jobs: &[JobRow]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

/// Makes jobs due that wait for longer than any pause is: the clock has been set
/// back since. Returns how many.
pub(super) async fn make_due(tx: &mut Tx, at: Timestamp) -> Result<u64> {
    let put_off = doc! {
        "state": JobState::Ready.as_str(), "run_at": { "$gt": at.plus(LONGEST_PAUSE).millis() },
    };
    tx.change(JOBS, put_off, doc! { "$set": { "run_at": at.millis() } }).await
}

/// Forgets jobs that were done long ago.
pub(super) async fn prune(tx: &mut Tx, at: Timestamp) -> Result<()> {
    let kept = i64::try_from(DONE_KEPT.as_millis()).unwrap_or(i64::MAX);
    let old = doc! {
        "state": JobState::Done.as_str(),
        "updated_at": { "$lt": at.millis().saturating_sub(kept) },
    };
    tx.remove(JOBS, old).await.map(drop)
}

/// The lease is no longer good.
pub(super) fn stale() -> Error {
    Error::new(Kind::Conflict, "this job has been taken back meanwhile")
}

pub(super) fn no_conversation() -> Error {
    Error::new(Kind::NotFound, "there is no such conversation")
}
