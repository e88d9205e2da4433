//! Conversations with their transcripts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::base::error::Result;
use crate::domain::conversation::{Conversation, SAMPLE_RATE, Span, Window, WindowState};
use crate::domain::ids::ConversationId;
use crate::domain::memory::Memory;
use crate::domain::transcript::{Segment, plain_text};
use crate::http::api::{Api, may_see};
use crate::http::auth::CurrentUser;
use crate::http::error::ApiError;
use crate::http::params::Params;

/// Conversations newest first: by client id as in the original, or flat with
/// `?view=list` as in its last version. An administrator sees everybody's, or
/// with `user_id` those of one user.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let limit = params.integer("limit", 200, 1..=1000)?;
    let owner = match params.get("user_id") {
        None if user.is_superuser => None,
        wanted => Some(api.owner(&user, wanted).await?.id),
    };
    let mut entries = Vec::new();
    for conversation in api.store.conversations(owner.as_ref(), limit).await? {
        let details = Details::load(&api, conversation).await?;
        entries.push((details.conversation.client_id.to_string(), details.entry()));
    }

    if params.get("view") == Some("list") {
        let flat: Vec<Value> = entries.into_iter().map(|(_, entry)| entry).collect();
        return Ok(Json(json!({ "conversations": flat })));
    }
    let mut by_client: Map<String, Value> = Map::new();
    for (client_id, entry) in entries {
        let list = by_client.entry(client_id).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(entry);
        }
    }
    Ok(Json(json!({ "conversations": by_client })))
}

/// One conversation with everything that is known of it.
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    CurrentUser(user): CurrentUser,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = api.store.conversation(&ConversationId::from_text(id)).await?;
    let conversation = found
        .filter(|conversation| may_see(&user, &conversation.user_id))
        .ok_or_else(|| ApiError::error(StatusCode::NOT_FOUND, "Conversation not found"))?;
    let details = Details::load(&api, conversation).await?;
    Ok(Json(json!({ "conversation": details.full() })))
}

struct Details {
    conversation: Conversation,
    windows: Vec<Window>,
    memories: Vec<Memory>,
}

impl Details {
    async fn load(api: &Api, conversation: Conversation) -> Result<Self> {
        let windows = api.store.windows(&conversation.id).await?;
        let memories = api.store.conversation_memories(&conversation.id).await?;
        Ok(Self { conversation, windows, memories })
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.windows.iter().flat_map(|window| &window.segments)
    }

    /// The fields of both versions of the original, where they do not collide:
    /// `transcript` is a list of segments here.
    fn entry(&self) -> Value {
        let c = &self.conversation;
        let unnamed = format!("speaker_{}", c.client_id);
        let transcript: Vec<Value> = self
            .segments()
            .map(|segment| {
                json!({
                    "speaker": segment.speaker.as_deref().unwrap_or(&unnamed),
                    "text": segment.text,
                    "start": segment.start,
                    "end": segment.end,
                    "confidence": segment.confidence,
                })
            })
            .collect();
        let memories: Vec<Value> = self
            .memories
            .iter()
            .map(|memory| {
                json!({
                    "memory_id": memory.id,
                    "created_at": memory.created_at.to_rfc3339(),
                    "updated_at": memory.updated_at.to_rfc3339(),
                    "status": "created",
                })
            })
            .collect();
        let speech: Vec<Value> =
            self.windows.iter().flat_map(|window| &window.spans).map(seconds).collect();
        let (segment_count, memory_count) = (transcript.len(), memories.len());
        // There is one version of each: a new transcript replaces the old one.
        let transcript_count = usize::from(!self.windows.is_empty());
        let memory_versions = usize::from(memory_count > 0);
        let version = |count: usize| (count > 0).then_some("current");
        json!({
            "audio_uuid": c.id,
            "conversation_id": c.id,
            "user_id": c.user_id,
            "client_id": c.client_id,
            "audio_path": c.has_audio().then_some(&c.audio_path),
            "audio_deleted_at": c.audio_deleted_at.map(|at| at.to_rfc3339()),
            "timestamp": c.started_at.seconds(),
            "created_at": c.started_at.to_rfc3339(),
            "ended_at": c.ended_at.map(|at| at.to_rfc3339()),
            "close_reason": c.close_reason,
            "time_estimated": c.time_estimated,
            "is_open": c.is_open(),
            "duration_seconds": c.duration_seconds(),
            "title": c.title,
            "summary": null,
            "transcript": transcript,
            "segment_count": segment_count,
            "speakers_identified": [],
            "speech_segments": speech,
            "cropped_audio_path": null,
            "cropped_duration": null,
            "memories": memories,
            "memory_count": memory_count,
            "has_memory": memory_count > 0,
            "transcription_status": c.transcription,
            "memory_processing_status": c.memory,
            "error": c.error,
            "active_transcript_version": version(transcript_count),
            "active_memory_version": version(memory_versions),
            "version_info": {
                "transcript_count": transcript_count,
                "memory_count": memory_versions,
                "active_transcript_version": version(transcript_count),
                "active_memory_version": version(memory_versions),
            },
        })
    }

    /// The entry with the text as one string, the segments with their words,
    /// and what became of the audio.
    fn full(&self) -> Value {
        let mut full = self.entry();
        let segments: Vec<&Segment> = self.segments().collect();
        let owned: Vec<Segment> = segments.iter().copied().cloned().collect();
        let windows: Vec<Value> = self
            .windows
            .iter()
            .map(|window| {
                json!({
                    "seq": window.seq,
                    "state": window.state,
                    "engine": window.engine,
                    "spans": window.spans.iter().map(seconds).collect::<Vec<_>>(),
                })
            })
            .collect();
        full["transcript"] = json!(plain_text(&owned));
        full["segments"] = json!(segments);
        full["windows"] = json!(windows);
        full["coverage"] = coverage(self.conversation.samples, &self.windows);
        full
    }
}

fn seconds(span: &Span) -> Value {
    json!({ "start": to_seconds(span.start), "end": to_seconds(span.end) })
}

fn to_seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

/// Seconds of the accepted audio by what became of them; they add up. What no
/// window covers is silent, or too new to have been cut into one.
fn coverage(accepted: u64, windows: &[Window]) -> Value {
    let total = |state: WindowState| -> u64 {
        let spans = windows.iter().filter(|w| w.state == state).flat_map(|w| &w.spans);
        spans.map(|span| span.len()).sum()
    };
    let transcribed = total(WindowState::Done);
    let waiting = total(WindowState::Waiting);
    let failed = total(WindowState::Failed);
    // A window's row can be newer than the count of samples that was read.
    let accepted = accepted.max(transcribed + waiting + failed);
    json!({
        "accepted_seconds": to_seconds(accepted),
        "transcribed_seconds": to_seconds(transcribed),
        "waiting_seconds": to_seconds(waiting),
        "failed_seconds": to_seconds(failed),
        "silent_seconds": to_seconds(accepted - transcribed - waiting - failed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(state: WindowState, spans: &[(u64, u64)]) -> Window {
        Window {
            id: 1,
            conversation_id: ConversationId::from_text("c"),
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
            coverage,
            json!({
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
        assert_eq!(coverage["silent_seconds"], 0.0);
        assert_eq!(coverage["accepted_seconds"], 1.0);
    }
}
