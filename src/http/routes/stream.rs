//! WebSockets that bring audio.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::extract::{Extension, FromRequest, MatchedPath, Request, State, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::base::error::{Error, Kind, Result};
use crate::base::paced::Pace;
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::auth::{normal_email, web_socket_user};
use crate::http::params::Params;
use crate::http::relay::pass_on;
use crate::http::server::Place;
use crate::ingest::ws::{self, Protocol};

/// Bytes read at a time: the library's 128 KiB are held by each idle stream.
const READ_BUFFER: usize = 4 * 1024;

/// The largest message, in bytes: 30 s of audio as one chunk.
const MAX_MESSAGE: usize = 1024 * 1024;

/// The time a refused client has to read why.
const FAREWELL: Duration = Duration::from_secs(2);

/// The routes of this file.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/ws_pcm", get(open))
        // What the phone app makes of a saved /ws_omi address.
        .route("/ws_omi/ws_pcm", get(open))
        .route("/ws_omi", get(open))
        .route("/ws", get(open))
}

/// Takes audio from a device. Wrong credentials are told on the open socket,
/// where clients can read it, and close it with 1008.
async fn open(
    State(api): State<Arc<Api>>,
    path: MatchedPath,
    connection: (Option<Extension<Place>>, Option<Extension<Pace>>),
    params: Params,
    mut request: Request,
) -> Response {
    let outcome = agreed(&api, path.as_str(), request.headers(), &params).await;
    let (place, pace) = connection;
    let pace = pace.map(|Extension(pace)| pace).unwrap_or_default();
    let device = match params.get("device_name") {
        // Old devices have no name, and are to be known again all the same.
        None if outcome.as_ref().is_ok_and(|(_, p)| *p == Protocol::LEGACY) => Some("legacy"),
        name => name,
    };
    let device = device.map(str::to_owned);
    if let Ok((user, _)) = &outcome
        && let Some(answer) = pass_on(&api, user, device.as_deref(), &mut request).await
    {
        pace.permit();
        return answer;
    }
    let upgrade = match WebSocketUpgrade::from_request(request, &()).await {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.into_response(),
    };
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
                    Ok((user, protocol)) => {
                        pace.permit();
                        ws::serve(socket, protocol, api.ingest.clone(), user, device).await;
                    }
                    Err(error) => refuse(socket, &error).await,
                }
                drop(place);
            });
        })
}

/// Who streams, and what.
async fn agreed(
    api: &Api,
    path: &str,
    headers: &HeaderMap,
    params: &Params,
) -> Result<(User, Protocol)> {
    let protocol = match (path, params.get("codec")) {
        ("/ws_omi", _) => Protocol::OMI,
        ("/ws", Some("pcm")) => Protocol::PCM,
        ("/ws", Some("opus")) => Protocol { greets: true, ..Protocol::OMI },
        ("/ws", Some(other)) => {
            let message = format!("codec `{other}` is not known; it is pcm or opus");
            return Err(Error::new(Kind::BadInput, message));
        }
        ("/ws", None) => return Ok((legacy_user(api).await?, Protocol::LEGACY)),
        _ => Protocol::PCM,
    };
    Ok((web_socket_user(api, headers, params.get("token")).await?, protocol))
}

/// The one user whom old devices, which cannot log in, stream to.
async fn legacy_user(api: &Api) -> Result<User> {
    let refused = |message| Error::new(Kind::Unauthorized, message);
    let email = &api.config.server.legacy_user;
    if email.is_empty() {
        return Err(refused(
            "/ws has no login and is switched off: use /ws_omi, or set server.legacy_user",
        ));
    }
    let user = api.store.user_by_email(&normal_email(email)).await?;
    user.filter(|user| user.is_active)
        .ok_or_else(|| refused("the user that server.legacy_user names cannot log in"))
}

/// Says why, closes, and waits a little for the client to have read it.
async fn refuse(mut socket: WebSocket, error: &Error) {
    let (kind, message, code, reason) = match error.kind() {
        Kind::Unauthorized => {
            let reason = "Authentication failed";
            ("authentication_failed", error.message(), close_code::POLICY, reason)
        }
        Kind::BadInput => ("unsupported", error.message(), close_code::POLICY, "Unsupported codec"),
        _ => {
            tracing::error!("cannot check a login: {}", error.report());
            let message = "logins cannot be checked at the moment";
            ("unavailable", message, close_code::AGAIN, "Try again later")
        }
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
