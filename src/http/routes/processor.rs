//! How far the work for each device has come, in the shape of the original.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::base::error::Result;
use crate::domain::conversation::{Conversation, Progress};
use crate::domain::ids::{ClientId, ConversationId};
use crate::domain::job::{JobKind, JobState};
use crate::http::api::{Api, may_see};
use crate::http::auth::{CurrentUser, Superuser};
use crate::http::error::ApiError;

/// Conversations looked at to find the newest of each device.
const LOOKED_AT: usize = 200;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default().routes(routes!(all)).routes(routes!(one)).routes(routes!(status))
}

/// How far the work for the newest conversation of a device has come.
#[derive(Serialize, ToSchema)]
struct ClientTasks {
    client_id: ClientId,
    /// `no_tasks`, `processing` or `complete`.
    status: &'static str,
    stages: Stages,
}

/// The steps; empty where there is no conversation.
#[derive(Default, Serialize, ToSchema)]
struct Stages {
    #[serde(skip_serializing_if = "Option::is_none")]
    audio: Option<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transcription: Option<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<TaskStage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cropping: Option<TaskStage>,
}

/// A step while audio comes in.
#[derive(Serialize, ToSchema)]
struct Stage {
    completed: bool,
    error: Option<String>,
    /// `started`, `completed` or `failed`.
    status: &'static str,
    metadata: StageMetadata,
    /// When the conversation began or ended, in seconds since the Unix epoch.
    timestamp: f64,
}

/// What a step works on.
#[derive(Serialize, ToSchema)]
struct StageMetadata {
    audio_uuid: ConversationId,
}

/// A step after the audio has come.
#[derive(Serialize, ToSchema)]
struct TaskStage {
    task_id: String,
    completed: bool,
    error: Option<String>,
    /// When the conversation ended, in seconds since the Unix epoch.
    created_at: Option<f64>,
    /// Not kept, so always null.
    completed_at: Option<f64>,
    /// Always false: a cancelled step has failed.
    cancelled: bool,
}

impl ClientTasks {
    fn none(client_id: ClientId) -> Self {
        Self { client_id, status: "no_tasks", stages: Stages::default() }
    }

    async fn of(api: &Api, conversation: Conversation) -> Result<Self> {
        let c = conversation;
        let cropping = if api.config.cropping.enabled && !c.is_open() {
            let cropped = api.store.crop(&c.id).await?.is_some();
            Some(task(&c, "crop", cropped, false))
        } else {
            None
        };
        let (transcribed, untranscribed) = ended(c.transcription);
        let (remembered, unremembered) = ended(c.memory);
        let settled = !c.is_open() && transcribed && remembered;
        let stages = Stages {
            audio: Some(stage(&c, !c.is_open(), false)),
            transcription: Some(stage(&c, transcribed, untranscribed)),
            memory: Some(task(&c, "remember", remembered, unremembered)),
            cropping,
        };
        let status = if settled { "complete" } else { "processing" };
        Ok(Self { client_id: c.client_id, status, stages })
    }
}

/// Whether a step has come to its end, and whether to a bad one.
fn ended(progress: Progress) -> (bool, bool) {
    (progress != Progress::Pending, progress == Progress::Failed)
}

fn stage(c: &Conversation, completed: bool, failed: bool) -> Stage {
    let status = match (completed, failed) {
        (_, true) => "failed",
        (true, _) => "completed",
        (false, _) => "started",
    };
    Stage {
        completed,
        error: c.error.clone().filter(|_| failed),
        status,
        metadata: StageMetadata { audio_uuid: c.id.clone() },
        timestamp: c.ended_at.unwrap_or(c.started_at).seconds_f64(),
    }
}

fn task(c: &Conversation, name: &str, completed: bool, failed: bool) -> TaskStage {
    TaskStage {
        task_id: format!("{name}:{}", c.id),
        completed,
        error: c.error.clone().filter(|_| failed),
        created_at: c.ended_at.map(|at| at.seconds_f64()),
        completed_at: None,
        cancelled: false,
    }
}

/// The newest conversation of each device, for administrators.
#[utoipa::path(get, path = "/api/processor/tasks", tag = "processor",
    responses((status = 200, description = "By client id", body = BTreeMap<String, ClientTasks>)))]
