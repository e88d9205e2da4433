//! The daemon itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::job::JobCounts;
use crate::http::api::Api;
use crate::http::error::ApiError;
use crate::http::health::{Part, Service, ask};
use crate::http::openapi::at;
use crate::jobs::load::Estimate;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(page))
        .routes(routes!(health))
        .routes(at("/api/health", routes!(health)))
        .routes(routes!(readiness))
}

const PAGE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Friend-Lite</title>
<h1>Friend-Lite</h1>
<p>The daemon is running. <a href=\"/health\">Health</a></p>
</html>
";

/// Names the daemon to whoever opens it in a browser.
#[utoipa::path(get, path = "/", tag = "system", security(()),
    responses((status = 200, description = "The page", content_type = "text/html", body = String)))]
async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'";
    let headers: [(HeaderName, &str); 2] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, PAGE)
}

/// How the daemon and its parts are.
#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
struct HealthView {
    /// `healthy`, `degraded` (it records, and some service does not work) or
    /// `critical`.
    status: &'static str,
    /// Seconds since the Unix epoch.
    timestamp: i64,
    version: &'static str,
    overall_healthy: bool,
    critical_services_healthy: bool,
    services: BTreeMap<String, Service>,
    jobs: JobCounts,
    /// None until it was looked at, and while it cannot be written at all.
    disk: Option<DiskView>,
    /// What waits for transcription, and for how long.
    backlog: Estimate,
    config: HealthConfig,
    /// What to do, where something does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// The disk under the recordings.
#[derive(Serialize, ToSchema)]
#[schema(as = Disk)]
struct DiskView {
    free_bytes: u64,
    total_bytes: u64,
    /// Kept free: below it no new audio is accepted, unless transcribed audio can
    /// be deleted.
    reserve_bytes: u64,
    /// How long the room above the reserve lasts at the present rate; none while
    /// nothing is recorded.
    headroom_hours: Option<f64>,
}

/// The configuration, as far as it is of general interest.
#[derive(Serialize, ToSchema)]
struct HealthConfig {
    transcription_service: &'static str,
    transcription_provider: &'static str,
    transcription_model: Option<String>,
    online_transcription_enabled: bool,
    offline_asr_enabled: bool,
    llm_provider: &'static str,
    llm_model: Option<String>,
    embedding_model: Option<String>,
    /// Devices that are connected.
    active_clients: usize,
    new_conversation_timeout_minutes: f64,
    audio_cropping_enabled: bool,
    // What the original ran as servers of their own is inside this daemon. It
    // names no path and no address here: this answer is public.
    mongodb_uri: &'static str,
    qdrant_url: &'static str,
    asr_uri: &'static str,
    llm_base_url: &'static str,
    chunk_dir: &'static str,
}

const EMBEDDED: &str = "inside the daemon";

/// How the daemon and its parts are. Public, so it names no path and no person.
#[utoipa::path(get, path = "/health", tag = "system", security(()),
    responses((status = 200, description = "How they are", body = HealthView)))]
async fn health(State(api): State<Arc<Api>>) -> Json<HealthView> {
    let limit = api.config.health.store_timeout.get();
    let asked = async { Ok((api.store.job_counts().await?, api.store.backlog().await?)) };
    let jobs = ask(limit, asked).await;
    let store_works = jobs.is_ok();
    if let Err(error) = &jobs {
        tracing::error!("the store does not answer: {}", error.report());
    }
    let (jobs, backlog) = jobs.unwrap_or_default();
    let (mut services, parts_work) = api.health.services();
    let store = Service {
        status: if store_works { "✅ Ready" } else { "❌ Does not answer" }.into(),
        healthy: store_works,
        critical: true,
        model: None,
        model_present: None,
    };
    // The names by which the original's clients know these parts.
    for (name, theirs) in [("llm", "audioai"), ("embeddings", "mem0")] {
        if let Some(service) = services.get(name).cloned() {
            services.insert(theirs.into(), service);
        }
    }
    services.insert("mongodb".into(), store.clone());
    services.insert("store".into(), store);
    let refusal = api.recordings.refusal();
    let disk = Service {
        status: refusal
            .as_ref()
            .map_or("✅ Ready".into(), |refusal| format!("❌ {}", refusal.message)),
        healthy: refusal.is_none(),
        critical: true,
        model: None,
        model_present: None,
    };
    services.insert("disk".into(), disk);
    let critical_work = store_works && refusal.is_none();

    let (status, message) = match (store_works, &refusal, parts_work) {
        (false, ..) => ("critical", Some("The database does not answer; see the daemon's log.")),
        (true, Some(refusal), _) => ("critical", Some(refusal.message)),
        (true, None, false) => ("degraded", Some("Recording works; some services do not.")),
        (true, None, true) => ("healthy", None),
    };
    let timeout = api.config.conversation.silence_timeout.get();
    Json(HealthView {
        status,
        timestamp: api.clock.now().seconds(),
        version: env!("CARGO_PKG_VERSION"),
        overall_healthy: critical_work && parts_work,
        critical_services_healthy: critical_work,
        services,
        disk: api.recordings.disk().map(|seen| DiskView {
            free_bytes: seen.space.free,
            total_bytes: seen.space.total,
            reserve_bytes: api.config.disk.reserve(),
            headroom_hours: seen.headroom.map(|left| left.as_secs_f64() / 3600.0),
        }),
        jobs,
        backlog: api.ingest.load().estimate(backlog),
        config: HealthConfig {
            transcription_service: "whisper",
            transcription_provider: "whisper",
            transcription_model: api.health.model(Part::Stt),
            online_transcription_enabled: false,
            offline_asr_enabled: true,
            llm_provider: "llama",
            llm_model: api.health.model(Part::Llm),
            embedding_model: api.health.model(Part::Embed),
            active_clients: api.ingest.clients().count(),
            new_conversation_timeout_minutes: timeout.as_secs_f64() / 60.0,
            audio_cropping_enabled: api.config.cropping.enabled,
            mongodb_uri: EMBEDDED,
            qdrant_url: EMBEDDED,
            asr_uri: EMBEDDED,
            llm_base_url: EMBEDDED,
            chunk_dir: "audio",
        },
        message,
    })
}

/// Whether requests can be served.
#[derive(Serialize, ToSchema)]
struct Readiness {
    /// `ready` or `not_ready`.
    status: &'static str,
    /// Seconds since the Unix epoch.
    timestamp: i64,
}

/// Whether requests can be served.
#[utoipa::path(get, path = "/readiness", tag = "system", security(()),
    responses(
        (status = 200, description = "They can", body = Readiness),
        (status = 503, description = "They cannot", body = Readiness),
    ))]
async fn readiness(State(api): State<Arc<Api>>) -> Result<Json<Readiness>, ApiError> {
    let timestamp = api.clock.now().seconds();
    let limit = api.config.health.store_timeout.get();
    if let Err(error) = ask(limit, api.store.job_counts()).await {
        tracing::warn!("not ready: {}", error.report());
        let body = json!(Readiness { status: "not_ready", timestamp });
        return Err(ApiError::body(StatusCode::SERVICE_UNAVAILABLE, body));
    }
    Ok(Json(Readiness { status: "ready", timestamp }))
}
