//! The daemon itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
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
use crate::http::status::DiskView;
use crate::jobs::load::Estimate;
use crate::models::ModelView;
use crate::recording::Refusal;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(health))
        .routes(at("/api/health", routes!(health)))
        .routes(routes!(readiness))
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
    /// The models that are wanted, and how fetching them goes on.
    models: Vec<ModelView>,
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

/// The configuration, as far as it is of general interest.
#[derive(Serialize, ToSchema)]
struct HealthConfig {
    /// Who transcribes, in order of preference.
    transcription_service: String,
    /// Who is preferred.
    transcription_provider: String,
    transcription_model: Option<String>,
    online_transcription_enabled: bool,
    offline_asr_enabled: bool,
    llm_provider: String,
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

fn place(embedded: bool) -> &'static str {
    if embedded { EMBEDDED } else { "outside the daemon" }
}

/// How the daemon is in one word, and what to do where something is wrong.
pub(in crate::http) fn verdict(
    store_works: bool,
    refusal: Option<&Refusal>,
    parts_work: bool,
) -> (&'static str, Option<&'static str>) {
    match (store_works, refusal, parts_work) {
        (false, ..) => ("critical", Some("The database does not answer; see the daemon's log.")),
        (true, Some(refusal), _) => ("critical", Some(refusal.message)),
        (true, None, false) => ("degraded", Some("Recording works; some services do not.")),
        (true, None, true) => ("healthy", None),
    }
}

/// How the daemon and its parts are. Public, so it names no path and no person.
#[utoipa::path(get, path = "/health", tag = "system", security(()),
    responses((status = 200, description = "How they are", body = HealthView)))]
async fn health(State(api): State<Arc<Api>>) -> Json<HealthView> {
    let limit = api.config.health.store_timeout.get();
    let asked = async { Ok((api.store.job_counts().await?, api.store.backlog().await?)) };
    let jobs = ask(limit, asked).await;
    let store_works = jobs.is_ok();
    // Of a store outside its breaker tells.
    if let Err(error) = &jobs
        && !api.config.store.is_mongodb()
    {
        tracing::error!("the store does not answer: {}", error.report());
    }
    let (jobs, backlog) = jobs.unwrap_or_default();
    let (mut services, parts_work) = api.health.services();
    let status = if store_works { "✅ Ready" } else { "❌ Does not answer" };
    let store = Service::plain(status, store_works, true);
    // The names by which the original's clients know these parts.
    for (name, theirs) in [("llm", "audioai"), ("embeddings", "mem0")] {
        if let Some(service) = services.get(name).cloned() {
            services.insert(theirs.into(), service);
        }
    }
    // Of MongoDB itself more is known.
    services.entry("mongodb".into()).or_insert_with(|| store.clone());
    services.insert("store".into(), store);
    let refusal = api.recordings.refusal();
    let status =
        refusal.as_ref().map_or("✅ Ready".into(), |refusal| format!("❌ {}", refusal.message));
    services.insert("disk".into(), Service::plain(status, refusal.is_none(), true));
    let critical_work = store_works && refusal.is_none();
    let (status, message) = verdict(store_works, refusal.as_ref(), parts_work);
    let timeout = api.config.conversation.silence_timeout.get();
    let speech = api.config.speech_engines();
    Json(HealthView {
        status,
        timestamp: api.clock.now().seconds(),
        version: env!("CARGO_PKG_VERSION"),
        overall_healthy: critical_work && parts_work,
        critical_services_healthy: critical_work,
        services,
        disk: DiskView::of(&api),
        models: api.supply.views().into_iter().map(ModelView::public).collect(),
        jobs,
        backlog: api.ingest.load().estimate(backlog),
        config: HealthConfig {
            transcription_service: speech.join(", "),
            transcription_provider: speech.first().copied().unwrap_or_default().to_owned(),
            transcription_model: api.health.model(Part::Stt),
            online_transcription_enabled: speech.contains(&"deepgram")
                || speech.contains(&"openai"),
            offline_asr_enabled: speech.contains(&"whisper") || speech.contains(&"wyoming"),
            llm_provider: api.config.llm.engine.clone(),
            llm_model: api.health.model(Part::Llm),
            embedding_model: api.health.model(Part::Embed),
            active_clients: api.ingest.clients().count(),
            new_conversation_timeout_minutes: timeout.as_secs_f64() / 60.0,
            audio_cropping_enabled: api.config.cropping.enabled,
            mongodb_uri: place(!api.config.store.is_mongodb()),
            qdrant_url: place(api.config.index.engine != "qdrant"),
            asr_uri: place(api.config.uses_whisper()),
            llm_base_url: place(api.config.uses_llama()),
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
        if !api.config.store.is_mongodb() {
            tracing::warn!("not ready: {}", error.report());
        }
        let body = json!(Readiness { status: "not_ready", timestamp });
        return Err(ApiError::body(StatusCode::SERVICE_UNAVAILABLE, body));
    }
    Ok(Json(Readiness { status: "ready", timestamp }))
}
