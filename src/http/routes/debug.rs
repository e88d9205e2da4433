//! What became of each conversation on its way into memory: what a dashboard
//! shows to those who wonder. Users see their own, administrators everybody's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::conversation::{Conversation, Progress};
use crate::domain::ids::{ClientId, ConversationId, JobId, MemoryId, UserId};
use crate::domain::job::{Job, JobKind, JobState};
use crate::domain::memory::MemoryEvent;
use crate::domain::transcript::plain_text;
use crate::domain::user::User;
use crate::domain::version::{Details, MemoryVersion};
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::{ApiError, ErrorText, ValidationError};
use crate::http::health::Part;
use crate::http::params::Params;
use crate::pipeline::prompts;

/// Conversations that the figures are about, the latest ones.
const MOST: usize = 1_000;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(stats))
        .routes(routes!(sessions))
        .routes(routes!(session))
        .routes(routes!(comparison))
        .routes(routes!(config))
        .routes(routes!(pipeline))
}

/// How remembering goes, over the latest thousand conversations.
#[derive(Serialize, ToSchema)]
struct DebugStats {
    total_sessions: usize,
    successful_sessions: usize,
    failed_sessions: usize,
    pending_sessions: usize,
    /// Nothing worth remembering in them, or too short to look at.
    empty_sessions: usize,
    /// Of the sessions that ended, 0 to 100.
    success_rate: f64,
    total_memories: u64,
    /// From asking for memories to having them, waiting included; seconds.
    avg_processing_time_seconds: Option<f64>,
}

/// How remembering goes.
#[utoipa::path(get, path = "/api/debug/memory/stats", tag = "debug",
    responses((status = 200, description = "The figures", body = DebugStats)))]
async fn stats(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
) -> Result<Json<DebugStats>, ApiError> {
    let found = visible(&api, &user, MOST).await?;
    let sessions = api
        .with_details(found, |conversation, details| {
            let times: Vec<f64> =
                details.memory_versions.iter().filter_map(seconds_taken).collect();
            (conversation.memory, details.memories.len() as u64, times)
        })
        .await?;
    let count = |wanted| sessions.iter().filter(|(state, ..)| *state == wanted).count();
    let (completed, failed) = (count(Progress::Completed), count(Progress::Failed));
    let empty = count(Progress::Empty) + count(Progress::Skipped);
    let ended = completed + failed + empty;
    let times: Vec<f64> = sessions.iter().flat_map(|(_, _, times)| times).copied().collect();
    Ok(Json(DebugStats {
        total_sessions: sessions.len(),
        successful_sessions: completed,
        failed_sessions: failed,
        pending_sessions: count(Progress::Pending),
        empty_sessions: empty,
        success_rate: match ended {
            0 => 100.0,
            _ => 100.0 * (completed + empty) as f64 / ended as f64,
        },
        total_memories: sessions.iter().map(|(_, memories, _)| memories).sum(),
        avg_processing_time_seconds: (!times.is_empty())
            .then(|| times.iter().sum::<f64>() / times.len() as f64),
    }))
}

/// Conversations on their way into memory, newest first.
#[derive(Serialize, ToSchema)]
struct DebugSessions {
    sessions: Vec<DebugSession>,
    count: usize,
}

/// A conversation on its way into memory.
#[derive(Serialize, ToSchema)]
struct DebugSession {
    session_id: ConversationId,
    audio_uuid: ConversationId,
    user_id: UserId,
    client_id: ClientId,
    /// RFC 3339.
    created_at: String,
    transcription_status: Progress,
    memory_status: Progress,
    /// Whether memories were made, or there was nothing to remember.
    success: bool,
    memory_count: usize,
    transcript_length: usize,
    /// Waiting included; seconds.
    processing_time_seconds: Option<f64>,
    error: Option<String>,
}

/// The latest conversations on their way into memory.
#[utoipa::path(get, path = "/api/debug/memory/sessions", tag = "debug",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 1000)),
    responses(
        (status = 200, description = "The conversations", body = DebugSessions),
        (status = 422, description = "Wrong parameters", body = ValidationError),
    ))]
