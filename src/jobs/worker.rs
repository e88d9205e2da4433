//! Takes jobs from the queue and has them done.
//!
//! A worker serves some kinds of job, one at a time. The attempt is counted when
//! the job is claimed, so an input that kills its engine runs out of attempts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::Wake;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::domain::job::{Job, JobKind, LONGEST_PAUSE, Lane};
use crate::store::Store;
use crate::supervisor::heart::Pulse;

/// Longest wait before the queue is looked at again without being woken.
const POLL: Duration = Duration::from_secs(30);

/// Does the work of a job, and completes it in the store together with its
/// result.
#[async_trait]
pub trait Handler: Send + Sync {
    /// The kinds this handler does.
    fn kinds(&self) -> &'static [JobKind];

    /// Whether jobs can be done now. While they cannot (a model is still being
    /// fetched, say), none is claimed and no attempt is counted.
    fn is_ready(&self) -> bool {
        true
    }

    /// The least urgent lane that may be served now.
    fn least_urgent(&self) -> Lane {
        Lane::Backlog
    }

    /// Whether windows of one transcript are done [together](Self::handle_together).
    fn takes_together(&self) -> bool {
        false
    }

    /// Does `jobs`, which were [claimed together](crate::store::Jobs::claim_together),
    /// as [`Self::handle`] does each: all of them, or none.
    ///
    /// # Errors
    /// As of [`Self::handle`], for each of them.
    async fn handle_together(&self, jobs: &[Job]) -> Result<()> {
        let message = format!("{} jobs for who does one at a time", jobs.len());
        Err(Error::new(Kind::Internal, message))
    }

    /// Does `job`. On success it is complete in the store; on an error the
    /// worker gives it back or buries it.
    ///
    /// # Errors
    /// A transient error is tried again later, and `Away` without counting; any
    /// other ends the job.
    async fn handle(&self, job: &Job) -> Result<()>;
}

/// How often and how soon failed jobs are tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts before a job is given up.
    pub max_attempts: u32,
    /// Pause after the first failed attempt; doubled after each one more.
    pub pause: Duration,
}

impl Retry {
    /// When to try again after `attempts` attempts ended in `error`; never, when
    /// they are used up or the error will not pass. A quarter of the pause is
    /// jitter, so that jobs that failed together do not come back together.
    fn next(&self, attempts: u32, error: &Error, now: Timestamp) -> Option<Timestamp> {
        if attempts >= self.max_attempts || !error.is_transient() {
            return None;
        }
        let doubled = self.pause.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let pause = doubled.min(LONGEST_PAUSE);
        Some(now.plus(pause.mul_f64(0.75 + 0.25 * rand::random::<f64>())))
    }
}

/// Serves the jobs of one handler.
pub struct Worker {
    name: &'static str,
    owner: String,
    store: Arc<dyn Store>,
    handler: Arc<dyn Handler>,
    wake: Wake,
    clock: Clock,
    retry: Retry,
    pulse: Pulse,
}

impl Worker {
    /// A worker called `name` in the log.
    pub fn new(
        name: &'static str,
        store: Arc<dyn Store>,
        handler: Arc<dyn Handler>,
        wake: Wake,
        clock: Clock,
        retry: Retry,
    ) -> Self {
        let owner = format!("{name}-{}", std::process::id());
        let pulse = Pulse::new(clock.clone());
        Self { name, owner, store, handler, wake, clock, retry, pulse }
    }

    /// The same worker, which shows by `pulse` that it moves.
    #[must_use]
    pub fn with_pulse(mut self, pulse: Pulse) -> Self {
        self.pulse = pulse;
        self
    }

