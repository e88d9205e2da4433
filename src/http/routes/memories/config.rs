//! The configuration of memory, which the original edits as a YAML file: here it
//! is shown in that form, and set where everything else is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::api::Api;
use crate::http::auth::Superuser;
use crate::http::error::{ApiError, ErrorText};
use crate::http::openapi::at;

const ELSEWHERE: &str =
    "Memory is set up in the section [memory] of the daemon's configuration; restart it then";

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(show, refuse))
        .routes(at("/api/admin/memory/config/validate", routes!(refuse)))
        .routes(at("/api/admin/memory/config/reload", routes!(refuse)))
}

/// The configuration of memory.
#[derive(Serialize, ToSchema)]
struct MemoryConfig {
    /// What is in force, as YAML.
    config_yaml: String,
}

/// The configuration of memory that is in force, as YAML, for administrators.
#[utoipa::path(get, path = "/api/admin/memory/config/raw", tag = "memories",
    responses((status = 200, description = "The configuration", body = MemoryConfig)))]
async fn show(State(api): State<Arc<Api>>, _admin: Superuser) -> Json<MemoryConfig> {
    let memory = &api.config.memory;
    let config_yaml = format!(
        "# {ELSEWHERE}.\nmemory:\n  enabled: {}\n  min_characters: {}\n  deadline: {}\n",
        memory.enabled, memory.min_characters, memory.deadline
    );
    Json(MemoryConfig { config_yaml })
}

/// Refused: the configuration is a file of the daemon's own.
#[utoipa::path(post, path = "/api/admin/memory/config/raw", tag = "memories",
    responses((status = 400, description = "It is set elsewhere", body = ErrorText)))]
async fn refuse(_admin: Superuser) -> ApiError {
    ApiError::error(StatusCode::BAD_REQUEST, ELSEWHERE)
}
