//! The job queue, in the shape that the original's dashboard reads.
//!
//! Users see the jobs of their own conversations, administrators all.

mod flush;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::sessions::{StreamSession, StreamSessions};
use super::uploads::queue_job;
use crate::base::clock::Timestamp;
use crate::domain::ids::{ClientId, ConversationId, UserId};
use crate::domain::job::{JobKind, JobState, Payload};
use crate::domain::user::User;
use crate::http::api::Api;
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, ErrorText, ValidationError};
use crate::http::params::Params;
use crate::store::{JobEntry, JobQuery};

/// The most jobs in one answer.
const MAX_PAGE: usize = 1000;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(one, remove))
        .routes(routes!(retry))
        .routes(routes!(by_session))
        .routes(routes!(stats))
        .routes(routes!(health))
        .routes(routes!(dashboard))
        .merge(sessions::routes())
        .merge(flush::routes())
}

/// A job.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
struct JobView {
    job_id: String,
    /// What it does.
    job_type: JobKind,
    /// The queue of the original that had such jobs.
    queue: &'static str,
    /// `queued`, `deferred` (waits for its retry, or for the daemon that has its audio),
    /// `processing`, `completed` or
    /// `failed`.
    status: &'static str,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339; while it is being done.
    started_at: Option<String>,
    /// RFC 3339.
    ended_at: Option<String>,
    description: String,
    func_name: &'static str,
    /// What it works on.
    args: Vec<String>,
    kwargs: BTreeMap<String, String>,
    meta: JobMeta,
    /// Always null: results are in the conversation.
    result: Option<String>,
    error_message: Option<String>,
}

/// Where a job belongs.
#[derive(Serialize, ToSchema)]
struct JobMeta {
    user_id: Option<UserId>,
    client_id: Option<ClientId>,
    conversation_id: Option<ConversationId>,
    attempts: u32,
    /// RFC 3339; not tried before this.
    run_at: String,
    /// `interactive`, `live` or `backlog`.
    lane: &'static str,
}

impl JobView {
    fn new(entry: JobEntry, now: Timestamp) -> Self {
        let job = entry.job;
        let away = entry.waits_for.as_ref();
        let (status, started, ended) = match job.state {
            JobState::Ready if job.run_at > now || away.is_some() => ("deferred", None, None),
            JobState::Ready => ("queued", None, None),
            JobState::Leased => ("processing", Some(job.updated_at), None),
            JobState::Done => ("completed", None, Some(job.updated_at)),
            JobState::Dead => ("failed", None, Some(job.updated_at)),
        };
        let subject = match &job.payload {
            Payload::Window(id) => id.to_string(),
            Payload::Conversation(id) => id.to_string(),
        };
        Self {
            job_id: job.id.to_string(),
            job_type: job.kind,
            queue: queue_of(job.kind),
            status,
            created_at: job.created_at.to_rfc3339(),
            started_at: started.map(Timestamp::to_rfc3339),
            ended_at: ended.map(Timestamp::to_rfc3339),
            description: format!("{} {subject}", job.kind.as_str()),
            func_name: job.kind.as_str(),
            args: vec![subject],
            kwargs: BTreeMap::new(),
            meta: JobMeta {
                user_id: entry.user_id,
                client_id: entry.client_id,
                conversation_id: entry.conversation_id,
                attempts: job.attempts,
                run_at: job.run_at.to_rfc3339(),
                lane: job.lane.as_str(),
            },
            result: None,
            error_message: away.map(waits_for).or(job.last_error),
        }
    }
}

/// Why a job waits whose audio is on the disk of a daemon that is away.
fn waits_for(node: &String) -> String {
    format!("waits for the daemon {node}, which alone has the audio and is away; start it again")
}

/// The original had a queue for each sort of work.
fn queue_of(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Transcribe => "transcription",
        JobKind::Remember => "memory",
        JobKind::Crop | JobKind::Archive => "audio",
        JobKind::Finish => "default",
        JobKind::Import => "upload",
    }
}

const KINDS: [JobKind; 6] = [
    JobKind::Import,
    JobKind::Transcribe,
    JobKind::Finish,
    JobKind::Remember,
    JobKind::Crop,
    JobKind::Archive,
];

/// Jobs, newest first.
#[derive(Serialize, ToSchema)]
struct JobPage {
    jobs: Vec<JobView>,
    pagination: Pagination,
}

/// Where a page lies in the whole.
#[derive(Serialize, ToSchema)]
struct Pagination {
    total: u64,
    limit: usize,
    offset: usize,
    has_more: bool,
}

