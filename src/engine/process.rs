//! The daemon's side of an engine: one child process, started on demand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::stderr::Tail;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::metrics;
use crate::supervisor::Supervisor;
use crate::wyoming::Connection;

/// Time it has to end by itself when its input is closed, or to be seen dead.
const END_GRACE: Duration = Duration::from_secs(2);
/// Time the last lines of a dead engine have to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Requests after which an engine is replaced: whisper-rs leaks a little memory
/// on each.
const RECYCLE_AFTER: u32 = 1_000;
/// What an engine gets of our environment, which holds secrets.
const ENVIRONMENT: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "RUST_LOG", "RUST_BACKTRACE"];

/// The pipe to an engine.
pub type Link = Connection<tokio::io::Join<ChildStdout, ChildStdin>>;

/// What to run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Program and model, for messages: `whisper/ggml-base.bin`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// The model file, without which there is no use in starting it.
    pub model: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Time it has to load its model.
    pub start_timeout: Duration,
    /// It is ended after this long without a request.
    pub idle_timeout: Duration,
}

/// What an engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// It does not run; the next request starts it.
    Off,
    /// It runs, and waits for a request.
    Idle,
    /// It works on a request, or starts.
    Busy,
}

/// One engine. It takes one request at a time; others wait in line.
#[derive(Debug)]
pub struct Engine {
    spec: Spec,
    supervisor: Supervisor,
    stop: CancellationToken,
    slot: Mutex<Option<Running>>,
    /// A request ended.
    used: Notify,
    starts: AtomicU64,
    crashes: AtomicU64,
    /// Of the process that was started last.
    last_pid: AtomicU32,
}

#[derive(Debug)]
struct Running {
    link: Link,
    // After the link, so that its input is closed before it is killed.
    child: Child,
    stderr: Tail,
    calls: u32,
}

impl Engine {
    /// An engine that is not running yet. `supervisor` ends it at shutdown.
    pub fn new(spec: Spec, supervisor: &Supervisor) -> Arc<Self> {
        let engine = Arc::new(Self {
            spec,
            supervisor: supervisor.clone(),
            stop: supervisor.stop_token(),
            slot: Mutex::default(),
            used: Notify::new(),
            starts: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
            last_pid: AtomicU32::new(0),
        });
        let watched = engine.clone();
        supervisor.service("engine-idle", move |stop| watched.clone().watch(stop));
        engine
    }

    /// Program and model.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether its model is on this machine.
    pub fn is_ready(&self) -> bool {
        self.spec.model.is_file()
    }

    /// How often it was started.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// How often it died or was killed for not answering.
    pub fn crashes(&self) -> u64 {
        self.crashes.load(Ordering::Relaxed)
    }

    /// The program that it runs.
    pub fn program(&self) -> &Path {
        &self.spec.program
    }

    /// What it does, and the id of its process while there is one.
    pub fn activity(&self) -> (Activity, Option<u32>) {
        match self.slot.try_lock() {
            Ok(slot) => match slot.as_ref().and_then(|running| running.child.id()) {
                Some(pid) => (Activity::Idle, Some(pid)),
                None => (Activity::Off, None),
            },
            Err(_) => {
                let pid = self.last_pid.load(Ordering::Relaxed);
                (Activity::Busy, Some(pid).filter(|pid| *pid > 0))
            }
        }
    }

    /// Process id while it runs and no request is on its way.
    pub fn pid(&self) -> Option<u32> {
        self.slot.try_lock().ok()?.as_ref()?.child.id()
    }

    /// Starts the engine if need be and asks it something. Dropping the future
    /// ends the engine: its answer would be taken for that of the next request.
    ///
    /// # Errors
    /// `BadInput` as the engine says it; `Timeout` after `deadline`, and
    /// `Unavailable` when the engine cannot be started, dies or speaks nonsense.
    /// It is ended then, and the next call starts it again.
    pub async fn call<T>(
        &self,
        deadline: Duration,
        ask: impl AsyncFnOnce(&mut Link) -> Result<T>,
    ) -> Result<T> {
        tokio::select! {
            result = self.exchange(deadline, ask) => result,
            () = self.stop.cancelled() => Err(self.error("is shutting down")),
        }
    }

    async fn exchange<T>(
        &self,
        deadline: Duration,
        ask: impl AsyncFnOnce(&mut Link) -> Result<T>,
    ) -> Result<T> {
        let mut slot = self.slot.lock().await;
        let mut running = match slot.take().and_then(|running| self.check(running)) {
            Some(running) => running,
            None => self.start().await?,
        };
        let outcome = tokio::time::timeout(deadline, ask(&mut running.link)).await;
        let result = match outcome {
            Ok(Err(error)) if error.kind() != Kind::BadInput => {
                return Err(self.bury(running, error).await);
            }
            Ok(result) => result,
            Err(_) => {
                let seconds = deadline.as_secs_f64();
                let message = format!("{} gave no answer in {seconds} s", self.name());
                return Err(self.bury(running, Error::new(Kind::Timeout, message)).await);
            }
        };
        running.calls += 1;
        if running.calls < RECYCLE_AFTER {
            *slot = Some(running);
            self.used.notify_one();
        } else {
            running.end().await;
        }
        result
    }

