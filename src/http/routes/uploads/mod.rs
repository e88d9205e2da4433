//! Uploads of audio files, in the three forms that clients know.
//!
//! Anybody may upload: what comes of it is their own conversation, to which the
//! original's access matrix gives its owner everything.

mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::view::{
    AsyncAnswer, FileAnswer, JobList, JobView, Loaded, SyncAnswer, UploadAnswer, refusal,
};
use crate::base::error::{Kind, Result};
use crate::domain::conversation::Progress;
use crate::domain::upload::UploadJob;
use crate::domain::user::User;
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, ErrorText, Problem, ValidationError};
use crate::http::multipart::Form;
use crate::http::params::Params;
use crate::ingest::upload::Offer;

pub(super) use self::view::queue_job;

/// How often a request that waits looks for its transcripts.
const LOOK: Duration = Duration::from_millis(250);
/// Requests in a list.
const LISTED: usize = 100;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Schemas::openapi())
        .routes(routes!(process))
        .routes(routes!(process_async))
        .routes(routes!(upload))
        // Bodies are counted as they arrive.
        .layer(DefaultBodyLimit::disable())
        .routes(routes!(jobs))
        .routes(routes!(job))
}

/// The schemas of [`NotTaken`], which utoipa does not find by itself.
#[derive(OpenApi)]
#[openapi(components(schemas(view::Refusal, view::Unprocessable)))]
struct Schemas;

/// Files as a form has them.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "a schema")]
struct FilesForm {
    /// Audio files: WAV, FLAC, MP3, Ogg, M4A, AAC or WebM.
    #[schema(value_type = Vec<String>, format = Binary)]
    files: Vec<Vec<u8>>,
}

/// What an upload may say beside its files.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "a schema: handlers read the parameters one by one")]
struct UploadQuery {
    /// Name of the device, `upload` without one
    device_name: Option<String>,
    /// Ignored
    auto_generate_client: Option<bool>,
    /// Store files that were uploaded before
    force: Option<bool>,
}

/// Why nothing of an upload was taken.
#[derive(utoipa::IntoResponses)]
#[allow(dead_code, reason = "a schema")]
enum NotTaken {
    /// The body was cut off
    #[response(status = 400)]
    CutOff(ErrorText),
    /// Too large
    #[response(status = 413)]
    TooLarge(view::Refusal),
    /// No file, or none that holds audio
    #[response(status = 422)]
    NoAudio(view::Unprocessable),
    /// The disk cannot be written
    #[response(status = 503)]
    Unwritable(ErrorText),
    /// The disk is full
    #[response(status = 507)]
    Full(ErrorText),
}

/// Records audio files and waits for their transcripts. A file whose bytes the
/// caller has uploaded before is not stored again, unless `force` is set: the
/// answer names the conversation it was made into.
#[utoipa::path(post, path = "/api/process-audio-files", tag = "uploads",
    params(UploadQuery),
    request_body(content = FilesForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "What became of each file", body = SyncAnswer),
        NotTaken,
    ))]
async fn process(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
    request: Request,
) -> Result<Json<SyncAnswer>, ApiError> {
    let (offered, job) = receive(&api, &user, &params, request).await?;
    wait(&api, &job).await?;
    let loaded = Loaded::of(&api, job).await?;
    Ok(Json(SyncAnswer::new(&loaded, &offered)))
}

/// Records audio files, and answers as soon as they have arrived.
#[utoipa::path(post, path = "/api/process-audio-files-async", tag = "uploads",
    params(UploadQuery),
    request_body(content = FilesForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "Where to ask how far it is", body = AsyncAnswer),
        NotTaken,
    ))]
async fn process_async(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
    request: Request,
) -> Result<Json<AsyncAnswer>, ApiError> {
    let (_, job) = receive(&api, &user, &params, request).await?;
    Ok(Json(AsyncAnswer::new(&job)))
}

/// Records audio files, and answers as soon as they have arrived with the
/// conversations they become.
#[utoipa::path(post, path = "/api/audio/upload", tag = "uploads",
    params(UploadQuery),
    request_body(content = FilesForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "What is to become of each file", body = UploadAnswer),
        NotTaken,
    ))]
