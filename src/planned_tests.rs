//! The walk through all planned failures: the daemon without its edges, on a
//! real store and real recordings, dies or fails once at every place that
//! [`crate::base::planned`] marks, and at pairs of neighbouring places. After
//! each walk every second that reached the disk is in the transcripts once, no
//! job is stuck, held or dead, and what was to be remembered is known once.

mod audio_tests;
mod whole_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use crate::audio::numbered::{self, BLOCKS, Block, SECOND, Voice};
use crate::audio::pcm::PcmFormat;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Result;
use crate::base::planned::{Act, Place, Plan};
use crate::config::{Config, Interval, When};
use crate::domain::conversation::{CloseReason, Progress, WindowState};
use crate::domain::ids::{ClientId, ConversationId};
use crate::domain::transcript::{Segment, Transcript};
use crate::domain::user::{Device, User};
use crate::embed::Embedder;
use crate::index::sqlite_vec::SqliteVecIndex;
use crate::ingest::Ingest;
use crate::ingest::session::Session;
use crate::jobs::Wake;
use crate::jobs::worker::{Handler, Retry, Worker};
use crate::llm::{Generate, LanguageModel};
use crate::pipeline::crop::Crop;
use crate::pipeline::finish::Finish;
use crate::pipeline::learn::Learner;
use crate::pipeline::reconcile::{Sweep, Swept};
use crate::pipeline::remember::Remember;
use crate::pipeline::schedule::Schedule;
use crate::pipeline::transcribe::Transcribe;
use crate::recording::{Format, Recordings};
use crate::store::sqlite::testing;
use crate::store::sqlite::{Access, SqliteStore};
use crate::store::{Conversations, Jobs, Memories, Store};
use crate::stt::{HearsWhole, Speech, SpeechToText};
use crate::supervisor::Supervisor;

/// Samples that a device sends at once.
const CHUNK: usize = 4_800;
/// Bytes of a WAV file before its samples.
const HEADER: usize = 44;
/// What everybody says, besides numbers.
const SENTENCE: &str = "My sister plays the violin.";

static VOICE: LazyLock<Voice> = LazyLock::new(Voice::new);

/// Reads numbers, and hears [`SENTENCE`] before them.
struct NumberReader {
    /// Whether it wants a conversation at once.
    whole: bool,
}

#[async_trait]
impl SpeechToText for NumberReader {
    fn name(&self) -> String {
        "numbers".into()
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn languages(&self) -> &[&str] {
        &[]
    }

    async fn transcribe(&self, speech: Speech) -> Result<Transcript> {
        Ok(read(&speech.samples))
    }

    fn whole(&self) -> Option<&dyn HearsWhole> {
        self.whole.then_some(self)
    }
}

fn read(samples: &[i16]) -> Transcript {
    let segment = |text: String| Segment {
        start: 0.0,
        end: 1.0,
        text,
        speaker: None,
        confidence: 1.0,
        words: Vec::new(),
    };
    let numbers = numbered::to_text(&numbered::blocks(samples));
    let segments = vec![segment(SENTENCE.into()), segment(numbers)];
    Transcript { segments, ..Transcript::default() }
}

/// Finds one fact in everything, and knows it the second time.
struct OneFact;

#[async_trait]
impl LanguageModel for OneFact {
    fn name(&self) -> String {
        "one-fact".into()
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn generate(&self, _: Generate) -> Result<String> {
        let point = json!({"quote": SENTENCE, "kind": "person", "fact": SENTENCE});
        Ok(json!({"points": [point]}).to_string())
    }
}

#[async_trait]
impl Embedder for OneFact {
    fn name(&self) -> String {
        "one-fact".into()
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|_| testing::vector(0)).collect())
    }
}

/// The daemon from its start to its end or death.
struct Process {
    store: SqliteStore,
    ingest: Arc<Ingest>,
    sweep: Sweep,
    workers: Vec<Worker>,
    clock: Clock,
    plan: Plan,
    user: User,
}

