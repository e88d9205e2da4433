//! The job queue.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::queue::{finish_if_settled, stale};
use super::{SqliteStore, job_list, rows, sql_limit, uploads, versions};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::ids::{ConversationId, JobId, UserId, WindowId};
use crate::domain::job::{
    Backlog, Job, JobCounts, JobKind, JobState, Lane, Lease, MOST_TOGETHER, Payload, TRIES_TOGETHER,
};
use crate::store::{JobCensus, JobEntry, JobQuery, Jobs};

#[async_trait]
impl Jobs for SqliteStore {
    async fn claim_job(
        &self,
        kinds: &[JobKind],
        least: Lane,
        owner: &str,
        at: Timestamp,
    ) -> Result<Option<Job>> {
        let (kinds, owner) = (rows::to_json(kinds)?, owner.to_owned());
        self.write(move |tx| claim(tx, &kinds, least, &owner, at)).await
    }

    async fn claim_together(
        &self,
        kinds: &[JobKind],
        least: Lane,
        owner: &str,
        at: Timestamp,
    ) -> Result<Vec<Job>> {
        let (kinds, owner) = (rows::to_json(kinds)?, owner.to_owned());
        self.write(move |tx| {
            let Some(first) = claim(tx, &kinds, least, &owner, at)? else { return Ok(Vec::new()) };
            let mut jobs = match &first.payload {
                Payload::Window(window) if first.attempts <= TRIES_TOGETHER => {
                    claim_rest(tx, *window, &owner, at)?
                }
                _ => Vec::new(),
            };
            jobs.insert(0, first);
            Ok(jobs)
        })
        .await
    }

