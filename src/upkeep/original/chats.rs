//! Talks with the assistant.

use mongodb::bson::Document;

use super::fields::{self, Fields, Read};
use crate::base::clock::Timestamp;
use crate::domain::chat::{Chat, ChatRole};
use crate::domain::ids::{ChatId, MemoryId, UserId};
use crate::domain::past::PastMessage;

/// A talk, and whose it is in the words of the original.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Talk {
    pub(super) id: String,
    pub(super) user: String,
    title: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Talk {
    /// A document of `chat_sessions`.
    pub(super) fn read(document: &Document) -> Read<Self> {
        let fields = Fields(document);
        let created_at = fields.time("created_at")?.ok_or("it does not say when it was")?;
        Ok(Self {
            id: fields.needed("session_id")?,
            user: fields.needed("user_id")?,
            title: fields.text("title")?.unwrap_or_else(|| "Chat".to_owned()),
            created_at,
            updated_at: fields.time("updated_at")?.unwrap_or(created_at),
        })
    }

    /// The talk as the store takes it.
    pub(super) fn of(&self, user: &UserId) -> Chat {
        Chat {
            id: ChatId::from_text(&self.id),
            user_id: user.clone(),
            title: self.title.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            messages: 0,
        }
    }
}

/// A document of `chat_messages`, and the talk that it belongs to.
pub(super) fn message(document: &Document) -> Read<(String, PastMessage)> {
    let fields = Fields(document);
    let role = fields.needed("role")?;
    let role = ChatRole::from_name(&role)
        .ok_or_else(|| format!("it is said by {role}, and not by a user or an assistant"))?;
    let used = fields.list("memories_used")?.iter();
    let message = PastMessage {
        id: fields.needed("message_id")?,
        role,
        content: fields.text("content")?.unwrap_or_default(),
        memories: used.filter_map(fields::text).map(MemoryId::from_text).collect(),
        at: fields.time("timestamp")?.ok_or("it does not say when it was")?,
    };
    Ok((fields.needed("session_id")?, message))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, doc};

    use super::*;

    #[test]
    fn a_talk_and_its_messages_are_read() {
        let at = DateTime::from_millis(5_000);
        let talk = Talk::read(&doc! { "session_id": "s", "user_id": "u", "created_at": at });
        let chat = talk.unwrap().of(&UserId::from_text("here"));
        assert_eq!((chat.user_id.as_str(), chat.updated_at.millis()), ("here", 5_000));
        let mut document = doc! {
            "message_id": "m", "session_id": "s", "role": "assistant", "content": "Hello.",
            "timestamp": at, "memories_used": ["x", "y"],
        };
        let (session, said) = message(&document).unwrap();
        assert_eq!(
            (session.as_str(), said.role, said.memories.len()),
            ("s", ChatRole::Assistant, 2)
        );
        document.insert("role", "system");
        assert!(message(&document).unwrap_err().contains("system"));
        assert!(Talk::read(&doc! { "session_id": "s" }).unwrap_err().contains("when"));
    }
}
