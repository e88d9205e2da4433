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

use axum::extract::{DefaultBodyLimit, Extension};
use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;

use super::api::Api;
use super::{error, openapi, request_id};

/// The largest body of a request that is not an upload, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The documented routes of each file; [`openapi`] says how to add one.
fn resources() -> Vec<OpenApiRouter<Arc<Api>>> {
    vec![
        openapi::routes(),
        system::routes(),
        login::routes(),
        users::routes(),
        clients::routes(),
        conversations::routes(),
        memories::routes(),
        audio::routes(),
    ]
}

/// All routes over `api`.
pub fn router(api: Arc<Api>) -> Router {
    let documented = resources().into_iter().fold(openapi::base(), OpenApiRouter::merge);
    let (router, document) = documented.split_for_parts();
    router
        // WebSockets, for which OpenAPI has no words.
        .merge(stream::routes())
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(Extension(openapi::render(&document)))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(request_id::tag))
        .with_state(api)
}

#[cfg(test)]
mod tests;
