//! Deleting conversations, users and audio: first the rows, with a note of the
//! files that are to go, then the files and what the bucket has of them, then the
//! note.
//!
//! A crash anywhere in between is made good by the next sweep, and by it alone:
//! a note that stays until the sweep has seen the file gone keeps that sweep
//! from taking the file for a recording without a row.

use std::sync::Arc;

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::Conversation;
use crate::domain::ids::{ConversationId, UserId};
use crate::pipeline::reconcile::LiveConversations;
use crate::recording::Recordings;
use crate::store::{Deleted, Store, UserData, UserUpdate};

/// How often the conversations of a user who is to go are closed, should new
/// ones begin meanwhile.
const CLOSINGS: usize = 3;

/// Deletes. Cheap to clone.
#[derive(Clone)]
pub struct Deletion {
    store: Arc<dyn Store>,
    recordings: Recordings,
    live: Arc<dyn LiveConversations>,
    clock: Clock,
}

impl Deletion {
    /// From these rows and recordings.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        live: Arc<dyn LiveConversations>,
        clock: Clock,
    ) -> Self {
        Self { store, recordings, live, clock }
    }

    /// Deletes a conversation, for `actor`; one that is being recorded is closed
    /// first. With `memories`, those that came from it go too.
    ///
    /// # Errors
    /// `NotFound` without one; `Conflict` when it cannot be closed now.
    pub async fn conversation(
        &self,
        id: &ConversationId,
        memories: bool,
        actor: Option<&UserId>,
    ) -> Result<Deleted> {
        if self.live.is_live(id) {
            self.live.close(id).await;
        }
        let now = self.clock.now();
        let deleted = self.store.delete_conversation(id, memories, actor, now).await?;
        tracing::info!(conversation = %id, memories = deleted.memories, "conversation deleted");
        self.remove(&deleted.files).await;
        Ok(deleted)
    }

    /// Deletes a user with `data`, for `actor`. From here on the user cannot log
    /// in or begin a conversation; those that are being recorded are closed.
    ///
    /// # Errors
    /// `NotFound` without one; `Conflict`, with nothing deleted, when the user
    /// has data that was not asked to go, or a recording cannot be closed now.
    pub async fn user(
        &self,
        id: &UserId,
        data: UserData,
        actor: Option<&UserId>,
    ) -> Result<Deleted> {
        let user = self.store.user(id).await?;
        let user = user.ok_or_else(|| Error::new(Kind::NotFound, "there is no such user"))?;
        let active = |is_active| UserUpdate { is_active: Some(is_active), ..UserUpdate::default() };
        self.store.update_user(id, active(false)).await?;
        match self.closed_user(id, data, actor).await {
            Ok(deleted) => {
                tracing::info!(
                    user = %id,
                    conversations = deleted.conversations,
                    memories = deleted.memories,
                    "user deleted"
                );
                self.remove(&deleted.files).await;
                Ok(deleted)
            }
            Err(error) => {
                if user.is_active {
                    self.store.update_user(id, active(true)).await?;
                }
                Err(error)
            }
        }
    }

    async fn closed_user(
        &self,
        id: &UserId,
        data: UserData,
        actor: Option<&UserId>,
    ) -> Result<Deleted> {
        let mut closings = 0;
        loop {
            for open in self.open_of(id).await? {
                if data.conversations && self.live.is_live(&open.id) {
                    self.live.close(&open.id).await;
                }
            }
            closings += 1;
            match self.store.delete_user(id, data, actor, self.clock.now()).await {
                // One that had begun just before the user could not any more.
                Err(error)
                    if error.kind() == Kind::Conflict
                        && closings < CLOSINGS
                        && !self.open_of(id).await?.is_empty() => {}
                done => return done,
            }
        }
    }

    async fn open_of(&self, user: &UserId) -> Result<Vec<Conversation>> {
        let mut open = self.store.open_conversations().await?;
        open.retain(|conversation| conversation.user_id == *user);
        Ok(open)
    }

    /// Deletes the audio of a conversation and keeps its row, transcript and
    /// memories; the bytes that came free.
    ///
    /// # Errors
    /// `NotFound` without one, `Conflict` unless all of it is transcribed.
    pub async fn audio(&self, id: &ConversationId) -> Result<u64> {
        let files = self.store.delete_audio(id, self.clock.now()).await?;
        Ok(self.remove(&files).await)
    }

    /// Removes files now, so that nobody waits for the sweep; what fails is left
    /// to it. The bytes that came free.
    async fn remove(&self, files: &[String]) -> u64 {
        if files.is_empty() {
            return 0;
        }
        match self.recordings.remove(files).await {
            Ok(removed) => removed.bytes,
            Err(error) => {
                tracing::warn!("deleted files are left to the sweep: {}", error.report());
                0
            }
        }
    }

    /// Removes the files that are still to go, and strikes off those that are not
    /// in the bucket any more: the sweep's part, before it looks for recordings
    /// without a row.
    ///
    /// # Errors
    /// When the store cannot be reached or the disk does not answer.
    pub async fn remove_left(&self) -> Result<()> {
        let files = self.store.deletions().await?;
        if files.is_empty() {
            return Ok(());
        }
        let mut gone = self.recordings.remove(&files).await?.names;
        let objects = self.store.objects(&gone).await?;
        gone.retain(|name| objects.iter().all(|object| object.name != *name));
        self.store.strike_deletions(&gone).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::config;
    use crate::domain::conversation::CloseReason;
    use crate::domain::user::{Device, User};
    use crate::jobs::Wake;
    use crate::pipeline::reconcile::{Sweep, Swept};
    use crate::recording::Format;
    use crate::store::sqlite::testing::{Fixture, at};
    use crate::store::{Conversations, Deletions, Users};

    /// Closes what it is asked to, as a session does.
    struct Source(Arc<dyn Store>);

    #[async_trait]
    impl LiveConversations for Source {
        fn is_live(&self, _: &ConversationId) -> bool {
            true
        }

        fn any_live(&self) -> bool {
            true
        }

        async fn close(&self, id: &ConversationId) {
            let reason = CloseReason::Request;
            self.0.close_conversation(id, 0, &[], reason, at(5)).await.unwrap();
        }
    }

    struct Bench {
        fixture: Fixture,
        recordings: Recordings,
        deletion: Deletion,
        sweep: Sweep,
    }

    impl Bench {
        fn new() -> Self {
            let fixture = Fixture::new();
            let clock = Clock::simulated(at(100));
            let dir = fixture.dir.path().join("state");
            let recordings = Recordings::open(&dir, Duration::ZERO, clock.clone()).unwrap();
            let store: Arc<dyn Store> = Arc::new(fixture.store.clone());
            let live = Arc::new(Source(store.clone()));
            let deletion =
                Deletion::new(store.clone(), recordings.clone(), live.clone(), clock.clone());
            let config = config::Config::default();
            let sweep =
                Sweep::new(store, recordings.clone(), live, &config, Wake::default(), clock);
            Self { fixture, recordings, deletion, sweep }
        }

        /// A conversation that is being recorded, with its file.
        async fn recorded(&self, user: &User) -> Conversation {
            let mut conversation = crate::store::sqlite::testing::conversation(user);
            conversation.audio_path = Recordings::file_name(
                conversation.started_at,
                &conversation.client_id,
                &conversation.id,
                Format::Wav,
            );
            let device = Device {
                client_id: conversation.client_id.clone(),
                user_id: user.id.clone(),
                device_name: None,
                first_seen: at(0),
                last_seen: at(0),
            };
            self.fixture.store.see_device(&device).await.unwrap();
            self.fixture.store.open_conversation(&conversation).await.unwrap();
            let mut recorder = self.recordings.create(&conversation).await.unwrap();
            recorder.append(&[1; 16_000]).await.unwrap();
            conversation
        }

        async fn files(&self) -> Vec<String> {
            self.recordings.scan().await.unwrap().into_iter().map(|found| found.name).collect()
        }
    }

    #[tokio::test]
    async fn a_conversation_is_closed_and_gone_with_its_file() {
        let bench = Bench::new();
        let anna = bench.fixture.user("anna").await;
        let (goes, stays) = (bench.recorded(&anna).await, bench.recorded(&anna).await);
        let deleted = bench.deletion.conversation(&goes.id, true, Some(&anna.id)).await.unwrap();
        assert_eq!(deleted.files, [goes.audio_path]);
        assert_eq!(bench.files().await, [stays.audio_path]);
        // The note stays until the sweep has seen that the file is gone.
        assert_eq!(bench.fixture.store.deletions().await.unwrap().len(), 1);
        assert_eq!(bench.sweep.once().await.unwrap(), Swept::default());
        assert!(bench.fixture.store.deletions().await.unwrap().is_empty());
    }

    /// Wherever a crash comes: after the rows, after the file, or after both.
    #[tokio::test]
    async fn what_a_crash_left_of_a_deletion_goes_with_the_next_sweep() {
        for file_gone in [false, true] {
            let bench = Bench::new();
            let store = &bench.fixture.store;
            let anna = bench.fixture.user("anna").await;
            let row = bench.recorded(&anna).await;
            bench.fixture.close(&row.id, &[]).await;
            let deleted = store.delete_conversation(&row.id, true, None, at(9)).await.unwrap();
            if file_gone {
                bench.recordings.remove(&deleted.files).await.unwrap();
            }
            let swept = bench.sweep.once().await.unwrap();
            assert_eq!(swept.adopted, 0);
            assert!(bench.files().await.is_empty());
            assert!(store.deletions().await.unwrap().is_empty());
            assert!(store.conversation(&row.id).await.unwrap().is_none());
            // And once more, with nothing left to do.
            assert_eq!(bench.sweep.once().await.unwrap(), Swept::default());
        }
    }

    #[tokio::test]
    async fn a_user_who_is_being_recorded_goes_with_everything() {
        let bench = Bench::new();
        let (anna, bert) = (bench.fixture.user("anna").await, bench.fixture.user("bert").await);
        bench.recorded(&anna).await;
        let kept = bench.recorded(&bert).await;
        let refused = bench.deletion.user(&anna.id, UserData::default(), None).await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Conflict);
        assert!(bench.fixture.store.user(&anna.id).await.unwrap().unwrap().is_active);
        assert_eq!(bench.files().await.len(), 2);

        let all = UserData { conversations: true, memories: true };
        let deleted = bench.deletion.user(&anna.id, all, Some(&bert.id)).await.unwrap();
        assert_eq!(deleted.conversations, 1);
        assert_eq!(bench.files().await, [kept.audio_path]);
        assert!(bench.fixture.store.user(&anna.id).await.unwrap().is_none());
    }
}
