//! The job queue.

use async_trait::async_trait;
use mongodb::bson::{Document, doc};
use serde::Deserialize;

use super::documents::JobRow;
use super::nodes::put_back;
use super::queue::{
    find_record, finish_if_settled, hold_user, leased, numbers, save, stale, windows_of,
};
use super::schema::{CONVERSATIONS, JOBS, WINDOWS};
use super::tx::Tx;
use super::{MongoStore, uploads};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::WindowState;
use crate::domain::ids::{ConversationId, JobId, UserId, WindowId};
use crate::domain::job::{
    Backlog, Job, JobCounts, JobKind, JobState, Lane, Lease, MOST_TOGETHER, TRIES_TOGETHER,
};
use crate::store::{JobCensus, JobEntry, JobQuery, Jobs};

/// What a job that was cancelled has for its error.
const CANCELLED: &str = "cancelled";

#[async_trait]
impl Jobs for MongoStore {
    async fn claim_job(
        &self,
        kinds: &[JobKind],
        least: Lane,
        owner: &str,
        at: Timestamp,
    ) -> Result<Option<Job>> {
        let (filter, claim) = (self.due(kinds, least, at), self.claim(owner, at));
        let claimed = if kinds.contains(&JobKind::Remember) {
            // Most of the time there is none, and that costs a look.
            if !steps!(self, |tx| tx.has(JOBS, filter.clone()).await).await? {
                return Ok(None);
            }
            transaction!(self, |tx| {
                let filter = besides_learners(tx, filter.clone()).await?;
                let job = tx.take(JOBS, filter, claim.clone(), order()).await?;
                if let Some(job) = &job {
                    // Of two who claim at the same time, one looks again.
                    hold_user(tx, &job.user_id).await?;
                }
                Ok(job)
            })
            .await?
        } else {
            steps!(self, |tx| tx.take(JOBS, filter, claim, order()).await).await?
        };
        Ok(claimed.map(Job::from))
    }

