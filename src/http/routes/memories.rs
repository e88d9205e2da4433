//! Memories.

mod admin;
mod config;
mod view;

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::view::{MemoryEntry, entry};
use self::view::{MemoryMetadata, metadata};
use super::debug::compression_ratio;
use crate::domain::ids::{ClientId, ConversationId, MemoryId, UserId};
use crate::domain::memory::Memory;
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, MessageText, ValidationError};
use crate::http::params::Params;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(search))
        .routes(routes!(unfiltered))
        .routes(routes!(with_transcripts))
        .routes(routes!(remove))
        .merge(admin::routes())
        .merge(config::routes())
}

/// Memories of one user.
#[derive(Serialize, ToSchema)]
struct MemoryList {
    memories: Vec<MemoryEntry>,
    /// In this answer.
    count: usize,
    /// In all.
    total_count: u64,
    user_id: UserId,
}

/// Memories that answer a question.
#[derive(Serialize, ToSchema)]
struct MemoryResults {
    query: String,
    /// Best first.
    results: Vec<MemoryEntry>,
    count: usize,
    user_id: UserId,
}

/// Memories of one user, with those that no model was asked about.
#[derive(Serialize, ToSchema)]
struct UnfilteredMemories {
    memories: Vec<MemoryEntry>,
    count: usize,
    user_id: UserId,
    /// Always true; there are none of that kind here, since what a model could
    /// not look at is tried again.
    includes_fallback: bool,
}

/// Memories with what was said.
#[derive(Serialize, ToSchema)]
struct MemoriesWithTranscripts {
    memories: Vec<MemoryWithTranscript>,
    count: usize,
    user_id: UserId,
}

/// A memory with what was said.
#[derive(Serialize, ToSchema)]
struct MemoryWithTranscript {
    memory_id: MemoryId,
    memory_text: String,
    /// RFC 3339.
    created_at: String,
    metadata: MemoryMetadata,
    audio_uuid: Option<ConversationId>,
    /// Of the conversation it came from, where that is kept.
    transcript: Option<String>,
    client_id: Option<ClientId>,
    user_email: String,
    /// Characters of the memory for each hundred of the transcript.
    compression_ratio: f64,
    transcript_length: usize,
    memory_length: usize,
}

