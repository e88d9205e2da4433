//! What is made of a conversation's audio, in versions: nothing that was made
//! is lost when it is made again.

use super::conversation::{Progress, SAMPLE_RATE, Span, Window};
use super::ids::{JobId, WindowId};
use super::job::{Lease, NewJob};
use super::memory::Memory;
use super::transcript::Segment;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};

/// One transcript of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscriptVersion {
    /// Number, from 1.
    pub version: u32,
    /// Whether this is the one that is shown and remembered.
    pub active: bool,
    /// Where it stands.
    pub state: Progress,
    /// Which engine and model made it.
    pub engine: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its last window was done.
    pub completed_at: Option<Timestamp>,
}

/// What was remembered of a conversation at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryVersion {
    /// Number, from 1.
    pub version: u32,
    /// Whether these memories are shown and found.
    pub active: bool,
    /// The transcript they come from.
    pub transcript_version: u32,
    /// Where it stands.
    pub state: Progress,
    /// How many memories it has.
    pub memories: u64,
    /// Which engine and model made it.
    pub model: Option<String>,
    /// Version of the prompts.
    pub prompt_version: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was done.
    pub completed_at: Option<Timestamp>,
}

/// The speech of a recording without the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crop {
    /// File name below the audio directory; none when nobody spoke.
    pub audio_path: Option<String>,
    /// The speech, in samples from the start of the conversation.
    pub spans: Vec<Span>,
    /// When it was made.
    pub at: Timestamp,
}

impl Crop {
    /// Seconds of speech.
    pub fn duration_seconds(&self) -> f64 {
        let samples: u64 = self.spans.iter().map(|span| span.len()).sum();
        samples as f64 / f64::from(SAMPLE_RATE)
    }
}

/// Everything about a conversation that is not in its row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The windows of the active transcript, in order.
    pub windows: Vec<Window>,
    /// All transcripts, oldest first.
    pub transcripts: Vec<TranscriptVersion>,
    /// All sets of memories, oldest first.
    pub memory_versions: Vec<MemoryVersion>,
    /// The memories of the active set, oldest first.
    pub memories: Vec<Memory>,
    /// Who is known to speak in it.
    pub speakers: Vec<String>,
    /// What it is about, in sentences that were borne out by what was said.
    pub summary: Option<String>,
    /// Its speech alone, once that is made.
    pub crop: Option<Crop>,
}

/// A correction of one segment. `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentEdit {
    /// Who spoke.
    pub speaker: Option<String>,
    /// Start in seconds.
    pub start: Option<f64>,
    /// End in seconds.
    pub end: Option<f64>,
}

impl SegmentEdit {
    /// Corrects `segment`; false when that changes nothing.
    ///
    /// # Errors
    /// `BadInput` when it would end before it starts.
    pub fn apply(&self, segment: &mut Segment) -> Result<bool> {
        let old = segment.clone();
        if let Some(speaker) = &self.speaker {
            segment.speaker = Some(speaker.clone());
        }
        segment.start = self.start.unwrap_or(segment.start);
        segment.end = self.end.unwrap_or(segment.end);
        if segment.end < segment.start {
            return Err(Error::new(Kind::BadInput, "a segment cannot end before it starts"));
        }
        Ok(*segment != old)
    }
}

/// A window whose transcript is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcribed {
    /// The right to say so: that of its [`super::job::JobKind::Transcribe`] job.
    pub lease: Lease,
    /// Which window.
    pub window: WindowId,
    /// What was said, with times in seconds from the start of the conversation.
    pub segments: Vec<Segment>,
    /// Which engine and model made it.
    pub engine: String,
}

/// A new version that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its number.
    pub version: u32,
    /// The jobs that make it.
    pub jobs: Vec<JobId>,
}

/// How the making of one transcript ended, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which transcript.
    pub version: u32,
    /// How it ended.
    pub transcription: Progress,
    /// Where memory stands then.
    pub memory: Progress,
    /// The jobs that follow.
    pub next: Vec<NewJob>,
}

/// The transcript that a [`super::job::JobKind::Finish`] job settles: the oldest
/// that is being made, else the active one.
pub fn unsettled(versions: &[TranscriptVersion]) -> Option<u32> {
    let pending = versions.iter().find(|version| version.state == Progress::Pending);
    let active = || versions.iter().find(|version| version.active);
    pending.or_else(active).map(|version| version.version)
}
