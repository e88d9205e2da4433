//! A conversation as one document: its row, its transcripts and sets of
//! memories, its crop, and its figures. Whatever changes one of them writes the
//! whole of it, so that two changes of a conversation never happen beside each
//! other.

use serde::{Deserialize, Serialize};

use super::documents::WindowRow;
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{CloseReason, Conversation, Progress, Span, WindowState};
use crate::domain::ids::{ClientId, ConversationId, MemoryId, UserId, WindowId};
use crate::domain::version::{Crop, MemoryVersion, Settled, TranscriptVersion};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(rename = "_id")]
    pub(super) id: ConversationId,
    /// Where its recording is.
    pub(super) node: String,
    pub(super) user_id: UserId,
    pub(super) client_id: ClientId,
    pub(super) audio_path: String,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) close_reason: Option<CloseReason>,
    pub(super) samples: u64,
    pub(super) transcription: Progress,
    pub(super) memory: Progress,
    pub(super) error: Option<String>,
    pub(super) title: Option<String>,
    pub(super) audio_deleted_at: Option<Timestamp>,
    pub(super) time_estimated: bool,
    pub(super) summary: Option<String>,
    pub(super) speakers: Vec<String>,
    pub(super) transcripts: Vec<Transcript>,
    pub(super) sets: Vec<Set>,
    pub(super) crop: Option<CropRow>,
    pub(super) figures: Figures,
    /// Raised by each change.
    pub(super) revision: i64,
}

/// How much of a conversation's speech is transcribed, waits, and was given up,
/// in samples, by the windows of its active transcript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) transcribed: u64,
    pub(super) waiting: u64,
    pub(super) failed: u64,
    /// Windows of any transcript that have none of the text that they should.
    pub(super) unfinished: u64,
}

/// A transcript, numbered from 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Transcript {
    pub(super) version: u32,
    pub(super) active: bool,
    pub(super) state: Progress,
    pub(super) engine: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) completed_at: Option<Timestamp>,
}

/// A set of memories, numbered from 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Set {
    pub(super) version: u32,
    pub(super) active: bool,
    pub(super) transcript_version: u32,
    pub(super) state: Progress,
    pub(super) model: Option<String>,
    pub(super) prompt_version: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) completed_at: Option<Timestamp>,
    /// Memories of other conversations that come back while this set is not
    /// active, since it had changed or deleted them.
    pub(super) replaced: Vec<MemoryId>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CropRow {
    pub(super) audio_path: Option<String>,
    pub(super) spans: Vec<Span>,
    pub(super) at: Timestamp,
}

/// A window without what was said in it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WindowSummary {
    #[serde(rename = "_id")]
    pub(super) id: WindowId,
    pub(super) version: u32,
    pub(super) seq: u32,
    pub(super) samples: u64,
    pub(super) state: WindowState,
}

impl From<&WindowRow> for WindowSummary {
    fn from(row: &WindowRow) -> Self {
        Self {
            id: row.id,
            version: row.version,
            seq: row.seq,
            samples: row.samples,
            state: row.state,
        }
    }
}

/// Whether any of them has still to be transcribed.
pub(super) fn any_waits(windows: &[WindowSummary]) -> bool {
    windows.iter().any(|window| window.state == WindowState::Waiting)
}

impl Record {
    /// Of a conversation that is new, with the version that its transcript will
    /// be; recorded at `node`.
    pub(super) fn new(of: &Conversation, node: &str) -> Self {
        let first = Transcript {
            version: 1,
            active: true,
            state: of.transcription,
            engine: None,
            created_at: of.started_at,
            completed_at: None,
        };
        Self {
            id: of.id.clone(),
            node: node.to_owned(),
            user_id: of.user_id.clone(),
            client_id: of.client_id.clone(),
            audio_path: of.audio_path.clone(),
            started_at: of.started_at,
            ended_at: of.ended_at,
            close_reason: of.close_reason,
            samples: of.samples,
            transcription: of.transcription,
            memory: of.memory,
            error: of.error.clone(),
            title: of.title.clone(),
            audio_deleted_at: of.audio_deleted_at,
            time_estimated: of.time_estimated,
            summary: None,
            speakers: Vec::new(),
            transcripts: vec![first],
            sets: Vec::new(),
            crop: None,
            figures: Figures::default(),
            revision: 0,
        }
    }

