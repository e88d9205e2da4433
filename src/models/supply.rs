//! Gets the models that are wanted and missing, while the daemon does its work.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::catalog::{Catalog, Entry};
use super::check::is_present;
use super::fetch::{MARGIN, Place, fetch};
use super::place::models_dir;
use super::progress::Progress;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::system::total_memory;
use crate::config::Config;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How a wanted model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ModelStage)]
pub enum Stage {
    /// It is here.
    Present,
    /// It is not here, and its turn has not come, or it is not fetched at all.
    Missing,
    /// It is being fetched.
    Fetching,
    /// It could not be fetched, and will be tried again.
    Failed,
}

/// A wanted model, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelView {
    /// The catalog's name.
    pub name: String,
    /// `stt`, `llm` or `embed`.
    pub kind: String,
    /// Size of the finished file.
    pub bytes: u64,
    /// How it stands.
    pub stage: Stage,
    /// What is being done to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Bytes of this step that are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_done: Option<u64>,
    /// Bytes of this step; none where there is no count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_bytes: Option<u64>,
    /// Why the last attempt failed; for administrators, since it names paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it is tried again, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<i64>,
}

/// The models that the configuration asks for. Cheap to clone.
#[derive(Clone)]
pub struct Supply(Arc<Shared>);

struct Shared {
    catalog: Catalog,
    wanted: Vec<Entry>,
    dir: PathBuf,
    order: Vec<Place>,
    spare: u64,
    pause: Duration,
    clock: Clock,
    attempts: Mutex<Vec<Attempt>>,
}

/// The latest attempt at one model.
#[derive(Clone, Default)]
struct Attempt {
    /// What is being done, and of how many bytes, while it runs.
    step: Option<(String, u64)>,
    done: u64,
    problem: Option<String>,
    retry_at: Option<i64>,
}

impl Supply {
    /// What `config` asks for on this machine. A model that is given as a path is
    /// never fetched, and not listed.
    ///
    /// # Errors
    /// `Config` when a source cannot be used.
    pub fn new(catalog: Catalog, config: &Config, clock: Clock) -> Result<Self> {
        let wanted: Vec<Entry> =
            catalog.defaults(config, total_memory()).into_iter().cloned().collect();
        let order = config.models.sources.iter().map(|s| s.parse()).collect::<Result<_>>()?;
        let attempts = Mutex::new(vec![Attempt::default(); wanted.len()]);
        Ok(Self(Arc::new(Shared {
            catalog,
            wanted,
            dir: models_dir(config),
            order,
            // Room that the recordings count on is not taken.
            spare: config.disk.reserve().saturating_add(MARGIN),
            pause: config.models.retry_pause.get(),
            clock,
            attempts,
        })))
    }

