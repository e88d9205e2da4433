//! The job table, as steps inside a transaction.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::rows;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::ids::ConversationId;
use crate::domain::job::{JobKind, LONGEST_PAUSE, Lane, Lease, NewJob, Payload};

/// How long a finished job is kept to be looked at: its result lives elsewhere.
const DONE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Makes a job. While one with its key waits, that one stands for both; one that
/// a worker holds is taken back and started over, since it may have looked at
/// its subject before the change that asks for this job.
pub(super) fn enqueue(tx: &Connection, job: &NewJob, at: Timestamp) -> Result<()> {
    let (window, conversation) = match &job.payload {
        Payload::Window(id) => (Some(*id), None),
        Payload::Conversation(id) => (None, Some(id.as_str())),
    };
    rows::run(
        tx,
        "insert into jobs (kind, window_id, conversation_id, unique_key, lane, state,
                           run_at, created_at, updated_at)
         values (?1, ?2, ?3, ?4, ?5, 'ready', ?6, ?6, ?6)
         on conflict (unique_key) where state in ('ready', 'leased') do update set
             lane = min(lane, excluded.lane),
             attempts = attempts - (state = 'leased'),
             state = 'ready',
             owner = null,
             updated_at = excluded.updated_at",
        params![
            job.kind.as_str(),
            window,
            conversation,
            job.unique_key(),
            job.lane.rank(),
            at.millis(),
        ],
    )?;
    Ok(())
}

/// Marks a job done, and returns its lane. `Conflict` unless the lease is good
/// and the job is of that kind for that subject.
pub(super) fn complete(
    tx: &Connection,
    lease: Lease,
    kind: JobKind,
    payload: Payload,
    at: Timestamp,
) -> Result<Lane> {
    let key = NewJob { kind, payload, lane: Lane::Backlog }.unique_key();
    rows::first(
        tx,
        "update jobs set state = 'done', owner = null, last_error = null, updated_at = ?4
         where id = ?1 and epoch = ?2 and state = 'leased' and unique_key = ?3
         returning lane",
        params![lease.job, lease.epoch, key, at.millis()],
        rows::lane,
    )?
    .ok_or_else(stale)
}

/// Has the windows of a conversation that were held wait in `lane` from now on.
pub(super) fn release(tx: &Connection, id: &ConversationId, lane: Lane) -> Result<()> {
    rows::run(
        tx,
        "update jobs set lane = ?2 where lane = ?3 and state in ('ready', 'leased')
             and window_id in (select id from windows where conversation_id = ?1)",
        params![id.as_str(), lane.rank(), Lane::Held.rank()],
    )?;
    Ok(())
}

/// Makes the job that settles a conversation, if it is closed and no window of
/// it waits.
pub(super) fn finish_if_settled(
    tx: &Connection,
    id: &ConversationId,
    lane: Lane,
    at: Timestamp,
) -> Result<()> {
    let settled: bool = tx
        .prepare_cached(
            "select exists (
                 select 1 from conversations c
                 where c.id = ?1 and c.ended_at is not null and not exists (
                     select 1 from windows w
                     where w.conversation_id = c.id and w.state = 'waiting'))",
        )?
        .query_row([id.as_str()], |row| row.get(0))?;
    if settled {
        let payload = Payload::Conversation(id.clone());
        enqueue(tx, &NewJob { kind: JobKind::Finish, payload, lane }, at)?;
    }
    Ok(())
}

/// The lease is no longer good.
pub(super) fn stale() -> Error {
    Error::new(Kind::Conflict, "this job has been taken back meanwhile")
}

/// Makes jobs due that wait for longer than any pause is: the clock has been set
/// back since. Returns how many.
pub(super) fn make_due(tx: &Connection, at: Timestamp) -> Result<usize> {
    rows::run(
        tx,
        "update jobs set run_at = ?1 where state = 'ready' and run_at > ?2",
        params![at.millis(), at.plus(LONGEST_PAUSE).millis()],
    )
}

/// Forgets jobs that were done long ago.
pub(super) fn prune(tx: &Connection, at: Timestamp) -> Result<()> {
    let kept = i64::try_from(DONE_KEPT.as_millis()).unwrap_or(i64::MAX);
    rows::run(
        tx,
        "delete from jobs where state = 'done' and updated_at < ?1",
        [at.millis().saturating_sub(kept)],
    )?;
    Ok(())
}
