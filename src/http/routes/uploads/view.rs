//! Uploads as their clients see them.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Offered, ValidationError};
use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::conversation::{Conversation, Progress};
use crate::domain::ids::{ClientId, ConversationId};
use crate::domain::upload::{Upload, UploadJob, UploadState};
use crate::domain::user::User;
use crate::http::api::{Api, may_see};
use crate::http::error::ApiError;

/// An upload with what has become of its files so far.
pub(super) struct Loaded {
    job: UploadJob,
    conversations: Vec<Option<Conversation>>,
}

/// Where one file stands, in the words of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileStatus {
    /// Waits to be recorded.
    Pending,
    /// Is being recorded or transcribed.
    Processing,
    /// Recorded and transcribed.
    Completed,
    /// Refused or given up.
    Failed,
    /// Too long.
    Skipped,
}

/// Where an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum JobStatus {
    /// Nothing of it has begun.
    Queued,
    /// Some of it is done, or being done.
    Processing,
    /// All is done; some files may have failed.
    Completed,
    /// Every file failed.
    Failed,
}

impl Loaded {
    pub(super) async fn of(api: &Api, job: UploadJob) -> Result<Self> {
        let mut conversations = Vec::with_capacity(job.files.len());
        for file in &job.files {
            conversations.push(match &file.conversation_id {
                Some(id) => api.store.conversation(id).await?,
                None => None,
            });
        }
        Ok(Self { job, conversations })
    }

    fn files(&self) -> impl Iterator<Item = (&Upload, Option<&Conversation>)> {
        self.job.files.iter().zip(self.conversations.iter().map(Option::as_ref))
    }

    fn status(&self) -> JobStatus {
        let all: Vec<_> = self.files().map(|(file, of)| status(file, of)).collect();
        let is = |wanted: FileStatus| move |status: &FileStatus| *status == wanted;
        let ended = |status: &FileStatus| has_ended(*status);
        if !all.is_empty() && all.iter().all(is(FileStatus::Failed)) {
            JobStatus::Failed
        } else if all.iter().all(ended) {
            JobStatus::Completed
        } else if !all.iter().any(is(FileStatus::Processing)) && !all.iter().any(ended) {
            JobStatus::Queued
        } else {
            JobStatus::Processing
        }
    }
}

fn has_ended(status: FileStatus) -> bool {
    !matches!(status, FileStatus::Pending | FileStatus::Processing)
}

fn status(file: &Upload, conversation: Option<&Conversation>) -> FileStatus {
    match (file.state, conversation.map(|conversation| conversation.transcription)) {
        (UploadState::Failed, _) => FileStatus::Failed,
        (UploadState::Skipped, _) => FileStatus::Skipped,
        (UploadState::Waiting, _) if file.started_at.is_none() => FileStatus::Pending,
        (UploadState::Waiting, _) | (_, Some(Progress::Pending)) => FileStatus::Processing,
        (_, Some(Progress::Failed)) => FileStatus::Failed,
        _ => FileStatus::Completed,
    }
}

/// Seconds of audio: as recorded, else as the file says.
fn seconds(file: &Upload, conversation: Option<&Conversation>) -> Option<f64> {
    let recorded = conversation.filter(|conversation| !conversation.is_open());
    recorded.map(Conversation::duration_seconds).or(file.seconds)
}

/// Why a file is where it is.
fn reason(file: &Upload, conversation: Option<&Conversation>) -> Option<String> {
    let failed = conversation.and_then(|conversation| conversation.error.as_ref());
    let before = file.duplicate.then(|| {
        let text = "these bytes were uploaded before and are not stored again; force=true does it";
        text.to_owned()
    });
    file.error.clone().or_else(|| failed.cloned()).or_else(|| file.note.clone()).or(before)
}

/// Nothing of a request could be taken.
#[derive(Serialize, ToSchema)]
pub(super) struct Refusal {
    /// What is wrong, naming the files.
    error: String,
    message: String,
    files: Vec<FileAnswer>,
    successful: usize,
    failed: usize,
}

/// What is wrong with a request: a field is missing, or no file holds audio.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a schema")]
pub(super) enum Unprocessable {
    /// No file was sent.
    Missing(ValidationError),
    /// None holds audio.
    Refused(Refusal),
}

pub(super) fn refusal(code: StatusCode, error: &str, files: &[FileAnswer]) -> ApiError {
    let refusal = Refusal {
        error: error.to_owned(),
        message: error.to_owned(),
        files: files.to_vec(),
        successful: 0,
        failed: files.len(),
    };
    ApiError::body(code, json!(refusal))
}

/// What became of one file.
#[derive(Clone, Default, Serialize, ToSchema)]
pub(super) struct FileAnswer {
    filename: String,
    /// `processed` or `error`; of `/api/audio/upload`, `processing` or `error`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What is worth knowing, though it is no error.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_uuid: Option<ConversationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<ConversationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transcript_job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_job_id: Option<String>,
    /// Always absent: speakers are not recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker_job_id: Option<String>,
    /// The same bytes had been uploaded before.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
}

