//! Talks with the assistant.

use super::conversation::named;
use super::ids::{ChatId, MemoryId, UserId};
use crate::base::clock::Timestamp;

/// A talk of one user with the assistant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Identifier (`session_id` in the API).
    pub id: ChatId,
    /// Whose it is.
    pub user_id: UserId,
    /// What it is called.
    pub title: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// How many messages it has.
    pub messages: u64,
}

named!(
    /// Who says a message.
    ChatRole {
        /// The user.
        User = "user",
        /// The language model.
        Assistant = "assistant",
    }
);

/// A message that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Number in the store.
    pub id: i64,
    /// The talk.
    pub chat_id: ChatId,
    /// Who says it.
    pub role: ChatRole,
    /// What is said.
    pub content: String,
    /// The memories it was made with.
    pub memories: Vec<MemoryId>,
    /// When.
    pub at: Timestamp,
}

/// A user's talks in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChatCounts {
    /// Talks.
    pub chats: u64,
    /// Messages in them.
    pub messages: u64,
    /// When one last changed.
    pub last: Option<Timestamp>,
}
