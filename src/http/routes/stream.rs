//! WebSockets that bring audio.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::extract::{Extension, State, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use crate::base::error::{Error, Kind};
use crate::http::api::Api;
use crate::http::auth::web_socket_user;
use crate::http::params::Params;
use crate::http::server::Place;
use crate::ingest::ws;

/// Bytes read at a time: the library's 128 KiB are held by each idle stream.
const READ_BUFFER: usize = 8 * 1024;

/// The largest message, in bytes: 30 s of audio as one chunk.
const MAX_MESSAGE: usize = 1024 * 1024;

/// The time a refused client has to read why.
const FAREWELL: Duration = Duration::from_secs(2);

/// The routes of this file.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/ws_pcm", get(pcm))
        // What the phone app makes of a saved /ws_omi address.
        .route("/ws_omi/ws_pcm", get(pcm))
}

/// Takes PCM audio from a device. Wrong credentials are told on the open
/// socket, where clients can read it, and close it with 1008.
async fn pcm(
    State(api): State<Arc<Api>>,
    upgrade: WebSocketUpgrade,
    place: Option<Extension<Place>>,
    headers: HeaderMap,
    params: Params,
) -> Response {
    let outcome = web_socket_user(&api, &headers, params.get("token")).await;
    let device = params.get("device_name").map(str::to_owned);
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_MESSAGE)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(move |socket| async move {
            let supervisor = api.supervisor.clone();
            // A task of the supervisor, so that shutdown waits for its last words.
            supervisor.once(async move {
                match outcome {
                    Ok(user) => ws::serve(socket, api.ingest.clone(), user, device).await,
                    Err(error) => refuse(socket, &error).await,
                }
                drop(place);
            });
        })
}

/// Says why, closes, and waits a little for the client to have read it.
async fn refuse(mut socket: WebSocket, error: &Error) {
    let (kind, message, code, reason) = if error.kind() == Kind::Unauthorized {
        let reason = "Authentication failed";
        ("authentication_failed", error.message(), close_code::POLICY, reason)
    } else {
        tracing::error!("cannot check a login: {}", error.report());
        let reason = "Try again later";
        ("unavailable", "logins cannot be checked at the moment", close_code::AGAIN, reason)
    };
    let frame = json!({ "type": "error", "error": kind, "message": message, "code": code });
    let farewell = async {
        socket.send(Message::text(format!("{frame}\n"))).await?;
        let close = CloseFrame { code, reason: reason.into() };
        socket.send(Message::Close(Some(close))).await?;
        while socket.recv().await.transpose()?.is_some() {}
        Ok::<(), axum::Error>(())
    };
    // A client that goes before it has heard has lost nothing.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}
