//! The one place that starts tasks and threads.
//!
//! Every long-lived task has a name, is restarted with backoff when it fails or
//! panics, and ends when the daemon shuts down. Sits below the edges, which
//! spawn a task for each connection through it.

pub mod heart;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::error::{Context, Error, Kind, Result};
use heart::Heart;

/// The longest pause before a failing task is started again.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Pause before a task is started again whose service outside is known to be away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// Starts tasks, and ends them together. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    tracker: TaskTracker,
    stop: CancellationToken,
    restarts: Arc<AtomicUsize>,
    heart: Heart,
}

impl Supervisor {
    /// A supervisor with no tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the daemon is asked to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks every task to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Where the parts that the daemon cannot do without show that they move.
    pub fn heart(&self) -> &Heart {
        &self.heart
    }

    /// How often a service task had to be started again.
    pub fn restarts(&self) -> usize {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Runs `work`, which may be ended at any await, until it comes to its end or
    /// shutdown; as [`Supervisor::service`] when it panics.
    pub fn background<F, Fut>(&self, name: &'static str, work: F)
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.service(name, move |stop| {
            let work = work();
            async move {
                stop.run_until_cancelled(work).await;
                Ok(())
            }
        });
    }

    /// Runs `service` until shutdown, starting it again with growing pauses
    /// when it returns an error or panics.
    pub fn service<F, Fut>(&self, name: &'static str, service: F)
    where
        F: Fn(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let stop = self.stop.clone();
        let restarts = self.restarts.clone();
        self.tracker.spawn(async move {
            let mut pause = Duration::from_millis(200);
            loop {
                let outcome = tokio::spawn(service(stop.clone())).await;
                if stop.is_cancelled() {
                    return;
                }
                match outcome {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) if error.kind() == Kind::Away => {
                        // Its breaker has told.
                        tracing::debug!(task = name, "waits: {}", error.report());
                        pause = AWAY_PAUSE;
                    }
                    Ok(Err(error)) => {
                        tracing::error!(
                            task = name,
                            "task failed, starting it again: {}",
                            error.report()
                        );
                    }
                    Err(join) if join.is_cancelled() => return,
                    Err(join) => {
                        tracing::error!(task = name, "task panicked, starting it again: {join}");
                    }
                }
                restarts.fetch_add(1, Ordering::Relaxed);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => return,
                }
                pause = (pause * 2).min(MAX_BACKOFF);
            }
        });
    }

    /// Runs `task` once: a connection, a request. Shutdown waits for it; the
    /// task itself watches [`Supervisor::stop_token`].
    pub fn once<Fut>(&self, task: Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Waits until every task has ended, at most `limit`. False when some were
    /// still running.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Runs blocking work (disk, database, hashing) off the async threads.
///
/// # Errors
/// Whatever `work` returns; [`Kind::Internal`] when it panicked.
pub async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(Error::new(Kind::Internal, "a background step failed").with_source(join)),
    }
}

/// Starts a named thread of its own for work that lasts as long as the process:
/// the database's writer.
///
/// # Errors
/// [`Kind::Internal`] when the machine has no more threads.
pub fn thread<F>(name: &str, work: F) -> Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    #[cfg(test)]
    let work = {
        let plan = crate::base::planned::Plan::current();
        move || {
            plan.iter().for_each(crate::base::planned::Plan::enter);
            work();
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .context(Kind::Internal, format!("cannot start the thread {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_service_is_started_again_until_it_ends() {
        let supervisor = Supervisor::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let seen = runs.clone();
        supervisor.service("flaky", move |_| {
            let seen = seen.clone();
            async move {
                match seen.fetch_add(1, Ordering::SeqCst) {
                    0 => Err(Error::new(Kind::Internal, "first run fails")),
                    1 => panic!("second run panics"),
                    _ => Ok(()),
                }
            }
        });
        assert!(supervisor.drain(Duration::from_secs(30)).await);
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(supervisor.restarts(), 2);
    }

    #[tokio::test]
    async fn stop_ends_a_service_that_waits() {
        let supervisor = Supervisor::new();
        supervisor.service("waiter", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        supervisor.stop();
        assert!(supervisor.drain(Duration::from_secs(5)).await);
    }
}
