//! A stand-in for the store, for tests of sessions alone: it keeps
//! conversations and windows in memory, and fails when told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use crate::base::clock::{Step, Timestamp};
use crate::base::error::{Error, Kind, Result};
use crate::domain::chat::{Chat, ChatCounts, ChatMessage, ChatRole};
use crate::domain::conversation::{CloseReason, Conversation, NewWindow, Window};
use crate::domain::coverage::DayCoverage;
use crate::domain::finding::Finding;
use crate::domain::ids::{ChatId, ConversationId, JobId, MemoryId, UserId, WindowId};
use crate::domain::job::{Backlog, Job, JobCounts, JobKind, JobState, Lane, Lease};
use crate::domain::memory::{IndexedMemory, Learned, Memory, MemoryHistory, MemoryNews};
use crate::domain::object::Object;
use crate::domain::past::{Arrived, Imported, PastConversation, PastMessage};
use crate::domain::upload::{Upload, UploadJob};
use crate::domain::user::{Device, User};
use crate::domain::version::{
    Begun, Crop, Details, MemoryVersion, SegmentEdit, Settled, Transcribed, TranscriptVersion,
};
use crate::store::{
    Audio, Chats, Conversations, Deleted, Deletions, Follower, Imports, JobCensus, JobEntry,
    JobQuery, Jobs, KnownTime, Memories, Nodes, Outbox, Timekeeping, Upkeep, Uploads, UserData,
    UserUpdate, Users, Versions,
};

/// A conversation as the store was told of it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) conversation: Conversation,
    pub(super) windows: Vec<NewWindow>,
}

#[derive(Clone, Default)]
pub(super) struct FakeStore(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    pub(super) rows: Vec<Row>,
    pub(super) devices: Vec<Device>,
    pub(super) users: Vec<User>,
    /// How many of the next calls fail, and how.
    pub(super) failures: Vec<Kind>,
}

impl FakeStore {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        self.state().rows.clone()
    }

    fn may_fail(&self) -> Result<()> {
        match self.state().failures.pop() {
            Some(kind) => Err(Error::new(kind, "told to fail")),
            None => Ok(()),
        }
    }

    fn change(&self, id: &ConversationId, change: impl FnOnce(&mut Row)) -> Result<()> {
        self.may_fail()?;
        let mut state = self.state();
        let row = state.rows.iter_mut().find(|row| row.conversation.id == *id);
        change(row.ok_or_else(|| Error::new(Kind::NotFound, "no such conversation"))?);
        Ok(())
    }
}

#[async_trait]
impl Users for FakeStore {
    async fn add_user(&self, _: &User) -> Result<()> {
        unreachable!()
    }
    async fn user(&self, _: &UserId) -> Result<Option<User>> {
        unreachable!()
    }
    async fn user_by_email(&self, email: &str) -> Result<Option<User>> {
        self.may_fail()?;
        Ok(self.state().users.iter().find(|user| user.email == email).cloned())
    }
    async fn bearer(&self, _: &UserId, _: &str) -> Result<Option<User>> {
        unreachable!()
    }
    async fn end_token(&self, _: &UserId, _: &str, _: Timestamp, _: Timestamp) -> Result<()> {
        unreachable!()
    }
    async fn users(&self) -> Result<Vec<User>> {
        unreachable!()
    }
    async fn renew_password_hash(&self, _: &UserId, _: &str, _: &str) -> Result<()> {
        unreachable!()
    }
    async fn update_user(&self, _: &UserId, _: UserUpdate) -> Result<User> {
        unreachable!()
    }
    async fn see_device(&self, device: &Device) -> Result<()> {
        self.may_fail()?;
        self.state().devices.push(device.clone());
        Ok(())
    }
    async fn devices(&self, _: Option<&UserId>) -> Result<Vec<Device>> {
        unreachable!()
    }
    async fn setting(&self, _: &str) -> Result<Option<String>> {
        unreachable!()
    }
    async fn setting_or_insert(&self, _: &str, _: &str) -> Result<String> {
        unreachable!()
    }
    async fn set_setting(&self, _: &str, _: Option<&str>) -> Result<()> {
        unreachable!()
    }
    async fn ping(&self) -> Result<()> {
        unreachable!()
    }
    async fn audit(&self, _: Timestamp, _: Option<&UserId>, _: &str, _: &str) -> Result<()> {
        unreachable!()
    }
}

