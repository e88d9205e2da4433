//! Connected devices, in the shape that the original has of its streams.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{queue_of, visible};
use crate::base::clock::Timestamp;
use crate::domain::client::ClientView;
use crate::domain::ids::{ClientId, UserId};
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::auth::{CurrentUser, Superuser};
use crate::http::error::{ApiError, ValidationError};
use crate::http::openapi::at;
use crate::http::params::Params;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(sessions))
        .routes(routes!(clear_sessions))
        .routes(at("/api/streaming/cleanup", routes!(clear_sessions)))
        .routes(at("/api/streaming/cleanup-sessions", routes!(clear_sessions)))
        .routes(routes!(streams))
        .routes(routes!(status))
}

/// Connected devices, as sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamSessions {
    total_sessions: usize,
    sessions: Vec<StreamSession>,
}

impl StreamSessions {
    pub(super) fn new(sessions: Vec<StreamSession>) -> Self {
        Self { total_sessions: sessions.len(), sessions }
    }
}

/// A connected device.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamSession {
    /// The client id.
    session_id: String,
    user_id: UserId,
    client_id: ClientId,
    stream_name: String,
    provider: &'static str,
    /// Always `streaming`.
    mode: &'static str,
    /// `active` while a conversation is being recorded, else `idle`.
    status: &'static str,
    /// Seconds since the Unix epoch.
    started_at: f64,
    /// Windows cut from the current conversation.
    chunks_published: u32,
    /// Seconds since the Unix epoch.
    last_chunk_at: Option<f64>,
    conversation_count: u32,
}

impl StreamSession {
    fn new(client: ClientView) -> Self {
        Self {
            session_id: client.client_id.to_string(),
            stream_name: format!("audio:stream:{}", client.client_id),
            user_id: client.user_id,
            client_id: client.client_id,
            provider: "whisper",
            mode: "streaming",
            status: if client.conversation.is_some() { "active" } else { "idle" },
            started_at: client.connected_at.seconds_f64(),
            chunks_published: client.conversation.map_or(0, |conversation| conversation.windows),
            last_chunk_at: client.last_audio_at.map(Timestamp::seconds_f64),
            conversation_count: client.conversation_count,
        }
    }

    pub(super) async fn of(api: &Api, user: &User) -> Result<Vec<Self>, ApiError> {
        let clients = api.ingest.clients_everywhere(visible(user).as_ref()).await?;
        Ok(clients.into_iter().map(Self::new).collect())
    }
}

/// Connected devices, as sessions.
#[utoipa::path(get, path = "/api/queue/sessions", tag = "queue",
    responses((status = 200, description = "The sessions", body = StreamSessions)))]
async fn sessions(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<StreamSessions>, ApiError> {
    Ok(Json(StreamSessions::new(StreamSession::of(&api, &user).await?)))
}

/// What was cleared.
#[derive(Serialize, ToSchema)]
struct SessionsCleared {
    cleared_count: usize,
    message: &'static str,
}

/// Clears nothing: a session ends with its connection, and leaves nothing.
#[utoipa::path(post, path = "/api/queue/sessions/clear", tag = "queue",
    params(("older_than_seconds" = Option<usize>, Query, minimum = 0, maximum = 1_000_000_000)),
    responses(
        (status = 200, description = "There was nothing to clear", body = SessionsCleared),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn clear_sessions(
    _admin: Superuser,
    params: Params,
) -> Result<Json<SessionsCleared>, ApiError> {
    params.integer("older_than_seconds", 3600, 0..=1_000_000_000)?;
    let message = "Sessions end with their connections; none are left over";
    Ok(Json(SessionsCleared { cleared_count: 0, message }))
}

/// Audio streams.
#[derive(Serialize, ToSchema)]
struct Streams {
    total_streams: usize,
    streams: Vec<StreamSession>,
    /// Always false: all are shown.
    limited: bool,
}

/// Audio streams: one for each connected device.
#[utoipa::path(get, path = "/api/queue/streams", tag = "queue",
    responses((status = 200, description = "The streams", body = Streams)))]
async fn streams(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<Streams>, ApiError> {
    let streams = StreamSession::of(&api, &user).await?;
    Ok(Json(Streams { total_streams: streams.len(), streams, limited: false }))
}

/// How streaming is.
#[derive(Serialize, ToSchema)]
struct StreamingStatus {
    active_sessions: Vec<StreamSession>,
    /// Always empty: a session ends with its connection, and leaves nothing.
    completed_sessions: Vec<StreamSession>,
    /// Jobs by queue and state.
    queues: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Seconds since the Unix epoch.
    timestamp: f64,
}

/// How streaming is: the connected devices, and what waits for the models.
#[utoipa::path(get, path = "/api/streaming/status", tag = "queue",
    responses((status = 200, description = "How it is", body = StreamingStatus)))]
async fn status(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<StreamingStatus>, ApiError> {
    let mut queues: BTreeMap<_, BTreeMap<_, u64>> = BTreeMap::new();
    for census in api.store.job_census(visible(&user).as_ref()).await? {
        let queue = queues.entry(queue_of(census.kind)).or_default();
        *queue.entry(census.state.as_str()).or_default() += census.jobs;
    }
    Ok(Json(StreamingStatus {
        active_sessions: StreamSession::of(&api, &user).await?,
        completed_sessions: Vec::new(),
        queues,
        timestamp: api.clock.now().seconds_f64(),
    }))
}
