//! How the daemon is, in full: what an administrator and `friend-lite status`
//! are told. `/health` tells the part of it that is for everybody.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::Api;
use super::health::ask;
use super::routes::verdict;
use crate::base::{system, thermal};
use crate::domain::job::JobCounts;
use crate::domain::user::User;
use crate::engine::process::{Activity, Engine};
use crate::jobs::load::Estimate;
use crate::models::ModelView;

/// How the daemon is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// What the device is called.
    pub name: String,
    /// Of the daemon.
    pub version: String,
    /// Of the daemon's process.
    pub pid: u32,
    /// Seconds since the Unix epoch.
    pub timestamp: i64,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// `healthy`, `degraded` (it records, and some service does not work) or
    /// `critical`.
    pub health: String,
    /// What to do, where something does not work.
    pub message: Option<String>,
    /// What listens where.
    pub listening: Vec<Listening>,
    /// Devices that are connected, or waited for.
    pub streams: Vec<StreamView>,
    /// What waits for transcription.
    pub backlog: Estimate,
    /// All jobs.
    pub jobs: JobCounts,
    /// The processes of the local models.
    pub engines: Vec<EngineView>,
    /// The models that are wanted.
    pub models: Vec<ModelView>,
    /// Memory of the machine.
    pub memory: MemoryView,
    /// The disk under the recordings; none until it was looked at.
    pub disk: Option<DiskView>,
    /// The processor.
    pub processor: ProcessorView,
}

/// Something that listens.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Listening {
    /// `http`, `https`, `wyoming` or `esp32`.
    pub what: String,
    /// Address and port.
    pub address: String,
}

/// A device.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StreamView {
    /// Its id.
    pub client_id: String,
    /// E-mail address of whose it is.
    pub user: Option<String>,
    /// False while its conversation waits for it to come back.
    pub connected: bool,
    /// Seconds of its current conversation; none while it records nothing.
    pub recording_seconds: Option<u64>,
    /// Seconds since audio last came.
    pub quiet_seconds: Option<u64>,
}

/// A process that runs a model.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EngineView {
    /// Engine and model: `whisper/ggml-base.bin`.
    pub name: String,
    /// Its program: the directory names the build for this processor.
    pub program: String,
    /// `off`, `idle` or `busy`.
    pub activity: Activity,
    /// Of its process, while there is one.
    pub pid: Option<u32>,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// How often it was started.
    pub starts: u64,
    /// How often it died.
    pub crashes: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MemoryView {
    /// Of the machine.
    pub total_bytes: u64,
    /// Used by nobody; what caches hold is not counted.
    pub free_bytes: u64,
    /// Resident memory of the daemon; none where it cannot be told.
    pub daemon_bytes: Option<u64>,
}

/// The disk under the recordings.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Disk)]
pub struct DiskView {
    /// Free to the daemon.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
    /// Kept free: below it no new audio is accepted, unless transcribed audio can
    /// be deleted.
    pub reserve_bytes: u64,
    /// How long the room above the reserve lasts at the present rate; none while
    /// nothing is recorded.
    pub headroom_hours: Option<f64>,
}

/// The processor.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProcessorView {
    /// Cores that the daemon may use.
    pub cores: usize,
    /// Builds of the engines that it runs, best first.
    pub builds: Vec<String>,
    /// Degrees Celsius; none where the machine does not tell.
    pub temperature: Option<f64>,
    /// What slows it down: `under-voltage`, `too hot`; none where the machine
    /// does not tell.
    pub throttling: Option<Vec<String>>,
}

impl DiskView {
    /// The disk as it was seen last.
    pub(super) fn of(api: &Api) -> Option<Self> {
        api.recordings.disk().map(|seen| Self {
            free_bytes: seen.space.free,
            total_bytes: seen.space.total,
            reserve_bytes: api.config.disk.reserve(),
            headroom_hours: seen.headroom.map(|left| left.as_secs_f64() / 3600.0),
        })
    }
}

/// How the daemon is now.
pub async fn status(api: &Api) -> Status {
    let limit = api.config.health.store_timeout.get();
    let asked = async {
        let (jobs, backlog) = (api.store.job_counts().await?, api.store.backlog().await?);
        Ok((jobs, backlog, api.store.users().await?))
    };
    let told = ask(limit, asked).await;
    let (_, parts_work) = api.health.services();
    let refusal = api.recordings.refusal();
    let (health, message) = verdict(told.is_ok(), refusal.as_ref(), parts_work);
    let (jobs, backlog, users) = told.unwrap_or_default();
    Status {
        name: api.name.borrow().clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        timestamp: api.clock.now().seconds(),
        uptime_seconds: api.clock.monotonic().saturating_sub(api.started).as_secs(),
        health: health.into(),
        message: message.map(str::to_owned),
        listening: api
            .listening
            .iter()
            .map(|(what, address)| Listening { what: (*what).into(), address: address.to_string() })
            .collect(),
        streams: streams(api, &users),
        backlog: api.ingest.load().estimate(backlog),
        jobs,
        engines: api.engines.iter().map(engine).collect(),
        models: api.supply.views(),
        memory: MemoryView {
            total_bytes: system::total_memory(),
            free_bytes: system::free_memory(),
            daemon_bytes: system::resident_memory(),
        },
        disk: DiskView::of(api),
        processor: ProcessorView {
            cores: system::cores(),
            builds: crate::engine::place::builds().into_iter().map(str::to_owned).collect(),
            temperature: thermal::temperature(),
            throttling: thermal::throttling(),
        },
    }
}

fn streams(api: &Api, users: &[User]) -> Vec<StreamView> {
    let now = api.clock.now();
    let email = |id| users.iter().find(|user| user.id == id).map(|user| user.email.clone());
    let view = |client: crate::domain::client::ClientView| StreamView {
        client_id: client.client_id.as_str().into(),
        user: email(client.user_id),
        connected: client.connected,
        recording_seconds: client.conversation.map(|one| now.since(one.started_at).as_secs()),
        quiet_seconds: client.last_audio_at.map(|at| now.since(at).as_secs()),
    };
    api.ingest.clients().list(None).into_iter().map(view).collect()
}

fn engine(engine: &Arc<Engine>) -> EngineView {
    let (activity, pid) = engine.activity();
    EngineView {
        name: engine.name().into(),
        program: engine.program().display().to_string(),
        activity,
        pid,
        memory_bytes: pid.and_then(system::resident_memory_of),
        starts: engine.starts(),
        crashes: engine.crashes(),
    }
}
