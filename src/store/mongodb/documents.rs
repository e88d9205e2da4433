//! Documents as the collections hold them, and the plain types of the domain
//! that they are made from. Times are milliseconds since the Unix epoch, UTC.

use std::collections::BTreeMap;

use mongodb::bson::Binary;
use mongodb::bson::oid::ObjectId;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::domain::chat::{Chat, ChatMessage, ChatRole};
use crate::domain::conversation::{Span, Window, WindowState};
use crate::domain::ids::{ChatId, ClientId, ConversationId, JobId, MemoryId, UserId, WindowId};
use crate::domain::job::{Job, JobKind, JobState, Lane, Payload};
use crate::domain::memory::{Memory, MemoryEvent, MemoryHistory};
use crate::domain::object::Object;
use crate::domain::past::Imported;
use crate::domain::transcript::Segment;
use crate::domain::user::{Device, User};

/// The document of [`Meta`] that everything that changes memories goes by.
pub(super) const MEMORIES_META: &str = "memories";
/// The document that whoever changes a user's role writes, so that two of those
/// cannot each take the other for the administrator that is left.
pub(super) const ADMINS_META: &str = "admins";

/// What the memories have in common. Each change of one takes a number here, in
/// its transaction: changes are made one after the other, in the order of their
/// numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    #[serde(rename = "_id")]
    pub(super) id: String,
    /// The last change.
    #[serde(default)]
    pub(super) number: i64,
    /// Who is told of changes, and the name of each.
    #[serde(default)]
    pub(super) followers: BTreeMap<String, String>,
    /// The embedding model that made the vectors, and how wide they are.
    pub(super) model: Option<String>,
    pub(super) width: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UserRow {
    #[serde(rename = "_id")]
    pub(super) id: UserId,
    pub(super) email: String,
    pub(super) password_hash: String,
    pub(super) display_name: Option<String>,
    pub(super) is_active: bool,
    pub(super) is_superuser: bool,
    pub(super) is_verified: bool,
    pub(super) token_epoch: i64,
    pub(super) created_at: Timestamp,
}

