//! What clients see of a conversation: the fields of both versions of the
//! original, where they do not collide.

use serde::Serialize;
use utoipa::ToSchema;

use crate::base::error::Result;
use crate::domain::conversation::{
    CloseReason, Conversation, Progress, SAMPLE_RATE, Span, Window, WindowState,
};
use crate::domain::coverage::Coverage;
use crate::domain::ids::{ClientId, ConversationId, MemoryId, UserId};
use crate::domain::transcript::{Segment, plain_text};
use crate::domain::version::{Crop, Details, MemoryVersion, TranscriptVersion};
use crate::http::api::Api;
use crate::http::routes::coverage::CoverageView;

/// A conversation in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct ConversationEntry {
    #[serde(flatten)]
    fields: ConversationFields,
    transcript: Vec<TranscriptLine>,
}

/// A conversation with everything that is known of it.
#[derive(Serialize, ToSchema)]
pub(super) struct ConversationFull {
    #[serde(flatten)]
    fields: ConversationFields,
    /// The whole text.
    transcript: String,
    segments: Vec<Segment>,
    windows: Vec<WindowView>,
    coverage: CoverageView,
    transcript_versions: Vec<TranscriptView>,
    memory_versions: Vec<MemorySetView>,
}

/// The versions of a conversation, oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = ConversationVersions)]
pub(super) struct Versions {
    conversation_id: ConversationId,
    active_transcript_version: Option<String>,
    active_memory_version: Option<String>,
    transcript_versions: Vec<TranscriptView>,
    memory_versions: Vec<MemorySetView>,
}

/// One transcript of a conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = TranscriptVersion)]
struct TranscriptView {
    version_id: String,
    is_active: bool,
    status: Progress,
    /// The whole text, as far as it is made.
    transcript: String,
    segments: Vec<Segment>,
    segment_count: usize,
    /// The engine.
    provider: Option<String>,
    model: Option<String>,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    completed_at: Option<String>,
}

/// What was remembered of a conversation at one time.
#[derive(Serialize, ToSchema)]
#[schema(as = MemoryVersion)]
struct MemorySetView {
    version_id: String,
    is_active: bool,
    status: Progress,
    memory_count: u64,
    /// The transcript it comes from.
    transcript_version_id: String,
    /// The engine.
    provider: Option<String>,
    model: Option<String>,
    prompt_version: Option<String>,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    completed_at: Option<String>,
}

/// Where somebody speaks in a conversation.
#[derive(Serialize, ToSchema)]
pub(super) struct Cropped {
    audio_uuid: ConversationId,
    /// File name below `/audio/`; none before it is made, and where nobody
    /// speaks.
    cropped_audio_path: Option<String>,
    speech_segments: Vec<SpeechSegment>,
    /// Seconds.
    cropped_duration: Option<f64>,
    /// RFC 3339.
    cropped_at: Option<String>,
    original_audio_path: Option<String>,
}

/// What both views have.
#[derive(Serialize, ToSchema)]
struct ConversationFields {
    audio_uuid: ConversationId,
    /// The same as `audio_uuid`.
    conversation_id: ConversationId,
    user_id: UserId,
    client_id: ClientId,
    /// File name below `/audio/`; none once the recording was deleted.
    audio_path: Option<String>,
    /// RFC 3339.
    audio_deleted_at: Option<String>,
    /// Seconds since the Unix epoch.
    timestamp: i64,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    ended_at: Option<String>,
    close_reason: Option<CloseReason>,
    /// The clock had not been set: the times are estimates.
    time_estimated: bool,
    is_open: bool,
    duration_seconds: f64,
    title: Option<String>,
    summary: Option<String>,
    segment_count: usize,
    speakers_identified: Vec<String>,
    speech_segments: Vec<SpeechSegment>,
    cropped_audio_path: Option<String>,
    cropped_duration: Option<f64>,
    /// RFC 3339.
    cropped_at: Option<String>,
    memories: Vec<MemoryReference>,
    memory_count: usize,
    has_memory: bool,
    transcription_status: Progress,
    memory_processing_status: Progress,
    /// Why the last failed step failed.
    error: Option<String>,
    active_transcript_version: Option<String>,
    active_memory_version: Option<String>,
    version_info: VersionInfo,
}

