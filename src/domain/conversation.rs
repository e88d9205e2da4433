//! Conversations, and the windows of speech they are transcribed in.

use serde::{Deserialize, Serialize};

use super::ids::{ClientId, ConversationId, UserId, WindowId};
use super::transcript::Segment;
use crate::base::clock::Timestamp;

/// Samples a second of everything that is recorded: 16 kHz mono.
pub const SAMPLE_RATE: u32 = 16_000;

/// The length of so many samples, in seconds.
pub fn seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

/// A stretch of recorded audio between two boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Identifier (`audio_uuid` and `conversation_id` in the API).
    pub id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// The device it came from.
    pub client_id: ClientId,
    /// File name of the recording below the audio directory.
    pub audio_path: String,
    /// When its first sample was heard.
    pub started_at: Timestamp,
    /// When it was closed; none while it is open.
    pub ended_at: Option<Timestamp>,
    /// What closed it.
    pub close_reason: Option<CloseReason>,
    /// Samples accepted so far, at [`SAMPLE_RATE`]. Kept up to date at each
    /// window and at the close.
    pub samples: u64,
    /// Where transcription stands.
    pub transcription: Progress,
    /// Where memory extraction stands.
    pub memory: Progress,
    /// Why the last failed step failed.
    pub error: Option<String>,
    /// A short title, made at the memory step.
    pub title: Option<String>,
    /// When its audio was deleted; its transcript stays.
    pub audio_deleted_at: Option<Timestamp>,
    /// The clock had not been set when it began: its times are estimates.
    pub time_estimated: bool,
}

impl Conversation {
    /// One that begins now: open, with nothing in it yet.
    pub fn begin(
        id: ConversationId,
        user_id: UserId,
        client_id: ClientId,
        audio_path: String,
        started_at: Timestamp,
    ) -> Self {
        Self {
            id,
            user_id,
            client_id,
            audio_path,
            started_at,
            ended_at: None,
            close_reason: None,
            samples: 0,
            transcription: Progress::Pending,
            memory: Progress::Pending,
            error: None,
            title: None,
            audio_deleted_at: None,
            time_estimated: false,
        }
    }

    /// Whether audio can still arrive.
    pub fn is_open(&self) -> bool {
        self.ended_at.is_none()
    }

    /// Whether its recording is there to be played or read.
    pub fn has_audio(&self) -> bool {
        self.audio_deleted_at.is_none()
    }

    /// Seconds of audio accepted.
    pub fn duration_seconds(&self) -> f64 {
        self.samples as f64 / f64::from(SAMPLE_RATE)
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, utoipa::ToSchema,
        )]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// The name kept in the store and shown in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of that name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}
pub(crate) use named;

named!(
    /// What ended a conversation.
    CloseReason {
        /// The client said `audio-stop`.
        AudioStop = "audio-stop",
        /// The connection ended.
        Disconnect = "disconnect",
        /// Asked for through the API.
        Request = "request",
        /// What came next was in another format: a recording has one.
        FormatChange = "format-change",
        /// Nobody spoke for the configured time.
        Silence = "silence",
        /// It reached the longest allowed length.
        MaxLength = "max-length",
        /// The end of an uploaded file.
        EndOfFile = "end-of-file",
        /// The daemon stopped.
        Shutdown = "shutdown",
        /// Found open with its source gone.
        Sweep = "sweep",
        /// It ended before it came here from another database.
        Imported = "imported",
    }
);

named!(
    /// How far a step of the pipeline has come for one conversation.
    Progress {
        /// Not done yet.
        Pending = "PENDING",
        /// Done.
        Completed = "COMPLETED",
        /// Done, and there was nothing in it.
        Empty = "EMPTY",
        /// Given up after its retries; can be asked for again.
        Failed = "FAILED",
        /// Not done on purpose (too short, or switched off).
        Skipped = "SKIPPED",
    }
);

named!(
    /// Where one window stands.
    WindowState {
        /// Waiting for the speech engine.
        Waiting = "waiting",
        /// Transcribed; its segments may be empty.
        Done = "done",
        /// Given up after its retries; its audio is kept.
        Failed = "failed",
    }
);

/// A stretch of samples, `start` included and `end` not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First sample.
    pub start: u64,
    /// One past the last sample.
    pub end: u64,
}

impl Span {
    /// Samples in it.
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds nothing.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A piece of a conversation to transcribe at once: one or more spans of speech
/// in order, at most 30 s together.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Number in the store.
    pub id: WindowId,
    /// Its conversation.
    pub conversation_id: ConversationId,
    /// Which transcript of the conversation it is part of, from 1.
    pub version: u32,
    /// Position among the windows of that transcript, from 0.
    pub seq: u32,
    /// Speech to transcribe, in samples from the start of the conversation.
    pub spans: Vec<Span>,
    /// Where it stands.
    pub state: WindowState,
    /// The result, with times in seconds from the start of the conversation.
    pub segments: Vec<Segment>,
    /// Which engine and model made it.
    pub engine: Option<String>,
}

/// A window that has been cut and not stored yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWindow {
    /// Position among the conversation's windows, from 0.
    pub seq: u32,
    /// Speech to transcribe, in samples from the start of the conversation.
    pub spans: Vec<Span>,
}
