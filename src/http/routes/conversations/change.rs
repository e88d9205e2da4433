//! Changes to a conversation: corrections, new versions, deletion.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::owned;
use crate::base::error::{Error, Kind};
use crate::domain::conversation::Conversation;
use crate::domain::ids::{ConversationId, JobId};
use crate::domain::version::{Begun, SegmentEdit};
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, ErrorText, MessageText, Problem, ValidationError};
use crate::http::params::Params;

/// Longest name of a speaker, in characters.
const LONGEST_NAME: usize = 200;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(add_speaker))
        .routes(routes!(edit_segment))
        .routes(routes!(reprocess))
        .routes(routes!(reprocess_transcript))
        .routes(routes!(reprocess_memory))
        .routes(routes!(activate_transcript))
        .routes(routes!(activate_memory))
}

/// Notes that somebody speaks in a conversation.
#[utoipa::path(post, path = "/api/conversations/{id}/speakers", tag = "conversations",
    params(("speaker_id" = String, Query, description = "Who, at most 200 characters")),
    responses(
        (status = 200, description = "It is noted", body = MessageText),
        (status = 404, description = "No such conversation", body = ErrorText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn add_speaker(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<MessageText>, ApiError> {
    let speaker = name_of_speaker(params.required("speaker_id")?)?;
    let conversation = owned(&api, &user, id).await?;
    api.store.add_speaker(&conversation.id, speaker).await?;
    Ok(Json(MessageText { message: format!("Speaker {speaker} added to conversation") }))
}

/// Corrects one segment of the transcript: who spoke, and when.
#[utoipa::path(put, path = "/api/conversations/{id}/transcript/{segment_index}",
    tag = "conversations",
    params(
        ("segment_index" = usize, Path, description = "Position in `transcript`, from 0"),
        ("speaker_id" = Option<String>, Query, description = "Who spoke"),
        ("start_time" = Option<f64>, Query, minimum = 0, maximum = 1e9, description = "Seconds"),
        ("end_time" = Option<f64>, Query, minimum = 0, maximum = 1e9, description = "Seconds"),
    ),
    responses(
        (status = 200, description = "It is corrected", body = MessageText),
        (status = 400, description = "That corrects nothing", body = ErrorText),
        (status = 404, description = "No such conversation or segment", body = ErrorText),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn edit_segment(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path((id, index)): Path<(String, String)>,
    params: Params,
) -> Result<Json<MessageText>, ApiError> {
    let index: usize = index.parse().map_err(|_| {
        let msg = "Input should be a valid integer, unable to parse string as an integer";
        let problem = Problem::new("int_parsing", "path", "segment_index", msg, Some(&index));
        ApiError::validation(vec![problem])
    })?;
    let edit = SegmentEdit {
        speaker: match params.get("speaker_id") {
            Some(speaker) => Some(name_of_speaker(speaker)?.to_owned()),
            None => None,
        },
        start: params.seconds("start_time")?,
        end: params.seconds("end_time")?,
    };
    let conversation = owned(&api, &user, id).await?;
    if edit == SegmentEdit::default() {
        return Err(ApiError::error(StatusCode::BAD_REQUEST, "No update parameters provided"));
    }
    if !api.store.edit_segment(&conversation.id, index, &edit).await? {
        return Err(ApiError::error(StatusCode::BAD_REQUEST, "No changes were made"));
    }
    api.auth.audit(Some(&user.id), "transcript-edited", conversation.id.as_str()).await;
    Ok(Json(MessageText { message: "Transcript segment updated successfully".into() }))
}

/// The making of a new version.
#[derive(Serialize, ToSchema)]
struct Reprocessing {
    message: String,
    conversation_id: ConversationId,
    /// The version that is being made; it is shown when it is complete.
    version_id: String,
    /// The first of `job_ids`.
    job_id: Option<JobId>,
    /// The jobs that make it.
    job_ids: Vec<JobId>,
    /// Always `queued`.
    status: &'static str,
}

/// Transcribes a conversation again. Older name of `reprocess-transcript`.
#[utoipa::path(post, path = "/api/conversations/{id}/reprocess", tag = "conversations",
    responses(
        (status = 200, description = "It is queued", body = Reprocessing),
        (status = 404, description = "No such conversation, or no audio of it", body = ErrorText),
        (status = 409, description = "It is being recorded or transcribed", body = ErrorText),
    ))]
async fn reprocess(
    state: State<Arc<Api>>,
    user: CurrentUser,
    id: Path<String>,
) -> Result<Json<Reprocessing>, ApiError> {
    reprocess_transcript(state, user, id).await
}

/// Transcribes a conversation again, with the model in use now. The new
/// transcript is shown, and remembered, when it is complete; the old one is kept.
#[utoipa::path(post, path = "/api/conversations/{id}/reprocess-transcript",
    tag = "conversations",
    responses(
        (status = 200, description = "It is queued", body = Reprocessing),
        (status = 404, description = "No such conversation, or no audio of it", body = ErrorText),
        (status = 409, description = "It is being recorded or transcribed", body = ErrorText),
    ))]