/// Whose jobs somebody sees.
fn visible(user: &User) -> Option<UserId> {
    (!user.is_superuser).then(|| user.id.clone())
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/api/queue/jobs", tag = "queue",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000),
        ("offset" = Option<usize>, Query, minimum = 0, maximum = 1_000_000_000),
        ("queue_name" = Option<String>, Query,
            description = "`transcription`, `memory`, `audio`, `upload` or `default`"),
    ),
    responses(
        (status = 200, description = "The jobs", body = JobPage),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn list(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<JobPage>, ApiError> {
    let limit = params.integer("limit", 20, 1..=MAX_PAGE)?;
    let offset = params.integer("offset", 0, 0..=1_000_000_000)?;
    let queue = params.get("queue_name").filter(|name| !name.is_empty());
    let kind = queue.and_then(|name| {
        KINDS.into_iter().find(|kind| queue_of(*kind) == name || kind.as_str() == name)
    });
    let (jobs, total) = if queue.is_some() && kind.is_none() {
        (Vec::new(), 0)
    } else {
        let query = JobQuery { user: visible(&user), kind, limit, offset, ..JobQuery::default() };
        api.store.jobs(query).await?
    };
    let shown = offset.saturating_add(jobs.len()) as u64;
    let pagination = Pagination { total, limit, offset, has_more: shown < total };
    let now = api.clock.now();
    let jobs = jobs.into_iter().map(|entry| JobView::new(entry, now)).collect();
    Ok(Json(JobPage { jobs, pagination }))
}

/// The job of that number, if the caller may see it.
async fn find(api: &Api, user: &User, id: &str) -> Result<JobEntry, ApiError> {
    let found = match id.parse() {
        Ok(id) => api.store.job(id).await?,
        Err(_) => None,
    };
    found
        .filter(|entry| user.is_superuser || entry.user_id.as_ref() == Some(&user.id))
        .ok_or_else(|| ApiError::error(StatusCode::NOT_FOUND, "Job not found"))
}

/// A job of the queue, or what an upload gave an id to.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum AnyJob {
    /// A job of the queue.
    Job(Box<JobView>),
    /// An upload, or a step of the conversation it becomes, with the same fields.
    Upload(Value),
}

/// One job, by its number or by an id that an upload gave out.
#[utoipa::path(get, path = "/api/queue/jobs/{id}", tag = "queue",
    responses(
        (status = 200, description = "The job", body = AnyJob),
        (status = 404, description = "No such job", body = ErrorText),
    ))]
async fn one(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<AnyJob>, ApiError> {
    if let Some(upload) = queue_job(&api, &user, &id).await? {
        return Ok(Json(AnyJob::Upload(upload)));
    }
    let entry = find(&api, &user, &id).await?;
    Ok(Json(AnyJob::Job(Box::new(JobView::new(entry, api.clock.now())))))
}

/// What became of a job.
#[derive(Serialize, ToSchema)]
struct JobAction {
    job_id: String,
    /// `cancelled`, `deleted` or `retried`.
    action: &'static str,
    message: &'static str,
}

/// Cancels a job that is not done: it counts as failed, its audio is kept, and
/// it can be retried. One that is done or has failed is taken off the list.
#[utoipa::path(delete, path = "/api/queue/jobs/{id}", tag = "queue",
    responses(
        (status = 200, description = "It is gone", body = JobAction),
        (status = 404, description = "No such job", body = ErrorText),
    ))]
async fn remove(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<JobAction>, ApiError> {
    let entry = find(&api, &user, &id).await?;
    let number = entry.job.id;
    let (action, message) = if api.store.cancel_job(number, api.clock.now()).await? {
        ("cancelled", "The job was cancelled; it can be retried")
    } else {
        api.store.forget_job(number).await?;
        ("deleted", "The job was taken off the list")
    };
    api.auth.audit(Some(&user.id), "job-removed", &format!("{number}: {action}")).await;
    Ok(Json(JobAction { job_id: number.to_string(), action, message }))
}

/// Puts a failed job back, with all its attempts.
#[utoipa::path(post, path = "/api/queue/jobs/{id}/retry", tag = "queue",
    responses(
        (status = 200, description = "It waits for its turn", body = JobAction),
        (status = 404, description = "No such failed job", body = ErrorText),
        (status = 409, description = "The same work is queued already", body = ErrorText),
    ))]
async fn retry(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<JobAction>, ApiError> {
    let entry = find(&api, &user, &id).await?;
    api.store.retry_job(entry.job.id, api.clock.now()).await?;
    api.wake.wake();
    Ok(Json(JobAction {
        job_id: entry.job.id.to_string(),
        action: "retried",
        message: "The job waits for its turn",
    }))
}

/// The jobs of one conversation or device.
#[derive(Serialize, ToSchema)]
struct SessionJobs {
    session_id: String,
    jobs: Vec<JobView>,
    total: u64,
}

/// The jobs of a conversation, or of a device's conversations, newest first.
#[utoipa::path(get, path = "/api/queue/jobs/by-session/{session_id}", tag = "queue",
    responses((status = 200, description = "The jobs", body = SessionJobs)))]
