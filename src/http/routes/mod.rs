//! The routes, one file a resource.

mod audio;
mod chat;
mod clients;
mod conversations;
mod coverage;
mod debug;
mod front;
mod graph;
mod login;
mod memories;
mod metrics;
mod openai;
mod processor;
mod queue;
mod range;
mod speakers;
mod status;
mod stream;
mod system;
mod uploads;
mod users;
mod webhook;

pub(super) use system::verdict;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Extension};
use axum::{Router, middleware};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;

use super::api::Api;
use super::auth::Origins;
use super::{error, openapi, request_id};

/// The largest body of a request that is not an upload, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// How long a browser remembers that a page may use the API.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// The documented routes of each file; [`openapi`] says how to add one.
fn resources() -> Vec<OpenApiRouter<Arc<Api>>> {
    vec![
        openapi::routes(),
        front::routes(),
        system::routes(),
        status::routes(),
        login::routes(),
        users::routes(),
        clients::routes(),
        conversations::routes(),
        coverage::routes(),
        memories::routes(),
        graph::routes(),
        debug::routes(),
        chat::routes(),
        audio::routes(),
        queue::routes(),
        processor::routes(),
        speakers::routes(),
        metrics::routes(),
        webhook::routes(),
        uploads::routes(),
        openai::routes(),
    ]
}

/// All routes over `api`.
pub fn router(api: Arc<Api>) -> Router {
    let documented = resources().into_iter().fold(openapi::base(), OpenApiRouter::merge);
    let (router, document) = documented.split_for_parts();
    let origins = cors(api.auth.origins().clone());
    router
        // WebSockets, for which OpenAPI has no words.
        .merge(stream::routes())
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(Extension(openapi::render(&document)))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(api.clock.clone(), request_id::tag))
        // Outermost, since a browser asks before it sends what a route sees.
        .layer(tower::util::option_layer(origins))
        .with_state(api)
}

/// Lets pages of `origins` use the API with the cookie of whoever is logged in.
fn cors(origins: Origins) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_credentials(true)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(CORS_MAX_AGE);
    Some(layer.allow_origin(AllowOrigin::predicate(move |origin, _| origins.allow(origin))))
}

#[cfg(test)]
mod tests;