async fn upload(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
    request: Request,
) -> Result<Json<UploadAnswer>, ApiError> {
    let (_, job) = receive(&api, &user, &params, request).await?;
    Ok(Json(UploadAnswer::new(&job)))
}

/// The caller's uploads, newest first; an administrator sees all.
#[utoipa::path(get, path = "/api/process-audio-files/jobs", tag = "uploads",
    responses((status = 200, description = "The uploads", body = JobList)))]
async fn jobs(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<JobList>, ApiError> {
    let owner = (!user.is_superuser).then_some(&user.id);
    let mut jobs = Vec::new();
    for job in api.store.upload_jobs(owner, LISTED).await? {
        jobs.push(JobView::new(&Loaded::of(&api, job).await?));
    }
    let active_jobs = jobs.iter().filter(|job| job.is_active()).count();
    Ok(Json(JobList { active_jobs, jobs }))
}

/// How far an upload is.
#[utoipa::path(get, path = "/api/process-audio-files/jobs/{id}", tag = "uploads",
    responses(
        (status = 200, description = "The upload", body = JobView),
        (status = 404, description = "No such upload", body = ErrorText),
    ))]
async fn job(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    let job = api.store.upload_job(&id).await?.filter(|job| may_see(&user, &job.user_id));
    let job = job.ok_or_else(|| ApiError::error(StatusCode::NOT_FOUND, "Job not found"))?;
    Ok(Json(JobView::new(&Loaded::of(&api, job).await?)))
}

/// What was offered, before it was taken.
struct Offered {
    sample_rate: u32,
    channels: usize,
}

/// Receives files, and takes those that can be taken.
async fn receive(
    api: &Arc<Api>,
    user: &User,
    params: &Params,
    request: Request,
) -> Result<(Vec<Option<Offered>>, UploadJob), ApiError> {
    let device = params.get("device_name").filter(|name| !name.is_empty()).unwrap_or("upload");
    let force = params.get("force").is_some_and(|force| matches!(force, "true" | "1" | "True"));
    let form = match Form::receive(api, request).await {
        Ok(form) => form,
        Err(error) if error.kind() == Kind::TooLarge => {
            return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, error.message(), &[]));
        }
        Err(error) => return Err(error.into()),
    };
    if form.files.is_empty() {
        return Err(ApiError::validation(vec![Problem::missing("body", "files")]));
    }
    refuse_if_none(&form.files)?;
    let offered = form.files.iter().map(|offer| {
        let shape = offer.file.as_ref().ok()?.shape;
        Some(Offered { sample_rate: shape.rate, channels: shape.channels })
    });
    let offered = offered.collect();
    let job = api.ingest.upload(user, device, form.files, force).await?;
    Ok((offered, job))
}

/// Refuses the request when not one of its files can be taken.
fn refuse_if_none(offers: &[Offer]) -> Result<(), ApiError> {
    let errors: Vec<_> = offers.iter().filter_map(|offer| offer.file.as_ref().err()).collect();
    if errors.len() < offers.len() {
        return Ok(());
    }
    let too_large = errors.iter().any(|error| error.kind() == Kind::TooLarge);
    let status = match too_large {
        true => StatusCode::PAYLOAD_TOO_LARGE,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let all: Vec<&str> = errors.iter().map(|error| error.message()).collect();
    let files: Vec<_> = offers
        .iter()
        .zip(&errors)
        .map(|(offer, error)| FileAnswer::failed(&offer.filename, error.message()))
        .collect();
    Err(refusal(status, &all.join("; "), &files))
}

/// Waits until every file is transcribed, as long as is configured.
async fn wait(api: &Api, job: &UploadJob) -> Result<()> {
    let stop = api.supervisor.stop_token();
    let waited = async {
        for id in job.files.iter().filter_map(|file| file.conversation_id.as_ref()) {
            while let Some(conversation) = api.store.conversation(id).await?
                && conversation.transcription == Progress::Pending
            {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    };
    tokio::select! {
        outcome = tokio::time::timeout(api.config.uploads.wait.get(), waited) => {
            outcome.unwrap_or(Ok(()))
        }
        () = stop.cancelled() => Ok(()),
    }
}