async fn by_session(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(session_id): Path<String>,
) -> Result<Json<SessionJobs>, ApiError> {
    let query = JobQuery {
        user: visible(&user),
        session: Some(session_id.clone()),
        limit: MAX_PAGE,
        ..JobQuery::default()
    };
    let (jobs, total) = api.store.jobs(query).await?;
    let now = api.clock.now();
    let jobs = jobs.into_iter().map(|entry| JobView::new(entry, now)).collect();
    Ok(Json(SessionJobs { session_id, jobs, total }))
}

/// How many jobs there are, by where they stand.
#[derive(Default, Serialize, ToSchema)]
struct JobStats {
    total_jobs: u64,
    queued_jobs: u64,
    processing_jobs: u64,
    completed_jobs: u64,
    failed_jobs: u64,
    /// Always zero: a cancelled job counts as failed.
    cancelled_jobs: u64,
    /// Always zero: jobs that wait for a retry count as queued.
    deferred_jobs: u64,
}

impl JobStats {
    async fn of(api: &Api, user: &User) -> Result<Self, ApiError> {
        let mut stats = Self::default();
        for count in api.store.job_census(visible(user).as_ref()).await? {
            stats.total_jobs += count.jobs;
            *match count.state {
                JobState::Ready => &mut stats.queued_jobs,
                JobState::Leased => &mut stats.processing_jobs,
                JobState::Done => &mut stats.completed_jobs,
                JobState::Dead => &mut stats.failed_jobs,
            } += count.jobs;
        }
        Ok(stats)
    }
}

/// How many jobs there are, by where they stand.
#[utoipa::path(get, path = "/api/queue/stats", tag = "queue",
    responses((status = 200, description = "The numbers", body = JobStats)))]
async fn stats(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<JobStats>, ApiError> {
    Ok(Json(JobStats::of(&api, &user).await?))
}

/// How the queue is.
#[derive(Serialize, ToSchema)]
struct QueueHealth {
    /// `healthy`: the store answers.
    status: &'static str,
    /// Seconds since the Unix epoch.
    timestamp: i64,
    /// Jobs that wait.
    queued: u64,
    /// Jobs that are being done.
    processing: u64,
    /// Jobs that were given up.
    failed: u64,
}

/// How the queue is.
#[utoipa::path(get, path = "/api/queue/health", tag = "queue", security(()),
    responses((status = 200, description = "How it is", body = QueueHealth)))]
async fn health(State(api): State<Arc<Api>>) -> Result<Json<QueueHealth>, ApiError> {
    let counts = api.store.job_counts().await?;
    Ok(Json(QueueHealth {
        status: "healthy",
        timestamp: api.clock.now().seconds(),
        queued: counts.ready,
        processing: counts.leased,
        failed: counts.dead,
    }))
}

/// The page of the queue in one answer.
#[derive(Serialize, ToSchema)]
struct QueueDashboard {
    jobs: JobsByStatus,
    stats: JobStats,
    streaming_status: StreamSessions,
    /// The jobs of the sessions that were asked for.
    session_jobs: BTreeMap<String, Vec<JobView>>,
    /// Seconds since the Unix epoch.
    timestamp: f64,
}

/// The newest jobs, by where they stand.
#[derive(Serialize, ToSchema)]
struct JobsByStatus {
    queued: Vec<JobView>,
    processing: Vec<JobView>,
    completed: Vec<JobView>,
    failed: Vec<JobView>,
}

/// The page of the queue in one answer.
#[utoipa::path(get, path = "/api/queue/dashboard", tag = "queue",
    params(("expanded_sessions" = Option<String>, Query,
        description = "Conversations or devices, separated by commas")),
    responses((status = 200, description = "The page", body = QueueDashboard)))]
async fn dashboard(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<QueueDashboard>, ApiError> {
    const SHOWN: usize = 50;
    const SESSIONS: usize = 20;
    let now = api.clock.now();
    let jobs = async |state: Option<JobState>, session: Option<String>| {
        let limit = SHOWN;
        let user = visible(&user);
        let query = JobQuery { user, state, session, limit, ..JobQuery::default() };
        let (jobs, _) = api.store.jobs(query).await?;
        let views = jobs.into_iter().map(|entry| JobView::new(entry, now)).collect();
        Ok::<Vec<JobView>, ApiError>(views)
    };
    let sessions = params.get("expanded_sessions").unwrap_or_default().split(',');
    let mut session_jobs = BTreeMap::new();
    for session in sessions.map(str::trim).filter(|id| !id.is_empty()).take(SESSIONS) {
        session_jobs.insert(session.to_owned(), jobs(None, Some(session.to_owned())).await?);
    }
    let streaming = StreamSession::of(&api, &user).await?;
    Ok(Json(QueueDashboard {
        jobs: JobsByStatus {
            queued: jobs(Some(JobState::Ready), None).await?,
            processing: jobs(Some(JobState::Leased), None).await?,
            completed: jobs(Some(JobState::Done), None).await?,
            failed: jobs(Some(JobState::Dead), None).await?,
        },
        stats: JobStats::of(&api, &user).await?,
        streaming_status: StreamSessions::new(streaming),
        session_jobs,
        timestamp: now.seconds_f64(),
    }))
}
