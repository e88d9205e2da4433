//! The walk through archiving, copying to a bucket, and deleting: all die or fail
//! once at every place on their way. A conversation has one whole recording after
//! that, on disk and in the bucket, or none of it is left, and `upkeep::check` finds
//! nothing wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::audio::synthetic::speech;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::planned::{Act, Plan};
use crate::cli::user::Elsewhere;
use crate::config::Config;
use crate::domain::ids::ConversationId;
use crate::domain::user::Device;
use crate::jobs::Wake;
use crate::jobs::worker::{Retry, Worker};
use crate::pipeline::archive::Archive;
use crate::pipeline::deletion::Deletion;
use crate::pipeline::reconcile::Sweep;
use crate::pipeline::upload::Uploader;
use crate::planned_tests::places;
use crate::recording::{Format, Recordings};
use crate::remote::bucket::Bucket;
use crate::store::sqlite::testing::{self, Fixture, at};
use crate::store::sqlite::{Access, SqliteStore};
use crate::store::{Conversations, Store, Users};
use crate::upkeep::check::Check;

/// Samples of the recording.
const SAMPLES: usize = 40_000;

/// The parts of a daemon that archive, copy and delete.
struct Process {
    store: Arc<dyn Store>,
    recordings: Recordings,
    sweep: Sweep,
    worker: Worker,
    uploader: Mutex<Uploader>,
    deletion: Deletion,
    clock: Clock,
    plan: Plan,
}

impl Process {
    async fn start(state: &Path, bucket: &Bucket, clock: &Clock, plan: &Plan) -> Result<Self> {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(state, Access::Exclusive)?);
        store.void_leases(false, clock.now()).await?;
        let recordings = Recordings::open(state, Duration::ZERO, clock.clone())?
            .with_bucket(Some(bucket.clone()));
        let (config, live) = (Config::default(), Arc::new(Elsewhere));
        let (clock, wake) = (clock.clone(), Wake::default());
        let sweep = Sweep::new(
            store.clone(),
            recordings.clone(),
            live.clone(),
            &config,
            wake.clone(),
            clock.clone(),
        );
        let handler = Arc::new(Archive::new(store.clone(), recordings.clone(), 24, clock.clone()));
        let retry =
            Retry { max_attempts: config.jobs.max_attempts, pause: config.jobs.retry_pause.get() };
        let worker = Worker::new("archive", store.clone(), handler, wake, clock.clone(), retry);
        let uploader = Mutex::new(Uploader::new(
            store.clone(),
            recordings.clone(),
            bucket.clone(),
            &config.recording,
            clock.clone(),
        ));
        let deletion = Deletion::new(store.clone(), recordings.clone(), live, clock.clone());
        let plan = plan.clone();
        Ok(Self { store, recordings, sweep, worker, uploader, deletion, clock, plan })
    }

    /// Sweeps and works until there is nothing to do, or it is dead.
    async fn settle(&self) {
        for _ in 0..6 {
            while self.sweep.once().await.is_err() && !self.plan.is_dead() {}
            loop {
                match self.worker.step().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) if self.plan.is_dead() => return,
                    Err(_) => {
                        while self.worker.take_back().await.is_err() && !self.plan.is_dead() {}
                    }
                }
            }
            let mut uploader = self.uploader.lock().await;
            while uploader.once().await.is_err() && !self.plan.is_dead() {}
            // What has failed is due again, and what is left half written is old.
            self.clock.advance(Duration::from_secs(2 * 3600));
        }
    }
}

/// A state directory with one conversation that can be archived.
struct World {
    dir: TempDir,
    bucket: Bucket,
    clock: Clock,
    id: ConversationId,
}

