//! The record of everything but the audio itself: the port, with its adapters
//! beside it.
//!
//! Each method is one transaction. What must not come apart is one method: a
//! window and the job to transcribe it, a result and the completion of its job.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::base::clock::{History, Step, Timestamp};
use crate::base::error::Result;
use crate::domain::chat::{Chat, ChatCounts, ChatMessage, ChatRole};
use crate::domain::client::ClientView;
use crate::domain::conversation::{CloseReason, Conversation, NewWindow, Window, named};
use crate::domain::coverage::DayCoverage;
use crate::domain::finding::Finding;
use crate::domain::ids::{ChatId, ClientId, ConversationId, JobId, MemoryId, UserId, WindowId};
use crate::domain::job::{Backlog, Job, JobCounts, JobKind, JobState, Lane, Lease};
use crate::domain::memory::{IndexedMemory, Learned, Memory, MemoryHistory, MemoryNews};
use crate::domain::object::Object;
use crate::domain::past::{Arrived, Imported, PastConversation, PastMessage};
use crate::domain::upload::{Upload, UploadJob};
use crate::domain::user::{Device, User};
use crate::domain::version::{
    Begun, Crop, Details, MemoryVersion, SegmentEdit, Settled, Transcribed, TranscriptVersion,
};

pub mod mongodb;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod transfer;
mod vectors;
mod words;

/// All of the store.
pub trait Store:
    Users
    + Conversations
    + Versions
    + Chats
    + Jobs
    + Memories
    + Outbox
    + Uploads
    + Imports
    + Deletions
    + Audio
    + Timekeeping
    + Nodes
    + Upkeep
{
}

impl<T> Store for T where
    T: Users
        + Conversations
        + Versions
        + Chats
        + Jobs
        + Memories
        + Outbox
        + Uploads
        + Imports
        + Deletions
        + Audio
        + Timekeeping
        + Nodes
        + Upkeep
{
}

/// The setting with the name of the store.
const NAME: &str = "index.store_name";

/// What a store calls itself to those outside that keep what is of several.
///
/// # Errors
/// As [`Users::setting_or_insert`].
pub async fn name_of(store: &dyn Store) -> Result<String> {
    let fresh = uuid::Uuid::new_v4().to_string();
    store.setting_or_insert(NAME, &fresh).await
}

/// What may change in a user. `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserUpdate {
    /// New e-mail address.
    pub email: Option<String>,
    /// New password hash; also ends all tokens.
    pub password_hash: Option<String>,
    /// New name to show.
    pub display_name: Option<String>,
    /// May log in.
    pub is_active: Option<bool>,
    /// May manage everything.
    pub is_superuser: Option<bool>,
    /// Address confirmed.
    pub is_verified: Option<bool>,
    /// End all tokens given out so far.
    pub end_tokens: bool,
}

/// What goes with a user. What does not go keeps the user from going.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserData {
    /// Conversations with their transcripts and recordings.
    pub conversations: bool,
    /// Memories with their history.
    pub memories: bool,
}

/// What a deletion took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Conversations.
    pub conversations: u64,
    /// Memories.
    pub memories: u64,
    /// Names of the files below the audio directory that are to go.
    pub files: Vec<String>,
}

/// Which jobs to show. `None` is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobQuery {
    /// Those of one user's conversations.
    pub user: Option<UserId>,
    /// Of one kind.
    pub kind: Option<JobKind>,
    /// In one state.
    pub state: Option<JobState>,
    /// Of the conversation of that id, or of the device of that client id.
    pub session: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// After so many.
    pub offset: usize,
}

/// A job with what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEntry {
    /// The job.
    pub job: Job,
    /// Whose it is.
    pub user_id: Option<UserId>,
    /// The conversation it works on.
    pub conversation_id: Option<ConversationId>,
    /// The device of that conversation.
    pub client_id: Option<ClientId>,
    /// The node that it waits for, which alone has its audio and is not heard of.
    pub waits_for: Option<String>,
}

/// How many jobs there are of a kind in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobCensus {
    /// The kind.
    pub kind: JobKind,
    /// The state.
    pub state: JobState,
    /// How many.
    pub jobs: u64,
}

