//! Figures for Prometheus, and for the dashboard of the original.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::clock::Timestamp;
use crate::base::metrics::{self, Text};
use crate::base::system;
use crate::domain::conversation::SAMPLE_RATE;
use crate::domain::coverage::Coverage;
use crate::domain::job::JobCounts;
use crate::http::api::Api;
use crate::http::auth::Superuser;
use crate::http::error::ApiError;
use crate::remote::Phase;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(prometheus)).routes(routes!(summary))
}

/// Figures in the text format of Prometheus, for administrators and for whoever
/// brings `server.metrics_token` as a bearer token.
#[utoipa::path(get, path = "/metrics", tag = "system",
    responses((status = 200, description = "The figures", content_type = "text/plain", body = String)))]
async fn prometheus(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    if !has_metrics_token(&api, &request) {
        let (mut parts, _) = request.into_parts();
        Superuser::from_request_parts(&mut parts, &api).await?;
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text(&api).await?))
}

fn has_metrics_token(api: &Api, request: &Request) -> bool {
    let token = api.config.server.metrics_token.expose();
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| value.strip_prefix(b"Bearer "));
    !token.is_empty() && given.is_some_and(|given| given.ct_eq(token.as_bytes()).into())
}

async fn text(api: &Api) -> Result<String, ApiError> {
    let mut text = Text::of_counters();
    let name = "friend_lite_jobs";
    text.family(name, "Jobs by kind and state.", "gauge");
    for count in api.store.job_census(None).await? {
        let labels = [("kind", count.kind.as_str()), ("state", count.state.as_str())];
        text.sample(name, &labels, count.jobs as f64);
    }
    let (first, end) = (Timestamp::default(), Timestamp::from_millis(i64::MAX));
    let days = api.store.coverage(None, first, end).await?;
    let coverage: Coverage = days.into_iter().map(|day| day.coverage).sum();
    let name = "friend_lite_audio_seconds";
    text.family(name, "Audio of all conversations, by what has become of it.", "gauge");
    for (state, samples) in [
        ("transcribed", coverage.transcribed),
        ("waiting", coverage.waiting),
        ("failed", coverage.failed),
        ("silent", coverage.silent()),
    ] {
        text.sample(name, &[("state", state)], samples as f64 / f64::from(SAMPLE_RATE));
    }
    let clients = api.ingest.clients().list(None);
    let recording = clients.iter().filter(|client| client.conversation.is_some()).count();
    text.gauge("friend_lite_streams", "Devices that are connected.", clients.len() as f64);
    let help = "Conversations that are being recorded.";
    text.gauge("friend_lite_conversations_open", help, recording as f64);
    let name = "friend_lite_service_breaker";
    text.family(name, "Services outside: 0 works, 1 may be asked again, 2 is left alone.", "gauge");
    for service in api.health.outside() {
        let phase = match service.standing().phase {
            Phase::Closed => 0.0,
            Phase::HalfOpen => 1.0,
            Phase::Open => 2.0,
        };
        text.sample(name, &[("service", service.name())], phase);
    }
    let name = "friend_lite_build_info";
    text.family(name, "The version that runs.", "gauge");
    text.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);

    if let Some(bytes) = system::resident_memory() {
        let help = "Resident memory of the daemon, without its engines, in bytes.";
        text.gauge("process_resident_memory_bytes", help, bytes as f64);
    }
    let name = "process_cpu_seconds_total";
    text.family(name, "CPU time of the daemon, without its engines, in seconds.", "counter");
    text.sample(name, &[], system::cpu_time().as_secs_f64());
    if let Some(count) = system::open_descriptors() {
        text.gauge("process_open_fds", "Open file descriptors.", count as f64);
    }
    let started = api.clock.now().seconds_f64() - api.clock.monotonic().as_secs_f64();
    let help = "When the daemon started, in seconds since the Unix epoch.";
    text.gauge("process_start_time_seconds", help, started);
    Ok(text.finish())
}

/// Figures as JSON.
#[derive(Serialize, ToSchema)]
struct Metrics {
    /// Seconds since the Unix epoch.
    timestamp: i64,
    memory_provider: &'static str,
    memory_provider_supports_threshold: bool,
    /// Seconds since the daemon started.
    uptime_seconds: f64,
    active_clients: usize,
    jobs: JobCounts,
    /// Since the daemon started.
    audio_accepted_seconds: f64,
    /// Since the daemon started.
    audio_transcribed_seconds: f64,
    /// Bytes; none where it cannot be told.
    resident_memory_bytes: Option<u64>,
}

/// Figures as JSON, for administrators.
#[utoipa::path(get, path = "/api/metrics", tag = "system",
    responses((status = 200, description = "The figures", body = Metrics)))]
async fn summary(
    State(api): State<Arc<Api>>,
    _admin: Superuser,
) -> Result<Json<Metrics>, ApiError> {
    Ok(Json(Metrics {
        timestamp: api.clock.now().seconds(),
        memory_provider: "friend_lite",
        memory_provider_supports_threshold: true,
        uptime_seconds: api.clock.monotonic().as_secs_f64(),
        active_clients: api.ingest.clients().count(),
        jobs: api.store.job_counts().await?,
        audio_accepted_seconds: metrics::AUDIO_ACCEPTED.total(),
        audio_transcribed_seconds: metrics::AUDIO_TRANSCRIBED.total(),
        resident_memory_bytes: system::resident_memory(),
    }))
}