    /// Works until `stop`. The job at hand is dropped then; its lease is given
    /// back at shutdown.
    ///
    /// # Errors
    /// When the store cannot be reached; the supervisor starts it again.
    pub async fn run(&self, stop: CancellationToken) -> Result<()> {
        let mut wakes = self.wake.listen();
        self.take_back().await?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                done = self.step() => if !done? {
                    let idle_time = self.idle_time().await?;
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = wakes.wait() => {}
                        () = self.pulse.during(tokio::time::sleep(idle_time)) => {}
                    }
                }
            }
            self.pulse.beat();
        }
    }

    /// Puts back a job that an earlier run of this worker still holds, because
    /// the store could not be told how it ended.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn take_back(&self) -> Result<()> {
        let jobs = self.store.take_back(&self.owner, self.clock.now()).await?;
        if jobs > 0 {
            tracing::warn!(worker = self.name, jobs, "put back what was left half done");
        }
        Ok(())
    }

    /// Does one job; false when none is due.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn step(&self) -> Result<bool> {
        if !self.handler.is_ready() {
            return Ok(false);
        }
        let kinds = self.handler.kinds();
        planned::before("claiming a job")?;
        let (least, now) = (self.handler.least_urgent(), self.clock.now());
        let jobs = match self.handler.takes_together() {
            true => self.store.claim_together(kinds, least, &self.owner, now).await?,
            false => {
                self.store.claim_job(kinds, least, &self.owner, now).await?.into_iter().collect()
            }
        };
        let Some(job) = jobs.first() else { return Ok(false) };
        planned::after("claiming a job")?;
        let started = self.clock.monotonic();
        // A job that ended the process each time was claimed but never failed.
        let outcome = if jobs.iter().all(|job| job.attempts > self.retry.max_attempts) {
            Err(Error::new(Kind::Internal, "every attempt ended with the process"))
        } else if jobs.len() == 1 {
            self.pulse.during(self.handler.handle(job)).await
        } else {
            self.pulse.during(self.handler.handle_together(&jobs)).await
        };
        match outcome {
            Ok(()) => {
                let took = self.clock.monotonic().saturating_sub(started);
                let count = jobs.len();
                tracing::debug!(worker = self.name, job = job.id, count, ?took, "done");
                // What follows from it may be another worker's.
                self.wake.wake();
            }
            Err(error) => {
                for job in &jobs {
                    self.failed(job, &error).await?;
                }
            }
        }
        Ok(true)
    }

    async fn failed(&self, job: &Job, error: &Error) -> Result<()> {
        let now = self.clock.now();
        let away = error.kind() == Kind::Away;
        let retry_at = match away {
            true => Some(now.plus(self.retry.pause)),
            false => self.retry.next(job.attempts, error, now),
        };
        let report = error.report();
        let (kind, attempt) = (job.kind.as_str(), job.attempts);
        planned::before("giving a job back")?;
        let told = match retry_at {
            Some(at) if away => self.store.postpone_job(job.lease(), &report, at, now).await,
            _ => self.store.fail_job(job.lease(), &report, retry_at, now).await,
        };
        match told {
            // Somebody else holds the job by now: this outcome is void.
            Err(stale) if stale.kind() == Kind::Conflict => return Ok(()),
            other => other?,
        }
        planned::after("giving a job back")?;
        match retry_at {
            // The service's own breaker has told.
            Some(_) if away => tracing::debug!(job = job.id, kind, "waits: {error}"),
            // Whatever failed has said so itself; this only tells what follows.
            Some(_) => tracing::info!(job = job.id, kind, attempt, "will be tried again: {error}"),
            None => tracing::error!(
                job = job.id,
                kind,
                attempt,
                "given up, its input is kept: {report}"
            ),
        }
        Ok(())
    }

    async fn idle_time(&self) -> Result<Duration> {
        let wait = if self.handler.is_ready() {
            let kinds = self.handler.kinds();
            let due = self.store.next_due(kinds, self.handler.least_urgent()).await?;
            due.map_or(POLL, |due| due.since(self.clock.now()))
        } else {
            // Nobody wakes it when the handler is ready again, and asking costs nothing.
            self.retry.pause
        };
        Ok(wait.clamp(Duration::from_millis(20), POLL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_back_off_and_end() {
        let retry = Retry { max_attempts: 3, pause: Duration::from_secs(4) };
        let now = Timestamp::from_millis(0);
        let lost = Error::new(Kind::Unavailable, "engine died");
        let first = retry.next(1, &lost, now).unwrap().millis();
        let second = retry.next(2, &lost, now).unwrap().millis();
        assert!((3_000..=4_000).contains(&first), "{first}");
        assert!((6_000..=8_000).contains(&second), "{second}");
        assert_eq!(retry.next(3, &lost, now), None);
    }

    #[test]
    fn what_cannot_pass_is_not_tried_again() {
        let retry = Retry { max_attempts: 5, pause: Duration::from_secs(1) };
        let bad = Error::new(Kind::BadInput, "not audio");
        assert_eq!(retry.next(1, &bad, Timestamp::from_millis(0)), None);
    }
}
