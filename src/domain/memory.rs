//! What is remembered.

use serde::{Deserialize, Serialize};

use super::conversation::named;
use super::ids::{ClientId, ConversationId, MemoryId, UserId};
use crate::base::clock::Timestamp;

/// One fact worth finding again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Identifier.
    pub id: MemoryId,
    /// Whose it is.
    pub user_id: UserId,
    /// The fact, one sentence.
    pub text: String,
    /// The conversation it was learned from last.
    pub conversation_id: Option<ConversationId>,
    /// The device of that conversation.
    pub client_id: Option<ClientId>,
    /// Version of the prompt that extracted it.
    pub prompt_version: String,
    /// When it was first known.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

named!(
    /// What was decided about a fact.
    MemoryEvent {
        /// A new memory.
        Add = "ADD",
        /// A memory says more, or something else, now.
        Update = "UPDATE",
        /// A memory is no longer true.
        Delete = "DELETE",
        /// Known already.
        None = "NONE",
    }
);

/// A decision to apply, in one transaction with its history row.
#[derive(Clone, Debug, PartialEq)]
pub enum MemoryChange {
    /// Remember `text`.
    Add {
        /// The fact.
        text: String,
        /// Its embedding, unit length.
        vector: Vec<f32>,
    },
    /// Replace the text of `id`.
    Update {
        /// Which memory.
        id: MemoryId,
        /// What it says now.
        text: String,
        /// Its embedding, unit length.
        vector: Vec<f32>,
    },
    /// Forget `id`.
    Delete {
        /// Which memory.
        id: MemoryId,
    },
}

/// What one look at a conversation taught.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learned {
    /// The decisions, in order.
    pub changes: Vec<MemoryChange>,
    /// A short title.
    pub title: Option<String>,
    /// What the conversation is about.
    pub summary: Option<String>,
    /// Which engine and model found it.
    pub model: String,
    /// Version of the prompts.
    pub prompt_version: String,
}

/// A memory as an index has it.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexedMemory {
    /// Whose it is.
    pub user_id: UserId,
    /// The fact, one sentence.
    pub text: String,
    /// Its embedding, unit length.
    pub vector: Vec<f32>,
    /// The conversation it was learned from last, where that is known.
    pub conversation_id: Option<ConversationId>,
    /// When it was first known.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A change that an index outside the store has not heard of yet.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryNews {
    /// Higher than those of all earlier changes.
    pub number: i64,
    /// Which memory.
    pub id: MemoryId,
    /// What it is by now; none when it is forgotten.
    pub now: Option<IndexedMemory>,
}

/// A memory found by a search.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredMemory {
    /// The memory.
    pub memory: Memory,
    /// How well it fits, 0 to 1; higher is better.
    pub score: f32,
}

/// One line of a memory's past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryHistory {
    /// Which memory.
    pub memory_id: MemoryId,
    /// What happened.
    pub event: MemoryEvent,
    /// Text before, if there was one.
    pub old_text: Option<String>,
    /// Text after, if there is one.
    pub new_text: Option<String>,
    /// When.
    pub at: Timestamp,
}
