//! Random sequences of operations on the job table, against a plain model.

use std::collections::HashMap;

use proptest::prelude::*;

use crate::base::error::Kind;
use crate::domain::conversation::{CloseReason, Progress};
use crate::domain::ids::{ConversationId, JobId};
use crate::domain::job::{Job, JobKind, JobState, Lane, Lease, Payload};
use crate::domain::version::Settled;
use crate::store::testing::{Fixture, Tested, at, block_on, cases, transcribed, window};

#[derive(Clone, Debug)]
enum Op {
    Add(u32, Lane),
    Close,
    Claim,
    Complete(usize),
    Fail(usize, Option<u64>),
    Void(bool),
    Retry(usize),
    Requeue,
}

fn op() -> impl Strategy<Value = Op> {
    let lane = prop::sample::select(vec![Lane::Interactive, Lane::Live, Lane::Backlog]);
    prop_oneof![
        4 => (0..6_u32, lane).prop_map(|(seq, lane)| Op::Add(seq, lane)),
        1 => Just(Op::Close),
        6 => Just(Op::Claim),
        4 => any::<usize>().prop_map(Op::Complete),
        3 => (any::<usize>(), prop::option::of(0..5_u64)).prop_map(|(i, r)| Op::Fail(i, r)),
        1 => any::<bool>().prop_map(Op::Void),
        2 => any::<usize>().prop_map(Op::Retry),
        1 => Just(Op::Requeue),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Window(u32),
    Finish,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    subject: Subject,
    lane: u8,
    state: JobState,
    attempts: u32,
    epoch: i64,
    run_at: u64,
}

/// Jobs in the order they were made, and which windows wait.
#[derive(Default)]
struct Model {
    jobs: Vec<Entry>,
    waiting: HashMap<u32, bool>,
    closed: bool,
}

impl Model {
    fn live(&self, subject: Subject) -> Option<usize> {
        self.jobs.iter().position(|job| {
            job.subject == subject && matches!(job.state, JobState::Ready | JobState::Leased)
        })
    }

    fn enqueue(&mut self, subject: Subject, lane: u8, now: u64) {
        match self.live(subject) {
            Some(i) => {
                let job = &mut self.jobs[i];
                job.lane = job.lane.min(lane);
                job.attempts -= u32::from(job.state == JobState::Leased);
                job.state = JobState::Ready;
            }
            None => self.jobs.push(Entry {
                subject,
                lane,
                state: JobState::Ready,
                attempts: 0,
                epoch: 0,
                run_at: now,
            }),
        }
    }

    fn settle(&mut self, lane: u8, now: u64) {
        if self.closed && !self.waiting.values().any(|waits| *waits) {
            self.enqueue(Subject::Finish, lane, now);
        }
    }

    fn next(&self, now: u64) -> Option<usize> {
        (0..self.jobs.len())
            .filter(|i| self.jobs[*i].state == JobState::Ready && self.jobs[*i].run_at <= now)
            .min_by_key(|i| (self.jobs[*i].lane, *i))
    }

    fn holds(&self, i: usize, lease: Lease) -> bool {
        self.jobs[i].state == JobState::Leased && self.jobs[i].epoch == lease.epoch
    }
}

/// The jobs as the model sees them, and their ids.
async fn table<S: Tested>(f: &Fixture<S>, id: &ConversationId) -> (Vec<Entry>, Vec<JobId>) {
    let windows = f.windows(id).await;
    let subject = |job: &Job| match &job.payload {
        Payload::Window(id) => {
            Subject::Window(windows.iter().find(|window| window.id == *id).unwrap().seq)
        }
        Payload::Conversation(_) => Subject::Finish,
    };
    let entry = |job: Job| {
        let entry = Entry {
            subject: subject(&job),
            lane: job.lane.rank(),
            state: job.state,
            attempts: job.attempts,
            epoch: job.epoch,
            run_at: u64::try_from((job.run_at.millis() - at(0).millis()) / 1000).unwrap(),
        };
        (entry, job.id)
    };
    f.store.conversation_jobs(id).await.unwrap().into_iter().map(entry).unzip()
}

async fn complete<S: Tested>(
    f: &Fixture<S>,
    id: &ConversationId,
    job: &Job,
    now: u64,
) -> Result<(), Kind> {
    let done = match &job.payload {
        Payload::Window(window) => {
            f.store.complete_windows(&[transcribed(job.lease(), *window, "x")], at(now)).await
        }
        Payload::Conversation(_) => {
            let settled = Settled {
                version: 1,
                transcription: Progress::Completed,
                memory: Progress::Skipped,
                next: vec![],
            };
            f.store.finish_conversation(job.lease(), id, &settled, at(now)).await
        }
    };
    done.map_err(|error| error.kind())
}

async fn run<S: Tested>(ops: Vec<Op>) {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    let mut model = Model::default();
    // Every claim ever given out, with its job's place in the table.
    let mut claims: Vec<(usize, Job)> = Vec::new();

    for (step, op) in ops.into_iter().enumerate() {
        let now = u64::try_from(step).unwrap();
        let (_, ids) = table(&f, &id).await;
        match op {
            Op::Add(seq, lane) => {
                f.store.add_window(&id, 1, &window(seq), lane, at(now)).await.unwrap();
                if let std::collections::hash_map::Entry::Vacant(new) = model.waiting.entry(seq) {
                    new.insert(true);
                    model.enqueue(Subject::Window(seq), lane.rank(), now);
                }
            }
            Op::Close => {
                // The lane of the last window, by its place in the conversation.
                let lane = model
                    .jobs
                    .iter()
                    .filter_map(|job| match job.subject {
                        Subject::Window(seq) => Some((seq, job.lane)),
                        Subject::Finish => None,
                    })
                    .max()
                    .map_or(Lane::Live.rank(), |(_, lane)| lane);
                f.store
                    .close_conversation(&id, 1, &[], CloseReason::Silence, at(now))
                    .await
                    .unwrap();
                if !model.closed {
                    model.closed = true;
                    model.settle(lane, now);
                }
            }
            Op::Claim => {
                let kinds = [JobKind::Transcribe, JobKind::Finish];
                let job = f.store.claim_job(&kinds, Lane::Backlog, "w", at(now)).await.unwrap();
                let expected = model.next(now);
                assert_eq!(job.as_ref().map(|job| job.id), expected.map(|i| ids[i]));
                if let (Some(i), Some(job)) = (expected, job) {
                    let entry = &mut model.jobs[i];
                    entry.state = JobState::Leased;
                    entry.attempts += 1;
                    entry.epoch += 1;
                    claims.push((i, job));
                }
            }
            Op::Complete(pick) if !claims.is_empty() => {
                let (i, job) = &claims[pick % claims.len()];
                let outcome = complete(&f, &id, job, now).await;
                if model.holds(*i, job.lease()) {
                    assert_eq!(outcome, Ok(()));
                    model.jobs[*i].state = JobState::Done;
                    let lane = model.jobs[*i].lane;
                    if let Subject::Window(seq) = model.jobs[*i].subject {
                        model.waiting.insert(seq, false);
                        model.settle(lane, now);
                    }
                } else {
                    assert_eq!(outcome, Err(Kind::Conflict));
                }
            }
            Op::Fail(pick, retry) if !claims.is_empty() => {
                let (i, job) = &claims[pick % claims.len()];
                let retry_at = retry.map(|delay| now + delay);
                let outcome = f.store.fail_job(job.lease(), "e", retry_at.map(at), at(now)).await;
                if model.holds(*i, job.lease()) {
                    outcome.unwrap();
                    let entry = &mut model.jobs[*i];
                    let (subject, lane) = (entry.subject, entry.lane);
                    match retry_at {
                        Some(time) => {
                            entry.state = JobState::Ready;
                            entry.run_at = time;
                        }
                        None => {
                            entry.state = JobState::Dead;
                            if let Subject::Window(seq) = subject {
                                model.waiting.insert(seq, false);
                                model.settle(lane, now);
                            }
                        }
                    }
                } else {
                    assert_eq!(outcome.unwrap_err().kind(), Kind::Conflict);
                }
            }
            Op::Void(uncount) => {
                let voided = f.store.void_leases(uncount, at(now)).await.unwrap();
                let mut expected = 0;
                for job in model.jobs.iter_mut().filter(|job| job.state == JobState::Leased) {
                    job.state = JobState::Ready;
                    job.attempts -= u32::from(uncount);
                    expected += 1;
                }
                assert_eq!(voided, expected);
            }
            Op::Retry(pick) if !ids.is_empty() => {
                let i = pick % ids.len();
                let outcome = f.store.retry_job(ids[i], at(now)).await.map_err(|e| e.kind());
                let subject = model.jobs[i].subject;
                if model.jobs[i].state != JobState::Dead {
                    assert_eq!(outcome, Err(Kind::NotFound));
                } else if model.live(subject).is_some() {
                    assert_eq!(outcome, Err(Kind::Conflict));
                } else {
                    assert_eq!(outcome, Ok(()));
                    model.jobs[i].state = JobState::Ready;
                    model.jobs[i].attempts = 0;
                    model.jobs[i].run_at = now;
                    if let Subject::Window(seq) = subject {
                        model.waiting.insert(seq, true);
                    }
                }
            }
            Op::Requeue => {
                assert_eq!(f.store.requeue_lost(at(now)).await.unwrap(), 0, "nothing is lost");
            }
            Op::Complete(_) | Op::Fail(..) | Op::Retry(_) => {}
        }
        let (jobs, _) = table(&f, &id).await;
        assert_eq!(jobs, model.jobs, "after step {step}");
        for subject in (0..6).map(Subject::Window).chain([Subject::Finish]) {
            let live = |job: &&Entry| {
                job.subject == subject && matches!(job.state, JobState::Ready | JobState::Leased)
            };
            assert!(jobs.iter().filter(live).count() <= 1, "two live jobs for {subject:?}");
        }
    }
}

pub(crate) fn the_table_follows_the_model<S: Tested>() {
    let ops = prop::collection::vec(op(), 1..60);
    proptest!(cases::<S>(48), |(ops in ops)| {
        block_on(run::<S>(ops));
    });
}