impl Process {
    /// As `App::start` does it, without anything that runs by itself.
    async fn start(state: &Path, clock: &Clock, plan: &Plan, whole: bool) -> Result<Self> {
        let sqlite = SqliteStore::open(state, Access::Exclusive)?;
        let store: Arc<dyn Store> = Arc::new(sqlite.clone());
        store.void_leases(false, clock.now()).await?;
        let user = testing::user("anna");
        if store.user(&user.id).await?.is_none() {
            store.add_user(&user).await?;
        }
        let device = Device {
            client_id: ClientId::for_device(&user.id, Some("phone"), 1),
            user_id: user.id.clone(),
            device_name: Some("phone".into()),
            first_seen: clock.now(),
            last_seen: clock.now(),
        };
        store.see_device(&device).await?;
        let mut config = Config::default();
        config.transcribe.window_min = Interval::from_secs(1);
        config.transcribe.window_max = Interval::from_secs(2);
        config.recording.archive = "wav".into();
        if whole {
            config.stt.engines = vec!["deepgram".into()];
        }
        let config = Arc::new(config);
        let recordings =
            Recordings::open(state, config.recording.sync_interval.get(), clock.clone())?;
        let wake = Wake::default();
        let ingest = Ingest::new(
            store.clone(),
            recordings.clone(),
            wake.clone(),
            clock.clone(),
            config.clone(),
            Supervisor::new(),
            None,
        );
        let sweep = Sweep::new(
            store.clone(),
            recordings.clone(),
            ingest.clone(),
            &config,
            wake.clone(),
            clock.clone(),
        );
        let index = Arc::new(SqliteVecIndex::new(&sqlite));
        let learner = Learner::new(
            store.clone(),
            index,
            Arc::new(OneFact),
            Arc::new(OneFact),
            config.memory.deadline.get(),
            clock.clone(),
        );
        let handlers: [Arc<dyn Handler>; 4] = [
            Arc::new(Transcribe::new(
                store.clone(),
                recordings.clone(),
                Arc::new(NumberReader { whole }),
                Schedule::new(When::Always, ingest.clone(), clock.clone()),
                ingest.load().clone(),
                clock.clone(),
            )),
            Arc::new(Crop::new(
                store.clone(),
                recordings,
                config.transcribe.vad_mode,
                &config.cropping,
                clock.clone(),
            )),
            Arc::new(Finish::new(store.clone(), config.memory.clone(), true, clock.clone())),
            Arc::new(Remember::new(store.clone(), learner, clock.clone())),
        ];
        let retry =
            Retry { max_attempts: config.jobs.max_attempts, pause: config.jobs.retry_pause.get() };
        let names = ["transcribe", "crop", "finish", "remember"];
        let workers = names.into_iter().zip(handlers).map(|(name, handler)| {
            Worker::new(name, store.clone(), handler, wake.clone(), clock.clone(), retry)
        });
        let workers = workers.collect();
        let (clock, plan) = (clock.clone(), plan.clone());
        Ok(Self { store: sqlite, ingest, sweep, workers, clock, plan, user })
    }

    /// One step of every worker, each started again where it failed. Whether one
    /// of them did anything.
    async fn work(&self) -> bool {
        let mut worked = false;
        for worker in &self.workers {
            worked |= match worker.step().await {
                Ok(worked) => worked,
                Err(_) => {
                    // As the supervisor does.
                    while worker.take_back().await.is_err() && !self.plan.is_dead() {}
                    true
                }
            };
        }
        worked && !self.plan.is_dead()
    }

    /// Sends `seconds` of talk from number `from` on, and then a second of
    /// silence. Each chunk that was taken in is noted in `taken`; when one is
    /// refused the device comes back with the next one.
    async fn talk(
        &self,
        session: &mut Option<Session>,
        from: u32,
        seconds: u32,
        bounded: bool,
        taken: &mut BTreeSet<Block>,
    ) {
        let mut samples: Vec<i16> =
            (from..from + seconds).flat_map(|second| VOICE.second(0, second)).collect();
        samples.resize(samples.len() + SECOND, 0);
        for chunk in samples.chunks(CHUNK) {
            if self.plan.is_dead() {
                return;
            }
            if session.is_none() {
                let Ok(mut new) = self.ingest.connect(&self.user, Some("phone")).await else {
                    continue;
                };
                if bounded {
                    new.audio_start(PcmFormat::SPEECH);
                }
                *session = Some(new);
            }
            let bytes: Vec<u8> = chunk.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            let Some(connected) = session else { continue };
            match connected.audio(&bytes, None).await {
                Ok(()) => taken.extend(numbered::blocks(chunk)),
                Err(_) => *session = None,
            }
            self.clock.advance(Duration::from_millis(300));
        }
    }