    pub(super) fn conversation(&self) -> Conversation {
        Conversation {
            id: self.id.clone(),
            user_id: self.user_id.clone(),
            client_id: self.client_id.clone(),
            audio_path: self.audio_path.clone(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            close_reason: self.close_reason,
            samples: self.samples,
            transcription: self.transcription,
            memory: self.memory,
            error: self.error.clone(),
            title: self.title.clone(),
            audio_deleted_at: self.audio_deleted_at,
            time_estimated: self.time_estimated,
        }
    }

    pub(super) fn close(&mut self, reason: CloseReason, at: Timestamp) {
        (self.ended_at, self.close_reason) = (Some(at), Some(reason));
    }

    /// Has the figures be those of its windows.
    pub(super) fn count(&mut self, windows: &[WindowSummary]) {
        let active = self.active_transcript();
        let sum = |state| -> u64 {
            let of_state = windows.iter().filter(|w| Some(w.version) == active && w.state == state);
            of_state.map(|window| window.samples).sum()
        };
        self.figures = Figures {
            transcribed: sum(WindowState::Done),
            waiting: sum(WindowState::Waiting),
            failed: sum(WindowState::Failed),
            unfinished: windows.iter().filter(|w| w.state != WindowState::Done).count() as u64,
        };
    }

    /// Whether nothing waits for its audio, but for a crop: every word of it is
    /// there, or there is none in it.
    pub(super) fn is_transcribed(&self) -> bool {
        let settled = [Progress::Completed, Progress::Empty, Progress::Skipped];
        self.ended_at.is_some()
            && self.audio_deleted_at.is_none()
            && settled.contains(&self.transcription)
            && self.pending_transcript().is_none()
            && self.figures.unfinished == 0
    }

    pub(super) fn transcript_versions(&self) -> Vec<TranscriptVersion> {
        let version = |of: &Transcript| TranscriptVersion {
            version: of.version,
            active: of.active,
            state: of.state,
            engine: of.engine.clone(),
            created_at: of.created_at,
            completed_at: of.completed_at,
        };
        self.transcripts.iter().map(version).collect()
    }

    /// The sets of memories, each with as many as `memories` says.
    pub(super) fn memory_versions(&self, memories: impl Fn(&Set) -> u64) -> Vec<MemoryVersion> {
        let version = |of: &Set| MemoryVersion {
            version: of.version,
            active: of.active,
            transcript_version: of.transcript_version,
            state: of.state,
            memories: memories(of),
            model: of.model.clone(),
            prompt_version: of.prompt_version.clone(),
            created_at: of.created_at,
            completed_at: of.completed_at,
        };
        self.sets.iter().map(version).collect()
    }

    pub(super) fn crop(&self) -> Option<Crop> {
        self.crop.as_ref().map(|crop| Crop {
            audio_path: crop.audio_path.clone(),
            spans: crop.spans.clone(),
            at: crop.at,
        })
    }

    pub(super) fn active_transcript(&self) -> Option<u32> {
        self.transcripts.iter().find(|transcript| transcript.active).map(|active| active.version)
    }

    pub(super) fn active_set(&self) -> Option<u32> {
        self.sets.iter().find(|set| set.active).map(|active| active.version)
    }

    pub(super) fn transcript(&mut self, version: u32) -> Result<&mut Transcript> {
        self.transcripts.iter_mut().find(|of| of.version == version).ok_or_else(no_version)
    }

    pub(super) fn set(&mut self, version: u32) -> Result<&mut Set> {
        self.sets.iter_mut().find(|of| of.version == version).ok_or_else(no_version)
    }

    /// The oldest transcript that is being made.
    pub(super) fn pending_transcript(&self) -> Option<u32> {
        let pending = |of: &&Transcript| of.state == Progress::Pending;
        self.transcripts.iter().find(pending).map(|of| of.version)
    }

    /// Begins another transcript; its number.
    pub(super) fn begin_transcript(&mut self, at: Timestamp) -> u32 {
        let version = 1 + self.transcripts.iter().map(|of| of.version).max().unwrap_or(0);
        self.transcripts.push(Transcript {
            version,
            active: false,
            state: Progress::Pending,
            engine: None,
            created_at: at,
            completed_at: None,
        });
        version
    }

    /// Has that transcript be the one that is shown.
    pub(super) fn activate_transcript(&mut self, version: u32) {
        for transcript in &mut self.transcripts {
            transcript.active = transcript.version == version;
        }
    }

    /// Records how the making of a transcript ended, and makes it the active one
    /// if it is complete. Whether it is the active one now.
    pub(super) fn settle(&mut self, settled: &Settled, at: Timestamp) -> Result<bool> {
        let transcript = self.transcript(settled.version)?;
        (transcript.state, transcript.completed_at) = (settled.transcription, Some(at));
        if matches!(settled.transcription, Progress::Completed | Progress::Empty) {
            self.activate_transcript(settled.version);
        }
        self.mirror();
        let active = self.active_transcript() == Some(settled.version);
        // Memories that are there stand until others take their place.
        if active && self.active_set().is_none() {
            self.memory = settled.memory;
        }
        Ok(active)
    }

    /// Marks transcripts that are being made as failed.
    pub(super) fn fail_transcript(&mut self) {
        for transcript in &mut self.transcripts {
            if transcript.state == Progress::Pending {
                transcript.state = Progress::Failed;
            }
        }
        self.mirror();
    }

    /// Marks a transcript as being made again: that of `version`, or the one that
    /// failed last.
    pub(super) fn reopen_transcript(&mut self, version: Option<u32>) {
        let failed = self.transcripts.iter().filter(|of| of.state == Progress::Failed);
        let version = version.or(failed.map(|of| of.version).max());
        for transcript in &mut self.transcripts {
            if Some(transcript.version) == version {
                (transcript.state, transcript.completed_at) = (Progress::Pending, None);
            }
        }
        self.mirror();
    }

    /// Begins a set of memories made from that transcript; one that is being made
    /// already takes the newer transcript. Its number.
    pub(super) fn begin_set(&mut self, transcript: u32, at: Timestamp) -> u32 {
        if let Some(pending) = self.sets.iter_mut().find(|set| set.state == Progress::Pending) {
            pending.transcript_version = transcript;
            return pending.version;
        }
        let version = 1 + self.sets.iter().map(|set| set.version).max().unwrap_or(0);
        self.sets.push(Set {
            version,
            active: false,
            transcript_version: transcript,
            state: Progress::Pending,
            model: None,
            prompt_version: None,
            created_at: at,
            completed_at: None,
            replaced: Vec::new(),
        });
        self.mirror();
        version
    }

    /// The set of memories that is being made.
    pub(super) fn pending_set(&self) -> Option<u32> {
        self.sets.iter().find(|set| set.state == Progress::Pending).map(|set| set.version)
    }

    /// Marks the set of memories that is being made as failed.
    pub(super) fn fail_set(&mut self) {
        for set in &mut self.sets {
            if set.state == Progress::Pending {
                set.state = Progress::Failed;
            }
        }
        // Said also where no set was begun.
        if self.active_set().is_none() {
            self.memory = Progress::Failed;
        }
    }

    /// Marks the set of memories that failed last as being made again.
    pub(super) fn reopen_set(&mut self) {
        let failed = self.sets.iter().filter(|set| set.state == Progress::Failed);
        let last = failed.map(|set| set.version).max();
        if self.pending_set().is_none()
            && let Some(last) = self.sets.iter_mut().find(|set| Some(set.version) == last)
        {
            last.state = Progress::Pending;
        }
        self.mirror();
    }

    /// Has the row say where the active versions stand; without an active set of
    /// memories, where the latest does.
    pub(super) fn mirror(&mut self) {
        if let Some(active) = self.transcripts.iter().find(|transcript| transcript.active) {
            self.transcription = active.state;
        }
        if let Some(set) = self.sets.iter().max_by_key(|set| (set.active, set.version)) {
            self.memory = set.state;
        }
    }

    /// Forgets why a step failed, once no step is left failed, and no window of
    /// the active transcript or of the latest.
    pub(super) fn clear_error(&mut self, windows: &[WindowSummary]) {
        let shown = [self.active_transcript(), self.transcripts.iter().map(|of| of.version).max()];
        let failed = windows
            .iter()
            .any(|w| w.state == WindowState::Failed && shown.contains(&Some(w.version)));
        if ![self.transcription, self.memory].contains(&Progress::Failed) && !failed {
            self.error = None;
        }
    }
}

pub(super) fn no_version() -> Error {
    Error::new(Kind::NotFound, "there is no such version")
}