/// A phrase or sentence of a transcript.
#[derive(Serialize, ToSchema)]
struct TranscriptLine {
    speaker: String,
    text: String,
    /// Seconds.
    start: f64,
    /// Seconds.
    end: f64,
    /// How sure the engine is, 0 to 1.
    confidence: f32,
}

/// A stretch of audio with speech.
#[derive(Serialize, ToSchema)]
struct SpeechSegment {
    /// Seconds.
    start: f64,
    /// Seconds.
    end: f64,
}

/// A memory that came from a conversation.
#[derive(Serialize, ToSchema)]
struct MemoryReference {
    memory_id: MemoryId,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
    status: &'static str,
}

/// Which versions of the transcript and the memories there are.
#[derive(Serialize, ToSchema)]
struct VersionInfo {
    transcript_count: usize,
    memory_count: usize,
    active_transcript_version: Option<String>,
    active_memory_version: Option<String>,
}

/// A stretch of audio that is transcribed at once.
#[derive(Serialize, ToSchema)]
struct WindowView {
    /// Position, from 0.
    seq: u32,
    state: WindowState,
    /// Which engine and model transcribed it.
    engine: Option<String>,
    spans: Vec<SpeechSegment>,
}

impl ConversationEntry {
    pub(super) fn client_id(&self) -> &ClientId {
        &self.fields.client_id
    }
}

/// A conversation with what belongs to it.
pub(super) struct Shown {
    pub(super) conversation: Conversation,
    pub(super) details: Details,
}

impl Shown {
    pub(super) async fn load(api: &Api, conversation: Conversation) -> Result<Self> {
        let id = &conversation.id;
        let details = api.store.details(std::slice::from_ref(id)).await?.remove(id);
        Ok(Self { conversation, details: details.unwrap_or_default() })
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.details.windows.iter().flat_map(|window| &window.segments)
    }

    fn fields(&self) -> ConversationFields {
        let (c, details) = (&self.conversation, &self.details);
        let memories = details.memories.iter().map(|memory| MemoryReference {
            memory_id: memory.id.clone(),
            created_at: memory.created_at.to_rfc3339(),
            updated_at: memory.updated_at.to_rfc3339(),
            status: "created",
        });
        let memory_count = details.memories.len();
        // Until it is cropped, what was transcribed is the speech in it.
        let speech = match &details.crop {
            Some(crop) => crop.spans.iter().map(seconds).collect(),
            None => details.windows.iter().flat_map(|w| &w.spans).map(seconds).collect(),
        };
        ConversationFields {
            audio_uuid: c.id.clone(),
            conversation_id: c.id.clone(),
            user_id: c.user_id.clone(),
            client_id: c.client_id.clone(),
            audio_path: c.has_audio().then(|| c.audio_path.clone()),
            audio_deleted_at: c.audio_deleted_at.map(|at| at.to_rfc3339()),
            timestamp: c.started_at.seconds(),
            created_at: c.started_at.to_rfc3339(),
            ended_at: c.ended_at.map(|at| at.to_rfc3339()),
            close_reason: c.close_reason,
            time_estimated: c.time_estimated,
            is_open: c.is_open(),
            duration_seconds: c.duration_seconds(),
            title: c.title.clone(),
            summary: details.summary.clone(),
            segment_count: self.segments().count(),
            speakers_identified: details.speakers.clone(),
            speech_segments: speech,
            cropped_audio_path: details.crop.as_ref().and_then(|crop| crop.audio_path.clone()),
            cropped_duration: details.crop.as_ref().map(Crop::duration_seconds),
            cropped_at: details.crop.as_ref().map(|crop| crop.at.to_rfc3339()),
            memories: memories.collect(),
            memory_count,
            has_memory: memory_count > 0,
            transcription_status: c.transcription,
            memory_processing_status: c.memory,
            error: c.error.clone(),
            active_transcript_version: active_transcript(details),
            active_memory_version: active_memory(details),
            version_info: VersionInfo {
                transcript_count: details.transcripts.len(),
                memory_count: details.memory_versions.len(),
                active_transcript_version: active_transcript(details),
                active_memory_version: active_memory(details),
            },
        }
    }