/// People, devices, settings, and the audit trail.
#[async_trait]
pub trait Users: Send + Sync {
    /// Adds a user. `Conflict` when the e-mail address is taken.
    async fn add_user(&self, user: &User) -> Result<()>;
    /// The user of that id.
    async fn user(&self, id: &UserId) -> Result<Option<User>>;
    /// The user of that e-mail address, in any case.
    async fn user_by_email(&self, email: &str) -> Result<Option<User>>;
    /// The user of that id, unless the token of that hash has been ended.
    async fn bearer(&self, id: &UserId, token: &str) -> Result<Option<User>>;
    /// Ends the token of that hash, which expires at `until`.
    async fn end_token(
        &self,
        id: &UserId,
        token: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<()>;
    /// Everybody, oldest first.
    async fn users(&self) -> Result<Vec<User>>;
    /// Changes a user and returns the result. `NotFound` without one, `Conflict`
    /// when the e-mail address is taken or no administrator would be left.
    async fn update_user(&self, id: &UserId, update: UserUpdate) -> Result<User>;
    /// Puts the hash `to` in place of `from`, both of the same password: tokens
    /// stay. Nothing happens when the password has been changed meanwhile.
    async fn renew_password_hash(&self, id: &UserId, from: &str, to: &str) -> Result<()>;
    /// Notes that a device connected.
    async fn see_device(&self, device: &Device) -> Result<()>;
    /// The devices of `user`, or of everybody, oldest first.
    async fn devices(&self, user: Option<&UserId>) -> Result<Vec<Device>>;
    /// A setting that the daemon keeps for itself (a signing key, say).
    async fn setting(&self, key: &str) -> Result<Option<String>>;
    /// Writes a setting unless it is there; returns the one in force.
    async fn setting_or_insert(&self, key: &str, value: &str) -> Result<String>;
    /// Writes a setting; none removes it.
    async fn set_setting(&self, key: &str, value: Option<&str>) -> Result<()>;
    /// Goes the way of a write and changes nothing: it comes back when writing
    /// works.
    async fn ping(&self) -> Result<()>;
    /// Writes an audit row: who (`actor`), did what (`action`), to what
    /// (`subject`).
    async fn audit(
        &self,
        at: Timestamp,
        actor: Option<&UserId>,
        action: &str,
        subject: &str,
    ) -> Result<()>;
}

/// Conversations, their windows and transcripts.
///
/// Whenever the last waiting window of a closed conversation is settled, a
/// [`JobKind::Finish`] job is made in the same transaction.
#[async_trait]
pub trait Conversations: Send + Sync {
    /// Adds an open conversation; called before its first byte is written.
    /// `Forbidden` when its user may not log in any more.
    async fn open_conversation(&self, conversation: &Conversation) -> Result<()>;
    /// Adds an open conversation for a recording that was found without one.
    /// False when the recording is one that was deleted and is to go.
    async fn adopt_conversation(&self, conversation: &Conversation) -> Result<bool>;
    /// Adds a window and the job that transcribes it, and notes how many samples
    /// have been accepted. The same `seq` twice is ignored.
    async fn add_window(
        &self,
        id: &ConversationId,
        samples: u64,
        window: &NewWindow,
        lane: Lane,
        at: Timestamp,
    ) -> Result<()>;
    /// Closes a conversation: the last windows with their jobs, the final count
    /// of samples, the time and the reason. What was held is held no longer.
    /// Closing a closed one changes nothing.
    async fn close_conversation(
        &self,
        id: &ConversationId,
        samples: u64,
        windows: &[NewWindow],
        reason: CloseReason,
        at: Timestamp,
    ) -> Result<()>;
    /// The conversation of that id.
    async fn conversation(&self, id: &ConversationId) -> Result<Option<Conversation>>;
    /// The conversation whose recording has that file name.
    async fn conversation_by_audio(&self, audio_path: &str) -> Result<Option<Conversation>>;
    /// Conversations of `user`, or of everybody, newest first.
    async fn conversations(&self, user: Option<&UserId>, limit: usize)
    -> Result<Vec<Conversation>>;
    /// Conversations that were never closed, but those that wait for an uploaded
    /// file to be recorded.
    async fn open_conversations(&self) -> Result<Vec<Conversation>>;
    /// The windows of a conversation's active transcript, in order.
    async fn windows(&self, id: &ConversationId) -> Result<Vec<Window>>;
    /// One window.
    async fn window(&self, id: WindowId) -> Result<Option<Window>>;
    /// Stores the transcripts of windows of one conversation and completes their
    /// jobs: all, or with a `Conflict` none, when a lease is no longer good.
    async fn complete_windows(&self, windows: &[Transcribed], at: Timestamp) -> Result<()>;
    /// Completes a [`JobKind::Finish`] job: how a transcript ended. One that is
    /// complete becomes the active one; one that failed beside an active one
    /// changes nothing else, and nothing follows from it.
    async fn finish_conversation(
        &self,
        lease: Lease,
        id: &ConversationId,
        settled: &Settled,
        at: Timestamp,
    ) -> Result<()>;
    /// Makes transcription jobs for windows that wait without a live job, and
    /// finish jobs for closed conversations left unsettled; makes jobs due that a
    /// clock, since set back, has put off for long. Returns how many.
    async fn requeue_lost(&self, at: Timestamp) -> Result<usize>;
}

/// What is made of a conversation: its transcripts and sets of memories, of each
/// of which one is active, and its cropped recording.
#[async_trait]
pub trait Versions: Send + Sync {
    /// What goes with each of those conversations.
    async fn details(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, Details>>;
    /// The text of each of those conversations.
    async fn transcripts(&self, ids: &[ConversationId]) -> Result<HashMap<ConversationId, String>>;
    /// The transcripts of a conversation, oldest first.
    async fn transcript_versions(&self, id: &ConversationId) -> Result<Vec<TranscriptVersion>>;
    /// The sets of memories of a conversation, oldest first.
    async fn memory_versions(&self, id: &ConversationId) -> Result<Vec<MemoryVersion>>;
    /// The windows of one transcript, in order.
    async fn version_windows(&self, id: &ConversationId, version: u32) -> Result<Vec<Window>>;
    /// Begins a new transcript of a closed conversation: the windows of the
    /// active one again, each with its job. `Conflict` while one is being made.
    async fn reprocess_transcript(&self, id: &ConversationId, at: Timestamp) -> Result<Begun>;
    /// Shows that transcript. `Conflict` while it is being made.
    async fn activate_transcript(&self, id: &ConversationId, version: u32) -> Result<()>;
    /// Begins a new set of memories from that transcript, or the active one.
    /// `Conflict` while one is being made.
    async fn reprocess_memory(
        &self,
        id: &ConversationId,
        transcript: Option<u32>,
        at: Timestamp,
    ) -> Result<Begun>;
    /// Shows that set of memories in place of the active one, and undoes what
    /// the latter did to memories of other conversations. `Conflict` for one
    /// that is not complete.
    async fn activate_memory(&self, id: &ConversationId, version: u32, at: Timestamp)
    -> Result<()>;
    /// Corrects a segment of the active transcript. False when that changes
    /// nothing; `NotFound` without such a segment, `BadInput` when it would end
    /// before it starts.
    async fn edit_segment(
        &self,
        id: &ConversationId,
        index: usize,
        edit: &SegmentEdit,
    ) -> Result<bool>;
    /// Notes that somebody speaks in a conversation.
    async fn add_speaker(&self, id: &ConversationId, speaker: &str) -> Result<()>;
    /// The cropped recording of a conversation, once that is made.
    async fn crop(&self, id: &ConversationId) -> Result<Option<Crop>>;
    /// The conversation whose cropped recording has that file name.
    async fn conversation_by_crop(&self, audio_path: &str) -> Result<Option<Conversation>>;
    /// Completes a [`JobKind::Crop`] job.
    async fn complete_crop(&self, lease: Lease, id: &ConversationId, crop: &Crop) -> Result<()>;
}

/// Talks with the assistant.
#[async_trait]
pub trait Chats: Send + Sync {
    /// Adds a talk without messages.
    async fn add_chat(&self, chat: &Chat) -> Result<()>;
    /// The talk of that id.
    async fn chat(&self, id: &ChatId) -> Result<Option<Chat>>;
    /// The talks of `user`, the one that changed last first.
    async fn chats(&self, user: &UserId, limit: usize) -> Result<Vec<Chat>>;
    /// Gives a talk another title. `NotFound` without one.
    async fn rename_chat(&self, id: &ChatId, title: &str, at: Timestamp) -> Result<()>;
    /// Deletes a talk with its messages. `NotFound` without one.
    async fn delete_chat(&self, id: &ChatId) -> Result<()>;
    /// Adds a message, and returns its number. `NotFound` without the talk.
    async fn add_chat_message(
        &self,
        id: &ChatId,
        role: ChatRole,
        content: &str,
        memories: &[MemoryId],
        at: Timestamp,
    ) -> Result<i64>;
    /// The latest messages of a talk, oldest first.
    async fn chat_messages(&self, id: &ChatId, limit: usize) -> Result<Vec<ChatMessage>>;
    /// The talks of `user` in figures.
    async fn chat_counts(&self, user: &UserId) -> Result<ChatCounts>;
}

/// The job queue.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Takes the next job of one of `kinds` that is due, of lane `least` or a more
    /// urgent one: lowest lane rank first, then oldest. The attempt is counted
    /// when this returns.
    async fn claim_job(
        &self,
        kinds: &[JobKind],
        least: Lane,
        owner: &str,
        at: Timestamp,
    ) -> Result<Option<Job>>;
    /// As [`Jobs::claim_job`], and with a window of a closed conversation all
    /// others of the same transcript that wait and have been claimed fewer than
    /// [`TRIES_TOGETHER`](crate::domain::job::TRIES_TOGETHER) times, those too that
    /// are not due or in another lane; the oldest
    /// [`MOST_TOGETHER`](crate::domain::job::MOST_TOGETHER) of them. A window that has
    /// been claimed so often comes alone.
    async fn claim_together(
        &self,
        kinds: &[JobKind],
        least: Lane,
        owner: &str,
        at: Timestamp,
    ) -> Result<Vec<Job>>;
    /// Gives a job back after a failed attempt, to be tried at `retry_at`; with
    /// none, it is dead, and its window or conversation is marked failed with
    /// the same error. `Conflict` when the lease is no longer good.
    async fn fail_job(
        &self,
        lease: Lease,
        error: &str,
        retry_at: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<()>;
    /// Gives a job back that could not be tried, because a service outside is
    /// known to be away: the attempt does not count. Not before `retry_at`.
    /// `Conflict` when the lease is no longer good.
    async fn postpone_job(
        &self,
        lease: Lease,
        why: &str,
        retry_at: Timestamp,
        at: Timestamp,
    ) -> Result<()>;
    /// Puts every leased job back: at start, no earlier process holds anything.
    /// `uncount` takes the attempt back too (an orderly shutdown).
    async fn void_leases(&self, uncount: bool, at: Timestamp) -> Result<usize>;
    /// Puts back what `owner` holds: it starts anew, and has forgotten. Returns
    /// how many.
    async fn take_back(&self, owner: &str, at: Timestamp) -> Result<usize>;
    /// Jobs by state.
    async fn job_counts(&self) -> Result<JobCounts>;
    /// What waits for transcription.
    async fn backlog(&self) -> Result<Backlog>;
    /// When the earliest ready job of `kinds` is due, of lane `least` or a more
    /// urgent one.
    async fn next_due(&self, kinds: &[JobKind], least: Lane) -> Result<Option<Timestamp>>;
    /// Puts a dead job back with its attempts at zero. `NotFound` without one.
    async fn retry_job(&self, id: JobId, at: Timestamp) -> Result<()>;
    /// A page of the jobs that `query` asks for, newest first, and how many there
    /// are in all.
    async fn jobs(&self, query: JobQuery) -> Result<(Vec<JobEntry>, u64)>;
    /// One job.
    async fn job(&self, id: JobId) -> Result<Option<JobEntry>>;
    /// How many jobs there are of each kind in each state, those of `user`, or
    /// all.
    async fn job_census(&self, user: Option<&UserId>) -> Result<Vec<JobCensus>>;
    /// Gives up a job that waits or is being done, as if it had failed for the
    /// last time. False when there is none.
    async fn cancel_job(&self, id: JobId, at: Timestamp) -> Result<bool>;
    /// Takes a job that is done or dead off the list. False when there is none.
    async fn forget_job(&self, id: JobId) -> Result<bool>;
    /// Takes the jobs that came to `state`, which is done or dead, by `before`
    /// off the list. Returns how many.
    async fn forget_jobs(&self, state: JobState, before: Timestamp) -> Result<usize>;
    /// The jobs of a conversation and of its windows, as far as they are kept,
    /// oldest first.
    async fn conversation_jobs(&self, id: &ConversationId) -> Result<Vec<Job>>;
    /// Dead jobs, newest first.
    async fn dead_jobs(&self, limit: usize) -> Result<Vec<Job>>;
}

/// Memories, with their full-text and vector indexes where those live in the
/// same database.
#[async_trait]
pub trait Memories: Send + Sync {
    /// Completes a [`JobKind::Remember`] job: the set of memories that was being
    /// made takes the place of the active one. Applies the changes, each with its
    /// history row.
    async fn complete_memories(
        &self,
        lease: Lease,
        id: &ConversationId,
        learned: &Learned,
        at: Timestamp,
    ) -> Result<()>;
    /// Applies what was learned of `user` outside conversations, each change with
    /// its history row. Returns the memories that are new or say more.
    async fn add_memories(
        &self,
        user: &UserId,
        learned: &Learned,
        at: Timestamp,
    ) -> Result<Vec<MemoryId>>;
    /// Memories of `user`, newest first.
    async fn memories(&self, user: &UserId, limit: usize) -> Result<Vec<Memory>>;
    /// Memories of everybody, newest first.
    async fn all_memories(&self, limit: usize) -> Result<Vec<Memory>>;
    /// What memories said before the active set of a conversation changed or
    /// deleted them.
    async fn replaced_memories(&self, id: &ConversationId) -> Result<Vec<Memory>>;
    /// How many memories `user` has.
    async fn memory_count(&self, user: &UserId) -> Result<u64>;
    /// The memories that came from a conversation, oldest first.
    async fn conversation_memories(&self, id: &ConversationId) -> Result<Vec<Memory>>;
    /// One memory.
    async fn memory(&self, id: &MemoryId) -> Result<Option<Memory>>;
    /// The memories of those ids, in that order; missing ones are left out.
    async fn memories_by_id(&self, ids: &[MemoryId]) -> Result<Vec<Memory>>;
    /// Forgets a memory, with a history row. False when it was not there.
    async fn delete_memory(&self, id: &MemoryId, at: Timestamp) -> Result<bool>;
    /// Forgets all memories of `user`; returns how many.
    async fn delete_memories(&self, user: &UserId, at: Timestamp) -> Result<usize>;
    /// Memories of `user` that share words with `query`, best first: a word
    /// counts in any of its English forms and with or without accents, and nothing
    /// in a query is an operator.
    async fn search_text(&self, user: &UserId, query: &str, limit: usize) -> Result<Vec<MemoryId>>;
    /// The past of a memory, oldest first.
    async fn memory_history(&self, id: &MemoryId) -> Result<Vec<MemoryHistory>>;
    /// Ties the stored vectors to an embedding model: remembers it the first
    /// time. `Conflict`, naming both, when another model or width is in use.
    async fn bind_embedding(&self, model: &str, width: usize) -> Result<()>;
    /// The texts of all memories, of sets that are not active too; each once.
    async fn memory_texts(&self) -> Result<Vec<String>>;
    /// Ties the store to another embedding model (`friend-lite reindex`): gives
    /// every memory the new vector of its text, or changes nothing. `Conflict`
    /// when a text is not among `embeddings`.
    async fn replace_embeddings(
        &self,
        model: &str,
        width: usize,
        embeddings: HashMap<String, Vec<f32>>,
    ) -> Result<()>;
}

named!(
    /// Who keeps memories outside the store's database, and follows their changes.
    Follower {
        /// The vector index.
        Index = "index",
        /// The graph of who and what they speak of.
        Graph = "graph",
    }
);

/// What those outside the store's database have still to hear of. A change is
/// noted in the transaction that makes it, and until its follower has taken it
/// in: that catches up however long it was away.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Notes changes of memories for the follower, which has that name, from now
    /// on, or not any more. All memories count as changed where it had another
    /// name before, and with `anew`; false when that is not so.
    async fn follow_memories(
        &self,
        follower: Follower,
        name: Option<&str>,
        anew: bool,
    ) -> Result<bool>;
    /// The memories that have changed and how they are now, in the order of their
    /// last changes.
    async fn memory_news(&self, follower: Follower, limit: usize) -> Result<Vec<MemoryNews>>;
    /// Strikes off the changes up to the one of that number.
    async fn strike_memory_news(&self, follower: Follower, upto: i64) -> Result<()>;
    /// How wide the vectors of memories are; none before the first.
    async fn embedding_width(&self) -> Result<Option<usize>>;
    /// Adds memories that the index has and the store does not, with their ids and
    /// no conversation; which of them the store has now. Those of users that it
    /// does not know are left out. `Conflict` for a vector of another width.
    async fn adopt_memories(&self, found: &[(MemoryId, IndexedMemory)]) -> Result<Vec<MemoryId>>;
}

/// Deleting. Each method lets go of the rows and notes the files that are to
/// go, in one transaction with its audit row (`actor` is nobody for the daemon
/// itself and for the command line); [`Deletions::deletions`] lists the files
/// until they are struck off.
#[async_trait]
pub trait Deletions: Send + Sync {
    /// Deletes a conversation with its windows and jobs, and with `memories`
    /// those that came from it and their history, which brings back what they
    /// had replaced; else they stay, without a conversation. `NotFound` without one, `Conflict` while it is open.
    async fn delete_conversation(
        &self,
        id: &ConversationId,
        memories: bool,
        actor: Option<&UserId>,
        at: Timestamp,
    ) -> Result<Deleted>;
    /// Deletes a user with devices, settings and `data`. `NotFound` without one;
    /// `Conflict`, with nothing deleted, while one of these conversations is
    /// open, or when conversations or memories would be left.
    async fn delete_user(
        &self,
        id: &UserId,
        data: UserData,
        actor: Option<&UserId>,
        at: Timestamp,
    ) -> Result<Deleted>;
    /// Lets go of the audio of a conversation and keeps all else; the names of
    /// the files that are to go, none when they went before. `NotFound` without
    /// one, `Conflict` unless it is closed and all of it is transcribed.
    async fn delete_audio(&self, id: &ConversationId, at: Timestamp) -> Result<Vec<String>>;
    /// Conversations whose audio [`Deletions::delete_audio`] may delete, begun
    /// before `before`, oldest first. `only_here`: but those whose recording is in
    /// the bucket.
    async fn transcribed_audio(
        &self,
        before: Option<Timestamp>,
        only_here: bool,
        limit: usize,
    ) -> Result<Vec<Conversation>>;
    /// Closed conversations begun before `before` that nothing is to be done for
    /// any more, with audio that may be deleted or none, oldest first.
    async fn expired_conversations(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<ConversationId>>;
    /// Memories that last changed before `before`, oldest first.
    async fn expired_memories(&self, before: Timestamp, limit: usize) -> Result<Vec<MemoryId>>;
    /// Deletes talks whose last message came before `before`. Returns how many.
    async fn forget_chats(&self, before: Timestamp) -> Result<usize>;
    /// Deletes finished jobs, the history of memories and the audit trail from
    /// before `before`, some thousand rows at a time. Returns how many.
    async fn forget_history(&self, before: Timestamp) -> Result<usize>;
    /// Names of the files below the audio directory that are to go.
    async fn deletions(&self) -> Result<Vec<String>>;
    /// Strikes off files that are gone for good.
    async fn strike_deletions(&self, gone: &[String]) -> Result<()>;
}

/// What becomes of the audio after it is recorded.
#[async_trait]
pub trait Audio: Send + Sync {
    /// What has become of the audio of conversations that began from `from` on
    /// and before `to`, of `user` or of everybody, by day and user.
    async fn coverage(
        &self,
        user: Option<&UserId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<DayCoverage>>;
    /// Makes an [`JobKind::Archive`] job for each WAV recording that nothing
    /// waits for, unless one is queued or was given up. Returns how many.
    async fn queue_archives(&self, at: Timestamp) -> Result<usize>;
    /// Completes an [`JobKind::Archive`] job: from now on the recording of the
    /// conversation is `name`. The file that is to go then, noted as such: the
    /// one before, or `name` itself when the conversation has no use for it any
    /// more. None when it had that name before.
    async fn complete_archive(
        &self,
        lease: Lease,
        id: &ConversationId,
        name: &str,
        at: Timestamp,
    ) -> Result<Option<String>>;
    /// Names of the recordings, and of the cropped, that are not in the bucket, of
    /// closed conversations with audio, oldest first. A WAV recording may still be
    /// archived: only of a conversation that ended before `wav_before`.
    async fn unstored_recordings(&self, wav_before: Timestamp) -> Result<Vec<String>>;
    /// Notes that there may be an object of that name from now on, and that it is
    /// not known to be whole.
    async fn begin_object(&self, name: &str) -> Result<()>;
    /// Notes an object that has been verified. False when no conversation has that
    /// recording any more: then it is noted as a file that is to go.
    async fn complete_object(&self, object: &Object, at: Timestamp) -> Result<bool>;
    /// The objects there are of files with those names, or may be, by name.
    async fn objects(&self, names: &[String]) -> Result<Vec<Object>>;
    /// Notes that there are no such objects any more.
    async fn forget_objects(&self, names: &[String]) -> Result<()>;
}

/// The daemons that share the database, each of which is a node of its own name. To
/// a store that one daemon has alone there are no others.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// The devices that are connected to other nodes that are heard of, or waited
    /// for there.
    async fn clients_elsewhere(&self) -> Result<Vec<ClientView>> {
        Ok(Vec::new())
    }
    /// Where the other node is reached that records a conversation of that device, if
    /// it is heard of.
    async fn node_with(&self, _: &ClientId) -> Result<Option<String>> {
        Ok(None)
    }
    /// Asks the node that records a conversation to close it. False when that is no
    /// other node that is heard of.
    async fn ask_to_close(&self, _: &ConversationId) -> Result<bool> {
        Ok(false)
    }
    /// The other node that a conversation was recorded at, and whose disk has its
    /// files.
    async fn recorded_elsewhere(&self, _: &ConversationId) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Looking after what is kept.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Copies everything to the file `to`, as of one moment and while it is in
    /// use, in place of an earlier copy; there is a whole file or none.
    async fn back_up(&self, to: &Path) -> Result<()>;
    /// Where the rows contradict each other, all as of one moment.
    async fn contradictions(&self) -> Result<Vec<Finding>>;
    /// Makes again, of the rest, what contradicts it: entries of the indexes of
    /// memories, and the figures of conversations. Returns how many.
    async fn rebuild(&self) -> Result<usize>;
    /// Notes that the recording of a conversation, `from` so far, is the file
    /// `to`. False when it was not `from`, or `to` is to go.
    async fn rename_recording(&self, id: &ConversationId, from: &str, to: &str) -> Result<bool>;
    /// The cropped recordings, by file name.
    async fn crops(&self) -> Result<Vec<(ConversationId, String)>>;
    /// Forgets the cropped recording of a conversation, and has it made again.
    async fn crop_again(&self, id: &ConversationId, at: Timestamp) -> Result<()>;
}

/// The last time that the daemon knew of, kept for a start on a machine that does
/// not know the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTime {
    /// Wall time when this was noted.
    pub at: Timestamp,
    /// The machine's run, where it can be told from others.
    pub boot: Option<String>,
    /// How long the machine had run by then.
    pub since_boot: Duration,
    /// Since when the times of this run of the machine are made up; none when its
    /// clock was set.
    pub estimated_since: Option<Timestamp>,
    /// Since when wall time has gone on without a jump of more than a day: whoever
    /// deletes by age waits, in case it was a jump to a wrong time.
    pub steady_since: Timestamp,
    /// The steps of the clock up to then.
    pub history: History,
}

/// What the rows have to do with the clock.
#[async_trait]
pub trait Timekeeping: Send + Sync {
    /// What was noted last.
    async fn known_time(&self) -> Result<Option<KnownTime>>;
    /// Notes the time.
    async fn note_time(&self, known: &KnownTime) -> Result<()>;
    /// Carries what lies in the future, such as when a job is to run, over a step
    /// of the clock, and notes `known`. Of a clock that had not been set before,
    /// all times from `since` to the step are moved too, and are no estimates any
    /// more. Returns of how many conversations.
    async fn clock_stepped(
        &self,
        step: Step,
        since: Option<Timestamp>,
        known: &KnownTime,
    ) -> Result<usize>;
}

/// Files that were uploaded, each on its way into a conversation.
#[async_trait]
pub trait Uploads: Send + Sync {
    /// Adds a request with its files; for each that waits its conversation, of
    /// `conversations` by id, and the job to record it. Unless `force`, a file
    /// whose bytes its user has uploaded before gets that conversation instead
    /// and waits for nothing. Returns the request as it is now.
    async fn add_uploads(
        &self,
        job: &UploadJob,
        conversations: &[Conversation],
        force: bool,
    ) -> Result<UploadJob>;
    /// The request of that id.
    async fn upload_job(&self, id: &str) -> Result<Option<UploadJob>>;
    /// Requests of `user`, or of everybody, newest first.
    async fn upload_jobs(&self, user: Option<&UserId>, limit: usize) -> Result<Vec<UploadJob>>;
    /// Notes that the recording of a waiting file begins; what an earlier
    /// attempt cut from it is forgotten. None when no file waits for that
    /// conversation.
    async fn begin_upload(&self, id: &ConversationId, at: Timestamp) -> Result<Option<Upload>>;
    /// Completes a [`JobKind::Import`] job: closes the conversation with its
    /// final count of samples. `Conflict` when the lease is no longer good.
    async fn complete_upload(
        &self,
        lease: Lease,
        id: &ConversationId,
        samples: u64,
        note: Option<&str>,
        at: Timestamp,
    ) -> Result<()>;
    /// Names of the spooled files that are still needed.
    async fn spooled_uploads(&self) -> Result<Vec<String>>;
}

/// What comes from another database, with the ids that it has there. Each thing is
/// noted in the transaction that adds it, and is not added again: what was deleted
/// here since stays deleted.
#[async_trait]
pub trait Imports: Send + Sync {
    /// What has come of that kind: its ids there, and what each became here.
    async fn imported(&self, kind: Imported) -> Result<HashMap<String, String>>;
    /// Adds a user. One of the same id or e-mail address who is there is taken to be
    /// the same person, and stays as they are.
    async fn import_user(&self, user: &User) -> Result<Arrived>;
    /// Adds a conversation that ended there. No jobs are made: [`Conversations::requeue_lost`] finds what waits. False when
    /// it had come, or is there. `Conflict` when its recording has the name of
    /// another's, or its user is not there.
    async fn import_conversation(&self, past: &PastConversation) -> Result<bool>;
    /// Notes that the recording which the row of a conversation names, of so many
    /// samples, has come. Where the conversation came without, it has it from now on,
    /// and without a transcript `windows` wait for one. False when it had come, or the
    /// conversation is not there.
    async fn import_audio(
        &self,
        id: &ConversationId,
        samples: u64,
        windows: &[NewWindow],
    ) -> Result<bool>;
    /// Adds memories: those that are new. Those of users that are not there are left
    /// out. `Conflict` for a vector of another width.
    async fn import_memories(&self, found: &[(MemoryId, IndexedMemory)]) -> Result<Vec<MemoryId>>;
    /// Adds a talk and those of its messages that have not come, in order; which
    /// those are. `Conflict` when its user is not there.
    async fn import_chat(&self, chat: &Chat, messages: &[PastMessage]) -> Result<Vec<String>>;
}