    async fn fail_job(
        &self,
        lease: Lease,
        error: &str,
        retry_at: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<()> {
        let error = error.to_owned();
        self.write(move |tx| {
            let job = rows::first(
                tx,
                "update jobs set state = iif(?3 is null, 'dead', 'ready'),
                                 run_at = coalesce(?3, run_at),
                                 last_error = ?4, owner = null, updated_at = ?5
                 where id = ?1 and epoch = ?2 and state = 'leased' returning *",
                params![
                    lease.job,
                    lease.epoch,
                    retry_at.map(Timestamp::millis),
                    error,
                    at.millis(),
                ],
                rows::job,
            )?
            .ok_or_else(stale)?;
            match retry_at {
                Some(_) => Ok(()),
                None => give_up(tx, &job, &error, at),
            }
        })
        .await
    }

    async fn postpone_job(
        &self,
        lease: Lease,
        why: &str,
        retry_at: Timestamp,
        at: Timestamp,
    ) -> Result<()> {
        let why = why.to_owned();
        self.write(move |tx| {
            let postponed = rows::run(
                tx,
                "update jobs set state = 'ready', attempts = max(attempts - 1, 0), run_at = ?3,
                                 last_error = ?4, owner = null, updated_at = ?5
                 where id = ?1 and epoch = ?2 and state = 'leased'",
                params![lease.job, lease.epoch, retry_at.millis(), why, at.millis()],
            )?;
            if postponed == 0 { Err(stale()) } else { Ok(()) }
        })
        .await
    }

    async fn void_leases(&self, uncount: bool, at: Timestamp) -> Result<usize> {
        self.write(move |tx| {
            rows::run(
                tx,
                "update jobs set state = 'ready', owner = null, updated_at = ?2,
                                 attempts = max(attempts - ?1, 0)
                 where state = 'leased'",
                params![i64::from(uncount), at.millis()],
            )
        })
        .await
    }

    async fn take_back(&self, owner: &str, at: Timestamp) -> Result<usize> {
        let owner = owner.to_owned();
        self.write(move |tx| {
            rows::run(
                tx,
                "update jobs set state = 'ready', owner = null, updated_at = ?2
                 where state = 'leased' and owner = ?1",
                params![owner, at.millis()],
            )
        })
        .await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.read(|db| {
            let mut counts = JobCounts::default();
            let sql = "select state, count(*) from jobs
                       where state in ('ready', 'leased', 'dead') group by state";
            let by_state = rows::all(db, sql, [], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?))
            })?;
            for (state, count) in by_state {
                match state.as_str() {
                    "ready" => counts.ready = count.into(),
                    "leased" => counts.leased = count.into(),
                    _ => counts.dead = count.into(),
                }
            }
            Ok(counts)
        })
        .await
    }

    async fn backlog(&self) -> Result<Backlog> {
        self.read(|db| {
            let sql = "select count(*), coalesce(sum((
                           select sum((value ->> 'end') - (value ->> 'start'))
                           from json_each(spans))), 0)
                       from windows where state = 'waiting'";
            let counted = rows::first(db, sql, [], |row| {
                let count = |column| row.get(column).map(|n: i64| u64::try_from(n).unwrap_or(0));
                Ok(Backlog { windows: count(0)?, samples: count(1)? })
            })?;
            Ok(counted.unwrap_or_default())
        })
        .await
    }

    async fn next_due(&self, kinds: &[JobKind], least: Lane) -> Result<Option<Timestamp>> {
        let kinds = rows::to_json(kinds)?;
        self.read(move |db| {
            let sql = "select min(run_at) from jobs
                       where state = 'ready' and lane <= ?2
                         and kind in (select value from json_each(?1))";
            let due = rows::first(db, sql, params![kinds, least.rank()], |row| {
                row.get::<_, Option<i64>>(0)
            })?;
            Ok(due.flatten().map(Timestamp::from_millis))
        })
        .await
    }

    async fn retry_job(&self, id: JobId, at: Timestamp) -> Result<()> {
        self.write(move |tx| {
            let live: bool = tx
                .prepare_cached(
                    "select exists (
                         select 1 from jobs live join jobs dead using (unique_key)
                         where dead.id = ?1 and dead.state = 'dead'
                           and live.state in ('ready', 'leased'))",
                )?
                .query_row([id], |row| row.get(0))?;
            if live {
                return Err(Error::new(Kind::Conflict, "this work is queued already"));
            }
            let job = rows::first(
                tx,
                "update jobs set state = 'ready', attempts = 0, run_at = ?2, updated_at = ?2
                 where id = ?1 and state = 'dead' returning *",
                params![id, at.millis()],
                rows::job,
            )?
            .ok_or_else(|| Error::new(Kind::NotFound, "there is no such failed job"))?;
            reopen(tx, &job)
        })
        .await
    }

    async fn jobs(&self, query: JobQuery) -> Result<(Vec<JobEntry>, u64)> {
        self.read(move |db| job_list::page(db, &query)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobEntry>> {
        self.read(move |db| job_list::one(db, id)).await
    }

    async fn job_census(&self, user: Option<&UserId>) -> Result<Vec<JobCensus>> {
        let user = user.cloned();
        self.read(move |db| job_list::census(db, user.as_ref())).await
    }

    async fn cancel_job(&self, id: JobId, at: Timestamp) -> Result<bool> {
        self.write(move |tx| {
            let job = rows::first(
                tx,
                "update jobs set state = 'dead', epoch = epoch + 1, owner = null,
                                 last_error = ?2, updated_at = ?3
                 where id = ?1 and state in ('ready', 'leased') returning *",
                params![id, CANCELLED, at.millis()],
                rows::job,
            )?;
            let Some(job) = job else { return Ok(false) };
            give_up(tx, &job, CANCELLED, at)?;
            Ok(true)
        })
        .await
    }

    async fn forget_job(&self, id: JobId) -> Result<bool> {
        self.write(move |tx| {
            let sql = "delete from jobs where id = ?1 and state in ('done', 'dead')";
            Ok(rows::run(tx, sql, [id])? > 0)
        })
        .await
    }

    async fn forget_jobs(&self, state: JobState, before: Timestamp) -> Result<usize> {
        self.write(move |tx| {
            let sql = "delete from jobs
                       where state = ?1 and state in ('done', 'dead') and updated_at <= ?2";
            rows::run(tx, sql, params![state.as_str(), before.millis()])
        })
        .await
    }

    async fn conversation_jobs(&self, id: &ConversationId) -> Result<Vec<Job>> {
        let id = id.clone();
        self.read(move |db| {
            let sql = "select * from jobs where conversation_id = ?1 or window_id in (
                           select id from windows where conversation_id = ?1)
                       order by id";
            rows::all(db, sql, [id.as_str()], rows::job)
        })
        .await
    }

    async fn dead_jobs(&self, limit: usize) -> Result<Vec<Job>> {
        self.read(move |db| {
            let sql = "select * from jobs where state = 'dead'
                       order by updated_at desc, id desc limit ?1";
            rows::all(db, sql, [sql_limit(limit)], rows::job)
        })
        .await
    }
}

