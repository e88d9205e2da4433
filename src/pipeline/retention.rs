//! Deletes what is older, or takes more room, than the configuration keeps.
//!
//! Audio that is not transcribed is exempt, and so is the conversation that it
//! belongs to. When wall time has jumped lately, or is an estimate, nothing is
//! deleted: it may have jumped to a wrong time, in which everything is old.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::deletion::Deletion;
use super::upload;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Result;
use crate::config;
use crate::recording::Recordings;
use crate::store::Store;

/// How long wall time has to go on without a jump.
const STEADY: Duration = Duration::from_secs(24 * 3600);
/// Rows asked for at a time.
const BATCH: usize = 100;

/// The one who deletes it.
pub struct Retention {
    store: Arc<dyn Store>,
    recordings: Recordings,
    deletion: Deletion,
    config: config::Retention,
    clock: Clock,
    waiting: bool,
}

/// What one pass deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Conversations whose audio went.
    pub audio: usize,
    /// Conversations that went whole.
    pub conversations: usize,
    /// Memories.
    pub memories: usize,
    /// Talks with the assistant.
    pub chats: usize,
    /// Rows of what has been.
    pub history: usize,
}

impl Retention {
    /// By `config`.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        deletion: Deletion,
        config: config::Retention,
        clock: Clock,
    ) -> Self {
        Self { store, recordings, deletion, config, clock, waiting: false }
    }

    /// Looks every interval until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.once().await {
                Ok(expired) if expired == Expired::default() => {}
                Ok(Expired { audio, conversations, memories, chats, history }) => tracing::info!(
                    audio,
                    conversations,
                    memories,
                    chats,
                    history,
                    "deleted what was kept long enough"
                ),
                Err(error) => tracing::warn!("what is old is deleted later: {}", error.report()),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.config.interval.get()) => {}
            }
        }
    }

    /// One pass.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn once(&mut self) -> Result<Expired> {
        let now = self.clock.now();
        let steady = self.store.known_time().await?.is_some_and(|known| {
            known.estimated_since.is_none() && now.since(known.steady_since) >= STEADY
        });
        if !steady {
            if !std::mem::replace(&mut self.waiting, true) {
                tracing::info!(
                    "nothing is deleted by age until the clock has been steady for a day"
                );
            }
            return Ok(Expired::default());
        }
        self.waiting = false;
        let before = |days: u32| {
            let age = Duration::from_secs(u64::from(days) * 24 * 3600);
            (days > 0).then(|| now.moved(-i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
        };
        let mut expired = Expired::default();
        if let Some(before) = before(self.config.conversations_days) {
            expired.conversations = self.conversations(before).await?;
        }
        if let Some(before) = before(self.config.audio_days) {
            expired.audio += self.audio_before(before).await?;
        }
        if self.config.audio_mib > 0 {
            expired.audio +=
                self.audio_above(self.config.audio_mib.saturating_mul(1 << 20)).await?;
        }
        if let Some(before) = before(self.config.memories_days) {
            expired.memories = self.memories(before, now).await?;
        }
        if let Some(before) = before(self.config.chats_days) {
            expired.chats = self.store.forget_chats(before).await?;
        }
        if let Some(before) = before(self.config.history_days) {
            loop {
                match self.store.forget_history(before).await? {
                    0 => break,
                    more => expired.history += more,
                }
            }
        }
        Ok(expired)
    }

    async fn conversations(&self, before: Timestamp) -> Result<usize> {
        let mut deleted = 0;
        loop {
            let batch = self.store.expired_conversations(before, BATCH).await?;
            if batch.is_empty() {
                return Ok(deleted);
            }
            for id in batch {
                self.deletion.conversation(&id, false, None).await?;
                deleted += 1;
            }
        }
    }

    async fn audio_before(&self, before: Timestamp) -> Result<usize> {
        let mut deleted = 0;
        loop {
            let batch = self.store.transcribed_audio(Some(before), false, BATCH).await?;
            if batch.is_empty() {
                return Ok(deleted);
            }
            for conversation in batch {
                self.deletion.audio(&conversation.id).await?;
                deleted += 1;
            }
        }
    }

    /// Lets audio go from this disk that is in the bucket, then deletes the oldest,
    /// until no more than `most` bytes are left, or all that is left is still needed.
    async fn audio_above(&self, most: u64) -> Result<usize> {
        let found = self.recordings.scan().await?;
        let mut bytes: u64 = found.iter().map(|recording| recording.bytes).sum();
        let mut deleted = 0;
        if bytes > most {
            bytes -= upload::free(self.store.as_ref(), &self.recordings, bytes - most).await?;
        }
        let only_here = self.recordings.bucket().is_some();
        while bytes > most {
            let batch = self.store.transcribed_audio(None, only_here, BATCH).await?;
            if batch.is_empty() {
                tracing::warn!(
                    bytes,
                    most,
                    "audio takes more room than retention.audio_mib, and all of it is needed"
                );
                break;
            }
            for conversation in batch {
                if bytes <= most {
                    break;
                }
                bytes = bytes.saturating_sub(self.deletion.audio(&conversation.id).await?);
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    async fn memories(&self, before: Timestamp, now: Timestamp) -> Result<usize> {
        let mut deleted = 0;
        loop {
            let batch = self.store.expired_memories(before, BATCH).await?;
            if batch.is_empty() {
                return Ok(deleted);
            }
            for id in batch {
                deleted += usize::from(self.store.delete_memory(&id, now).await?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::conversation::Conversation;
    use crate::domain::user::{Device, User};
    use crate::pipeline::reconcile::testing::Nobody;
    use crate::recording::Format;
    use crate::store::sqlite::testing::{Fixture, at, conversation, window};
    use crate::store::{Conversations, KnownTime, Timekeeping, Users};

    const DAY: u64 = 24 * 3600;

    /// A hundred days on.
    struct Bench {
        fixture: Fixture,
        recordings: Recordings,
        store: Arc<dyn Store>,
        clock: Clock,
        anna: User,
    }

    impl Bench {
        async fn new() -> Self {
            let fixture = Fixture::new();
            let clock = Clock::simulated(at(100 * DAY));
            let dir = fixture.dir.path().join("state");
            let recordings = Recordings::open(&dir, Duration::ZERO, clock.clone()).unwrap();
            let store: Arc<dyn Store> = Arc::new(fixture.store.clone());
            let anna = fixture.user("anna").await;
            let bench = Self { fixture, recordings, store, clock, anna };
            bench.steady_since(at(0)).await;
            bench
        }

        async fn steady_since(&self, steady_since: Timestamp) {
            let known = KnownTime {
                at: self.clock.now(),
                boot: None,
                since_boot: Duration::ZERO,
                estimated_since: None,
                steady_since,
                history: self.clock.history(),
            };
            self.fixture.store.note_time(&known).await.unwrap();
        }

        fn retention(&self, config: config::Retention) -> Retention {
            let (store, recordings) = (self.store.clone(), self.recordings.clone());
            let live = Arc::new(Nobody);
            let deletion =
                Deletion::new(store.clone(), recordings.clone(), live, self.clock.clone());
            Retention::new(store, recordings, deletion, config, self.clock.clone())
        }

        /// One of that day, a second long, in which nobody spoke or, unless
        /// `done`, of which a window waits.
        async fn recorded(&self, day: u64, done: bool) -> Conversation {
            let mut one = conversation(&self.anna);
            one.started_at = at(day * DAY);
            let (started_at, client, id) = (one.started_at, &one.client_id, &one.id);
            one.audio_path = Recordings::file_name(started_at, client, id, Format::Wav);
            let device = Device {
                client_id: client.clone(),
                user_id: self.anna.id.clone(),
                device_name: None,
                first_seen: at(0),
                last_seen: at(0),
            };
            self.fixture.store.see_device(&device).await.unwrap();
            self.fixture.store.open_conversation(&one).await.unwrap();
            let mut recorder = self.recordings.create(&one).await.unwrap();
            recorder.append(&[1; 16_000]).await.unwrap();
            assert!(recorder.close().await.1.is_none());
            let windows = if done { vec![] } else { vec![window(0)] };
            self.fixture.close(&one.id, &windows).await;
            self.fixture.finish_all().await;
            if done {
                self.fixture.learn(&one.id, &[]).await;
            }
            one
        }

        /// Of each, whether it is there, and whether its audio is.
        async fn left(&self, all: &[&Conversation]) -> Vec<(bool, bool)> {
            let files = self.recordings.scan().await.unwrap();
            let mut left = Vec::new();
            for one in all {
                let row = self.store.conversation(&one.id).await.unwrap();
                let audio = files.iter().any(|file| file.name == one.audio_path);
                assert_eq!(row.as_ref().is_some_and(Conversation::has_audio), audio);
                left.push((row.is_some(), audio));
            }
            left
        }
    }

    fn none() -> config::Retention {
        config::Retention { history_days: 0, ..config::Retention::default() }
    }

    #[tokio::test]
    async fn audio_goes_by_age_and_what_is_not_transcribed_stays() {
        let bench = Bench::new().await;
        let old = bench.recorded(10, true).await;
        let needed = bench.recorded(10, false).await;
        let new = bench.recorded(95, true).await;
        let mut keeper = bench.retention(config::Retention { audio_days: 30, ..none() });
        assert_eq!(keeper.once().await.unwrap(), Expired { audio: 1, ..Expired::default() });
        let left = bench.left(&[&old, &needed, &new]).await;
        assert_eq!(left, [(true, false), (true, true), (true, true)]);
        assert_eq!(keeper.once().await.unwrap(), Expired::default());
        // Then the conversations themselves, audio or not.
        let mut keeper = bench.retention(config::Retention { conversations_days: 4, ..none() });
        let two = Expired { conversations: 2, ..Expired::default() };
        assert_eq!(keeper.once().await.unwrap(), two);
        let left = bench.left(&[&old, &needed, &new]).await;
        assert_eq!(left, [(false, false), (true, true), (false, false)]);
    }

    #[tokio::test]
    async fn audio_goes_by_size_the_oldest_first() {
        let bench = Bench::new().await;
        let mut all = Vec::new();
        for day in 0..40 {
            all.push(bench.recorded(day, day != 3).await);
        }
        // A second is 32,044 bytes: 32 of them are not quite a MiB.
        let mut keeper = bench.retention(config::Retention { audio_mib: 1, ..none() });
        assert_eq!(keeper.once().await.unwrap().audio, 8);
        let left = bench.left(&all.iter().collect::<Vec<_>>()).await;
        let audio: Vec<bool> = left.into_iter().map(|(_, audio)| audio).collect();
        let expected: Vec<bool> = (0..40).map(|day| day == 3 || day > 8).collect();
        assert_eq!(audio, expected);
    }

    #[tokio::test]
    async fn nothing_goes_while_the_time_is_in_doubt() {
        let bench = Bench::new().await;
        let old = bench.recorded(10, true).await;
        let mut keeper = bench.retention(config::Retention {
            audio_days: 1,
            conversations_days: 1,
            history_days: 1,
            ..none()
        });
        bench.store.audit(at(5), None, "tested", "this").await.unwrap();
        bench.steady_since(at(100 * DAY - 3600)).await;
        assert_eq!(keeper.once().await.unwrap(), Expired::default());
        assert_eq!(bench.left(&[&old]).await, [(true, true)]);
        bench.clock.advance(STEADY);
        let expired = keeper.once().await.unwrap();
        assert_eq!(expired.conversations, 1);
        assert_eq!(expired.history, 1, "one row of the audit trail");
    }
}
