//! A number for each request, and the headers every answer carries.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::error::Cause;
use crate::base::clock::Clock;
use crate::base::error::Kind;
use crate::base::metrics;

/// Tags the answer with `x-request-id` and logs a failure under the same
/// number. The query is never logged: it can hold a token.
pub(super) async fn tag(State(clock): State<Clock>, request: Request, next: Next) -> Response {
    let id = format!("{:016x}", rand::random::<u64>());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();

    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let began = clock.monotonic();

    let mut response = next.run(request).await;
    let took = clock.monotonic().saturating_sub(began);
    count(&method, route.as_deref().unwrap_or("other"), response.status(), took);

    if let Some(cause) = response.extensions().get::<Cause>() {
        match cause.kind {
            Kind::Internal | Kind::Storage | Kind::Config | Kind::NoSpace => {
                tracing::error!(request = id, %method, path, "request failed: {}", cause.report);
            }
            Kind::Unavailable | Kind::Away | Kind::Timeout => {
                tracing::warn!(request = id, %method, path, "request failed: {}", cause.report);
            }
            _ => tracing::debug!(request = id, %method, path, "refused: {}", cause.report),
        }
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Answers hold what people said: no cache keeps them unless a route says so.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Counts a request. Routes are those of the router and methods those that a
/// route can have, so that nobody makes figures up.
fn count(method: &Method, route: &str, status: StatusCode, took: Duration) {
    let method = match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => method.as_str(),
        _ => "other",
    };
    metrics::HTTP_REQUESTS.add(&[method, route, status.as_str()], 1.0);
    metrics::HTTP_SECONDS.add(&[method, route], took.as_secs_f64());
}