/// Takes the next job of one of `kinds`, a JSON list.
fn claim(
    tx: &Connection,
    kinds: &str,
    least: Lane,
    owner: &str,
    at: Timestamp,
) -> Result<Option<Job>> {
    rows::first(
        tx,
        "update jobs set state = 'leased', attempts = attempts + 1, epoch = epoch + 1,
                         owner = ?2, updated_at = ?3
         where id = (
             select id from jobs
             where state = 'ready' and run_at <= ?3 and lane <= ?4
               and kind in (select value from json_each(?1))
             order by lane, id limit 1)
         returning *",
        params![kinds, owner, at.millis(), least.rank()],
        rows::job,
    )
}

/// Takes the other windows of the transcript that `window` is of, once its
/// conversation is closed.
fn claim_rest(tx: &Connection, window: WindowId, owner: &str, at: Timestamp) -> Result<Vec<Job>> {
    rows::all(
        tx,
        "update jobs set state = 'leased', attempts = attempts + 1, epoch = epoch + 1,
                         owner = ?2, updated_at = ?3
         where id in (
             select j.id from windows w
             join windows o on o.conversation_id = w.conversation_id and o.version = w.version
             join conversations c on c.id = w.conversation_id and c.ended_at is not null
             join jobs j on j.window_id = o.id
             where w.id = ?1 and o.state = 'waiting' and j.state = 'ready' and j.attempts < ?4
             order by j.id limit ?5)
         returning *",
        params![window, owner, at.millis(), TRIES_TOGETHER, sql_limit(MOST_TOGETHER - 1)],
        rows::job,
    )
}

/// What a job that was cancelled has for its error.
const CANCELLED: &str = "cancelled";

/// Marks what a dead job worked on as failed.
fn give_up(tx: &Connection, job: &Job, error: &str, at: Timestamp) -> Result<()> {
    let id = match &job.payload {
        Payload::Window(window) => match set_window(tx, *window, "failed")? {
            Some((conversation, _)) => conversation,
            None => return Ok(()),
        },
        Payload::Conversation(id) => id.clone(),
    };
    let sql = "update conversations set error = ?2 where id = ?1";
    rows::run(tx, sql, [id.as_str(), error])?;
    match job.kind {
        JobKind::Import => {
            uploads::give_up(tx, &id, error, at)?;
            versions::fail_transcript(tx, &id)
        }
        JobKind::Transcribe => finish_if_settled(tx, &id, job.lane, at),
        JobKind::Finish => versions::fail_transcript(tx, &id),
        JobKind::Remember => versions::fail_memory(tx, &id),
        JobKind::Crop | JobKind::Archive => Ok(()),
    }
}

/// Marks what a job works on as waiting again.
fn reopen(tx: &Connection, job: &Job) -> Result<()> {
    match (&job.payload, job.kind) {
        (Payload::Window(window), _) => match set_window(tx, *window, "waiting")? {
            Some((conversation, version)) => {
                versions::reopen_transcript(tx, &conversation, Some(version))
            }
            None => Ok(()),
        },
        (Payload::Conversation(id), JobKind::Import) => {
            uploads::reopen(tx, id)?;
            versions::reopen_transcript(tx, id, None)
        }
        (Payload::Conversation(id), JobKind::Remember) => versions::reopen_memory(tx, id),
        (Payload::Conversation(_), JobKind::Crop | JobKind::Archive) => Ok(()),
        (Payload::Conversation(id), _) => versions::reopen_transcript(tx, id, None),
    }
}

/// Sets the state of a window; returns its conversation and version.
fn set_window(tx: &Connection, id: WindowId, state: &str) -> Result<Option<(ConversationId, u32)>> {
    rows::first(
        tx,
        "update windows set state = ?2 where id = ?1 returning conversation_id, version",
        params![id, state],
        |row| Ok((ConversationId::from_text(row.get::<_, String>(0)?), row.get(1)?)),
    )
}