async fn sessions(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<DebugSessions>, ApiError> {
    let limit = params.integer("limit", 50, 1..=MOST)?;
    let found = visible(&api, &user, limit).await?;
    let sessions = api.with_details(found, |c, details| DebugSession::of(&c, &details)).await?;
    Ok(Json(DebugSessions { count: sessions.len(), sessions }))
}

/// One conversation on its way into memory, with every set of memories made.
#[derive(Serialize, ToSchema)]
struct DebugSessionDetails {
    session: DebugSession,
    transcript: String,
    memories: Vec<DebugMemory>,
    attempts: Vec<DebugAttempt>,
    jobs: Vec<DebugJob>,
}

/// A memory and its past.
#[derive(Serialize, ToSchema)]
struct DebugMemory {
    memory_id: MemoryId,
    memory_text: String,
    history: Vec<DebugEvent>,
}

/// Something that happened to a memory.
#[derive(Serialize, ToSchema)]
struct DebugEvent {
    event: MemoryEvent,
    old_text: Option<String>,
    new_text: Option<String>,
    /// RFC 3339.
    at: String,
}

/// A set of memories that was made, or was to be.
#[derive(Serialize, ToSchema)]
struct DebugAttempt {
    version_id: String,
    is_active: bool,
    status: Progress,
    model: Option<String>,
    prompt_version: Option<String>,
    memory_count: u64,
    processing_time_seconds: Option<f64>,
}

/// A job of a conversation.
#[derive(Serialize, ToSchema)]
struct DebugJob {
    job_id: JobId,
    kind: JobKind,
    state: JobState,
    attempts: u32,
    error: Option<String>,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
}

/// One conversation on its way into memory, in detail.
#[utoipa::path(get, path = "/api/debug/memory/session/{id}", tag = "debug",
    responses(
        (status = 200, description = "The conversation", body = DebugSessionDetails),
        (status = 404, description = "No such conversation", body = ErrorText),
    ))]
async fn session(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<DebugSessionDetails>, ApiError> {
    let (conversation, details) = owned(&api, &user, id).await?;
    let mut memories = Vec::with_capacity(details.memories.len());
    for memory in &details.memories {
        let history = api.store.memory_history(&memory.id).await?;
        memories.push(DebugMemory {
            memory_id: memory.id.clone(),
            memory_text: memory.text.clone(),
            history: history.into_iter().map(DebugEvent::from).collect(),
        });
    }
    let jobs = api.store.conversation_jobs(&conversation.id).await?;
    Ok(Json(DebugSessionDetails {
        session: DebugSession::of(&conversation, &details),
        transcript: text(&details),
        memories,
        attempts: details.memory_versions.iter().map(DebugAttempt::of).collect(),
        jobs: jobs.into_iter().map(DebugJob::from).collect(),
    }))
}

/// A transcript beside what was remembered of it.
#[derive(Serialize, ToSchema)]
struct TranscriptVersusMemory {
    audio_uuid: ConversationId,
    transcript: String,
    transcript_length: usize,
    memories: Vec<String>,
    memory_count: usize,
    memory_length: usize,
    /// Characters of memories for each hundred of the transcript.
    compression_ratio: f64,
}

/// A transcript beside what was remembered of it.
#[utoipa::path(get, path = "/api/debug/memory/transcript-vs-memory/{id}", tag = "debug",
    responses(
        (status = 200, description = "Both", body = TranscriptVersusMemory),
        (status = 404, description = "No such conversation", body = ErrorText),
    ))]