impl FileAnswer {
    pub(super) fn failed(filename: &str, error: &str) -> Self {
        let (filename, error) = (filename.to_owned(), Some(error.to_owned()));
        Self { filename, status: "error", error, ..Self::default() }
    }

    /// `status` is for a file that was taken.
    fn new(
        job: &UploadJob,
        file: &Upload,
        of: Option<&Conversation>,
        status: &'static str,
    ) -> Self {
        if matches!(file.state, UploadState::Failed | UploadState::Skipped) {
            return Self::failed(&file.filename, file.error.as_deref().unwrap_or_default());
        }
        Self {
            filename: file.filename.clone(),
            status,
            message: reason(file, of),
            duration_seconds: seconds(file, of),
            size_bytes: Some(file.bytes),
            client_id: Some(of.map_or(&job.client_id, |of| &of.client_id).clone()),
            audio_uuid: file.conversation_id.clone(),
            conversation_id: file.conversation_id.clone(),
            duplicate: file.duplicate.then_some(true),
            ..Self::default()
        }
    }
}

/// The answer of `/api/process-audio-files`.
#[derive(Serialize, ToSchema)]
pub(super) struct SyncAnswer {
    message: String,
    files: Vec<FileAnswer>,
    conversations: Vec<ConversationAnswer>,
    successful: usize,
    failed: usize,
}

/// What became of one conversation.
#[derive(Serialize, ToSchema)]
struct ConversationAnswer {
    client_id: ClientId,
    filename: String,
    /// `completed` once it is transcribed, else `timed_out`.
    status: &'static str,
    conversation_id: ConversationId,
}

impl SyncAnswer {
    pub(super) fn new(loaded: &Loaded, offered: &[Option<Offered>]) -> Self {
        let mut files = Vec::new();
        let mut conversations = Vec::new();
        for ((file, of), offered) in loaded.files().zip(offered) {
            let mut answer = FileAnswer::new(&loaded.job, file, of, "processed");
            if let Some(offered) = offered {
                answer.sample_rate = Some(offered.sample_rate);
                answer.channels = Some(offered.channels);
            }
            files.push(answer);
            if let Some(of) = of {
                let pending = of.transcription == Progress::Pending;
                conversations.push(ConversationAnswer {
                    client_id: of.client_id.clone(),
                    filename: file.filename.clone(),
                    status: if pending { "timed_out" } else { "completed" },
                    conversation_id: of.id.clone(),
                });
            }
        }
        let failed = files.iter().filter(|file| file.status == "error").count();
        let successful = files.len() - failed;
        let message = format!("Processed {successful} of {} files", files.len());
        Self { message, files, conversations, successful, failed }
    }
}

/// The answer of `/api/process-audio-files-async`.
#[derive(Serialize, ToSchema)]
pub(super) struct AsyncAnswer {
    job_id: String,
    message: String,
    status_url: String,
    total_files: usize,
}

impl AsyncAnswer {
    pub(super) fn new(job: &UploadJob) -> Self {
        Self {
            job_id: job.id.clone(),
            message: format!("Processing {} files", job.files.len()),
            status_url: format!("/api/process-audio-files/jobs/{}", job.id),
            total_files: job.files.len(),
        }
    }
}

/// The answer of `/api/audio/upload`.
#[derive(Serialize, ToSchema)]
pub(super) struct UploadAnswer {
    message: String,
    client_id: ClientId,
    /// The upload as a whole, at `/api/queue/jobs` and `/api/process-audio-files/jobs`.
    job_id: String,
    files: Vec<FileAnswer>,
    summary: Summary,
}

/// Files by what becomes of them.
#[derive(Serialize, ToSchema)]
struct Summary {
    total: usize,
    processing: usize,
    failed: usize,
}

impl UploadAnswer {
    pub(super) fn new(job: &UploadJob) -> Self {
        let files: Vec<_> = job
            .files
            .iter()
            .map(|file| {
                let mut answer = FileAnswer::new(job, file, None, "processing");
                if let Some(id) = &answer.conversation_id {
                    answer.job_id = Some(job.id.clone());
                    answer.transcript_job_id = Some(format!("{TRANSCRIPT}{id}"));
                    answer.memory_job_id = Some(format!("{MEMORY}{id}"));
                }
                answer
            })
            .collect();
        let failed = files.iter().filter(|file| file.status == "error").count();
        let (total, processing) = (files.len(), files.len() - failed);
        Self {
            message: format!("{processing} of {total} files are being processed"),
            client_id: job.client_id.clone(),
            job_id: job.id.clone(),
            files,
            summary: Summary { total, processing, failed },
        }
    }
}

/// Uploads, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct JobList {
    pub(super) active_jobs: usize,
    pub(super) jobs: Vec<JobView>,
}

/// An upload and how far it is.
#[derive(Serialize, ToSchema)]
pub(super) struct JobView {
    job_id: String,
    status: JobStatus,
    total_files: usize,
    processed_files: usize,
    /// The file that is being worked on.
    current_file: Option<String>,
    progress_percent: f64,
    /// RFC 3339, as all times here.
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    error_message: Option<String>,
    files: Vec<FileView>,
}