    /// Lets everything that is under way come to its end.
    async fn settle(&self) -> Result<()> {
        for _ in 0..40 {
            // A close that failed is tried again in the background.
            for _ in 0..2_000 {
                if self
                    .store
                    .open_conversations()
                    .await?
                    .iter()
                    .all(|c| !self.ingest.is_open(&c.id))
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            while self.work().await {}
            if self.plan.is_dead() {
                return Ok(());
            }
            let swept = self.sweep.once().await;
            let jobs = self.store.job_counts().await?;
            if swept.is_ok_and(|swept| swept == Swept::default()) && jobs.ready + jobs.leased == 0 {
                return Ok(());
            }
            self.clock.advance(Duration::from_secs(20 * 60));
        }
        panic!("it never comes to rest: {:?}", self.store.job_counts().await);
    }
}

/// One life of the process under `plan`; `talk`: two conversations come in.
fn live(world: &World, plan: &Plan, talk: bool) -> BTreeSet<Block> {
    let (state, clock) = (world.dir.path(), &world.clock);
    plan.enter();
    let threads = plan.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_start(move || threads.enter())
        .build()
        .unwrap();
    let mut taken = BTreeSet::new();
    runtime.block_on(async {
        let process = loop {
            // A daemon that cannot start is started again.
            match Process::start(state, clock, plan, world.whole).await {
                Ok(process) => break process,
                Err(_) if plan.is_dead() => return,
                Err(_) => {}
            }
        };
        // The supervisor starts a failed sweep again.
        while process.sweep.once().await.is_err() && !plan.is_dead() {}
        if talk {
            let mut session = None;
            process.talk(&mut session, 0, 3, true, &mut taken).await;
            process.work().await;
            process.talk(&mut session, 3, 1, true, &mut taken).await;
            if let Some(mut session) = session.take().filter(|_| !plan.is_dead()) {
                session.audio_stop().await;
                session.end(CloseReason::Disconnect).await;
            }
            // The second is a stream without boundaries, and just goes away.
            process.talk(&mut session, 4, 2, false, &mut taken).await;
            drop(session);
        }
        process.settle().await.unwrap_or_else(|error| assert!(plan.is_dead(), "{error:?}"));
    });
    drop(runtime);
    taken
}

/// A state directory and what has become of it.
struct World {
    dir: tempfile::TempDir,
    clock: Clock,
    /// Whether conversations are heard at once.
    whole: bool,
}

impl World {
    fn new(whole: bool) -> Self {
        let dir = testing::directory();
        let start = Timestamp::from_millis(1_753_190_000_000);
        // A recording that lost its row, with a torn end and a header from before.
        let client = ClientId::for_device(&testing::user("anna").id, Some("phone"), 1);
        let id = ConversationId::generate();
        let name = Recordings::file_name(start, &client, &id, Format::Wav);
        let mut file = vec![0; HEADER];
        file.extend(VOICE.second(1, 0).iter().flat_map(|sample| sample.to_le_bytes()));
        file.push(0x55);
        std::fs::create_dir(dir.path().join("audio")).unwrap();
        std::fs::write(dir.path().join("audio").join(name), file).unwrap();
        // And a crop that nobody has.
        let crop = dir.path().join("audio").join(Recordings::cropped_name(&id));
        let crop = std::fs::File::create(crop).unwrap();
        crop.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        Self { dir, clock: Clock::simulated(start), whole }
    }

    fn live(&self, plan: &Plan, talk: bool) -> BTreeSet<Block> {
        live(self, plan, talk)
    }

    /// The blocks in the recordings.
    fn on_disk(&self) -> BTreeSet<Block> {
        let files = std::fs::read_dir(self.dir.path().join("audio"));
        let files = files.into_iter().flatten().flatten();
        files
            .filter(|file| Recordings::origin(&file.file_name().to_string_lossy()).is_some())
            .flat_map(|file| {
                let bytes = std::fs::read(file.path()).unwrap();
                let pairs = bytes.get(HEADER..).unwrap_or_default().as_chunks().0;
                let samples: Vec<i16> = pairs.iter().map(|b| i16::from_le_bytes(*b)).collect();
                numbered::blocks(&samples)
            })
            .collect()
    }

    /// Fails, naming `walk`, unless all is as it must be. `must` is what has to
    /// be told; nothing may be told twice.
    fn check(&self, walk: &str, must: &BTreeSet<Block>) {
        Plan::default().enter();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = SqliteStore::open(self.dir.path(), Access::Exclusive).unwrap();
            let jobs = store.job_counts().await.unwrap();
            assert_eq!((jobs.ready, jobs.leased, jobs.dead), (0, 0, 0), "{walk}: jobs left");
            let mut told = BTreeMap::new();
            for conversation in store.conversations(None, 100).await.unwrap() {
                assert!(!conversation.is_open(), "{walk}: {conversation:?}");
                assert!(
                    !matches!(conversation.transcription, Progress::Pending | Progress::Failed)
                        && !matches!(conversation.memory, Progress::Pending | Progress::Failed),
                    "{walk}: {conversation:?}"
                );
                for window in store.windows(&conversation.id).await.unwrap() {
                    assert_eq!(window.state, WindowState::Done, "{walk}: {window:?}");
                    for segment in window.segments.iter().filter(|s| s.text != SENTENCE) {
                        numbered::count(&segment.text, &mut told);
                    }
                }
            }
            let lost: Vec<Block> =
                must.iter().filter(|block| !told.contains_key(block)).copied().collect();
            assert!(lost.is_empty(), "{walk}: lost {}", numbered::to_text(&lost));
            assert!(told.values().all(|times| *times == 1), "{walk}: told twice: {told:?}");
            let memories = store.memories(&testing::user("anna").id, 10).await.unwrap();
            let expected = usize::from(!told.is_empty());
            assert_eq!(memories.len(), expected, "{walk}: {memories:?}");
        });
    }
}