async fn comparison(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<TranscriptVersusMemory>, ApiError> {
    let (conversation, details) = owned(&api, &user, id).await?;
    let transcript = text(&details);
    let memories: Vec<String> = details.memories.into_iter().map(|memory| memory.text).collect();
    let transcript_length = transcript.chars().count();
    let memory_length = memories.iter().map(|memory| memory.chars().count()).sum();
    Ok(Json(TranscriptVersusMemory {
        audio_uuid: conversation.id,
        transcript,
        transcript_length,
        memory_count: memories.len(),
        memories,
        memory_length,
        compression_ratio: compression_ratio(memory_length, transcript_length),
    }))
}

/// How memories are made here.
#[derive(Serialize, ToSchema)]
struct DebugConfig {
    memory_extraction: ExtractionConfig,
    llm: ModelConfig,
    embedding: ModelConfig,
    max_attempts: u32,
}

/// What is looked at for memories.
#[derive(Serialize, ToSchema)]
struct ExtractionConfig {
    enabled: bool,
    /// Shorter transcripts are not looked at; characters.
    min_characters: usize,
    prompt_version: &'static str,
}

/// A model in use.
#[derive(Serialize, ToSchema)]
struct ModelConfig {
    model: Option<String>,
    /// Seconds.
    deadline_seconds: f64,
}

/// How memories are made here.
#[utoipa::path(get, path = "/api/debug/memory/config", tag = "debug",
    responses((status = 200, description = "The configuration", body = DebugConfig)))]
async fn config(State(api): State<Arc<Api>>, CurrentUser(_user): CurrentUser) -> Json<DebugConfig> {
    let config = &api.config;
    Json(DebugConfig {
        memory_extraction: ExtractionConfig {
            enabled: config.memory.enabled,
            min_characters: config.memory.min_characters,
            prompt_version: prompts::VERSION,
        },
        llm: ModelConfig {
            model: api.health.model(Part::Llm),
            deadline_seconds: config.llm.deadline.get().as_secs_f64(),
        },
        embedding: ModelConfig {
            model: api.health.model(Part::Embed),
            deadline_seconds: config.embed.deadline.get().as_secs_f64(),
        },
        max_attempts: config.jobs.max_attempts,
    })
}

/// The steps of a conversation.
#[derive(Serialize, ToSchema)]
struct DebugPipeline {
    audio_uuid: ConversationId,
    /// In order.
    stages: Vec<DebugStage>,
    jobs: Vec<DebugJob>,
}

/// One step of a conversation.
#[derive(Serialize, ToSchema)]
struct DebugStage {
    stage: &'static str,
    status: Progress,
    /// RFC 3339.
    started_at: Option<String>,
    /// RFC 3339.
    completed_at: Option<String>,
}

/// The steps of a conversation, and where each stands.
#[utoipa::path(get, path = "/api/debug/memory/pipeline/{id}", tag = "debug",
    responses(
        (status = 200, description = "The steps", body = DebugPipeline),
        (status = 404, description = "No such conversation", body = ErrorText),
    ))]
