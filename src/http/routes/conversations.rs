//! Conversations with their transcripts.

mod change;
mod live;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::view::{ConversationEntry, ConversationFull, Cropped, Shown, Versions};
use crate::domain::conversation::Conversation;
use crate::domain::ids::{ClientId, ConversationId};
use crate::domain::user::User;
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, ErrorText, ValidationError};
use crate::http::params::Params;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(one, remove))
        .routes(routes!(cropped))
        .routes(routes!(versions))
        .merge(change::routes())
        .merge(live::routes())
}

/// Conversations, newest first.
#[derive(Serialize, ToSchema)]
struct ConversationList {
    conversations: Conversations,
}

/// By client id, or flat with `?view=list`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Conversations {
    ByClient(BTreeMap<String, Vec<ConversationEntry>>),
    Flat(Vec<ConversationEntry>),
}

/// One conversation.
#[derive(Serialize, ToSchema)]
struct OneConversation {
    conversation: ConversationFull,
}

/// Conversations newest first: by client id as in the original, or flat with
/// `?view=list` as in its last version. An administrator sees everybody's, or
/// with `user_id` those of one user.
#[utoipa::path(get, path = "/api/conversations", tag = "conversations",
    params(
        ("view" = Option<String>, Query, description = "`list` for a flat list"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000),
        ("user_id" = Option<String>, Query, description = "Whose, for administrators"),
    ),
    responses(
        (status = 200, description = "The conversations", body = ConversationList),
        (status = 404, description = "No such user", body = ErrorText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn list(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<ConversationList>, ApiError> {
    let limit = params.integer("limit", 200, 1..=1000)?;
    let owner = match params.get("user_id") {
        None if user.is_superuser => None,
        wanted => Some(api.owner(&user, wanted).await?.id),
    };
    let found = api.store.conversations(owner.as_ref(), limit).await?;
    let entries = api
        .with_details(found, |conversation, details| Shown { conversation, details }.entry())
        .await?;
    let conversations = if params.get("view") == Some("list") {
        Conversations::Flat(entries)
    } else {
        let mut by_client: BTreeMap<String, Vec<ConversationEntry>> = BTreeMap::new();
        for entry in entries {
            by_client.entry(entry.client_id().to_string()).or_default().push(entry);
        }
        Conversations::ByClient(by_client)
    };
    Ok(Json(ConversationList { conversations }))
}

/// One conversation with everything that is known of it.
#[utoipa::path(get, path = "/api/conversations/{id}", tag = "conversations",
    responses(
        (status = 200, description = "The conversation", body = OneConversation),
        (status = 404, description = "No such conversation", body = ErrorText),
    ))]
async fn one(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<OneConversation>, ApiError> {
    let shown = Shown::load(&api, owned(&api, &user, id).await?).await?;
    let versions = Versions::load(&api, &shown).await?;
    Ok(Json(OneConversation { conversation: shown.full(versions) }))
}

/// The transcripts and sets of memories of a conversation; the active ones are
/// shown elsewhere.
#[utoipa::path(get, path = "/api/conversations/{id}/versions", tag = "conversations",
    responses(
        (status = 200, description = "The versions, oldest first", body = Versions),
        (status = 404, description = "No such conversation", body = ErrorText),
    ))]
async fn versions(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<Versions>, ApiError> {
    let shown = Shown::load(&api, owned(&api, &user, id).await?).await?;
    Ok(Json(Versions::load(&api, &shown).await?))
}

/// The speech of a conversation: where it is, and a recording of it alone.
#[utoipa::path(get, path = "/api/conversations/{id}/cropped", tag = "conversations",
    responses(
        (status = 200, description = "What there is of it", body = Cropped),
        (status = 404, description = "No such conversation", body = ErrorText),
    ))]
async fn cropped(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<Cropped>, ApiError> {
    let conversation = owned(&api, &user, id).await?;
    let crop = api.store.crop(&conversation.id).await?;
    Ok(Json(Cropped::of(&conversation, crop.as_ref())))
}

/// A conversation that was deleted.
#[derive(Serialize, ToSchema)]
struct DeletedConversation {
    message: String,
    deleted_files: Vec<String>,
    client_id: ClientId,
    conversation_id: ConversationId,
    /// Always true.
    conversation_deleted: bool,
    memories_deleted: u64,
}

/// Deletes a conversation with its recording, for good. One that is going on is
/// closed first.
#[utoipa::path(delete, path = "/api/conversations/{id}", tag = "conversations",
    params(("delete_memories" = Option<bool>, Query,
            description = "Forget what came from it too; false without it")),
    responses(
        (status = 200, description = "It is deleted", body = DeletedConversation),
        (status = 404, description = "No such conversation", body = ErrorText),
        (status = 409, description = "It cannot be closed now", body = ErrorText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn remove(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<DeletedConversation>, ApiError> {
    let memories = params.flag("delete_memories")?;
    let conversation = owned(&api, &user, id).await?;
    let deleted = api.deletion.conversation(&conversation.id, memories, Some(&user.id)).await?;
    Ok(Json(DeletedConversation {
        message: format!("Conversation {} deleted successfully", conversation.id),
        deleted_files: deleted.files,
        client_id: conversation.client_id,
        conversation_id: conversation.id,
        conversation_deleted: true,
        memories_deleted: deleted.memories,
    }))
}

/// The conversation of that id, if the caller may see it.
async fn owned(api: &Api, caller: &User, id: String) -> Result<Conversation, ApiError> {
    let found = api.store.conversation(&ConversationId::from_text(id)).await?;
    found
        .filter(|conversation| may_see(caller, &conversation.user_id))
        .ok_or_else(|| ApiError::error(StatusCode::NOT_FOUND, "Conversation not found"))
}
