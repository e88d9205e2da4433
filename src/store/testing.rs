//! A store in a place of its own, with the steps that tests share.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::base::clock::Timestamp;
use crate::domain::conversation::{CloseReason, Conversation, NewWindow, Progress, Span, Window};
use crate::domain::ids::{ClientId, ConversationId, UserId, WindowId};
use crate::domain::job::{Job, JobKind, JobState, Lane, Lease, NewJob, Payload};
use crate::domain::memory::{Learned, Memory, MemoryChange};
use crate::domain::transcript::Segment;
use crate::domain::user::User;
use crate::domain::version::{Settled, Transcribed, unsettled};
use crate::index::Index;
use crate::store::Store;

/// Width of the vectors in these tests.
pub(crate) const WIDTH: usize = 64;

/// Rows that are there for the store's own use: the port does not list them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows {
    Conversations,
    Windows,
    Jobs,
    Memories,
    /// Memories that the index of words has under "tea".
    Tea,
    /// Vectors of memories that are shown.
    Vectors,
    /// Changes of memories.
    History,
    /// Memories of sets that are not active.
    Shelved,
    EndedTokens,
}

/// A store that the suite of the port is run against: how it is opened, and what
/// the port does not show of it or never does.
pub(crate) trait Tested: Store + Clone + 'static {
    /// Its name in the table of what passed.
    const NAME: &str;

    /// How many of a hundred cases of a test that is many are run.
    const CASES: u32 = 100;

    /// Opens the store of `place`, as the one daemon that has it.
    async fn open_at(place: &Path) -> Self;
    /// The index of its memories.
    fn index(&self) -> impl Index;
    /// How many there are of such rows.
    async fn count(&self, rows: Rows) -> u64;
    /// What was done according to the audit trail, oldest first.
    async fn actions(&self) -> Vec<String>;
    /// Loses all jobs of a kind, as only a defect can.
    async fn lose_jobs(&self, kind: JobKind);
    /// Leaves every transcript unsettled, as only a defect can.
    async fn unsettle_transcripts(&self);
}

pub(crate) struct Fixture<S> {
    pub(crate) store: S,
    pub(crate) dir: TempDir,
}

/// In memory where the system has such a place: each commit is synced.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.unwrap()
}

/// `seconds` after the start of the test.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_753_190_000_000).plus(Duration::from_secs(seconds))
}

pub(crate) fn user(name: &str) -> User {
    User {
        id: UserId::from_text(format!("{name:0>24}")),
        email: format!("{name}@example.com"),
        password_hash: "$2b$hash".into(),
        display_name: Some(name.into()),
        is_active: true,
        is_superuser: false,
        is_verified: true,
        token_epoch: 0,
        created_at: at(0),
    }
}

/// How a store is put through a test that is so many.
pub(crate) fn cases<S: Tested>(many: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config::with_cases((many * S::CASES).div_ceil(100))
}

/// Writes down that a store has passed a test, for the table that `./dev test`
/// prints.
pub(crate) fn passed<S: Tested>(test: &str) {
    let Some(dir) = std::env::var_os("CONFORMANCE_DIR").map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir_all(&dir).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).append(true).open(dir.join(format!("store: {}", S::NAME)));
    // One write, so that tests side by side do not come between each other.
    file.unwrap().write_all(format!("{test}\n").as_bytes()).unwrap();
}

/// Runs a test that is many.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

pub(crate) fn conversation(user: &User) -> Conversation {
    let id = ConversationId::generate();
    let client = ClientId::for_device(&user.id, Some("phone"), 1);
    let name = format!("{id}.wav");
    Conversation::begin(id, user.id.clone(), client, name, at(1))
}

pub(crate) fn window(seq: u32) -> NewWindow {
    let start = u64::from(seq) * 16_000;
    NewWindow { seq, spans: vec![Span { start, end: start + 16_000 }] }
}

pub(crate) fn segment(text: &str) -> Segment {
    Segment {
        start: 0.5,
        end: 1.25,
        text: text.into(),
        speaker: None,
        confidence: 0.9,
        words: vec![],
    }
}

/// The result of a window that says `text`.
pub(crate) fn transcribed(lease: Lease, window: WindowId, text: &str) -> Transcribed {
    Transcribed { lease, window, segments: vec![segment(text)], engine: "test".into() }
}

/// A unit vector that points mostly along `axis`.
pub(crate) fn vector(axis: usize) -> Vec<f32> {
    let mut v: Vec<f32> = (0..WIDTH).map(|i| 0.01 * ((i * 7 + axis) % 5) as f32 - 0.02).collect();
    v[axis % WIDTH] = 1.0;
    unit(v)
}

pub(crate) fn unit(mut v: Vec<f32>) -> Vec<f32> {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.iter_mut().for_each(|x| *x /= norm);
    v
}

