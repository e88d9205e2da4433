//! Memories.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::ids::{ClientId, ConversationId, MemoryId, UserId};
use crate::domain::memory::Memory;
use crate::domain::user::User;
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, MessageText, ValidationError};
use crate::http::params::Params;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(search)).routes(routes!(remove))
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

/// A memory, with the fields of both versions of the original where they do not
/// collide.
#[derive(Serialize, ToSchema)]
struct MemoryEntry {
    id: MemoryId,
    /// The fact, one sentence.
    memory: String,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
    user_id: UserId,
    metadata: MemoryMetadata,
    /// How well it answers, 0 to 1; only in a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
}

/// Where a memory comes from.
#[derive(Serialize, ToSchema)]
struct MemoryMetadata {
    source: &'static str,
    client_id: Option<ClientId>,
    audio_uuid: Option<ConversationId>,
    source_id: Option<ConversationId>,
    user_id: UserId,
    user_email: String,
    /// Seconds since the Unix epoch.
    timestamp: i64,
    prompt_version: String,
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
    let memories: Vec<_> = found.into_iter().map(|m| entry(m, &owner, None)).collect();
    Ok(Json(MemoryList { count: memories.len(), memories, total_count, user_id: owner.id }))
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
    let results: Vec<_> =
        found.into_iter().map(|found| entry(found.memory, &owner, Some(found.score))).collect();
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

fn entry(memory: Memory, owner: &User, score: Option<f32>) -> MemoryEntry {
    MemoryEntry {
        id: memory.id,
        memory: memory.text,
        created_at: memory.created_at.to_rfc3339(),
        updated_at: memory.updated_at.to_rfc3339(),
        user_id: memory.user_id.clone(),
        metadata: MemoryMetadata {
            source: "offline_streaming",
            client_id: memory.client_id,
            audio_uuid: memory.conversation_id.clone(),
            source_id: memory.conversation_id,
            user_id: memory.user_id,
            user_email: owner.email.clone(),
            timestamp: memory.created_at.seconds(),
            prompt_version: memory.prompt_version,
        },
        score,
    }
}