    /// Ends the engine once the request on its way, if any, has its answer.
    pub async fn end(&self) {
        let running = self.slot.lock().await.take();
        if let Some(running) = running {
            running.end().await;
            tracing::debug!(engine = self.name(), "engine ended");
        }
    }

    /// Ends the engine whenever it idles, and at shutdown.
    async fn watch(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        let idle = async {
            loop {
                self.used.notified().await;
                let quiet = self.spec.idle_timeout;
                while tokio::time::timeout(quiet, self.used.notified()).await.is_ok() {}
                // Locked: a request is on its way, and will notify when it ends.
                let running = self.slot.try_lock().ok().and_then(|mut slot| slot.take());
                if let Some(running) = running {
                    running.end().await;
                    tracing::debug!(engine = self.name(), "idle engine ended");
                }
            }
        };
        tokio::select! {
            () = idle => {}
            () = stop.cancelled() => self.end().await,
        }
        Ok(())
    }

    async fn start(&self) -> Result<Running> {
        let mut child = self
            .command()
            .spawn()
            .with_context(Kind::Unavailable, || format!("cannot start {}", self.name()))?;
        let (Some(stdin), Some(stdout), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::new(Kind::Internal, "an engine without pipes"));
        };
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.last_pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
        metrics::ENGINE_STARTS.add(&[self.name()], 1.0);
        let stderr = Tail::default();
        self.supervisor.once(stderr.clone().follow(self.name().to_owned(), errors));
        let link = Connection::new(self.name(), tokio::io::join(stdout, stdin));
        let mut running = Running { link, child, stderr, calls: 0 };
        match tokio::time::timeout(self.spec.start_timeout, running.link.describe()).await {
            Ok(Ok(_)) => {
                tracing::debug!(engine = self.name(), "engine started");
                Ok(running)
            }
            Ok(Err(error)) => Err(self.bury(running, error).await),
            Err(_) => {
                let message = format!("{} was not ready in time", self.name());
                Err(self.bury(running, Error::new(Kind::Timeout, message)).await)
            }
        }
    }

    fn command(&self) -> Command {
        let passed = std::env::vars_os().filter(|(name, _)| {
            name.to_str()
                .is_some_and(|name| ENVIRONMENT.contains(&name) || name.starts_with("OMP_"))
        });
        let mut command = Command::new(&self.spec.program);
        command
            .args(&self.spec.args)
            .args(["--parent".to_owned(), std::process::id().to_string()])
            .env_clear()
            .envs(passed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// The running engine if it is alive still.
    fn check(&self, mut running: Running) -> Option<Running> {
        match running.child.try_wait() {
            Ok(None) => Some(running),
            Ok(Some(status)) => {
                self.died(&running, &describe(status));
                None
            }
            Err(error) => {
                self.died(&running, &error.to_string());
                None
            }
        }
    }

    /// Ends a failed engine, and says what became of it.
    async fn bury(&self, mut running: Running, error: Error) -> Error {
        let hung = error.kind() == Kind::Timeout;
        let grace = if hung { Duration::ZERO } else { END_GRACE };
        let fate = match tokio::time::timeout(grace, running.child.wait()).await {
            Ok(Ok(status)) => describe(status),
            _ => error.report(),
        };
        // A child that has ended cannot be killed, which is as well.
        let _ = running.child.kill().await;
        running.stderr.ended(LAST_WORDS).await;
        self.died(&running, &fate);
        let said = running.stderr.text();
        let said = if said.is_empty() { said } else { format!("; it said: {said}") };
        if hung {
            return error;
        }
        self.error(&format!("failed: {fate}{said}")).with_source(error)
    }

    fn died(&self, running: &Running, fate: &str) {
        let crashes = self.crashes.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::ENGINE_CRASHES.add(&[self.name()], 1.0);
        let (engine, calls, said) = (self.name(), running.calls, running.stderr.text());
        tracing::warn!(engine, crashes, calls, said, "engine failed: {fate}");
    }

    fn error(&self, what: &str) -> Error {
        Error::new(Kind::Unavailable, format!("{} {what}", self.name()))
    }
}

impl Running {
    /// Closes its input, and kills it if that is not enough.
    async fn end(self) {
        let Self { link, mut child, .. } = self;
        drop(link);
        if tokio::time::timeout(END_GRACE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }
}

/// `exit status: 1`, or `signal: 9 (SIGKILL)`.
fn describe(status: ExitStatus) -> String {
    format!("it ended with {status}")
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
