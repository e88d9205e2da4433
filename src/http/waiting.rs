//! What is answered before there is a database: how the daemon is, and to all else
//! that it is to be asked again later.

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::health::Service;
use crate::base::clock::Clock;

/// What somebody is told to do who wants more.
const LATER: &str = "the daemon waits for its database, and records nothing until that is there";
/// Seconds after which asking again may help.
const PAUSE: &str = "5";

/// The routes of a daemon whose database is away, because of `why`.
pub fn router(why: &str, clock: &Clock) -> Router {
    let (mongodb, clock) = (Service::plain(format!("❌ {why}"), false, true), clock.clone());
    let now = clock.clone();
    let health = move || {
        let health = health(&mongodb, &clock);
        async move { Json(health) }
    };
    let readiness = move || {
        let body = json!({ "status": "not_ready", "timestamp": now.now().seconds() });
        async move { later(body) }
    };
    Router::new()
        .route("/health", get(health.clone()))
        .route("/api/health", get(health))
        .route("/readiness", get(readiness))
        .fallback(|| async { later(json!({ "detail": LATER })) })
}

fn health(mongodb: &Service, clock: &Clock) -> Value {
    json!({
        "status": "critical",
        "timestamp": clock.now().seconds(),
        "version": env!("CARGO_PKG_VERSION"),
        "overall_healthy": false,
        "critical_services_healthy": false,
        "services": { "mongodb": mongodb, "store": mongodb },
        "message": LATER,
    })
}

fn later(body: Value) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, PAUSE)], Json(body)).into_response()
}
