//! Talks with the assistant.

use async_trait::async_trait;
use mongodb::bson::doc;
use serde::Deserialize;

use super::MongoStore;
use super::documents::{ChatRow, MessageRow};
use super::queue::hold_user;
use super::schema::{CHATS, MESSAGES, counter};
use super::tx::Tx;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::chat::{Chat, ChatCounts, ChatMessage, ChatRole};
use crate::domain::ids::{ChatId, MemoryId, UserId};
use crate::store::Chats;

#[async_trait]
impl Chats for MongoStore {
    async fn add_chat(&self, chat: &Chat) -> Result<()> {
        transaction!(self, |tx| insert(tx, chat).await).await
    }

    async fn chat(&self, id: &ChatId) -> Result<Option<Chat>> {
        let found = steps!(self, |tx| tx.first(CHATS, doc! { "_id": id.as_str() }).await);
        Ok(found.await?.map(Chat::from))
    }

    async fn chats(&self, user: &UserId, limit: usize) -> Result<Vec<Chat>> {
        let (filter, order) =
            (doc! { "user_id": user.as_str() }, doc! { "updated_at": -1, "_id": -1 });
        let found = steps!(self, |tx| tx.page(CHATS, filter, order, 0, limit).await).await?;
        Ok(found.into_iter().map(Chat::from).collect())
    }

    async fn rename_chat(&self, id: &ChatId, title: &str, at: Timestamp) -> Result<()> {
        let update = doc! { "$set": { "title": title, "updated_at": at.millis() } };
        let filter = doc! { "_id": id.as_str() };
        match steps!(self, |tx| tx.change(CHATS, filter, update).await).await? {
            0 => Err(no_chat()),
            _ => Ok(()),
        }
    }

    async fn delete_chat(&self, id: &ChatId) -> Result<()> {
        match transaction!(self, |tx| remove(tx, &[id.as_str()]).await).await? {
            0 => Err(no_chat()),
            _ => Ok(()),
        }
    }

    async fn add_chat_message(
        &self,
        id: &ChatId,
        role: ChatRole,
        content: &str,
        memories: &[MemoryId],
        at: Timestamp,
    ) -> Result<i64> {
        transaction!(self, |tx| {
            let update =
                doc! { "$set": { "updated_at": at.millis() }, "$inc": { "messages": 1_i64 } };
            if tx.change(CHATS, doc! { "_id": id.as_str() }, update).await? == 0 {
                return Err(no_chat());
            }
            insert_message(tx, id, role, content, memories, at).await
        })
        .await
    }

    async fn chat_messages(&self, id: &ChatId, limit: usize) -> Result<Vec<ChatMessage>> {
        let (filter, latest) = (doc! { "chat_id": id.as_str() }, doc! { "_id": -1 });
        let found = steps!(self, |tx| tx.page(MESSAGES, filter, latest, 0, limit).await);
        Ok(found.await?.into_iter().rev().map(ChatMessage::from).collect())
    }

    async fn chat_counts(&self, user: &UserId) -> Result<ChatCounts> {
        #[derive(Deserialize)]
        struct Counts {
            chats: u64,
            messages: u64,
            last: Option<Timestamp>,
        }
        let pipeline = vec![
            doc! { "$match": { "user_id": user.as_str() } },
            doc! { "$group": {
                "_id": null,
                "chats": { "$sum": 1 },
                "messages": { "$sum": "$messages" },
                "last": { "$max": "$updated_at" },
            } },
        ];
        let counted: Vec<Counts> = steps!(self, |tx| tx.aggregate(CHATS, pipeline).await).await?;
        let counts = counted.into_iter().next();
        Ok(counts.map_or_else(ChatCounts::default, |counts| ChatCounts {
            chats: counts.chats,
            messages: counts.messages,
            last: counts.last,
        }))
    }
}

/// Adds a talk without messages.
pub(super) async fn insert(tx: &mut Tx, chat: &Chat) -> Result<()> {
    hold_user(tx, &chat.user_id).await?;
    let row = ChatRow {
        id: chat.id.clone(),
        user_id: chat.user_id.clone(),
        title: chat.title.clone(),
        created_at: chat.created_at,
        updated_at: chat.updated_at,
        messages: 0,
    };
    tx.insert(CHATS, &[row]).await
}

/// Adds a message to a talk, which has still to count it, and returns its number.
pub(super) async fn insert_message(
    tx: &mut Tx,
    id: &ChatId,
    role: ChatRole,
    content: &str,
    memories: &[MemoryId],
    at: Timestamp,
) -> Result<i64> {
    let number = tx.number(counter::MESSAGES).await?;
    let row = MessageRow {
        id: number,
        chat_id: id.clone(),
        role,
        content: content.to_owned(),
        memories: memories.to_vec(),
        at,
    };
    tx.insert(MESSAGES, &[row]).await.map(|()| number)
}

/// Deletes talks with their messages; how many.
pub(super) async fn remove(tx: &mut Tx, ids: &[&str]) -> Result<u64> {
    tx.remove(MESSAGES, doc! { "chat_id": { "$in": ids } }).await?;
    tx.remove(CHATS, doc! { "_id": { "$in": ids } }).await
}

fn no_chat() -> Error {
    Error::new(Kind::NotFound, "there is no such chat")
}
