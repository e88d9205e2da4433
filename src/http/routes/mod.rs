//! The routes, one file a resource.

mod audio;
mod clients;
mod conversations;
mod login;
mod memories;
mod range;
mod stream;
mod system;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post};

use super::api::Api;
use super::{error, request_id};

/// The largest body of a request that is not an upload, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// All routes over `api`.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", get(system::page))
        .route("/health", get(system::health))
        .route("/api/health", get(system::health))
        .route("/readiness", get(system::readiness))
        .route("/auth/jwt/login", post(login::login))
        .route("/auth/jwt/logout", post(login::logout))
        .route("/api/auth/config", get(login::config))
        .route("/users/me", get(users::me))
        .route("/api/clients/active", get(clients::active))
        .route("/api/active_clients", get(clients::active))
        .route("/api/conversations", get(conversations::list))
        .route("/api/conversations/{id}", get(conversations::one))
        .route("/api/conversations/{id}/close", post(clients::close))
        .route("/api/memories", get(memories::list))
        .route("/api/memories/search", get(memories::search))
        .route("/api/memories/{id}", delete(memories::remove))
        .route("/audio/", get(audio::root))
        .route("/audio/{file}", get(audio::file))
        .route("/ws_pcm", get(stream::pcm))
        // What the phone app makes of a saved /ws_omi address.
        .route("/ws_omi/ws_pcm", get(stream::pcm))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(request_id::tag))
        .with_state(api)
}

#[cfg(test)]
mod tests;