/// Those blocks of which the whole second is there: less than that may be too
/// short to be taken for speech.
fn whole_seconds(blocks: &BTreeSet<Block>) -> BTreeSet<Block> {
    let has_all = |block: &&Block| {
        let first = block.number / BLOCKS * BLOCKS;
        (first..first + BLOCKS).all(|number| blocks.contains(&Block { number, ..**block }))
    };
    blocks.iter().filter(has_all).copied().collect()
}

/// The process dies at `first`; in its next life, at `second` too.
fn die(whole: bool, first: usize, second: Option<Place>) -> Option<Vec<Place>> {
    let world = World::new(whole);
    let plan = Plan::default().at(first, Act::Die);
    world.live(&plan, true);
    let died = plan.is_dead();
    let must = whole_seconds(&world.on_disk());
    if let Some(place) = second {
        world.live(&Plan::default().first(place, Act::Die), false);
    }
    world.live(&Plan::default(), false);
    world.check(&format!("died at {first} {:?}, then {second:?}", plan.passed().last()), &must);
    died.then(|| plan.passed())
}

/// The operations at `places` fail once each, and the process goes on.
fn fail(whole: bool, places: &[usize]) -> Option<Vec<Place>> {
    let world = World::new(whole);
    let plan = places.iter().fold(Plan::default(), |plan, at| plan.at(*at, Act::Fail));
    let taken = world.live(&plan, true);
    let passed = plan.passed();
    let at = *places.first()?;
    let place = passed.get(at).copied();
    let must: BTreeSet<Block> = whole_seconds(&world.on_disk()).union(&taken).copied().collect();
    world.check(&format!("failed at {places:?} {place:?}"), &must);
    place.is_some().then_some(passed)
}

/// Every place that the sources of some modules mark.
pub(crate) fn places(of: fn(&Path) -> bool) -> BTreeSet<String> {
    fn walk(dir: &Path, of: fn(&Path) -> bool, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, of, found);
            } else if of(&path) && path.extension().is_some_and(|ext| ext == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for (call, sides) in [
                    ("before", &["before"][..]),
                    ("after", &["after"]),
                    ("around", &["before", "after"]),
                    ("around_io", &["before", "after"]),
                ] {
                    for part in text.split(&format!("planned::{call}(\"")).skip(1) {
                        let operation = part.split('"').next().unwrap_or_default();
                        found.extend(sides.iter().map(|side| format!("{side} {operation}")));
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), of, &mut found);
    found.retain(|place| !place.contains('…'));
    found
}

#[test]
fn nothing_is_lost_or_doubled_whatever_fails_and_wherever_it_dies() {
    let undisturbed = Plan::default();
    let world = World::new(false);
    let taken = world.live(&undisturbed, true);
    assert_eq!(taken.len(), 600);
    world.check("undisturbed", &world.on_disk());

    let (mut reached, mut walks) = (BTreeSet::new(), 0);
    let order = undisturbed.passed();
    // Without optimisation a sample of them is enough.
    let stride = if cfg!(debug_assertions) { 6 } else { 1 };
    for at in (0..).step_by(stride) {
        let next = order.get(at + 1).copied();
        let died = die(false, at, None);
        let failed = fail(false, &[at]);
        let (Some(died), Some(failed)) = (died, failed) else { break };
        die(false, at, next);
        fail(false, &[at, at + 1]);
        walks += 4;
        for passed in [died, failed] {
            reached.extend(passed.into_iter().map(|(side, what)| format!("{side} {what}")));
        }
    }
    println!("{} places, {} passages, {walks} walks", reached.len(), order.len());
    // Backups have a walk of their own, and so has the bucket.
    let daemon = |path: &Path| {
        !path.components().any(|part| part.as_os_str() == "upkeep")
            && !path.ends_with("pipeline/upload.rs")
    };
    let missed: Vec<_> = places(daemon).difference(&reached).cloned().collect();
    assert!(missed.is_empty(), "places that no walk comes to: {missed:?}");
}
