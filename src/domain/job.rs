//! Work that outlives the request that asked for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::conversation::named;
use super::ids::{ConversationId, JobId, WindowId};
use crate::base::clock::Timestamp;

named!(
    /// What a job does.
    JobKind {
        /// Records an uploaded file.
        Import = "import",
        /// Turns one window into text.
        Transcribe = "transcribe",
        /// Settles a closed conversation whose windows are all done.
        Finish = "finish",
        /// Extracts memories from a conversation.
        Remember = "remember",
        /// Writes the speech of a recording to a file of its own.
        Crop = "crop",
        /// Makes a transcribed WAV recording anew as Ogg Opus.
        Archive = "archive",
    }
);

named!(
    /// Where a job stands.
    JobState {
        /// Waiting for its turn or for its retry time.
        Ready = "ready",
        /// A worker holds it.
        Leased = "leased",
        /// Finished.
        Done = "done",
        /// Given up; kept for a retry by hand.
        Dead = "dead",
    }
);

named!(
    /// Who waits for it. Interactive goes first, then live, then backlog; what is
    /// held goes last, if at all.
    Lane {
        /// Somebody is looking at a screen.
        Interactive = "interactive",
        /// A conversation that is going on.
        Live = "live",
        /// Everything else.
        Backlog = "backlog",
        /// A window that had better wait for the rest of its conversation. It comes
        /// to another lane when that is closed.
        Held = "held",
    }
);

impl Lane {
    /// Order of service: smaller goes first.
    pub fn rank(self) -> u8 {
        match self {
            Self::Interactive => 0,
            Self::Live => 1,
            Self::Backlog => 2,
            Self::Held => 3,
        }
    }

    /// The lane of that [`rank`](Self::rank).
    pub fn from_rank(rank: u8) -> Option<Self> {
        [Self::Interactive, Self::Live, Self::Backlog, Self::Held]
            .into_iter()
            .find(|lane| lane.rank() == rank)
    }
}

/// What a job works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// For [`JobKind::Transcribe`].
    Window(WindowId),
    /// For all others.
    Conversation(ConversationId),
}

/// A job to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// What to do.
    pub kind: JobKind,
    /// On what.
    pub payload: Payload,
    /// Who waits.
    pub lane: Lane,
}

impl NewJob {
    /// At most one live job has this key: `kind:subject`.
    pub fn unique_key(&self) -> String {
        match &self.payload {
            Payload::Window(id) => format!("{}:{id}", self.kind.as_str()),
            Payload::Conversation(id) => format!("{}:{id}", self.kind.as_str()),
        }
    }
}

/// A job as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Number in the store.
    pub id: JobId,
    /// What to do.
    pub kind: JobKind,
    /// On what.
    pub payload: Payload,
    /// Who waits.
    pub lane: Lane,
    /// Where it stands.
    pub state: JobState,
    /// How often it was claimed.
    pub attempts: u32,
    /// Raised with each claim: a result of an older claim is refused.
    pub epoch: i64,
    /// Not before this time.
    pub run_at: Timestamp,
    /// What the last attempt ended with.
    pub last_error: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed state.
    pub updated_at: Timestamp,
}

impl Job {
    /// What a worker shows to have its result accepted.
    pub fn lease(&self) -> Lease {
        Lease { job: self.id, epoch: self.epoch }
    }
}

/// The right to complete a job, good while no one else has claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The claim.
    pub epoch: i64,
}

/// The most windows of a transcript that are claimed together: some 8 hours of
/// speech.
pub const MOST_TOGETHER: usize = 1000;

/// So often windows are tried together before each is by itself.
pub const TRIES_TOGETHER: u32 = 2;

/// The longest pause before a failed job is tried again. A job that is due later
/// than this was put off by a clock that has been set back since.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// What waits for transcription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Windows.
    pub windows: u64,
    /// Samples of audio in them.
    pub samples: u64,
}

/// Jobs by state, for health and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobCounts {
    /// Waiting.
    pub ready: u64,
    /// Being worked on.
    pub leased: u64,
    /// Given up.
    pub dead: u64,
}