    /// Fetches one model after the other until all are here, and calls `arrived`
    /// for each. What fails is tried again, with growing pauses.
    ///
    /// # Errors
    /// None: a daemon records without its models.
    pub async fn run(&self, arrived: impl Fn(), stop: CancellationToken) -> Result<()> {
        let mut pause = self.0.pause;
        loop {
            let before = self.missing();
            for index in before.clone() {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    here = self.get(index, pause) => if here { arrived() },
                }
            }
            let missing = self.missing();
            if missing.is_empty() {
                return Ok(());
            }
            if missing.len() < before.len() {
                pause = self.0.pause;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn missing(&self) -> Vec<usize> {
        let here = |entry| is_present(entry, &self.0.dir);
        self.0.wanted.iter().enumerate().filter(|(_, e)| !here(e)).map(|(i, _)| i).collect()
    }

    /// Tries to get one model; whether it is here now.
    async fn get(&self, index: usize, pause: Duration) -> bool {
        let Some(entry) = self.0.wanted.get(index) else { return false };
        tracing::info!("fetching the {} model {}", entry.kind, entry.name);
        let shared = &self.0;
        let progress: Arc<dyn Progress> = Arc::new(Watch { supply: self.clone(), index });
        let (dir, order) = (&shared.dir, &shared.order);
        let got = fetch(&shared.catalog, entry, dir, order, shared.spare, &progress).await;
        let Err(error) = got else {
            self.note(index, |attempt| *attempt = Attempt::default());
            tracing::info!("the {} model {} is here", entry.kind, entry.name);
            return true;
        };
        let retry_at = shared.clock.now().plus(pause);
        let problem = error.report();
        tracing::warn!("{problem}\nIt is tried again in {} s", pause.as_secs());
        self.note(index, |attempt| {
            *attempt = Attempt {
                problem: Some(problem),
                retry_at: Some(retry_at.seconds()),
                ..Attempt::default()
            };
        });
        false
    }

    /// How each wanted model stands, with the reasons of failures.
    pub fn views(&self) -> Vec<ModelView> {
        let attempts = self.lock().clone();
        let view = |(entry, attempt): (&Entry, Attempt)| {
            let stage = match &attempt {
                _ if is_present(entry, &self.0.dir) => Stage::Present,
                Attempt { step: Some(_), .. } => Stage::Fetching,
                Attempt { problem: Some(_), .. } => Stage::Failed,
                _ => Stage::Missing,
            };
            let failed = stage == Stage::Failed;
            let running = attempt.step.filter(|_| stage == Stage::Fetching);
            let counted = running.as_ref().map(|(_, bytes)| *bytes).filter(|bytes| *bytes > 0);
            ModelView {
                name: entry.name.clone(),
                kind: entry.kind.name().into(),
                bytes: entry.bytes,
                stage,
                step: running.map(|(step, _)| step),
                step_done: counted.map(|bytes| attempt.done.min(bytes)),
                step_bytes: counted,
                problem: attempt.problem.filter(|_| failed),
                retry_at: attempt.retry_at.filter(|_| failed),
            }
        };
        self.0.wanted.iter().zip(attempts).map(view).collect()
    }

    fn note(&self, index: usize, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.lock().get_mut(index) {
            change(attempt);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.0.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelView {
    /// Without what is for administrators alone.
    #[must_use]
    pub fn public(self) -> Self {
        Self { problem: None, ..self }
    }
}

/// Notes how the fetch of one model goes on.
struct Watch {
    supply: Supply,
    index: usize,
}

impl Progress for Watch {
    fn step(&self, _: &str, what: &str, bytes: u64) {
        self.supply.note(self.index, |attempt| {
            attempt.step = Some((what.to_owned(), bytes));
            attempt.done = 0;
        });
    }

    fn at(&self, bytes: u64) {
        self.supply.note(self.index, |attempt| attempt.done = bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::sha256;
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::config::Interval;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const CONTENT: &[u8] = b"the weights of a small model";

    fn supply(dir: &std::path::Path, from: &std::path::Path, reserve_mib: u64) -> Supply {
        let hash = sha256(&mut &CONTENT[..]).unwrap();
        let catalog = Catalog::parse(&format!(
            "[[model]]\nname = \"small\"\nkind = \"stt\"\nfile = \"small.bin\"\nbytes = {}\n\
             sha256 = \"{hash}\"\nlicence = \"MIT\"\nleast_memory_mib = 1\n\
             [[model.source]]\nkind = \"path\"\npath = \"/no/such/file\"\n",
            CONTENT.len()
        ))
        .unwrap();
        let mut config = Config::default();
        config.models.dir = dir.display().to_string();
        config.models.sources = vec![from.display().to_string()];
        config.models.retry_pause = Interval::from_millis(50);
        config.disk.reserve_mib = reserve_mib;
        let clock = Clock::simulated(Timestamp::from_millis(1_000_000));
        Supply::new(catalog, &config, clock).unwrap()
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_had_is_tried_again_until_it_can() {
        let (dir, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let supply = supply(dir.path(), from.path(), 0);
        assert_eq!(supply.views()[0].stage, Stage::Missing);
        let arrivals = Arc::new(AtomicUsize::new(0));
        let (running, seen) = (supply.clone(), arrivals.clone());
        let fetching = tokio::spawn(async move {
            let arrived = move || {
                seen.fetch_add(1, Ordering::SeqCst);
            };
            running.run(arrived, CancellationToken::new()).await
        });
        while supply.views()[0].stage != Stage::Failed {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let view = &supply.views()[0];
        assert_eq!(view.retry_at, Some(1_000));
        assert!(view.problem.as_ref().unwrap().contains("no such file"), "{view:?}");
        assert_eq!(view.clone().public().problem, None);
        std::fs::write(from.path().join("small.bin"), CONTENT).unwrap();
        fetching.await.unwrap().unwrap();
        assert_eq!(supply.views()[0].stage, Stage::Present);
        assert_eq!(arrivals.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn room_that_recordings_count_on_is_not_taken() {
        let (dir, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(from.path().join("small.bin"), CONTENT).unwrap();
        let supply = supply(dir.path(), from.path(), 1 << 40);
        assert!(!supply.get(0, Duration::from_secs(1)).await);
        let problem = supply.views()[0].problem.clone().unwrap();
        assert!(problem.contains("of room"), "{problem}");
        assert!(!dir.path().join("small.bin").exists());
    }

    #[tokio::test]
    async fn a_step_shows_how_far_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let supply = supply(dir.path(), dir.path(), 0);
        let watch = Watch { supply: supply.clone(), index: 0 };
        watch.step("small", "small.bin from example.com", 1000);
        watch.at(250);
        let view = &supply.views()[0];
        assert_eq!(
            (view.stage, view.step_done, view.step_bytes),
            (Stage::Fetching, Some(250), Some(1000))
        );
        watch.step("small", "checking", 0);
        assert_eq!(supply.views()[0].step_bytes, None);
    }
}
