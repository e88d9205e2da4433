//! Talks with the assistant about one's own memories.

mod send;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::chat::{Chat, ChatMessage, ChatRole};
use crate::domain::ids::{ChatId, MemoryId};
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::body::Body;
use crate::http::error::{ApiError, ErrorText, MessageText, Problem, ValidationError};
use crate::http::params::Params;

/// Longest title, in characters.
const LONGEST_TITLE: usize = 200;
/// What a talk is called until its first message.
const UNTITLED: &str = "New Chat";

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(list, begin))
        .routes(routes!(one, rename, remove))
        .routes(routes!(messages))
        .routes(routes!(learn))
        .routes(routes!(statistics))
        .routes(routes!(health))
        .merge(send::routes())
}

/// A talk.
#[derive(Serialize, ToSchema)]
struct ChatSession {
    session_id: ChatId,
    title: String,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
    message_count: u64,
}

/// A message of a talk.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatMessage)]
struct MessageView {
    message_id: String,
    session_id: ChatId,
    role: ChatRole,
    content: String,
    /// RFC 3339.
    timestamp: String,
    /// Ids of the memories that an answer was made with.
    memories_used: Vec<MemoryId>,
}

/// What a talk is to be called.
#[derive(Deserialize, ToSchema)]
struct ChatTitle {
    /// At most 200 characters.
    #[schema(max_length = 200)]
    title: Option<String>,
}

/// The caller's talks, the one that changed last first.
#[utoipa::path(get, path = "/api/chat/sessions", tag = "chat",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 100)),
    responses(
        (status = 200, description = "The talks", body = Vec<ChatSession>),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn list(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<Vec<ChatSession>>, ApiError> {
    let limit = params.integer("limit", 50, 1..=100)?;
    let chats = api.store.chats(&user.id, limit).await?;
    Ok(Json(chats.into_iter().map(ChatSession::from).collect()))
}

/// Begins a talk.
#[utoipa::path(post, path = "/api/chat/sessions", tag = "chat", request_body = ChatTitle,
    responses(
        (status = 200, description = "The talk", body = ChatSession),
        (status = 422, description = "Wrong body", body = ValidationError),
    ))]
async fn begin(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Body(wanted): Body<ChatTitle>,
) -> Result<Json<ChatSession>, ApiError> {
    let title = wanted.checked()?.unwrap_or_else(|| UNTITLED.into());
    Ok(Json(api.assistant.begin(&user.id, &title).await?.into()))
}

/// One talk.
#[utoipa::path(get, path = "/api/chat/sessions/{session_id}", tag = "chat",
    responses(
        (status = 200, description = "The talk", body = ChatSession),
        (status = 404, description = "No such talk", body = ErrorText),
    ))]
async fn one(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(session_id): Path<String>,
) -> Result<Json<ChatSession>, ApiError> {
    Ok(Json(owned(&api, &user, session_id).await?.into()))
}

/// Gives a talk another title.
#[utoipa::path(put, path = "/api/chat/sessions/{session_id}", tag = "chat",
    request_body = ChatTitle,
    responses(
        (status = 200, description = "The talk", body = ChatSession),
        (status = 404, description = "No such talk", body = ErrorText),
        (status = 422, description = "Wrong body", body = ValidationError),
    ))]
async fn rename(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(session_id): Path<String>,
    Body(wanted): Body<ChatTitle>,
) -> Result<Json<ChatSession>, ApiError> {
    let title = wanted.checked()?.ok_or_else(|| {
        let msg = "Input should be a valid string";
        ApiError::validation(vec![Problem::new("string_type", "body", "title", msg, None)])
    })?;
    let chat = owned(&api, &user, session_id).await?;
    let updated_at = api.clock.now();
    api.store.rename_chat(&chat.id, &title, updated_at).await?;
    Ok(Json(Chat { title, updated_at, ..chat }.into()))
}

/// Deletes a talk with its messages. What was remembered of it stays.
#[utoipa::path(delete, path = "/api/chat/sessions/{session_id}", tag = "chat",
    responses(
        (status = 200, description = "It is deleted", body = MessageText),
        (status = 404, description = "No such talk", body = ErrorText),
    ))]
async fn remove(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(session_id): Path<String>,
) -> Result<Json<MessageText>, ApiError> {
    let chat = owned(&api, &user, session_id).await?;
    api.store.delete_chat(&chat.id).await?;
    api.auth.audit(Some(&user.id), "chat-deleted", chat.id.as_str()).await;
    Ok(Json(MessageText { message: "Chat session deleted successfully".into() }))
}

