//! Connected devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::error::Result;
use crate::domain::client::{ClientView, CurrentConversation};
use crate::domain::conversation::WindowState;
use crate::domain::ids::{ClientId, ConversationId, UserId};
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, ErrorText};
use crate::http::openapi::at;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(active))
        .routes(at("/api/active_clients", routes!(active)))
        .routes(routes!(close))
}

/// Connected devices, in the shape of the original and in that of its manual.
#[derive(Serialize, ToSchema)]
struct ActiveClients {
    active_clients: Vec<ActiveClient>,
    clients: Vec<ActiveClient>,
    active_clients_count: usize,
    total_count: usize,
}

/// A connected device.
#[derive(Clone, Serialize, ToSchema)]
struct ActiveClient {
    client_id: ClientId,
    user_id: UserId,
    /// The name the device gave.
    device_name: Option<String>,
    /// Always true.
    connected: bool,
    /// RFC 3339.
    connected_at: String,
    /// RFC 3339.
    last_audio_at: Option<String>,
    /// The conversation that is being recorded.
    current_audio_uuid: Option<ConversationId>,
    has_active_conversation: bool,
    /// Seconds since the Unix epoch; of the connection where there is no
    /// conversation.
    conversation_start_time: f64,
    /// Conversations since it connected, the current one included.
    conversation_count: u32,
    /// Stretches of the current conversation that are transcribed.
    conversation_transcripts_count: usize,
    /// When the last transcribed words were spoken, in seconds since the Unix
    /// epoch.
    last_transcript_time: Option<f64>,
}

/// The caller's connected devices; an administrator sees all.
#[utoipa::path(get, path = "/api/clients/active", tag = "clients",
    responses((status = 200, description = "The devices", body = ActiveClients)))]
async fn active(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<ActiveClients>, ApiError> {
    let owner = (!user.is_superuser).then_some(&user.id);
    let mut clients = Vec::new();
    for client in api.ingest.clients_everywhere(owner).await? {
        let transcripts = Transcripts::of(&api, client.conversation.as_ref()).await?;
        clients.push(entry(client, &transcripts));
    }
    let count = clients.len();
    Ok(Json(ActiveClients {
        active_clients: clients.clone(),
        clients,
        active_clients_count: count,
        total_count: count,
    }))
}

/// How far the open conversation of a device has been transcribed.
#[derive(Default)]
struct Transcripts {
    count: usize,
    /// When the last words were spoken, in seconds since the Unix epoch.
    last: Option<f64>,
}

impl Transcripts {
    async fn of(api: &Api, conversation: Option<&CurrentConversation>) -> Result<Self> {
        let Some(conversation) = conversation else { return Ok(Self::default()) };
        let windows = api.store.windows(&conversation.id).await?;
        let done = windows.iter().filter(|window| window.state == WindowState::Done);
        let last = done.clone().flat_map(|window| &window.segments).next_back();
        let began = conversation.started_at.seconds_f64();
        Ok(Self { count: done.count(), last: last.map(|segment| began + segment.end) })
    }
}

fn entry(client: ClientView, transcripts: &Transcripts) -> ActiveClient {
    let current = client.conversation;
    let started = current.as_ref().map_or(client.connected_at, |now| now.started_at);
    ActiveClient {
        client_id: client.client_id,
        user_id: client.user_id,
        device_name: client.device_name,
        connected: client.connected,
        connected_at: client.connected_at.to_rfc3339(),
        last_audio_at: client.last_audio_at.map(|at| at.to_rfc3339()),
        has_active_conversation: current.is_some(),
        current_audio_uuid: current.map(|conversation| conversation.id),
        conversation_start_time: started.seconds_f64(),
        conversation_count: client.conversation_count,
        conversation_transcripts_count: transcripts.count,
        last_transcript_time: transcripts.last,
    }
}

/// A conversation that was closed.
#[derive(Serialize, ToSchema)]
struct Closed {
    message: String,
    client_id: ClientId,
    conversation_id: ConversationId,
    /// Seconds since the Unix epoch.
    timestamp: i64,
}

/// Why a conversation may not be closed.
#[derive(Serialize, ToSchema)]
struct NotYours {
    error: String,
    details: String,
}

/// Ends the open conversation of a device.
#[utoipa::path(post, path = "/api/conversations/{client_id}/close", tag = "clients",
    responses(
        (status = 200, description = "It is closed", body = Closed),
        (status = 400, description = "It has no open conversation", body = ErrorText),
        (status = 403, description = "Another user's device", body = NotYours),
        (status = 404, description = "Not connected", body = ErrorText),
        (status = 503, description = "Asked of another daemon, which has not done it yet",
         body = ErrorText),
    ))]
async fn close(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(client_id): Path<String>,
) -> Result<Json<Closed>, ApiError> {
    let client_id = ClientId::from_text(client_id);
    let client = api.ingest.client_anywhere(&client_id).await?;
    if client.is_some_and(|client| !may_see(&user, &client.user_id)) {
        let refusal = NotYours {
            error: "Access forbidden. You can only close your own conversations.".into(),
            details: format!("Client '{client_id}' does not belong to your account."),
        };
        return Err(ApiError::body(StatusCode::FORBIDDEN, json!(refusal)));
    }
    let conversation = api.ingest.close_anywhere(&client_id).await?;
    api.auth.audit(Some(&user.id), "conversation-closed", conversation.as_str()).await;
    Ok(Json(Closed {
        message: format!("Closed the conversation of client '{client_id}'"),
        client_id,
        conversation_id: conversation,
        timestamp: api.clock.now().seconds(),
    }))
}
