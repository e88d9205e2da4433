//! The daemon itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::http::api::Api;
use crate::http::error::ApiError;
use crate::http::health::Part;

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
pub(super) async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'";
    let headers: [(HeaderName, &str); 2] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, PAGE)
}

/// How the daemon and its parts are. Public, so it names no path and no person.
pub(super) async fn health(State(api): State<Arc<Api>>) -> Json<Value> {
    let jobs = api.store.job_counts().await;
    let store_works = jobs.is_ok();
    if let Err(error) = &jobs {
        tracing::error!("the store does not answer: {}", error.report());
    }
    let jobs = jobs.unwrap_or_default();
    let (mut services, parts_work) = api.health.services();
    let store = json!({
        "status": if store_works { "✅ Ready" } else { "❌ Does not answer" },
        "healthy": store_works,
        "critical": true,
    });
    services.insert("store".into(), store);

    let (status, message) = match (store_works, parts_work) {
        (false, _) => ("critical", Some("The database does not answer; see the daemon's log.")),
        (true, false) => ("degraded", Some("Recording works; some services do not.")),
        (true, true) => ("healthy", None),
    };
    let config = &api.config;
    let mut body = json!({
        "status": status,
        "timestamp": api.clock.now().seconds(),
        "version": env!("CARGO_PKG_VERSION"),
        "overall_healthy": store_works && parts_work,
        "critical_services_healthy": store_works,
        "services": services,
        "jobs": jobs,
        "config": {
            "transcription_service": "whisper",
            "transcription_provider": "whisper",
            "transcription_model": api.health.model(Part::Stt),
            "online_transcription_enabled": false,
            "offline_asr_enabled": true,
            "llm_provider": "llama",
            "llm_model": api.health.model(Part::Llm),
            "embedding_model": api.health.model(Part::Embed),
            "active_clients": api.ingest.clients().count(),
            "new_conversation_timeout_minutes":
                config.conversation.silence_timeout.get().as_secs_f64() / 60.0,
            "audio_cropping_enabled": false,
        },
    });
    if let Some(message) = message {
        body["message"] = json!(message);
    }
    Json(body)
}

/// Whether requests can be served.
pub(super) async fn readiness(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let timestamp = api.clock.now().seconds();
    if let Err(error) = api.store.job_counts().await {
        tracing::warn!("not ready: {}", error.report());
        let body = json!({ "status": "not_ready", "timestamp": timestamp });
        return Err(ApiError::body(StatusCode::SERVICE_UNAVAILABLE, body));
    }
    Ok(Json(json!({ "status": "ready", "timestamp": timestamp })))
}