async fn pipeline(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<DebugPipeline>, ApiError> {
    let (conversation, details) = owned(&api, &user, id).await?;
    let jobs = api.store.conversation_jobs(&conversation.id).await?;
    Ok(Json(DebugPipeline {
        stages: stages(&conversation, &details, &jobs),
        audio_uuid: conversation.id,
        jobs: jobs.into_iter().map(DebugJob::from).collect(),
    }))
}

fn stages(conversation: &Conversation, details: &Details, jobs: &[Job]) -> Vec<DebugStage> {
    let moment = |at: Option<Timestamp>| at.map(Timestamp::to_rfc3339);
    let stage = |stage, status, started: Option<Timestamp>, completed: Option<Timestamp>| {
        DebugStage { stage, status, started_at: moment(started), completed_at: moment(completed) }
    };
    let audio = match conversation.is_open() {
        true => Progress::Pending,
        false => Progress::Completed,
    };
    let transcript = details.transcripts.iter().find(|version| version.active);
    let memory = details.memory_versions.iter().rev().find(|version| version.active);
    let memory = memory.or(details.memory_versions.last());
    let cropping = jobs.iter().rev().find(|job| job.kind == JobKind::Crop);
    let cropped = match (&details.crop, cropping.map(|job| job.state)) {
        (Some(crop), _) if crop.audio_path.is_none() => Progress::Empty,
        (Some(_), _) => Progress::Completed,
        (None, Some(JobState::Dead)) => Progress::Failed,
        (None, None) if conversation.transcription != Progress::Pending => Progress::Skipped,
        (None, _) => Progress::Pending,
    };
    vec![
        stage("audio", audio, Some(conversation.started_at), conversation.ended_at),
        stage(
            "transcription",
            conversation.transcription,
            transcript.map(|version| version.created_at),
            transcript.and_then(|version| version.completed_at),
        ),
        stage(
            "memory",
            conversation.memory,
            memory.map(|version| version.created_at),
            memory.and_then(|version| version.completed_at),
        ),
        stage(
            "cropping",
            cropped,
            cropping.map(|job| job.created_at),
            details.crop.as_ref().map(|crop| crop.at),
        ),
    ]
}

impl DebugSession {
    fn of(conversation: &Conversation, details: &Details) -> Self {
        let active = details.memory_versions.iter().find(|version| version.active);
        Self {
            session_id: conversation.id.clone(),
            audio_uuid: conversation.id.clone(),
            user_id: conversation.user_id.clone(),
            client_id: conversation.client_id.clone(),
            created_at: conversation.started_at.to_rfc3339(),
            transcription_status: conversation.transcription,
            memory_status: conversation.memory,
            success: matches!(
                conversation.memory,
                Progress::Completed | Progress::Empty | Progress::Skipped
            ),
            memory_count: details.memories.len(),
            transcript_length: text(details).chars().count(),
            processing_time_seconds: active.and_then(seconds_taken),
            error: conversation.error.clone(),
        }
    }
}

impl DebugAttempt {
    fn of(version: &MemoryVersion) -> Self {
        Self {
            version_id: version.version.to_string(),
            is_active: version.active,
            status: version.state,
            model: version.model.clone(),
            prompt_version: version.prompt_version.clone(),
            memory_count: version.memories,
            processing_time_seconds: seconds_taken(version),
        }
    }
}

impl From<crate::domain::memory::MemoryHistory> for DebugEvent {
    fn from(history: crate::domain::memory::MemoryHistory) -> Self {
        Self {
            event: history.event,
            old_text: history.old_text,
            new_text: history.new_text,
            at: history.at.to_rfc3339(),
        }
    }
}

impl From<Job> for DebugJob {
    fn from(job: Job) -> Self {
        Self {
            job_id: job.id,
            kind: job.kind,
            state: job.state,
            attempts: job.attempts,
            error: job.last_error,
            created_at: job.created_at.to_rfc3339(),
            updated_at: job.updated_at.to_rfc3339(),
        }
    }
}

/// The latest conversations that the caller may see.
async fn visible(api: &Api, caller: &User, limit: usize) -> Result<Vec<Conversation>> {
    let owner = (!caller.is_superuser).then_some(&caller.id);
    api.store.conversations(owner, limit).await
}

/// The conversation of that id, if the caller may see it.
async fn owned(api: &Api, caller: &User, id: String) -> Result<(Conversation, Details), ApiError> {
    let id = ConversationId::from_text(id);
    let found = api.store.conversation(&id).await?;
    let conversation = found
        .filter(|conversation| may_see(caller, &conversation.user_id))
        .ok_or_else(|| ApiError::error(StatusCode::NOT_FOUND, "Conversation not found"))?;
    let details = api.store.details(std::slice::from_ref(&id)).await?.remove(&id);
    Ok((conversation, details.unwrap_or_default()))
}

fn text(details: &Details) -> String {
    let segments = details.windows.iter().flat_map(|window| window.segments.iter().cloned());
    plain_text(&segments.collect::<Vec<_>>())
}

/// From asking to having; seconds.
fn seconds_taken(version: &MemoryVersion) -> Option<f64> {
    Some(version.completed_at?.since(version.created_at).as_secs_f64())
}

/// Characters of memories for each hundred of their transcript, to one decimal.
pub(super) fn compression_ratio(memory: usize, transcript: usize) -> f64 {
    match transcript {
        0 => 0.0,
        length => (1_000.0 * memory as f64 / length as f64).round() / 10.0,
    }
}