async fn reprocess_transcript(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<Reprocessing>, ApiError> {
    let conversation = owned(&api, &user, id).await?;
    if let Err(error) = api.recordings.samples(&conversation.audio_path).await {
        return Err(match error.kind() {
            Kind::NotFound => {
                ApiError::error(StatusCode::NOT_FOUND, "Audio file not found on disk")
            }
            _ => error.into(),
        });
    }
    let begun = api.store.reprocess_transcript(&conversation.id, api.clock.now()).await?;
    Ok(queued(&api, conversation, begun, "Transcript"))
}

/// Extracts the memories of a conversation again. The new ones take the place of
/// the old ones when they are complete; those are kept and can be activated.
#[utoipa::path(post, path = "/api/conversations/{id}/reprocess-memory", tag = "conversations",
    params(("transcript_version_id" = Option<String>, Query,
            description = "From which transcript; `active` without it")),
    responses(
        (status = 200, description = "It is queued", body = Reprocessing),
        (status = 404, description = "No such conversation or version", body = ErrorText),
        (status = 409, description = "It is being recorded or remembered", body = ErrorText),
    ))]
async fn reprocess_memory(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<Reprocessing>, ApiError> {
    let conversation = owned(&api, &user, id).await?;
    let transcript = match params.get("transcript_version_id") {
        None | Some("" | "active") => None,
        Some(version) => Some(number(version)?),
    };
    let begun = api.store.reprocess_memory(&conversation.id, transcript, api.clock.now()).await?;
    Ok(queued(&api, conversation, begun, "Memory"))
}

/// A version that is shown now.
#[derive(Serialize, ToSchema)]
struct Activated {
    message: String,
    conversation_id: ConversationId,
    version_id: String,
}

/// Shows another version of the transcript.
#[utoipa::path(post, path = "/api/conversations/{id}/activate-transcript/{version}",
    tag = "conversations",
    responses(
        (status = 200, description = "It is shown", body = Activated),
        (status = 404, description = "No such conversation or version", body = ErrorText),
        (status = 409, description = "It is not complete", body = ErrorText),
    ))]
async fn activate_transcript(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path((id, version)): Path<(String, String)>,
) -> Result<Json<Activated>, ApiError> {
    let conversation = owned(&api, &user, id).await?;
    api.store.activate_transcript(&conversation.id, number(&version)?).await?;
    api.auth.audit(Some(&user.id), "transcript-activated", conversation.id.as_str()).await;
    Ok(activated(conversation, version, "Transcript"))
}

/// Shows another version of the memories: only these are found from now on.
#[utoipa::path(post, path = "/api/conversations/{id}/activate-memory/{version}",
    tag = "conversations",
    responses(
        (status = 200, description = "They are shown", body = Activated),
        (status = 404, description = "No such conversation or version", body = ErrorText),
        (status = 409, description = "They are not complete", body = ErrorText),
    ))]
async fn activate_memory(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path((id, version)): Path<(String, String)>,
) -> Result<Json<Activated>, ApiError> {
    let conversation = owned(&api, &user, id).await?;
    let now = api.clock.now();
    api.store.activate_memory(&conversation.id, number(&version)?, now).await?;
    api.auth.audit(Some(&user.id), "memory-activated", conversation.id.as_str()).await;
    Ok(activated(conversation, version, "Memory"))
}

fn queued(api: &Api, conversation: Conversation, begun: Begun, what: &str) -> Json<Reprocessing> {
    api.wake.wake();
    Json(Reprocessing {
        message: format!("{what} reprocessing started"),
        conversation_id: conversation.id,
        version_id: begun.version.to_string(),
        job_id: begun.jobs.first().copied(),
        job_ids: begun.jobs,
        status: "queued",
    })
}

fn activated(conversation: Conversation, version_id: String, what: &str) -> Json<Activated> {
    Json(Activated {
        message: format!("{what} version {version_id} is active"),
        conversation_id: conversation.id,
        version_id,
    })
}

/// The number of a version by its id.
fn number(version: &str) -> Result<u32, ApiError> {
    let unknown = || Error::new(Kind::NotFound, "there is no such version");
    Ok(version.parse().map_err(|_| unknown())?)
}

fn name_of_speaker(text: &str) -> Result<&str, ApiError> {
    let problem = |kind: &str, msg: &str| {
        ApiError::validation(vec![Problem::new(kind, "query", "speaker_id", msg, Some(text))])
    };
    let name = text.trim();
    if name.is_empty() {
        return Err(problem("string_too_short", "String should have at least 1 character"));
    }
    if name.chars().count() > LONGEST_NAME {
        return Err(problem("string_too_long", "String should have at most 200 characters"));
    }
    Ok(name)
}
