//! Memories.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::domain::ids::MemoryId;
use crate::domain::memory::Memory;
use crate::domain::user::User;
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::ApiError;
use crate::http::params::Params;

/// A user's memories, newest first.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let limit = params.integer("limit", 50, 1..=1000)?;
    let owner = api.owner(&user, params.get("user_id")).await.map_err(ApiError::as_message)?;
    let found = api.store.memories(&owner.id, limit).await.map_err(ApiError::as_message)?;
    let total = api.store.memory_count(&owner.id).await.map_err(ApiError::as_message)?;
    let memories: Vec<Value> = found.iter().map(|memory| entry(memory, &owner)).collect();
    Ok(Json(json!({
        "count": memories.len(),
        "memories": memories,
        "total_count": total,
        "user_id": owner.id,
    })))
}

/// A user's memories that answer a question, best first.
pub(super) async fn search(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let query = params.required("query")?;
    let limit = params.integer("limit", 20, 1..=100)?;
    let threshold = params.float("score_threshold", 0.0, 0.0..=1.0)?;
    let owner = api.owner(&user, params.get("user_id")).await.map_err(ApiError::as_message)?;
    let found = api
        .recall
        .search(&owner.id, query, limit, threshold)
        .await
        .map_err(ApiError::as_message)?;
    let results: Vec<Value> = found
        .iter()
        .map(|scored| {
            let mut result = entry(&scored.memory, &owner);
            result["score"] = json!(scored.score);
            result
        })
        .collect();
    Ok(Json(json!({
        "query": query,
        "count": results.len(),
        "results": results,
        "user_id": owner.id,
    })))
}

/// Forgets a memory.
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = MemoryId::from_text(id);
    let found = api.store.memory(&id).await.map_err(ApiError::as_message)?;
    let mine = found.is_some_and(|memory| may_see(&user, &memory.user_id));
    let now = api.clock.now();
    if !mine || !api.store.delete_memory(&id, now).await.map_err(ApiError::as_message)? {
        return Err(ApiError::message(StatusCode::NOT_FOUND, "Memory not found"));
    }
    api.auth.audit(Some(&user.id), "memory-deleted", id.as_str()).await;
    Ok(Json(json!({ "message": format!("Memory {id} deleted successfully") })))
}

/// The fields of both versions of the original, where they do not collide.
fn entry(memory: &Memory, owner: &User) -> Value {
    json!({
        "id": memory.id,
        "memory": memory.text,
        "created_at": memory.created_at.to_rfc3339(),
        "updated_at": memory.updated_at.to_rfc3339(),
        "user_id": memory.user_id,
        "metadata": {
            "source": "offline_streaming",
            "client_id": memory.client_id,
            "audio_uuid": memory.conversation_id,
            "source_id": memory.conversation_id,
            "user_id": memory.user_id,
            "user_email": owner.email,
            "timestamp": memory.created_at.seconds(),
            "prompt_version": memory.prompt_version,
        },
    })
}
