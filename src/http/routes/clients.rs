//! Connected devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::base::error::Result;
use crate::domain::conversation::WindowState;
use crate::domain::ids::ClientId;
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::ApiError;
use crate::ingest::clients::{ClientView, CurrentConversation};

/// The caller's connected devices; an administrator sees all.
pub(super) async fn active(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<Value>, ApiError> {
    let owner = (!user.is_superuser).then_some(&user.id);
    let mut clients = Vec::new();
    for client in api.ingest.clients().list(owner) {
        let transcripts = Transcripts::of(&api, client.conversation.as_ref()).await?;
        clients.push(entry(&client, &transcripts));
    }
    let count = clients.len();
    Ok(Json(json!({
        "active_clients": clients.clone(),
        "clients": clients,
        "active_clients_count": count,
        "total_count": count,
    })))
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

fn entry(client: &ClientView, transcripts: &Transcripts) -> Value {
    let current = client.conversation.as_ref();
    let started = current.map_or(client.connected_at, |conversation| conversation.started_at);
    json!({
        "client_id": client.client_id,
        "user_id": client.user_id,
        "device_name": client.device_name,
        "connected": true,
        "connected_at": client.connected_at.to_rfc3339(),
        "last_audio_at": client.last_audio_at.map(|at| at.to_rfc3339()),
        "current_audio_uuid": current.map(|conversation| &conversation.id),
        "has_active_conversation": current.is_some(),
        "conversation_start_time": started.seconds_f64(),
        "conversation_count": client.conversation_count,
        "conversation_transcripts_count": transcripts.count,
        "last_transcript_time": transcripts.last,
    })
}

/// Ends the open conversation of a device.
pub(super) async fn close(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(client_id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let client_id = ClientId::from_text(client_id);
    let clients = api.ingest.clients();
    if clients.get(&client_id).is_some_and(|client| !may_see(&user, &client.user_id)) {
        let body = json!({
            "error": "Access forbidden. You can only close your own conversations.",
            "details": format!("Client '{client_id}' does not belong to your account."),
        });
        return Err(ApiError::body(StatusCode::FORBIDDEN, body));
    }
    let conversation = clients.close_conversation(&client_id).await?;
    api.auth.audit(Some(&user.id), "conversation-closed", conversation.as_str()).await;
    Ok(Json(json!({
        "message": format!("Closed the conversation of client '{client_id}'"),
        "client_id": client_id,
        "conversation_id": conversation,
        "timestamp": api.clock.now().seconds(),
    })))
}
