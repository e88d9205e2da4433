//! What has become of the audio that was accepted.

use super::ids::UserId;

/// Samples accepted, and what has become of them. Always `accepted = silent +
/// transcribed + waiting + failed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Recorded, or being recorded.
    pub accepted: u64,
    /// Of those, on disk now. (Audio can be deleted once it is transcribed.)
    pub on_disk: u64,
    /// Speech that has a transcript.
    pub transcribed: u64,
    /// Speech that waits for the speech engine.
    pub waiting: u64,
    /// Speech that was given up; its audio is kept.
    pub failed: u64,
}

impl Coverage {
    /// Accepted, and nobody speaks in it.
    pub fn silent(&self) -> u64 {
        self.accepted.saturating_sub(self.transcribed + self.waiting + self.failed)
    }
}

impl std::iter::Sum for Coverage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, next| Self {
            accepted: sum.accepted + next.accepted,
            on_disk: sum.on_disk + next.on_disk,
            transcribed: sum.transcribed + next.transcribed,
            waiting: sum.waiting + next.waiting,
            failed: sum.failed + next.failed,
        })
    }
}

/// The coverage of one user's conversations that began on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayCoverage {
    /// Whose.
    pub user_id: UserId,
    /// The day, in UTC: `2026-11-25`.
    pub day: String,
    /// What became of it.
    pub coverage: Coverage,
}