    async fn claim_together(
        &self,
        kinds: &[JobKind],
        least: Lane,
        owner: &str,
        at: Timestamp,
    ) -> Result<Vec<Job>> {
        transaction!(self, |tx| {
            let claim = self.claim(owner, at);
            let due = self.due(kinds, least, at);
            let first = tx.take(JOBS, due, claim.clone(), order()).await?;
            let Some(first) = first else { return Ok(Vec::new()) };
            let rest = rest_of(tx, &first).await?;
            tx.change(JOBS, doc! { "_id": { "$in": &rest } }, claim).await?;
            let mut jobs = vec![Job::from(first)];
            let rest = tx.all(JOBS, doc! { "_id": { "$in": rest } }, doc! { "_id": 1 }).await?;
            jobs.extend(rest.into_iter().map(Job::from));
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
        let mut set = doc! {
            "last_error": error, "owner": null, "node": null, "updated_at": at.millis(),
        };
        match retry_at {
            Some(retry_at) => {
                set.extend(doc! { "state": JobState::Ready.as_str(), "run_at": retry_at.millis() });
            }
            None => set.extend(doc! { "state": JobState::Dead.as_str(), "live": false }),
        }
        let update = doc! { "$set": set };
        transaction!(self, |tx| {
            let job = tx.take(JOBS, leased(lease), update.clone(), doc! {}).await?;
            let job = job.ok_or_else(stale)?;
            match retry_at {
                Some(_) => Ok(()),
                None => give_up(tx, &job, error, at).await,
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
        let mut update = put_back(true, at);
        update.push(doc! { "$set": {
            "run_at": retry_at.millis(), "last_error": { "$literal": why },
        } });
        match steps!(self, |tx| tx.change(JOBS, leased(lease), update).await).await? {
            0 => Err(stale()),
            _ => Ok(()),
        }
    }

    /// Those of this node.
    async fn void_leases(&self, uncount: bool, at: Timestamp) -> Result<usize> {
        self.put_back(doc! {}, uncount, at).await
    }

    async fn take_back(&self, owner: &str, at: Timestamp) -> Result<usize> {
        self.put_back(doc! { "owner": owner }, false, at).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        #[derive(Deserialize)]
        struct Counted {
            #[serde(rename = "_id")]
            state: JobState,
            jobs: u64,
        }
        let pipeline = vec![
            doc! { "$match": { "state": { "$in": [
                JobState::Ready.as_str(), JobState::Leased.as_str(), JobState::Dead.as_str(),
            ] } } },
            doc! { "$group": { "_id": "$state", "jobs": { "$sum": 1 } } },
        ];
        let by_state: Vec<Counted> = steps!(self, |tx| tx.aggregate(JOBS, pipeline).await).await?;
        let mut counts = JobCounts::default();
        for Counted { state, jobs } in by_state {
            match state {
                JobState::Ready => counts.ready = jobs,
                JobState::Leased => counts.leased = jobs,
                _ => counts.dead = jobs,
            }
        }
        Ok(counts)
    }

    async fn backlog(&self) -> Result<Backlog> {
        #[derive(Deserialize)]
        struct Summed {
            windows: u64,
            samples: u64,
        }
        let pipeline = vec![
            doc! { "$match": { "state": WindowState::Waiting.as_str() } },
            doc! { "$group": {
                "_id": null, "windows": { "$sum": 1 }, "samples": { "$sum": "$samples" },
            } },
        ];
        let summed: Vec<Summed> = steps!(self, |tx| tx.aggregate(WINDOWS, pipeline).await).await?;
        let backlog = |sum: Summed| Backlog { windows: sum.windows, samples: sum.samples };
        Ok(summed.into_iter().next().map(backlog).unwrap_or_default())
    }

    async fn next_due(&self, kinds: &[JobKind], least: Lane) -> Result<Option<Timestamp>> {
        let (filter, order) = (ready(kinds, least, self.node()), doc! { "run_at": 1 });
        let next = steps!(self, |tx| {
            let filter = match kinds.contains(&JobKind::Remember) {
                true => besides_learners(tx, filter).await?,
                false => filter,
            };
            tx.first_by(JOBS, filter, order).await
        });
        Ok(next.await?.map(|job| job.run_at))
    }

    async fn retry_job(&self, id: JobId, at: Timestamp) -> Result<()> {
        let again = doc! { "$set": {
            "state": JobState::Ready.as_str(), "live": true, "attempts": 0,
            "run_at": at.millis(), "updated_at": at.millis(),
        } };
        transaction!(self, |tx| {
            let dead = doc! { "_id": id, "state": JobState::Dead.as_str() };
            let job = tx.first(JOBS, dead.clone()).await?;
            let job =
                job.ok_or_else(|| Error::new(Kind::NotFound, "there is no such failed job"))?;
            if tx.has(JOBS, doc! { "key": &job.key, "live": true }).await? {
                return Err(Error::new(Kind::Conflict, "this work is queued already"));
            }
            tx.change(JOBS, dead, again.clone()).await?;
            reopen(tx, &job).await
        })
        .await
    }

    async fn jobs(&self, query: JobQuery) -> Result<(Vec<JobEntry>, u64)> {
        let mut filter = Document::new();
        if let Some(user) = &query.user {
            filter.insert("user_id", user.as_str());
        }
        if let Some(kind) = query.kind {
            filter.insert("kind", kind.as_str());
        }
        if let Some(state) = query.state {
            filter.insert("state", state.as_str());
        }
        if let Some(session) = &query.session {
            filter.insert(
                "$or",
                vec![doc! { "conversation_id": session }, doc! { "client_id": session }],
            );
        }
        steps!(self, |tx| {
            let total = tx.count(JOBS, filter.clone()).await?;
            let newest = doc! { "_id": -1 };
            let jobs = tx.page(JOBS, filter, newest, query.offset, query.limit).await?;
            let living = [vec![self.node().to_owned()], self.others(tx).await?].concat();
            Ok((jobs.into_iter().map(|job| entry(job, &living)).collect(), total))
        })
        .await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobEntry>> {
        steps!(self, |tx| {
            let Some(job) = tx.first(JOBS, doc! { "_id": id }).await? else { return Ok(None) };
            let living = [vec![self.node().to_owned()], self.others(tx).await?].concat();
            Ok(Some(entry(job, &living)))
        })
        .await
    }

    async fn job_census(&self, user: Option<&UserId>) -> Result<Vec<JobCensus>> {
        #[derive(Deserialize)]
        struct Counted {
            #[serde(rename = "_id")]
            of: Of,
            jobs: u64,
        }
        #[derive(Deserialize)]
        struct Of {
            kind: JobKind,
            state: JobState,
        }
        let filter = user.map_or_else(Document::new, |user| doc! { "user_id": user.as_str() });
        let pipeline = vec![
            doc! { "$match": filter },
            doc! { "$group": {
                "_id": { "kind": "$kind", "state": "$state" }, "jobs": { "$sum": 1 },
            } },
            doc! { "$sort": { "_id.kind": 1, "_id.state": 1 } },
        ];
        let counted: Vec<Counted> = steps!(self, |tx| tx.aggregate(JOBS, pipeline).await).await?;
        let census =
            |one: Counted| JobCensus { kind: one.of.kind, state: one.of.state, jobs: one.jobs };
        Ok(counted.into_iter().map(census).collect())
    }

    async fn cancel_job(&self, id: JobId, at: Timestamp) -> Result<bool> {
        let cancel = doc! {
            "$set": {
                "state": JobState::Dead.as_str(), "live": false, "owner": null, "node": null,
                "last_error": CANCELLED, "updated_at": at.millis(),
            },
            "$inc": { "epoch": 1_i64 },
        };
        transaction!(self, |tx| {
            let live = doc! { "_id": id, "live": true };
            let Some(job) = tx.take(JOBS, live, cancel.clone(), doc! {}).await? else {
                return Ok(false);
            };
            give_up(tx, &job, CANCELLED, at).await.map(|()| true)
        })
        .await
    }

    async fn forget_job(&self, id: JobId) -> Result<bool> {
        let over = doc! { "_id": id, "live": false };
        Ok(steps!(self, |tx| tx.remove(JOBS, over).await).await? > 0)
    }

    async fn forget_jobs(&self, state: JobState, before: Timestamp) -> Result<usize> {
        let over = doc! {
            "state": state.as_str(), "live": false, "updated_at": { "$lte": before.millis() },
        };
        let forgotten = steps!(self, |tx| tx.remove(JOBS, over).await).await?;
        Ok(usize::try_from(forgotten).unwrap_or(usize::MAX))
    }

    async fn conversation_jobs(&self, id: &ConversationId) -> Result<Vec<Job>> {
        let (filter, order) = (doc! { "conversation_id": id.as_str() }, doc! { "_id": 1 });
        let found = steps!(self, |tx| tx.all(JOBS, filter, order).await).await?;
        Ok(found.into_iter().map(Job::from).collect())
    }

    async fn dead_jobs(&self, limit: usize) -> Result<Vec<Job>> {
        let dead = doc! { "state": JobState::Dead.as_str() };
        let newest = doc! { "updated_at": -1, "_id": -1 };
        let found = steps!(self, |tx| tx.page(JOBS, dead, newest, 0, limit).await).await?;
        Ok(found.into_iter().map(Job::from).collect())
    }
}

impl MongoStore {
    /// Jobs of those kinds that are due and that this node can do, of that lane or a more
    /// urgent one.
    fn due(&self, kinds: &[JobKind], least: Lane, at: Timestamp) -> Document {
        let mut filter = ready(kinds, least, self.node());
        filter.insert("run_at", doc! { "$lte": at.millis() });
        filter
    }

    /// Takes a job for a worker of this node.
    fn claim(&self, owner: &str, at: Timestamp) -> Document {
        doc! {
            "$set": {
                "state": JobState::Leased.as_str(), "owner": owner, "node": self.node(),
                "updated_at": at.millis(),
            },
            "$inc": { "attempts": 1, "epoch": 1_i64 },
        }
    }

    /// Puts back what this node holds, as far as `which` names it.
    async fn put_back(&self, which: Document, uncount: bool, at: Timestamp) -> Result<usize> {
        let mut held = which;
        held.extend(doc! { "state": JobState::Leased.as_str(), "node": self.node() });
        let update = put_back(uncount, at);
        let back = steps!(self, |tx| tx.change(JOBS, held, update).await).await?;
        Ok(usize::try_from(back).unwrap_or(usize::MAX))
    }
}

/// Jobs of those kinds that wait, of that lane or a more urgent one, and that `node`
/// can do.
fn ready(kinds: &[JobKind], least: Lane, node: &str) -> Document {
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    doc! {
        "state": JobState::Ready.as_str(), "lane": { "$lte": i32::from(least.rank()) },
        "kind": { "$in": kinds }, "audio_at": { "$in": [null, node] },
    }
}

/// The order in which jobs are taken.
fn order() -> Document {
    doc! { "lane": 1, "_id": 1 }
}

/// The jobs that are claimed together with `first`.
async fn rest_of(tx: &mut Tx, first: &JobRow) -> Result<Vec<JobId>> {
    let none = Vec::new();
    let Some(window) = first.window_id else { return Ok(none) };
    let id = first.conversation_id.as_str();
    let closed = doc! { "_id": id, "ended_at": { "$ne": null } };
    if first.attempts > TRIES_TOGETHER || !tx.has(CONVERSATIONS, closed).await? {
        return Ok(none);
    }
    let windows = windows_of(tx, &first.conversation_id).await?;
    let version = windows.iter().find(|one| one.id == window).map(|one| one.version);
    let waiting: Vec<WindowId> = windows
        .iter()
        .filter(|one| Some(one.version) == version && one.state == WindowState::Waiting)
        .map(|one| one.id)
        .collect();
    let rest = doc! {
        "conversation_id": id, "state": JobState::Ready.as_str(),
        "window_id": { "$in": waiting }, "attempts": { "$lt": TRIES_TOGETHER },
    };
    let rest = tx.page(JOBS, rest, doc! { "_id": 1 }, 0, MOST_TOGETHER - 1).await?;
    Ok(numbers(&rest))
}

/// The same without those of users about whom some node learns right now: two at a
/// time would not see what the other one learns, and learn it twice.
async fn besides_learners(tx: &mut Tx, mut ready: Document) -> Result<Document> {
    let learning = doc! { "kind": JobKind::Remember.as_str(), "state": JobState::Leased.as_str() };
    let learning = tx.all(JOBS, learning, doc! {}).await?;
    let users: Vec<&str> = learning.iter().map(|job| job.user_id.as_str()).collect();
    ready.insert("user_id", doc! { "$nin": users });
    Ok(ready)
}

/// A job as it is shown, while those nodes live.
fn entry(row: JobRow, living: &[String]) -> JobEntry {
    let waits = row.state == JobState::Ready;
    JobEntry {
        waits_for: row.audio_at.clone().filter(|node| waits && !living.contains(node)),
        user_id: Some(row.user_id.clone()),
        conversation_id: Some(row.conversation_id.clone()),
        client_id: Some(row.client_id.clone()),
        job: Job::from(row),
    }
}

/// Marks what a dead job worked on as failed.
async fn give_up(tx: &mut Tx, job: &JobRow, error: &str, at: Timestamp) -> Result<()> {
    if let Some(window) = job.window_id {
        set_window(tx, window, WindowState::Failed).await?;
    }
    let Some(mut record) = find_record(tx, &job.conversation_id).await? else { return Ok(()) };
    record.error = Some(error.to_owned());
    let windows = windows_of(tx, &record.id).await?;
    record.count(&windows);
    match job.kind {
        JobKind::Import => {
            uploads::give_up(tx, &mut record, error, at).await?;
            record.fail_transcript();
        }
        JobKind::Transcribe => {
            finish_if_settled(tx, &record, &windows, job.lane(), at).await?;
        }
        JobKind::Finish => record.fail_transcript(),
        JobKind::Remember => record.fail_set(),
        JobKind::Crop | JobKind::Archive => {}
    }
    save(tx, &mut record).await
}

/// Marks what a job works on as waiting again.
async fn reopen(tx: &mut Tx, job: &JobRow) -> Result<()> {
    let version = match job.window_id {
        Some(window) => match set_window(tx, window, WindowState::Waiting).await? {
            Some(version) => Some(version),
            None => return Ok(()),
        },
        None => None,
    };
    let Some(mut record) = find_record(tx, &job.conversation_id).await? else { return Ok(()) };
    match job.kind {
        JobKind::Import => {
            uploads::reopen(tx, &mut record).await?;
            record.reopen_transcript(None);
        }
        JobKind::Remember => record.reopen_set(),
        JobKind::Crop | JobKind::Archive => {}
        JobKind::Transcribe | JobKind::Finish => record.reopen_transcript(version),
    }
    let windows = windows_of(tx, &record.id).await?;
    record.count(&windows);
    save(tx, &mut record).await
}

/// Sets the state of a window; returns which transcript it is part of.
async fn set_window(tx: &mut Tx, id: WindowId, state: WindowState) -> Result<Option<u32>> {
    let update = doc! { "$set": { "state": state.as_str() } };
    let window = tx.take(WINDOWS, doc! { "_id": id }, update, doc! {}).await?;
    Ok(window.map(|window| window.version))
}