/// A file of an upload and how far it is.
#[derive(Serialize, ToSchema)]
struct FileView {
    filename: String,
    duration_seconds: Option<f64>,
    size_bytes: u64,
    status: FileStatus,
    client_id: Option<ClientId>,
    audio_uuid: Option<ConversationId>,
    transcription_status: Option<Progress>,
    memory_status: Option<Progress>,
    error_message: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
    /// The same bytes had been uploaded before, as that conversation.
    duplicate: bool,
}

impl JobView {
    pub(super) fn new(loaded: &Loaded) -> Self {
        let status = loaded.status();
        let ended = matches!(status, JobStatus::Completed | JobStatus::Failed);
        let files: Vec<_> = loaded.files().map(|(file, of)| FileView::new(file, of)).collect();
        let done = files.iter().filter(|file| has_ended(file.status)).count();
        let current = files.iter().find(|file| file.status == FileStatus::Processing);
        let starts = loaded.job.files.iter().filter_map(|file| file.started_at);
        let ends = loaded.job.files.iter().filter_map(|file| file.ended_at);
        let failed = files.iter().find(|file| file.status == FileStatus::Failed);
        let text = |at: Timestamp| at.to_rfc3339();
        Self {
            job_id: loaded.job.id.clone(),
            status,
            total_files: files.len(),
            processed_files: done,
            current_file: current.map(|file| file.filename.clone()),
            progress_percent: 100.0 * done as f64 / files.len().max(1) as f64,
            created_at: loaded.job.created_at.to_rfc3339(),
            started_at: starts.min().map(text),
            completed_at: ends.max().filter(|_| ended).map(text),
            error_message: failed.and_then(|file| file.error_message.clone()),
            files,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.status, JobStatus::Queued | JobStatus::Processing)
    }
}

impl FileView {
    fn new(file: &Upload, of: Option<&Conversation>) -> Self {
        let status = status(file, of);
        Self {
            filename: file.filename.clone(),
            duration_seconds: seconds(file, of),
            size_bytes: file.bytes,
            status,
            client_id: of.map(|of| of.client_id.clone()),
            audio_uuid: file.conversation_id.clone(),
            transcription_status: of.map(|of| of.transcription),
            memory_status: of.map(|of| of.memory),
            error_message: reason(file, of),
            started_at: file.started_at.map(Timestamp::to_rfc3339),
            completed_at: file.ended_at.filter(|_| has_ended(status)).map(Timestamp::to_rfc3339),
            duplicate: file.duplicate,
        }
    }
}

/// Before the id of a conversation: its transcription as a job of the queue.
const TRANSCRIPT: &str = "transcript_";
/// Before the id of a conversation: its memory step as a job of the queue.
const MEMORY: &str = "memory_";

/// What `/api/queue/jobs/{id}` answers for an id that an upload gave out; none
/// for any other.
///
/// # Errors
/// What the store returns.
pub(crate) async fn queue_job(api: &Api, user: &User, id: &str) -> Result<Option<Value>> {
    if let Some(job) = api.store.upload_job(id).await? {
        if !may_see(user, &job.user_id) {
            return Ok(None);
        }
        let view = JobView::new(&Loaded::of(api, job).await?);
        return Ok(Some(json!({
            "job_id": view.job_id,
            "status": view.status,
            "created_at": view.created_at,
            "started_at": view.started_at,
            "ended_at": view.completed_at,
            "description": format!("Upload of {} files", view.total_files),
            "func_name": "import",
            "args": [],
            "kwargs": {},
            "meta": { "processed_files": view.processed_files },
            "result": view.files,
            "error_message": view.error_message,
        })));
    }
    let (step, conversation) = match (id.strip_prefix(TRANSCRIPT), id.strip_prefix(MEMORY)) {
        (Some(conversation), _) => ("transcribe", conversation),
        (_, Some(conversation)) => ("remember", conversation),
        _ => return Ok(None),
    };
    let found = api.store.conversation(&ConversationId::from_text(conversation)).await?;
    let Some(found) = found.filter(|found| may_see(user, &found.user_id)) else { return Ok(None) };
    let progress = if step == "transcribe" { found.transcription } else { found.memory };
    let status = match progress {
        Progress::Pending if found.is_open() => "queued",
        // The memory step waits for the transcript.
        Progress::Pending if step == "remember" && found.transcription == Progress::Pending => {
            "deferred"
        }
        Progress::Pending => "processing",
        Progress::Failed => "failed",
        Progress::Completed | Progress::Empty | Progress::Skipped => "completed",
    };
    Ok(Some(json!({
        "job_id": id,
        "status": status,
        "created_at": found.started_at.to_rfc3339(),
        "started_at": found.ended_at.map(Timestamp::to_rfc3339),
        "ended_at": null,
        "description": format!("{step} conversation {}", found.id),
        "func_name": step,
        "args": [found.id],
        "kwargs": {},
        "meta": { "conversation_id": found.id, "client_id": found.client_id },
        "result": null,
        "error_message": found.error.filter(|_| status == "failed"),
    })))
}
