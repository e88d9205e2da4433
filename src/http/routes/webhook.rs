//! Audio that an app posts, without a login.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audio::pcm::PcmFormat;
use crate::http::api::Api;
use crate::http::error::{ApiError, Detail, ErrorText, ValidationError};
use crate::http::params::Params;
use crate::ingest::webhook;

/// The largest post, in bytes: eight minutes at 16 kHz.
const MAX_POST: usize = 16 << 20;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(audio_bytes)).layer(DefaultBodyLimit::max(MAX_POST))
}

/// What was taken.
#[derive(Serialize, ToSchema)]
struct Received {
    /// Always `received`.
    status: &'static str,
    bytes: usize,
}

/// Takes a piece of audio (16-bit little-endian mono PCM) from the Omi app. Its
/// posts are recorded for the user whom `webhook.user` names; without one this
/// is switched off and not found.
#[utoipa::path(post, path = "/webhook/audio_bytes", tag = "audio", security(()),
    params(
        ("sample_rate" = Option<u32>, Query, minimum = 8000, maximum = 192000,
            description = "Samples a second; 16000 when left out"),
        ("uid" = Option<String>, Query, description = "Whose device it is, as the app says")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It is recorded", body = Received),
        (status = 400, description = "It cannot be audio", body = ErrorText),
        (status = 404, description = "Switched off, or its user is gone", body = Detail),
        (status = 413, description = "More than 16 MiB", body = ErrorText),
        (status = 422, description = "The rate is no rate", body = ValidationError),
        (status = 429, description = "Too many streams", body = ErrorText)))]
async fn audio_bytes(
    State(api): State<Arc<Api>>,
    params: Params,
    body: Bytes,
) -> Result<Json<Received>, ApiError> {
    if api.config.webhook.user.is_empty() {
        return Err(ApiError::not_found());
    }
    let rate = params.integer("sample_rate", 16_000, 8_000..=192_000)?;
    let format = PcmFormat::new(u32::try_from(rate).unwrap_or(0), 2, 1)?;
    let bytes = body.len();
    let uid = params.get("uid").unwrap_or_default();
    webhook::take(&api.ingest, uid, format, body).await?;
    Ok(Json(Received { status: "received", bytes }))
}