async fn all(
    State(api): State<Arc<Api>>,
    _admin: Superuser,
) -> Result<Json<BTreeMap<String, ClientTasks>>, ApiError> {
    let mut tasks = BTreeMap::new();
    for conversation in api.store.conversations(None, LOOKED_AT).await? {
        if let Entry::Vacant(newest) = tasks.entry(conversation.client_id.to_string()) {
            newest.insert(ClientTasks::of(&api, conversation).await?);
        }
    }
    Ok(Json(tasks))
}

/// How far the work for the newest conversation of a device has come. A device
/// that the caller may not see has none.
#[utoipa::path(get, path = "/api/processor/tasks/{client_id}", tag = "processor",
    responses((status = 200, description = "How far", body = ClientTasks)))]
async fn one(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(client_id): Path<String>,
) -> Result<Json<ClientTasks>, ApiError> {
    let owner = (!user.is_superuser).then_some(&user.id);
    let newest = api
        .store
        .conversations(owner, LOOKED_AT)
        .await?
        .into_iter()
        .find(|c| c.client_id.as_str() == client_id && may_see(&user, &c.user_id));
    Ok(Json(match newest {
        Some(conversation) => ClientTasks::of(&api, conversation).await?,
        None => ClientTasks::none(ClientId::from_text(client_id)),
    }))
}

/// The state of the pipeline.
#[derive(Serialize, ToSchema)]
struct ProcessorStatus {
    /// Seconds since the Unix epoch.
    timestamp: i64,
    /// Jobs that wait, by queue.
    queues: BTreeMap<String, u64>,
    processors: BTreeMap<String, Processor>,
    active_clients: Vec<ClientId>,
    active_audio_uuids: Vec<ConversationId>,
    /// Jobs that are being done.
    processing_tasks: u64,
    task_manager: TaskManager,
}

/// A worker.
#[derive(Serialize, ToSchema)]
struct Processor {
    /// Always true: the supervisor starts a worker again that ends.
    running: bool,
    /// Jobs it is doing.
    busy: u64,
}

/// The tasks of the daemon.
#[derive(Serialize, ToSchema)]
struct TaskManager {
    /// Jobs that are being done.
    active_tasks: u64,
    completed_tasks: u64,
    failed_tasks: u64,
    /// How often a part of the daemon had to be started again.
    restarts: usize,
}

/// The state of the pipeline, for administrators.
#[utoipa::path(get, path = "/api/processor/status", tag = "processor",
    responses((status = 200, description = "The state", body = ProcessorStatus)))]
async fn status(
    State(api): State<Arc<Api>>,
    _admin: Superuser,
) -> Result<Json<ProcessorStatus>, ApiError> {
    let census = api.store.job_census(None).await?;
    let count = |kind: Option<JobKind>, state: JobState| -> u64 {
        let of_kind = census.iter().filter(|c| kind.is_none_or(|kind| c.kind == kind));
        of_kind.filter(|c| c.state == state).map(|c| c.jobs).sum()
    };
    let named = [
        ("transcription", JobKind::Transcribe),
        ("memory", JobKind::Remember),
        ("cropping", JobKind::Crop),
        ("finish", JobKind::Finish),
        ("upload", JobKind::Import),
    ];
    let waiting =
        |(name, kind): (&str, JobKind)| (name.to_owned(), count(Some(kind), JobState::Ready));
    let working = |(name, kind): (&str, JobKind)| {
        let busy = count(Some(kind), JobState::Leased);
        (name.to_owned(), Processor { running: true, busy })
    };
    let clients = api.ingest.clients_everywhere(None).await?;
    let processing = count(None, JobState::Leased);
    Ok(Json(ProcessorStatus {
        timestamp: api.clock.now().seconds(),
        queues: named.into_iter().map(waiting).collect(),
        processors: named.into_iter().map(working).collect(),
        active_audio_uuids: clients
            .iter()
            .filter_map(|client| client.conversation.as_ref().map(|now| now.id.clone()))
            .collect(),
        active_clients: clients.into_iter().map(|client| client.client_id).collect(),
        processing_tasks: processing,
        task_manager: TaskManager {
            active_tasks: processing,
            completed_tasks: count(None, JobState::Done),
            failed_tasks: count(None, JobState::Dead),
            restarts: api.supervisor.restarts(),
        },
    }))
}
