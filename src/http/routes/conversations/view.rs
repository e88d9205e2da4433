//! What clients see of a conversation: the fields of both versions of the
//! original, where they do not collide.

use serde::Serialize;
use utoipa::ToSchema;

use crate::base::error::Result;
use crate::domain::conversation::{
    CloseReason, Conversation, Progress, SAMPLE_RATE, Span, Window, WindowState,
};
use crate::domain::ids::{ClientId, ConversationId, MemoryId, UserId};
use crate::domain::memory::Memory;
use crate::domain::transcript::{Segment, plain_text};
use crate::http::api::Api;

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
    coverage: Coverage,
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

/// Seconds of the accepted audio by what became of them; they add up.
#[derive(Serialize, ToSchema)]
struct Coverage {
    accepted_seconds: f64,
    transcribed_seconds: f64,
    waiting_seconds: f64,
    failed_seconds: f64,
    silent_seconds: f64,
}

impl ConversationEntry {
    pub(super) fn client_id(&self) -> &ClientId {
        &self.fields.client_id
    }
}

/// A conversation with what belongs to it.
pub(super) struct Details {
    conversation: Conversation,
    windows: Vec<Window>,
    memories: Vec<Memory>,
}

impl Details {
    pub(super) async fn load(api: &Api, conversation: Conversation) -> Result<Self> {
        let windows = api.store.windows(&conversation.id).await?;
        let memories = api.store.conversation_memories(&conversation.id).await?;
        Ok(Self { conversation, windows, memories })
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.windows.iter().flat_map(|window| &window.segments)
    }

    fn fields(&self) -> ConversationFields {
        let c = &self.conversation;
        let memories = self.memories.iter().map(|memory| MemoryReference {
            memory_id: memory.id.clone(),
            created_at: memory.created_at.to_rfc3339(),
            updated_at: memory.updated_at.to_rfc3339(),
            status: "created",
        });
        let memory_count = self.memories.len();
        // There is one version of each: a new transcript replaces the old one.
        let transcript_count = usize::from(!self.windows.is_empty());
        let memory_versions = usize::from(memory_count > 0);
        let version = |count: usize| (count > 0).then(|| "current".to_owned());
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
            summary: None,
            segment_count: self.segments().count(),
            speakers_identified: Vec::new(),
            speech_segments: self.windows.iter().flat_map(|w| &w.spans).map(seconds).collect(),
            cropped_audio_path: None,
            cropped_duration: None,
            memories: memories.collect(),
            memory_count,
            has_memory: memory_count > 0,
            transcription_status: c.transcription,
            memory_processing_status: c.memory,
            error: c.error.clone(),
            active_transcript_version: version(transcript_count),
            active_memory_version: version(memory_versions),
            version_info: VersionInfo {
                transcript_count,
                memory_count: memory_versions,
                active_transcript_version: version(transcript_count),
                active_memory_version: version(memory_versions),
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
    pub(super) fn full(&self) -> ConversationFull {
        let segments: Vec<Segment> = self.segments().cloned().collect();
        let windows = self.windows.iter().map(|window| WindowView {
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
            coverage: coverage(self.conversation.samples, &self.windows),
        }
    }
}

fn seconds(span: &Span) -> SpeechSegment {
    SpeechSegment { start: to_seconds(span.start), end: to_seconds(span.end) }
}

fn to_seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

/// What no window covers is silent, or too new to have been cut into one.
fn coverage(accepted: u64, windows: &[Window]) -> Coverage {
    let total = |state: WindowState| -> u64 {
        let spans = windows.iter().filter(|w| w.state == state).flat_map(|w| &w.spans);
        spans.map(|span| span.len()).sum()
    };
    let transcribed = total(WindowState::Done);
    let waiting = total(WindowState::Waiting);
    let failed = total(WindowState::Failed);
    // A window's row can be newer than the count of samples that was read.
    let accepted = accepted.max(transcribed + waiting + failed);
    Coverage {
        accepted_seconds: to_seconds(accepted),
        transcribed_seconds: to_seconds(transcribed),
        waiting_seconds: to_seconds(waiting),
        failed_seconds: to_seconds(failed),
        silent_seconds: to_seconds(accepted - transcribed - waiting - failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn coverage_adds_up() {
        let windows = [
            window(WindowState::Done, &[(0, 16_000), (32_000, 48_000)]),
            window(WindowState::Waiting, &[(48_000, 56_000)]),
            window(WindowState::Failed, &[(60_000, 64_000)]),
        ];
        let coverage = coverage(80_000, &windows);
        assert_eq!(
            serde_json::json!(coverage),
            serde_json::json!({
                "accepted_seconds": 5.0,
                "transcribed_seconds": 2.0,
                "waiting_seconds": 0.5,
                "failed_seconds": 0.25,
                "silent_seconds": 2.25,
            })
        );
    }

    #[test]
    fn a_stale_count_of_samples_does_not_underflow() {
        let coverage = coverage(0, &[window(WindowState::Done, &[(0, 16_000)])]);
        assert_eq!(coverage.silent_seconds, 0.0);
        assert_eq!(coverage.accepted_seconds, 1.0);
    }
}