    /// With the transcript as a list of segments.
    pub(super) fn entry(&self) -> ConversationEntry {
        let unnamed = format!("speaker_{}", self.conversation.client_id);
        let transcript = self.segments().map(|segment| TranscriptLine {
            speaker: segment.speaker.clone().unwrap_or_else(|| unnamed.clone()),
            text: segment.text.clone(),
            start: segment.start,
            end: segment.end,
            confidence: segment.confidence,
        });
        ConversationEntry { fields: self.fields(), transcript: transcript.collect() }
    }

    /// With the text as one string, the segments with their words, and what
    /// became of the audio.
    pub(super) fn full(&self, versions: Versions) -> ConversationFull {
        let segments: Vec<Segment> = self.segments().cloned().collect();
        let windows = self.details.windows.iter().map(|window| WindowView {
            seq: window.seq,
            state: window.state,
            engine: window.engine.clone(),
            spans: window.spans.iter().map(seconds).collect(),
        });
        ConversationFull {
            fields: self.fields(),
            transcript: plain_text(&segments),
            segments,
            windows: windows.collect(),
            coverage: coverage(&self.conversation, &self.details.windows).into(),
            transcript_versions: versions.transcript_versions,
            memory_versions: versions.memory_versions,
        }
    }
}

impl Versions {
    pub(super) async fn load(api: &Api, shown: &Shown) -> Result<Self> {
        let (id, details) = (&shown.conversation.id, &shown.details);
        let mut transcript_versions = Vec::with_capacity(details.transcripts.len());
        for version in &details.transcripts {
            let windows = match version.active {
                true => details.windows.clone(),
                false => api.store.version_windows(id, version.version).await?,
            };
            transcript_versions.push(TranscriptView::of(version, windows));
        }
        Ok(Self {
            conversation_id: id.clone(),
            active_transcript_version: active_transcript(details),
            active_memory_version: active_memory(details),
            transcript_versions,
            memory_versions: details.memory_versions.iter().map(MemorySetView::of).collect(),
        })
    }
}

impl TranscriptView {
    fn of(version: &TranscriptVersion, windows: Vec<Window>) -> Self {
        let segments: Vec<Segment> =
            windows.into_iter().flat_map(|window| window.segments).collect();
        let (provider, model) = engine(version.engine.as_deref());
        Self {
            version_id: version.version.to_string(),
            is_active: version.active,
            status: version.state,
            transcript: plain_text(&segments),
            segment_count: segments.len(),
            segments,
            provider,
            model,
            created_at: version.created_at.to_rfc3339(),
            completed_at: version.completed_at.map(|at| at.to_rfc3339()),
        }
    }
}

impl MemorySetView {
    fn of(version: &MemoryVersion) -> Self {
        let (provider, model) = engine(version.model.as_deref());
        Self {
            version_id: version.version.to_string(),
            is_active: version.active,
            status: version.state,
            memory_count: version.memories,
            transcript_version_id: version.transcript_version.to_string(),
            provider,
            model,
            prompt_version: version.prompt_version.clone(),
            created_at: version.created_at.to_rfc3339(),
            completed_at: version.completed_at.map(|at| at.to_rfc3339()),
        }
    }
}

impl Cropped {
    pub(super) fn of(conversation: &Conversation, crop: Option<&Crop>) -> Self {
        Self {
            audio_uuid: conversation.id.clone(),
            cropped_audio_path: crop.and_then(|crop| crop.audio_path.clone()),
            speech_segments: crop.iter().flat_map(|crop| &crop.spans).map(seconds).collect(),
            cropped_duration: crop.map(Crop::duration_seconds),
            cropped_at: crop.map(|crop| crop.at.to_rfc3339()),
            original_audio_path: conversation.has_audio().then(|| conversation.audio_path.clone()),
        }
    }
}

