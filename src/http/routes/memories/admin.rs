//! The memories of everybody, for administrators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::view::{MemoryEntry, entry};
use crate::base::error::Result;
use crate::domain::conversation::Progress;
use crate::domain::ids::{ClientId, UserId};
use crate::http::api::Api;
use crate::http::auth::Superuser;
use crate::http::error::{ApiError, MessageText, ValidationError};
use crate::http::openapi::at;
use crate::http::params::Params;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(all))
        .routes(at("/api/admin/memories", routes!(all)))
        .routes(routes!(debug))
        .routes(routes!(remove_all))
}

/// Memories of everybody.
#[derive(Serialize, ToSchema)]
struct AllMemories {
    /// Newest first.
    memories: Vec<MemoryEntry>,
    /// The same by user id.
    user_memories: BTreeMap<String, Vec<MemoryEntry>>,
    stats: MemoryStats,
    /// Users who have memories here.
    total_users: usize,
    /// In this answer.
    total_memories: usize,
    limit: usize,
}

/// What is among the memories of an answer.
#[derive(Serialize, ToSchema)]
struct MemoryStats {
    total_memories: usize,
    total_users: usize,
    /// Always true: what was done is in the database.
    debug_tracker_initialized: bool,
    users_with_memories: Vec<UserId>,
    client_ids_with_memories: Vec<ClientId>,
}

/// The memories of everybody, newest first, and by user.
#[utoipa::path(get, path = "/api/memories/admin", tag = "memories",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000),
        ("user_id" = Option<String>, Query, description = "Of one user only"),
    ),
    responses(
        (status = 200, description = "The memories", body = AllMemories),
        (status = 404, description = "No such user", body = MessageText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn all(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    params: Params,
) -> Result<Json<AllMemories>, ApiError> {
    let limit = params.integer("limit", 200, 1..=1000)?;
    let memories = match params.get("user_id") {
        Some(wanted) => {
            let owner = api.owner(&admin, Some(wanted)).await.map_err(ApiError::as_message)?;
            api.store.memories(&owner.id, limit).await
        }
        None => api.store.all_memories(limit).await,
    };
    let memories = memories.map_err(ApiError::as_message)?;
    let emails = emails(&api).await.map_err(ApiError::as_message)?;
    let clients: BTreeSet<ClientId> =
        memories.iter().filter_map(|memory| memory.client_id.clone()).collect();
    let mut flat = Vec::with_capacity(memories.len());
    let mut by_user: BTreeMap<String, Vec<MemoryEntry>> = BTreeMap::new();
    for memory in memories {
        let user = memory.user_id.clone();
        let email = emails.get(&user).map_or("", String::as_str);
        let entry = entry(memory, email, None);
        by_user.entry(user.to_string()).or_default().push(entry.clone());
        flat.push(entry);
    }
    let stats = MemoryStats {
        total_memories: flat.len(),
        total_users: by_user.len(),
        debug_tracker_initialized: true,
        users_with_memories: by_user.keys().map(UserId::from_text).collect(),
        client_ids_with_memories: clients.into_iter().collect(),
    };
    Ok(Json(AllMemories {
        total_users: by_user.len(),
        total_memories: flat.len(),
        memories: flat,
        user_memories: by_user,
        stats,
        limit,
    }))
}

/// How memory stands, user by user.
#[derive(Serialize, ToSchema)]
struct MemoryDebug {
    users: Vec<UserMemory>,
    total_users: usize,
    total_memories: u64,
    /// Always true: what was done is in the database.
    debug_tracker_initialized: bool,
}

/// How memory stands for one user.
#[derive(Serialize, ToSchema)]
struct UserMemory {
    user_id: UserId,
    user_email: String,
    memory_count: u64,
    /// Conversations, the latest thousand.
    conversations: usize,
    /// Of those, how many are waiting to be remembered.
    pending: usize,
    /// Of those, how many could not be.
    failed: usize,
}

/// How memory stands for every user, in figures.
#[utoipa::path(get, path = "/api/admin/memories/debug", tag = "memories",
    responses((status = 200, description = "The figures", body = MemoryDebug)))]
async fn debug(
    State(api): State<Arc<Api>>,
    Superuser(_admin): Superuser,
) -> Result<Json<MemoryDebug>, ApiError> {
    let mut users = Vec::new();
    for user in api.store.users().await.map_err(ApiError::as_message)? {
        let conversations = api.store.conversations(Some(&user.id), 1_000).await;
        let conversations = conversations.map_err(ApiError::as_message)?;
        let count = |state| conversations.iter().filter(|c| c.memory == state).count();
        users.push(UserMemory {
            memory_count: api.store.memory_count(&user.id).await.map_err(ApiError::as_message)?,
            conversations: conversations.len(),
            pending: count(Progress::Pending),
            failed: count(Progress::Failed),
            user_id: user.id,
            user_email: user.email,
        });
    }
    Ok(Json(MemoryDebug {
        total_users: users.len(),
        total_memories: users.iter().map(|user| user.memory_count).sum(),
        debug_tracker_initialized: true,
        users,
    }))
}

/// How much was forgotten.
#[derive(Serialize, ToSchema)]
struct ForgottenMemories {
    message: String,
    deleted_count: u64,
    user_id: UserId,
    user_email: String,
}

/// Forgets all memories of the caller, or of the user of `user_id`, for good.
#[utoipa::path(delete, path = "/api/admin/memory/delete-all", tag = "memories",
    params(("user_id" = Option<String>, Query, description = "Whose; the caller's without it")),
    responses(
        (status = 200, description = "They are forgotten", body = ForgottenMemories),
        (status = 404, description = "No such user", body = MessageText),
    ))]
async fn remove_all(
    State(api): State<Arc<Api>>,
    Superuser(admin): Superuser,
    params: Params,
) -> Result<Json<ForgottenMemories>, ApiError> {
    let owner = api.owner(&admin, params.get("user_id")).await.map_err(ApiError::as_message)?;
    let now = api.clock.now();
    let deleted = api.store.delete_memories(&owner.id, now).await;
    let deleted_count = deleted.map_err(ApiError::as_message)? as u64;
    api.auth.audit(Some(&admin.id), "memories-deleted", owner.id.as_str()).await;
    Ok(Json(ForgottenMemories {
        message: format!("Deleted {deleted_count} memories of {}", owner.email),
        deleted_count,
        user_id: owner.id,
        user_email: owner.email,
    }))
}

/// The address of every user.
async fn emails(api: &Api) -> Result<BTreeMap<UserId, String>> {
    let users = api.store.users().await?;
    Ok(users.into_iter().map(|user| (user.id, user.email)).collect())
}