impl From<&User> for UserRow {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.clone(),
            email: user.email.to_lowercase(),
            password_hash: user.password_hash.clone(),
            display_name: user.display_name.clone(),
            is_active: user.is_active,
            is_superuser: user.is_superuser,
            is_verified: user.is_verified,
            token_epoch: user.token_epoch,
            created_at: user.created_at,
        }
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.id,
            email: row.email,
            password_hash: row.password_hash,
            display_name: row.display_name,
            is_active: row.is_active,
            is_superuser: row.is_superuser,
            is_verified: row.is_verified,
            token_epoch: row.token_epoch,
            created_at: row.created_at,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DeviceRow {
    #[serde(rename = "_id")]
    client_id: ClientId,
    user_id: UserId,
    device_name: Option<String>,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

impl From<DeviceRow> for Device {
    fn from(row: DeviceRow) -> Self {
        Self {
            client_id: row.client_id,
            user_id: row.user_id,
            device_name: row.device_name,
            first_seen: row.first_seen,
            last_seen: row.last_seen,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Setting {
    #[serde(rename = "_id")]
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AuditRow {
    #[serde(rename = "_id")]
    pub(super) id: ObjectId,
    pub(super) at: Timestamp,
    pub(super) actor: Option<UserId>,
    pub(super) action: String,
    pub(super) subject: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WindowRow {
    #[serde(rename = "_id")]
    pub(super) id: WindowId,
    pub(super) conversation_id: ConversationId,
    pub(super) version: u32,
    pub(super) seq: u32,
    pub(super) spans: Vec<Span>,
    /// Samples of speech in it.
    pub(super) samples: u64,
    pub(super) state: WindowState,
    pub(super) segments: Vec<Segment>,
    pub(super) engine: Option<String>,
}

impl From<WindowRow> for Window {
    fn from(row: WindowRow) -> Self {
        Self {
            id: row.id,
            conversation_id: row.conversation_id,
            version: row.version,
            seq: row.seq,
            spans: row.spans,
            state: row.state,
            segments: row.segments,
            engine: row.engine,
        }
    }
}

/// A job, with what it belongs to: that never changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobRow {
    #[serde(rename = "_id")]
    pub(super) id: JobId,
    pub(super) kind: JobKind,
    pub(super) key: String,
    pub(super) window_id: Option<WindowId>,
    pub(super) conversation_id: ConversationId,
    pub(super) user_id: UserId,
    pub(super) client_id: ClientId,
    /// Its rank.
    pub(super) lane: u8,
    pub(super) state: JobState,
    /// Ready or leased: at most one such job has a key.
    pub(super) live: bool,
    pub(super) attempts: u32,
    pub(super) epoch: i64,
    pub(super) run_at: Timestamp,
    pub(super) owner: Option<String>,
    /// Where its owner is.
    pub(super) node: Option<String>,
    /// The node that alone can do it, since the audio is nowhere else.
    pub(super) audio_at: Option<String>,
    pub(super) last_error: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

impl JobRow {
    pub(super) fn lane(&self) -> Lane {
        Lane::from_rank(self.lane).unwrap_or(Lane::Backlog)
    }

    pub(super) fn payload(&self) -> Payload {
        match self.window_id {
            Some(id) => Payload::Window(id),
            None => Payload::Conversation(self.conversation_id.clone()),
        }
    }
}

impl From<JobRow> for Job {
    fn from(row: JobRow) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            payload: row.payload(),
            lane: row.lane(),
            state: row.state,
            attempts: row.attempts,
            epoch: row.epoch,
            run_at: row.run_at,
            last_error: row.last_error,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MemoryRow {
    #[serde(flatten)]
    pub(super) listed: MemoryListed,
    /// Unit length, little-endian f32.
    pub(super) vector: Binary,
}

/// A memory without its vector, which is large.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MemoryListed {
    #[serde(rename = "_id")]
    pub(super) id: MemoryId,
    /// The number of the change that put it here.
    pub(super) seq: i64,
    pub(super) user_id: UserId,
    pub(super) text: String,
    pub(super) conversation_id: Option<ConversationId>,
    /// Which set of its conversation's memories it belongs to.
    pub(super) version: i64,
    pub(super) client_id: Option<ClientId>,
    pub(super) prompt_version: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

impl From<MemoryListed> for Memory {
    fn from(row: MemoryListed) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            text: row.text,
            conversation_id: row.conversation_id,
            client_id: row.client_id,
            prompt_version: row.prompt_version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A memory that no list shows. `by` is the set that changed or deleted it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Shelved {
    /// The number of the change that put it here.
    #[serde(rename = "_id")]
    pub(super) number: i64,
    pub(super) by_conversation: Option<ConversationId>,
    pub(super) by_version: Option<i64>,
    pub(super) memory: MemoryRow,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HistoryRow {
    /// The number of the change.
    #[serde(rename = "_id")]
    pub(super) number: i64,
    pub(super) memory_id: MemoryId,
    pub(super) user_id: UserId,
    pub(super) event: MemoryEvent,
    pub(super) old_text: Option<String>,
    pub(super) new_text: Option<String>,
    pub(super) at: Timestamp,
}

impl From<HistoryRow> for MemoryHistory {
    fn from(row: HistoryRow) -> Self {
        Self {
            memory_id: row.memory_id,
            event: row.event,
            old_text: row.old_text,
            new_text: row.new_text,
            at: row.at,
        }
    }
}

/// A memory that a follower has still to hear of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct News {
    /// `follower:memory`.
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) follower: String,
    pub(super) memory_id: MemoryId,
    pub(super) number: i64,
}

impl News {
    pub(super) fn new(follower: &str, memory: &MemoryId, number: i64) -> Self {
        Self {
            id: format!("{follower}:{memory}"),
            follower: follower.to_owned(),
            memory_id: memory.clone(),
            number,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ChatRow {
    #[serde(rename = "_id")]
    pub(super) id: ChatId,
    pub(super) user_id: UserId,
    pub(super) title: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) messages: u64,
}

impl From<ChatRow> for Chat {
    fn from(row: ChatRow) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            title: row.title,
            created_at: row.created_at,
            updated_at: row.updated_at,
            messages: row.messages,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MessageRow {
    #[serde(rename = "_id")]
    pub(super) id: i64,
    pub(super) chat_id: ChatId,
    pub(super) role: ChatRole,
    pub(super) content: String,
    pub(super) memories: Vec<MemoryId>,
    pub(super) at: Timestamp,
}

impl From<MessageRow> for ChatMessage {
    fn from(row: MessageRow) -> Self {
        Self {
            id: row.id,
            chat_id: row.chat_id,
            role: row.role,
            content: row.content,
            memories: row.memories,
            at: row.at,
        }
    }
}

/// What has come from another database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ImportedRow {
    #[serde(rename = "_id")]
    pub(super) key: String,
    pub(super) kind: Imported,
    /// Its id there.
    pub(super) id: String,
    /// What it became here.
    pub(super) became: String,
}

impl ImportedRow {
    pub(super) fn key(kind: Imported, id: &str) -> String {
        format!("{}:{id}", kind.as_str())
    }
}

/// A file below the audio directory of a node that is to go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DeletionRow {
    #[serde(rename = "_id")]
    pub(super) name: String,
    pub(super) node: String,
    pub(super) at: Timestamp,
}

/// A recording in the bucket, or one that may be there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ObjectRow {
    #[serde(rename = "_id")]
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) verified_at: Option<Timestamp>,
}

impl From<ObjectRow> for Object {
    fn from(row: ObjectRow) -> Self {
        let ObjectRow { name, bytes, sha256, verified_at } = row;
        Self { name, bytes, sha256, verified_at }
    }
}

impl From<&Object> for ObjectRow {
    fn from(object: &Object) -> Self {
        let Object { name, bytes, sha256, verified_at } = object.clone();
        Self { name, bytes, sha256, verified_at }
    }
}
