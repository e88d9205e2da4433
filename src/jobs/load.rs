//! How transcription keeps up with what is recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::conversation::seconds;
use crate::domain::job::Backlog;

/// Work waiting, in seconds of time, from which on windows are packed full: the
/// speech model takes as long for a few words as for 30 s.
const HIGH: f64 = 60.0;
/// How much the latest window counts in the measured pace.
const LATEST: f64 = 0.2;

/// The measured pace and what waits. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Seconds of work for a second of audio, as the bits of an `f64`; zero
    /// before the first is measured.
    pace: AtomicU64,
    /// Samples that wait, as last counted.
    waiting: AtomicU64,
}

/// What waits for transcription and how long that will take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Estimate {
    /// Windows that wait.
    pub windows: u64,
    /// Seconds of audio in them.
    pub audio_seconds: f64,
    /// Seconds of work for a second of audio, as measured; none before the first.
    pub real_time_factor: Option<f64>,
    /// Seconds until they are done, if nothing comes after them.
    pub eta_seconds: Option<f64>,
}

impl Load {
    /// Notes that `samples` took that long to transcribe.
    pub fn done(&self, samples: u64, took: Duration) {
        if samples == 0 {
            return;
        }
        let latest = took.as_secs_f64() / seconds(samples);
        let pace = match self.pace() {
            Some(before) => before + LATEST * (latest - before),
            None => latest,
        };
        self.0.pace.store(pace.to_bits(), Ordering::Relaxed);
    }

    /// Notes what waits.
    pub fn note(&self, backlog: Backlog) {
        self.0.waiting.store(backlog.samples, Ordering::Relaxed);
    }

    /// Whether transcription is behind, so that windows are better packed full.
    pub fn is_high(&self) -> bool {
        let waiting = seconds(self.0.waiting.load(Ordering::Relaxed));
        waiting * self.pace().unwrap_or(1.0) > HIGH
    }

    /// How long `backlog` will take.
    pub fn estimate(&self, backlog: Backlog) -> Estimate {
        let audio_seconds = seconds(backlog.samples);
        let pace = self.pace();
        Estimate {
            windows: backlog.windows,
            audio_seconds,
            real_time_factor: pace,
            eta_seconds: pace.map(|pace| pace * audio_seconds),
        }
    }

    fn pace(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.pace.load(Ordering::Relaxed))).filter(|pace| *pace > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_pace() {
        let load = Load::default();
        let backlog = Backlog { windows: 2, samples: 60 * 16_000 };
        assert_eq!(load.estimate(backlog).eta_seconds, None);
        load.done(20 * 16_000, Duration::from_secs(10));
        assert_eq!(load.estimate(backlog).eta_seconds, Some(30.0));
        for _ in 0..50 {
            load.done(10 * 16_000, Duration::from_secs(20));
        }
        let estimate = load.estimate(backlog);
        assert!((estimate.real_time_factor.unwrap() - 2.0).abs() < 0.01, "{estimate:?}");
        assert!((estimate.eta_seconds.unwrap() - 120.0).abs() < 1.0, "{estimate:?}");
    }

    #[test]
    fn it_is_high_when_a_minute_of_work_waits() {
        let load = Load::default();
        load.done(16_000, Duration::from_millis(500));
        load.note(Backlog { windows: 4, samples: 119 * 16_000 });
        assert!(!load.is_high());
        load.note(Backlog { windows: 5, samples: 121 * 16_000 });
        assert!(load.is_high());
    }
}