#[async_trait]
impl Conversations for FakeStore {
    async fn open_conversation(&self, conversation: &Conversation) -> Result<()> {
        self.may_fail()?;
        let row = Row { conversation: conversation.clone(), windows: Vec::new() };
        self.state().rows.push(row);
        Ok(())
    }
    async fn adopt_conversation(&self, _: &Conversation) -> Result<bool> {
        unreachable!()
    }
    async fn add_window(
        &self,
        id: &ConversationId,
        samples: u64,
        window: &NewWindow,
        _: Lane,
        _: Timestamp,
    ) -> Result<()> {
        self.change(id, |row| {
            row.conversation.samples = samples;
            row.windows.push(window.clone());
        })
    }
    async fn close_conversation(
        &self,
        id: &ConversationId,
        samples: u64,
        windows: &[NewWindow],
        reason: CloseReason,
        at: Timestamp,
    ) -> Result<()> {
        self.change(id, |row| {
            if row.conversation.is_open() {
                row.conversation.samples = samples;
                row.conversation.ended_at = Some(at);
                row.conversation.close_reason = Some(reason);
                row.windows.extend_from_slice(windows);
            }
        })
    }
    async fn conversation(&self, _: &ConversationId) -> Result<Option<Conversation>> {
        unreachable!()
    }
    async fn conversation_by_audio(&self, _: &str) -> Result<Option<Conversation>> {
        unreachable!()
    }
    async fn conversations(&self, _: Option<&UserId>, _: usize) -> Result<Vec<Conversation>> {
        unreachable!()
    }
    async fn open_conversations(&self) -> Result<Vec<Conversation>> {
        unreachable!()
    }
    async fn windows(&self, _: &ConversationId) -> Result<Vec<Window>> {
        unreachable!()
    }
    async fn window(&self, _: WindowId) -> Result<Option<Window>> {
        unreachable!()
    }
    async fn complete_windows(&self, _: &[Transcribed], _: Timestamp) -> Result<()> {
        unreachable!()
    }
    async fn finish_conversation(
        &self,
        _: Lease,
        _: &ConversationId,
        _: &Settled,
        _: Timestamp,
    ) -> Result<()> {
        unreachable!()
    }
    async fn requeue_lost(&self, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
}

#[async_trait]
impl Versions for FakeStore {
    async fn details(&self, _: &[ConversationId]) -> Result<HashMap<ConversationId, Details>> {
        unreachable!()
    }
    async fn transcripts(&self, _: &[ConversationId]) -> Result<HashMap<ConversationId, String>> {
        unreachable!()
    }
    async fn transcript_versions(&self, _: &ConversationId) -> Result<Vec<TranscriptVersion>> {
        unreachable!()
    }
    async fn memory_versions(&self, _: &ConversationId) -> Result<Vec<MemoryVersion>> {
        unreachable!()
    }
    async fn version_windows(&self, _: &ConversationId, _: u32) -> Result<Vec<Window>> {
        unreachable!()
    }
    async fn reprocess_transcript(&self, _: &ConversationId, _: Timestamp) -> Result<Begun> {
        unreachable!()
    }
    async fn activate_transcript(&self, _: &ConversationId, _: u32) -> Result<()> {
        unreachable!()
    }
    async fn reprocess_memory(
        &self,
        _: &ConversationId,
        _: Option<u32>,
        _: Timestamp,
    ) -> Result<Begun> {
        unreachable!()
    }
    async fn activate_memory(&self, _: &ConversationId, _: u32, _: Timestamp) -> Result<()> {
        unreachable!()
    }
    async fn edit_segment(&self, _: &ConversationId, _: usize, _: &SegmentEdit) -> Result<bool> {
        unreachable!()
    }
    async fn add_speaker(&self, _: &ConversationId, _: &str) -> Result<()> {
        unreachable!()
    }
    async fn crop(&self, _: &ConversationId) -> Result<Option<Crop>> {
        unreachable!()
    }
    async fn conversation_by_crop(&self, _: &str) -> Result<Option<Conversation>> {
        unreachable!()
    }
    async fn complete_crop(&self, _: Lease, _: &ConversationId, _: &Crop) -> Result<()> {
        unreachable!()
    }
}

#[async_trait]
impl Chats for FakeStore {
    async fn add_chat(&self, _: &Chat) -> Result<()> {
        unreachable!()
    }
    async fn chat(&self, _: &ChatId) -> Result<Option<Chat>> {
        unreachable!()
    }
    async fn chats(&self, _: &UserId, _: usize) -> Result<Vec<Chat>> {
        unreachable!()
    }
    async fn rename_chat(&self, _: &ChatId, _: &str, _: Timestamp) -> Result<()> {
        unreachable!()
    }
    async fn delete_chat(&self, _: &ChatId) -> Result<()> {
        unreachable!()
    }
    async fn add_chat_message(
        &self,
        _: &ChatId,
        _: ChatRole,
        _: &str,
        _: &[MemoryId],
        _: Timestamp,
    ) -> Result<i64> {
        unreachable!()
    }
    async fn chat_messages(&self, _: &ChatId, _: usize) -> Result<Vec<ChatMessage>> {
        unreachable!()
    }
    async fn chat_counts(&self, _: &UserId) -> Result<ChatCounts> {
        unreachable!()
    }
}

#[async_trait]
impl Jobs for FakeStore {
    async fn claim_job(
        &self,
        _: &[JobKind],
        _: Lane,
        _: &str,
        _: Timestamp,
    ) -> Result<Option<Job>> {
        unreachable!()
    }
    async fn claim_together(
        &self,
        _: &[JobKind],
        _: Lane,
        _: &str,
        _: Timestamp,
    ) -> Result<Vec<Job>> {
        unreachable!()
    }
    async fn fail_job(&self, _: Lease, _: &str, _: Option<Timestamp>, _: Timestamp) -> Result<()> {
        unreachable!()
    }
    async fn postpone_job(&self, _: Lease, _: &str, _: Timestamp, _: Timestamp) -> Result<()> {
        unreachable!()
    }
    async fn void_leases(&self, _: bool, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn take_back(&self, _: &str, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn job_counts(&self) -> Result<JobCounts> {
        unreachable!()
    }
    async fn backlog(&self) -> Result<Backlog> {
        unreachable!()
    }
    async fn next_due(&self, _: &[JobKind], _: Lane) -> Result<Option<Timestamp>> {
        unreachable!()
    }
    async fn retry_job(&self, _: JobId, _: Timestamp) -> Result<()> {
        unreachable!()
    }
    async fn jobs(&self, _: JobQuery) -> Result<(Vec<JobEntry>, u64)> {
        unreachable!()
    }
    async fn job(&self, _: JobId) -> Result<Option<JobEntry>> {
        unreachable!()
    }
    async fn job_census(&self, _: Option<&UserId>) -> Result<Vec<JobCensus>> {
        unreachable!()
    }
    async fn cancel_job(&self, _: JobId, _: Timestamp) -> Result<bool> {
        unreachable!()
    }
    async fn forget_job(&self, _: JobId) -> Result<bool> {
        unreachable!()
    }
    async fn forget_jobs(&self, _: JobState, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn conversation_jobs(&self, _: &ConversationId) -> Result<Vec<Job>> {
        unreachable!()
    }
    async fn dead_jobs(&self, _: usize) -> Result<Vec<Job>> {
        unreachable!()
    }
}

#[async_trait]
impl Memories for FakeStore {
    async fn complete_memories(
        &self,
        _: Lease,
        _: &ConversationId,
        _: &Learned,
        _: Timestamp,
    ) -> Result<()> {
        unreachable!()
    }
    async fn memories(&self, _: &UserId, _: usize) -> Result<Vec<Memory>> {
        unreachable!()
    }
    async fn add_memories(&self, _: &UserId, _: &Learned, _: Timestamp) -> Result<Vec<MemoryId>> {
        unreachable!()
    }
    async fn all_memories(&self, _: usize) -> Result<Vec<Memory>> {
        unreachable!()
    }
    async fn replaced_memories(&self, _: &ConversationId) -> Result<Vec<Memory>> {
        unreachable!()
    }
    async fn memory_count(&self, _: &UserId) -> Result<u64> {
        unreachable!()
    }
    async fn conversation_memories(&self, _: &ConversationId) -> Result<Vec<Memory>> {
        unreachable!()
    }
    async fn memory(&self, _: &MemoryId) -> Result<Option<Memory>> {
        unreachable!()
    }
    async fn memories_by_id(&self, _: &[MemoryId]) -> Result<Vec<Memory>> {
        unreachable!()
    }
    async fn delete_memory(&self, _: &MemoryId, _: Timestamp) -> Result<bool> {
        unreachable!()
    }
    async fn delete_memories(&self, _: &UserId, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn search_text(&self, _: &UserId, _: &str, _: usize) -> Result<Vec<MemoryId>> {
        unreachable!()
    }
    async fn memory_history(&self, _: &MemoryId) -> Result<Vec<MemoryHistory>> {
        unreachable!()
    }
    async fn bind_embedding(&self, _: &str, _: usize) -> Result<()> {
        unreachable!()
    }
    async fn memory_texts(&self) -> Result<Vec<String>> {
        unreachable!()
    }
    async fn replace_embeddings(
        &self,
        _: &str,
        _: usize,
        _: HashMap<String, Vec<f32>>,
    ) -> Result<()> {
        unreachable!()
    }
}

#[async_trait]
impl Outbox for FakeStore {
    async fn follow_memories(&self, _: Follower, _: Option<&str>, _: bool) -> Result<bool> {
        unreachable!()
    }
    async fn memory_news(&self, _: Follower, _: usize) -> Result<Vec<MemoryNews>> {
        unreachable!()
    }
    async fn strike_memory_news(&self, _: Follower, _: i64) -> Result<()> {
        unreachable!()
    }
    async fn embedding_width(&self) -> Result<Option<usize>> {
        unreachable!()
    }
    async fn adopt_memories(&self, _: &[(MemoryId, IndexedMemory)]) -> Result<Vec<MemoryId>> {
        unreachable!()
    }
}

#[async_trait]
impl Deletions for FakeStore {
    async fn delete_conversation(
        &self,
        _: &ConversationId,
        _: bool,
        _: Option<&UserId>,
        _: Timestamp,
    ) -> Result<Deleted> {
        unreachable!()
    }
    async fn delete_user(
        &self,
        _: &UserId,
        _: UserData,
        _: Option<&UserId>,
        _: Timestamp,
    ) -> Result<Deleted> {
        unreachable!()
    }
    async fn delete_audio(&self, _: &ConversationId, _: Timestamp) -> Result<Vec<String>> {
        unreachable!()
    }
    async fn transcribed_audio(
        &self,
        _: Option<Timestamp>,
        _: bool,
        _: usize,
    ) -> Result<Vec<Conversation>> {
        unreachable!()
    }
    async fn expired_conversations(&self, _: Timestamp, _: usize) -> Result<Vec<ConversationId>> {
        unreachable!()
    }
    async fn expired_memories(&self, _: Timestamp, _: usize) -> Result<Vec<MemoryId>> {
        unreachable!()
    }
    async fn forget_chats(&self, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn forget_history(&self, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn deletions(&self) -> Result<Vec<String>> {
        unreachable!()
    }
    async fn strike_deletions(&self, _: &[String]) -> Result<()> {
        unreachable!()
    }
}

#[async_trait]
impl Audio for FakeStore {
    async fn coverage(
        &self,
        _: Option<&UserId>,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Vec<DayCoverage>> {
        unreachable!()
    }
    async fn queue_archives(&self, _: Timestamp) -> Result<usize> {
        unreachable!()
    }
    async fn complete_archive(
        &self,
        _: Lease,
        _: &ConversationId,
        _: &str,
        _: Timestamp,
    ) -> Result<Option<String>> {
        unreachable!()
    }
    async fn unstored_recordings(&self, _: Timestamp) -> Result<Vec<String>> {
        unreachable!()
    }
    async fn begin_object(&self, _: &str) -> Result<()> {
        unreachable!()
    }
    async fn complete_object(&self, _: &Object, _: Timestamp) -> Result<bool> {
        unreachable!()
    }
    async fn objects(&self, _: &[String]) -> Result<Vec<Object>> {
        unreachable!()
    }
    async fn forget_objects(&self, _: &[String]) -> Result<()> {
        unreachable!()
    }
}

#[async_trait]
impl Timekeeping for FakeStore {
    async fn known_time(&self) -> Result<Option<KnownTime>> {
        unreachable!()
    }
    async fn note_time(&self, _: &KnownTime) -> Result<()> {
        unreachable!()
    }
    async fn clock_stepped(&self, _: Step, _: Option<Timestamp>, _: &KnownTime) -> Result<usize> {
        unreachable!()
    }
}

#[async_trait]
impl Uploads for FakeStore {
    async fn add_uploads(&self, _: &UploadJob, _: &[Conversation], _: bool) -> Result<UploadJob> {
        unreachable!()
    }
    async fn upload_job(&self, _: &str) -> Result<Option<UploadJob>> {
        unreachable!()
    }
    async fn upload_jobs(&self, _: Option<&UserId>, _: usize) -> Result<Vec<UploadJob>> {
        unreachable!()
    }
    async fn begin_upload(&self, _: &ConversationId, _: Timestamp) -> Result<Option<Upload>> {
        unreachable!()
    }
    async fn complete_upload(
        &self,
        _: Lease,
        _: &ConversationId,
        _: u64,
        _: Option<&str>,
        _: Timestamp,
    ) -> Result<()> {
        unreachable!()
    }
    async fn spooled_uploads(&self) -> Result<Vec<String>> {
        unreachable!()
    }
}

impl Nodes for FakeStore {}

#[async_trait]
impl Imports for FakeStore {
    async fn imported(&self, _: Imported) -> Result<HashMap<String, String>> {
        unreachable!()
    }
    async fn import_user(&self, _: &User) -> Result<Arrived> {
        unreachable!()
    }
    async fn import_conversation(&self, _: &PastConversation) -> Result<bool> {
        unreachable!()
    }
    async fn import_audio(&self, _: &ConversationId, _: u64, _: &[NewWindow]) -> Result<bool> {
        unreachable!()
    }
    async fn import_memories(&self, _: &[(MemoryId, IndexedMemory)]) -> Result<Vec<MemoryId>> {
        unreachable!()
    }
    async fn import_chat(&self, _: &Chat, _: &[PastMessage]) -> Result<Vec<String>> {
        unreachable!()
    }
}

#[async_trait]
impl Upkeep for FakeStore {
    async fn back_up(&self, _: &std::path::Path) -> Result<()> {
        unreachable!()
    }
    async fn contradictions(&self) -> Result<Vec<Finding>> {
        unreachable!()
    }
    async fn rebuild(&self) -> Result<usize> {
        unreachable!()
    }
    async fn rename_recording(&self, _: &ConversationId, _: &str, _: &str) -> Result<bool> {
        unreachable!()
    }
    async fn crops(&self) -> Result<Vec<(ConversationId, String)>> {
        unreachable!()
    }
    async fn crop_again(&self, _: &ConversationId, _: Timestamp) -> Result<()> {
        unreachable!()
    }
}