/// The latest messages of a talk, oldest first.
#[utoipa::path(get, path = "/api/chat/sessions/{session_id}/messages", tag = "chat",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 1000)),
    responses(
        (status = 200, description = "The messages", body = Vec<MessageView>),
        (status = 404, description = "No such talk", body = ErrorText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn messages(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(session_id): Path<String>,
    params: Params,
) -> Result<Json<Vec<MessageView>>, ApiError> {
    let limit = params.integer("limit", 100, 1..=1000)?;
    let chat = owned(&api, &user, session_id).await?;
    let messages = api.store.chat_messages(&chat.id, limit).await?;
    Ok(Json(messages.into_iter().map(MessageView::from).collect()))
}

/// What was remembered of a talk.
#[derive(Serialize, ToSchema)]
struct LearnedFromChat {
    success: bool,
    memory_ids: Vec<MemoryId>,
    count: usize,
    message: String,
}

/// Remembers what the caller said in a talk.
#[utoipa::path(post, path = "/api/chat/sessions/{session_id}/extract-memories", tag = "chat",
    responses(
        (status = 200, description = "It is remembered", body = LearnedFromChat),
        (status = 404, description = "No such talk", body = ErrorText),
        (status = 429, description = "The caller waits for an answer already", body = ErrorText),
    ))]
async fn learn(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(session_id): Path<String>,
) -> Result<Json<LearnedFromChat>, ApiError> {
    let chat = owned(&api, &user, session_id).await?;
    let _turn = api.assistant.turn(&user.id)?;
    let memory_ids = api.assistant.learn(&chat).await?;
    let count = memory_ids.len();
    let message = match count {
        0 => "Nothing new to remember in this chat".into(),
        _ => format!("Remembered {count} facts from this chat"),
    };
    Ok(Json(LearnedFromChat { success: true, memory_ids, count, message }))
}

/// The caller's talks in figures.
#[derive(Serialize, ToSchema)]
struct ChatStatistics {
    total_sessions: u64,
    total_messages: u64,
    /// RFC 3339.
    last_chat: Option<String>,
}

/// The caller's talks in figures.
#[utoipa::path(get, path = "/api/chat/statistics", tag = "chat",
    responses((status = 200, description = "The figures", body = ChatStatistics)))]
async fn statistics(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<ChatStatistics>, ApiError> {
    let counts = api.store.chat_counts(&user.id).await?;
    Ok(Json(ChatStatistics {
        total_sessions: counts.chats,
        total_messages: counts.messages,
        last_chat: counts.last.map(|at| at.to_rfc3339()),
    }))
}

/// Whether there is a model to talk with.
#[derive(Serialize, ToSchema)]
struct ChatHealth {
    /// `healthy`, or `degraded` while the language model is not there.
    status: &'static str,
    /// Always `chat`.
    service: &'static str,
    /// RFC 3339.
    timestamp: String,
}

/// Whether there is a model to talk with.
#[utoipa::path(get, path = "/api/chat/health", tag = "chat", security(()),
    responses((status = 200, description = "How it is", body = ChatHealth)))]
async fn health(State(api): State<Arc<Api>>) -> Json<ChatHealth> {
    let status = if api.assistant.is_ready() { "healthy" } else { "degraded" };
    Json(ChatHealth { status, service: "chat", timestamp: api.clock.now().to_rfc3339() })
}

/// The caller's talk of that id. Not even administrators read those of others.
async fn owned(api: &Api, caller: &User, id: String) -> Result<Chat, ApiError> {
    let found = api.store.chat(&ChatId::from_text(id)).await?;
    found
        .filter(|chat| chat.user_id == caller.id)
        .ok_or_else(|| ApiError::error(StatusCode::NOT_FOUND, "Chat session not found"))
}

impl ChatTitle {
    /// The title, without space around it, if there is one.
    fn checked(self) -> Result<Option<String>, ApiError> {
        let title = self.title.map(|title| title.trim().to_owned());
        let long = title.as_ref().is_some_and(|title| title.chars().count() > LONGEST_TITLE);
        if long {
            let msg = "String should have at most 200 characters";
            let problem = Problem::new("string_too_long", "body", "title", msg, None);
            return Err(ApiError::validation(vec![problem]));
        }
        Ok(title.filter(|title| !title.is_empty()))
    }
}

impl From<Chat> for ChatSession {
    fn from(chat: Chat) -> Self {
        Self {
            session_id: chat.id,
            title: chat.title,
            created_at: chat.created_at.to_rfc3339(),
            updated_at: chat.updated_at.to_rfc3339(),
            message_count: chat.messages,
        }
    }
}

impl From<ChatMessage> for MessageView {
    fn from(message: ChatMessage) -> Self {
        Self {
            message_id: message.id.to_string(),
            session_id: message.chat_id,
            role: message.role,
            content: message.content,
            timestamp: message.at.to_rfc3339(),
            memories_used: message.memories,
        }
    }
}