pub(crate) fn add(text: &str, axis: usize) -> MemoryChange {
    MemoryChange::Add { text: text.into(), vector: vector(axis) }
}

/// What a look at a conversation taught: `changes`.
pub(crate) fn learned(changes: &[MemoryChange]) -> Learned {
    Learned {
        changes: changes.to_vec(),
        title: Some("A title".into()),
        summary: Some("A summary.".into()),
        model: "test-llm".into(),
        prompt_version: "v1".into(),
    }
}

impl<S: Tested> Fixture<S> {
    /// A new store.
    pub(crate) async fn open() -> Self {
        let dir = directory();
        let store = S::open_at(dir.path()).await;
        Self { store, dir }
    }

    /// Closes the store and opens it again, as after a restart.
    pub(crate) async fn reopened(self) -> Self {
        let Self { store, dir } = self;
        drop(store);
        let store = S::open_at(dir.path()).await;
        Self { store, dir }
    }

    pub(crate) async fn user(&self, name: &str) -> User {
        let user = user(name);
        self.store.add_user(&user).await.unwrap();
        user
    }

    /// An open conversation of `user`.
    pub(crate) async fn opened(&self, user: &User) -> ConversationId {
        let conversation = conversation(user);
        self.store.open_conversation(&conversation).await.unwrap();
        conversation.id
    }

    pub(crate) async fn add_window(&self, id: &ConversationId, seq: u32) {
        let samples = u64::from(seq + 1) * 16_000;
        self.store.add_window(id, samples, &window(seq), Lane::Live, at(2)).await.unwrap();
    }

    pub(crate) async fn close(&self, id: &ConversationId, windows: &[NewWindow]) {
        self.store
            .close_conversation(id, 160_000, windows, CloseReason::AudioStop, at(3))
            .await
            .unwrap();
    }

    pub(crate) async fn get(&self, id: &ConversationId) -> Conversation {
        self.store.conversation(id).await.unwrap().unwrap()
    }

    pub(crate) async fn windows(&self, id: &ConversationId) -> Vec<Window> {
        self.store.windows(id).await.unwrap()
    }

    /// The next job of `kind`, long after everything is due.
    pub(crate) async fn claim(&self, kind: JobKind) -> Option<Job> {
        self.store.claim_job(&[kind], Lane::Backlog, "test", at(1_000_000)).await.unwrap()
    }

    /// Claims the next window and transcribes it as `text`.
    pub(crate) async fn transcribe(&self, text: &str) {
        let job = self.claim(JobKind::Transcribe).await.unwrap();
        let Payload::Window(window) = job.payload else { panic!("{job:?}") };
        let done = transcribed(job.lease(), window, text);
        self.store.complete_windows(&[done], at(5)).await.unwrap();
    }

    /// Claims the next finish job and settles its conversation, memory to follow.
    pub(crate) async fn finish(&self) -> ConversationId {
        let job = self.claim(JobKind::Finish).await.unwrap();
        let Payload::Conversation(id) = &job.payload else { panic!("{job:?}") };
        let versions = self.store.transcript_versions(id).await.unwrap();
        let next =
            NewJob { kind: JobKind::Remember, payload: job.payload.clone(), lane: Lane::Live };
        let settled = Settled {
            version: unsettled(&versions).unwrap(),
            transcription: Progress::Completed,
            memory: Progress::Pending,
            next: vec![next],
        };
        self.store.finish_conversation(job.lease(), id, &settled, at(6)).await.unwrap();
        id.clone()
    }

    /// Settles every conversation that can be.
    pub(crate) async fn finish_all(&self) {
        while self.jobs(JobKind::Finish, JobState::Ready).await > 0 {
            self.finish().await;
        }
    }

    /// How many jobs of a kind are in a state.
    pub(crate) async fn jobs(&self, kind: JobKind, state: JobState) -> u64 {
        let census = self.store.job_census(None).await.unwrap();
        census.iter().filter(|c| (c.kind, c.state) == (kind, state)).map(|c| c.jobs).sum()
    }

    /// A closed conversation of `user` that taught `changes`; its memories.
    pub(crate) async fn remember(&self, user: &User, changes: &[MemoryChange]) -> Vec<Memory> {
        let id = self.opened(user).await;
        self.close(&id, &[]).await;
        self.finish().await;
        self.learn(&id, changes).await
    }

    /// Completes the next remember job, which is to be of conversation `id`, with
    /// `changes`; its memories.
    pub(crate) async fn learn(&self, id: &ConversationId, changes: &[MemoryChange]) -> Vec<Memory> {
        let job = self.claim(JobKind::Remember).await.unwrap();
        self.store.bind_embedding("test-model", WIDTH).await.unwrap();
        let learned = learned(changes);
        self.store.complete_memories(job.lease(), id, &learned, at(7)).await.unwrap();
        self.store.conversation_memories(id).await.unwrap()
    }
}