fn active_transcript(details: &Details) -> Option<String> {
    let active = details.transcripts.iter().find(|version| version.active);
    active.map(|version| version.version.to_string())
}

fn active_memory(details: &Details) -> Option<String> {
    let active = details.memory_versions.iter().find(|version| version.active);
    active.map(|version| version.version.to_string())
}

/// Engine and model of `whisper/ggml-base.bin`.
fn engine(name: Option<&str>) -> (Option<String>, Option<String>) {
    let (provider, model) = name.and_then(|name| name.split_once('/')).unzip();
    (provider.map(str::to_owned), model.map(str::to_owned))
}

fn seconds(span: &Span) -> SpeechSegment {
    SpeechSegment { start: to_seconds(span.start), end: to_seconds(span.end) }
}

fn to_seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

/// What no window covers is silent, or too new to have been cut into one.
fn coverage(conversation: &Conversation, windows: &[Window]) -> Coverage {
    let total = |state: WindowState| -> u64 {
        let spans = windows.iter().filter(|w| w.state == state).flat_map(|w| &w.spans);
        spans.map(|span| span.len()).sum()
    };
    let transcribed = total(WindowState::Done);
    let waiting = total(WindowState::Waiting);
    let failed = total(WindowState::Failed);
    // A window's row can be newer than the count of samples that was read.
    let accepted = conversation.samples.max(transcribed + waiting + failed);
    let on_disk = if conversation.has_audio() { accepted } else { 0 };
    Coverage { accepted, on_disk, transcribed, waiting, failed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    fn window(state: WindowState, spans: &[(u64, u64)]) -> Window {
        Window {
            id: 1,
            conversation_id: ConversationId::from_text("c"),
            version: 1,
            seq: 0,
            spans: spans.iter().map(|&(start, end)| Span { start, end }).collect(),
            state,
            segments: Vec::new(),
            engine: None,
        }
    }

    fn conversation(samples: u64) -> Conversation {
        let (id, client) = (ConversationId::from_text("c"), ClientId::from_text("1-phone"));
        let user = UserId::from_text("507f1f77bcf86cd799439011");
        let begun =
            Conversation::begin(id, user, client, "c.wav".into(), Timestamp::from_millis(0));
        Conversation { samples, ..begun }
    }

    #[test]
    fn coverage_adds_up() {
        let windows = [
            window(WindowState::Done, &[(0, 16_000), (32_000, 48_000)]),
            window(WindowState::Waiting, &[(48_000, 56_000)]),
            window(WindowState::Failed, &[(60_000, 64_000)]),
        ];
        let coverage = coverage(&conversation(80_000), &windows);
        assert_eq!(coverage.silent(), 36_000);
        let view = serde_json::json!(CoverageView::from(coverage));
        assert_eq!(view["accepted_seconds"], 5.0);
        assert_eq!(view["on_disk_seconds"], 5.0);
        assert_eq!(view["transcribed_seconds"], 2.0);
        assert_eq!(view["waiting_seconds"], 0.5);
        assert_eq!(view["failed_seconds"], 0.25);
        assert_eq!(view["silent_seconds"], 2.25);
        assert_eq!(view["samples"]["silent"], 36_000);
    }

    #[test]
    fn a_stale_count_of_samples_does_not_underflow() {
        let windows = [window(WindowState::Done, &[(0, 16_000)])];
        let coverage = coverage(&conversation(0), &windows);
        assert_eq!((coverage.silent(), coverage.accepted), (0, 16_000));
    }

    #[test]
    fn deleted_audio_is_accepted_and_not_on_disk() {
        let mut conversation = conversation(16_000);
        conversation.audio_deleted_at = Some(Timestamp::from_millis(1));
        let coverage = coverage(&conversation, &[]);
        assert_eq!((coverage.accepted, coverage.on_disk, coverage.silent()), (16_000, 0, 16_000));
    }
}