/// A user's memories, newest first.
#[utoipa::path(get, path = "/api/memories", tag = "memories",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000),
        ("user_id" = Option<String>, Query, description = "Whose, for administrators"),
    ),
    responses(
        (status = 200, description = "The memories", body = MemoryList),
        (status = 404, description = "No such user", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn list(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<MemoryList>, ApiError> {
    let limit = params.integer("limit", 50, 1..=1000)?;
    let owner = api.owner(&user, params.get("user_id")).await.map_err(ApiError::as_message)?;
    let found = api.store.memories(&owner.id, limit).await.map_err(ApiError::as_message)?;
    let total_count = api.store.memory_count(&owner.id).await.map_err(ApiError::as_message)?;
    let memories: Vec<_> = found.into_iter().map(|m| entry(m, &owner.email, None)).collect();
    Ok(Json(MemoryList { count: memories.len(), memories, total_count, user_id: owner.id }))
}

/// A user's memories, newest first, as the original's list without a filter.
#[utoipa::path(get, path = "/api/memories/unfiltered", tag = "memories",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000),
        ("user_id" = Option<String>, Query, description = "Whose, for administrators"),
    ),
    responses(
        (status = 200, description = "The memories", body = UnfilteredMemories),
        (status = 404, description = "No such user", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn unfiltered(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<UnfilteredMemories>, ApiError> {
    let limit = params.integer("limit", 50, 1..=1000)?;
    let owner = api.owner(&user, params.get("user_id")).await.map_err(ApiError::as_message)?;
    let found = api.store.memories(&owner.id, limit).await.map_err(ApiError::as_message)?;
    let memories: Vec<_> = found.into_iter().map(|m| entry(m, &owner.email, None)).collect();
    Ok(Json(UnfilteredMemories {
        count: memories.len(),
        memories,
        user_id: owner.id,
        includes_fallback: true,
    }))
}

/// A user's memories, newest first, each with the transcript it came from.
#[utoipa::path(get, path = "/api/memories/with-transcripts", tag = "memories",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000),
        ("user_id" = Option<String>, Query, description = "Whose, for administrators"),
    ),
    responses(
        (status = 200, description = "The memories", body = MemoriesWithTranscripts),
        (status = 404, description = "No such user", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn with_transcripts(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<MemoriesWithTranscripts>, ApiError> {
    let limit = params.integer("limit", 50, 1..=1000)?;
    let owner = api.owner(&user, params.get("user_id")).await.map_err(ApiError::as_message)?;
    let found = api.store.memories(&owner.id, limit).await.map_err(ApiError::as_message)?;
    let sources: HashSet<&ConversationId> =
        found.iter().filter_map(|memory| memory.conversation_id.as_ref()).collect();
    let sources: Vec<ConversationId> = sources.into_iter().cloned().collect();
    let transcripts = api.store.transcripts(&sources).await.map_err(ApiError::as_message)?;
    let memories: Vec<MemoryWithTranscript> = found
        .into_iter()
        .map(|memory| {
            let source = memory.conversation_id.as_ref();
            let transcript = source.and_then(|id| transcripts.get(id)).cloned();
            MemoryWithTranscript::of(memory, transcript, &owner.email)
        })
        .collect();
    Ok(Json(MemoriesWithTranscripts { count: memories.len(), memories, user_id: owner.id }))
}

impl MemoryWithTranscript {
    fn of(memory: Memory, transcript: Option<String>, user_email: &str) -> Self {
        let memory_length = memory.text.chars().count();
        let transcript_length = transcript.as_ref().map_or(0, |text| text.chars().count());
        Self {
            metadata: metadata(&memory, user_email),
            memory_id: memory.id,
            memory_text: memory.text,
            created_at: memory.created_at.to_rfc3339(),
            audio_uuid: memory.conversation_id,
            transcript,
            client_id: memory.client_id,
            user_email: user_email.to_owned(),
            compression_ratio: compression_ratio(memory_length, transcript_length),
            transcript_length,
            memory_length,
        }
    }
}

/// A user's memories that answer a question, best first.
#[utoipa::path(get, path = "/api/memories/search", tag = "memories",
    params(
        ("query" = String, Query, description = "The question; may be empty"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100),
        ("score_threshold" = Option<f32>, Query, minimum = 0, maximum = 1),
        ("user_id" = Option<String>, Query, description = "Whose, for administrators"),
    ),
    responses(
        (status = 200, description = "The memories", body = MemoryResults),
        (status = 404, description = "No such user", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn search(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<MemoryResults>, ApiError> {
    let query = params.required("query")?;
    let limit = params.integer("limit", 20, 1..=100)?;
    let threshold = params.float("score_threshold", 0.0, 0.0..=1.0)?;
    let owner = api.owner(&user, params.get("user_id")).await.map_err(ApiError::as_message)?;
    let found = api
        .recall
        .search(&owner.id, query, limit, threshold)
        .await
        .map_err(ApiError::as_message)?;
    let results: Vec<_> = found
        .into_iter()
        .map(|found| entry(found.memory, &owner.email, Some(found.score)))
        .collect();
    Ok(Json(MemoryResults {
        query: query.to_owned(),
        count: results.len(),
        results,
        user_id: owner.id,
    }))
}

/// Forgets a memory.
#[utoipa::path(delete, path = "/api/memories/{id}", tag = "memories",
    responses(
        (status = 200, description = "It is forgotten", body = MessageText),
        (status = 404, description = "No such memory", body = MessageText),
    ))]
async fn remove(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<MessageText>, ApiError> {
    let id = MemoryId::from_text(id);
    let found = api.store.memory(&id).await.map_err(ApiError::as_message)?;
    let mine = found.is_some_and(|memory| may_see(&user, &memory.user_id));
    let now = api.clock.now();
    if !mine || !api.store.delete_memory(&id, now).await.map_err(ApiError::as_message)? {
        return Err(ApiError::message(StatusCode::NOT_FOUND, "Memory not found"));
    }
    api.auth.audit(Some(&user.id), "memory-deleted", id.as_str()).await;
    Ok(Json(MessageText { message: format!("Memory {id} deleted successfully") }))
}
