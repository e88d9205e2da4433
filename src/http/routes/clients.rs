//! Connected devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::domain::ids::ClientId;
use crate::http::api::{Api, ClientStatus, CloseOutcome, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::ApiError;

/// The caller's connected devices; an administrator sees all.
pub(super) async fn active(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Json<Value> {
    let mut clients = api.live.clients();
    clients.retain(|client| may_see(&user, &client.user_id));
    clients.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    let clients: Vec<Value> = clients.iter().map(entry).collect();
    let count = clients.len();
    Json(json!({
        "active_clients": clients.clone(),
        "clients": clients,
        "active_clients_count": count,
        "total_count": count,
    }))
}

fn entry(client: &ClientStatus) -> Value {
    let started = client.conversation_start.unwrap_or(client.connected_at);
    json!({
        "client_id": client.client_id,
        "user_id": client.user_id,
        "device_name": client.device,
        "connected": true,
        "connected_at": client.connected_at.to_rfc3339(),
        "current_audio_uuid": client.current_conversation,
        "has_active_conversation": client.current_conversation.is_some(),
        "conversation_start_time": started.seconds_f64(),
        "conversation_count": client.conversation_count,
        "conversation_transcripts_count": client.transcripts_count,
        "last_transcript_time": client.last_transcript_at.map(|at| at.seconds_f64()),
    })
}

/// Ends the open conversation of a device.
pub(super) async fn close(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(client_id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let client_id = ClientId::from_text(client_id);
    let gone = || {
        let text = format!("Client '{client_id}' not found or not connected");
        ApiError::error(StatusCode::NOT_FOUND, text)
    };
    let clients = api.live.clients();
    let client = clients.iter().find(|client| client.client_id == client_id).ok_or_else(gone)?;
    if !may_see(&user, &client.user_id) {
        let body = json!({
            "error": "Access forbidden. You can only close your own conversations.",
            "details": format!("Client '{client_id}' does not belong to your account."),
        });
        return Err(ApiError::body(StatusCode::FORBIDDEN, body));
    }
    match api.live.close(&client_id).await? {
        CloseOutcome::Closed(conversation) => {
            api.auth.audit(Some(&user.id), "conversation-closed", conversation.as_str()).await;
            Ok(Json(json!({
                "message": format!("Closed the conversation of client '{client_id}'"),
                "client_id": client_id,
                "conversation_id": conversation,
                "timestamp": api.clock.now().seconds(),
            })))
        }
        CloseOutcome::NoConversation => {
            let text = format!("Client '{client_id}' has no open conversation");
            Err(ApiError::error(StatusCode::BAD_REQUEST, text))
        }
        CloseOutcome::NotConnected => Err(gone()),
    }
}
