//! Speaker recognition, which this daemon does not do: the settings pages of
//! the original's dashboard are told so.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::ids::UserId;
use crate::http::api::Api;
use crate::http::auth::{CurrentUser, Superuser};
use crate::http::error::{ApiError, ErrorText};

const NOT_HERE: &str = "Speakers are not recognised by voice in this daemon";

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(diarization, set_diarization))
        .routes(routes!(configuration, set_configuration))
        .routes(routes!(enrolled))
        .routes(routes!(service))
}

/// Settings of speaker separation.
#[derive(Serialize, ToSchema)]
struct Diarization {
    /// Always `success`.
    status: &'static str,
    settings: DiarizationSettings,
    message: &'static str,
}

/// There are none.
#[derive(Serialize, ToSchema)]
struct DiarizationSettings {
    /// Always `none`.
    diarization_source: &'static str,
}

/// Settings of speaker separation, for administrators: there are none.
#[utoipa::path(get, path = "/api/diarization-settings", tag = "speakers",
    responses((status = 200, description = "The settings", body = Diarization)))]
async fn diarization(_admin: Superuser) -> Json<Diarization> {
    let settings = DiarizationSettings { diarization_source: "none" };
    Json(Diarization { status: "success", settings, message: NOT_HERE })
}

/// Refused: speakers are not recognised by voice.
#[utoipa::path(post, path = "/api/diarization-settings", tag = "speakers",
    responses((status = 400, description = "There is nothing to set", body = ErrorText)))]
async fn set_diarization(_admin: Superuser) -> ApiError {
    ApiError::error(StatusCode::BAD_REQUEST, NOT_HERE)
}

/// The speakers that a user wants to have recognised.
#[derive(Serialize, ToSchema)]
struct SpeakerConfiguration {
    user_id: UserId,
    /// Always empty.
    primary_speakers: Vec<String>,
    /// Always `success`.
    status: &'static str,
}

/// The caller's speakers: none.
#[utoipa::path(get, path = "/api/speaker-configuration", tag = "speakers",
    responses((status = 200, description = "The speakers", body = SpeakerConfiguration)))]
async fn configuration(CurrentUser(user): CurrentUser) -> Json<SpeakerConfiguration> {
    let primary_speakers = Vec::new();
    Json(SpeakerConfiguration { user_id: user.id, primary_speakers, status: "success" })
}

/// Refused: speakers are not recognised by voice.
#[utoipa::path(post, path = "/api/speaker-configuration", tag = "speakers",
    responses((status = 400, description = "There is nothing to set", body = ErrorText)))]
async fn set_configuration(_user: CurrentUser) -> ApiError {
    ApiError::error(StatusCode::BAD_REQUEST, NOT_HERE)
}

/// Voices that are known.
#[derive(Serialize, ToSchema)]
struct EnrolledSpeakers {
    /// Always false.
    service_available: bool,
    /// Always empty.
    speakers: Vec<String>,
    message: &'static str,
}

/// Voices that are known: none.
#[utoipa::path(get, path = "/api/enrolled-speakers", tag = "speakers",
    responses((status = 200, description = "The voices", body = EnrolledSpeakers)))]
async fn enrolled(_user: CurrentUser) -> Json<EnrolledSpeakers> {
    let speakers = Vec::new();
    Json(EnrolledSpeakers { service_available: false, speakers, message: NOT_HERE })
}

/// How the recognition of speakers is.
#[derive(Serialize, ToSchema)]
struct SpeakerService {
    /// Always false.
    service_available: bool,
    /// Always false.
    healthy: bool,
    /// Always `disabled`.
    status: &'static str,
    message: &'static str,
}

/// How the recognition of speakers is, for administrators: switched off.
#[utoipa::path(get, path = "/api/speaker-service-status", tag = "speakers",
    responses((status = 200, description = "How it is", body = SpeakerService)))]
async fn service(_admin: Superuser) -> Json<SpeakerService> {
    let (service_available, healthy) = (false, false);
    Json(SpeakerService { service_available, healthy, status: "disabled", message: NOT_HERE })
}