impl World {
    fn new() -> Self {
        let clock = Clock::simulated(Clock::system().now());
        let fixture = Fixture::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let id = runtime.block_on(async {
            let anna = fixture.user("anna").await;
            let mut row = testing::conversation(&anna);
            row.audio_path =
                Recordings::file_name(row.started_at, &row.client_id, &row.id, Format::Wav);
            let device = Device {
                client_id: row.client_id.clone(),
                user_id: anna.id.clone(),
                device_name: None,
                first_seen: at(0),
                last_seen: at(0),
            };
            fixture.store.see_device(&device).await.unwrap();
            fixture.store.open_conversation(&row).await.unwrap();
            let state = fixture.dir.path().join("state");
            let recordings = Recordings::open(&state, Duration::ZERO, clock.clone()).unwrap();
            let mut recorder = recordings.create(&row).await.unwrap();
            let sound: Vec<i16> = speech(3.0).into_iter().take(SAMPLES).collect();
            recorder.append(&sound).await.unwrap();
            recorder.close().await;
            let reason = crate::domain::conversation::CloseReason::AudioStop;
            let (store, samples) = (&fixture.store, SAMPLES as u64);
            store.close_conversation(&row.id, samples, &[], reason, at(3)).await.unwrap();
            fixture.finish_all().await;
            row.id
        });
        let Fixture { store, dir } = fixture;
        drop(store);
        Self { dir, bucket: Bucket::in_memory(clock.clone()), clock, id }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// One life of the process under `plan`; `delete`: somebody deletes the
    /// conversation.
    fn live(&self, plan: &Plan, delete: bool) {
        plan.enter();
        let threads = plan.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_start(move || threads.enter())
            .build()
            .unwrap();
        runtime.block_on(async {
            let process = loop {
                match Process::start(&self.state(), &self.bucket, &self.clock, plan).await {
                    Ok(process) => break process,
                    Err(_) if plan.is_dead() => return,
                    Err(_) => {}
                }
            };
            if delete {
                let _ = process.deletion.conversation(&self.id, true, None).await;
            }
            process.settle().await;
        });
        drop(runtime);
        Plan::default().enter();
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state().join("audio")).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// Fails, naming `walk`, unless the conversation is there with one archived
    /// recording, or nothing is left of it. Whether it is there.
    fn check(&self, walk: &str) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let plan = Plan::default();
            let state = self.state();
            let process = Process::start(&state, &self.bucket, &self.clock, &plan);
            let process = process.await.unwrap();
            let objects: Vec<String> = self.bucket.list().await.unwrap().into_keys().collect();
            let (store, recordings) = (process.store.clone(), process.recordings.clone());
            let check = Check::new(store.clone(), recordings.clone(), self.clock.clone(), false);
            let report = check.run(|_, _| {}).await.unwrap();
            assert_eq!(report.findings, [], "{walk}");
            assert_eq!(store.deletions().await.unwrap(), Vec::<String>::new(), "{walk}");
            assert_eq!(store.job_counts().await.unwrap().dead, 0, "{walk}");
            let all = store.conversations(None, 10).await.unwrap();
            match all.as_slice() {
                [] => {
                    assert_eq!(self.files(), Vec::<String>::new(), "{walk}");
                    assert_eq!(objects, Vec::<String>::new(), "{walk}");
                    false
                }
                [one] => {
                    assert_eq!((&one.id, one.samples), (&self.id, SAMPLES as u64), "{walk}");
                    assert!(one.audio_path.ends_with(".opus"), "{walk}: {one:?}");
                    assert_eq!(self.files(), std::slice::from_ref(&one.audio_path), "{walk}");
                    assert_eq!(objects, std::slice::from_ref(&one.audio_path), "{walk}");
                    let samples = recordings.samples(&one.audio_path).await.unwrap();
                    assert_eq!(samples, SAMPLES as u64, "{walk}");
                    true
                }
                more => panic!("{walk}: {more:?}"),
            }
        })
    }
}

#[test]
fn a_recording_is_archived_and_copied_or_deleted_wherever_that_dies_or_fails() {
    let (mut reached, mut walks) = (BTreeSet::new(), 0);
    // Without optimisation a sample of them is enough.
    let stride = if cfg!(debug_assertions) { 3 } else { 1 };
    for act in [Act::Die, Act::Fail] {
        for at in (0..).step_by(stride) {
            let world = World::new();
            let plan = Plan::default().at(at, act);
            world.live(&plan, false);
            let walk = format!("archiving, {act:?} at {at} {:?}", plan.passed().last());
            world.live(&Plan::default(), false);
            assert!(world.check(&walk), "{walk}: it is gone");
            walks += 1;
            reached.extend(plan.passed());
            if plan.passed().len() <= at {
                break;
            }
            // Deleted in the middle of that, nothing of it comes back.
            let world = World::new();
            world.live(&Plan::default().at(at, act), false);
            world.live(&Plan::default(), true);
            assert!(!world.check(&format!("deleted after {walk}")));
            walks += 1;
        }
        for at in (0..).step_by(stride) {
            let world = World::new();
            let plan = Plan::default().at(at, act);
            world.live(&plan, true);
            let walk = format!("deleting, {act:?} at {at} {:?}", plan.passed().last());
            world.live(&Plan::default(), false);
            world.check(&walk);
            walks += 1;
            reached.extend(plan.passed());
            if plan.passed().len() <= at {
                break;
            }
        }
    }
    println!("{} places, {walks} walks", reached.len());
    let reached: BTreeSet<String> =
        reached.into_iter().map(|(side, what)| format!("{side} {what}")).collect();
    let of_bucket = places(|path| path.ends_with("pipeline/upload.rs"));
    let missed: Vec<_> = of_bucket.difference(&reached).cloned().collect();
    assert!(missed.is_empty(), "places that no walk comes to: {missed:?}");
}
