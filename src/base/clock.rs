//! The only place that reads a clock. Time is a parameter everywhere else.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in wall time: milliseconds since the Unix epoch, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Seconds since the Unix epoch, with the fraction.
    pub fn seconds_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// RFC 3339 in UTC, to the millisecond: `2025-07-22T10:30:00.250Z`.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => format!("{time:.3}"),
            Err(_) => String::from("1970-01-01T00:00:00.000Z"),
        }
    }

    /// This time moved on by `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Whether something keeps the machine's clock right; none where the system does
/// not tell.
#[allow(unsafe_code)]
pub fn is_kept_right() -> Option<bool> {
    // SAFETY: zeroes are a valid `timex`, whose `modes` of zero change nothing.
    let state = unsafe {
        let mut time: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut time)
    };
    match state {
        -1 => None,
        state => Some(state != libc::TIME_ERROR),
    }
}

/// Tells wall time and time that never goes back. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Simulated { wall: Arc<AtomicI64>, monotonic: Arc<AtomicI64> },
    Timers { wall: Timestamp, started: tokio::time::Instant },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `wall` until it is moved: for tests.
    pub fn simulated(wall: Timestamp) -> Self {
        Self(Source::Simulated {
            wall: Arc::new(AtomicI64::new(wall.0)),
            monotonic: Arc::new(AtomicI64::new(0)),
        })
    }

    /// A clock at `wall` now that moves with the timers of the async runtime: for
    /// tests that pause those.
    pub fn of_timers(wall: Timestamp) -> Self {
        Self(Source::Timers { wall, started: tokio::time::Instant::now() })
    }

    /// Wall time now. It can step either way when the machine's clock is set.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => {
                let now = SystemTime::now();
                let millis = match now.duration_since(UNIX_EPOCH) {
                    Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
                    Err(before) => {
                        -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)
                    }
                };
                Timestamp(millis)
            }
            Source::Simulated { wall, .. } => Timestamp(wall.load(Ordering::SeqCst)),
            Source::Timers { wall, started } => wall.plus(started.elapsed()),
        }
    }

    /// The minute of the day where this machine is, from midnight. In tests the
    /// day is that of UTC.
    pub fn minute_of_day(&self) -> u16 {
        let zone = match &self.0 {
            Source::System { .. } => jiff::tz::TimeZone::system(),
            _ => jiff::tz::TimeZone::UTC,
        };
        let Ok(now) = jiff::Timestamp::from_millisecond(self.now().0) else { return 0 };
        let time = zone.to_datetime(now).time();
        u16::try_from(time.hour()).unwrap_or(0) * 60 + u16::try_from(time.minute()).unwrap_or(0)
    }

    /// Time since this clock was made; it never goes back.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Simulated { monotonic, .. } => {
                Duration::from_millis(u64::try_from(monotonic.load(Ordering::SeqCst)).unwrap_or(0))
            }
            Source::Timers { started, .. } => started.elapsed(),
        }
    }

    /// Moves a simulated clock on, wall and monotonic alike. The machine's
    /// clock is not ours to move: there it does nothing.
    pub fn advance(&self, by: Duration) {
        if let Source::Simulated { wall, monotonic } = &self.0 {
            let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            wall.fetch_add(millis, Ordering::SeqCst);
            monotonic.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// Steps a simulated clock's wall time alone, as setting the time does.
    pub fn step_wall(&self, to: Timestamp) {
        if let Source::Simulated { wall, .. } = &self.0 {
            wall.store(to.0, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_rfc3339_with_milliseconds() {
        assert_eq!(
            Timestamp::from_millis(1_753_190_000_250).to_rfc3339(),
            "2025-07-22T13:13:20.250Z"
        );
        assert_eq!(Timestamp::from_millis(0).to_rfc3339(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn setting_the_wall_clock_leaves_monotonic_time_alone() {
        let clock = Clock::simulated(Timestamp::from_millis(1_000));
        clock.advance(Duration::from_secs(5));
        clock.step_wall(Timestamp::from_millis(0));
        assert_eq!(clock.now().millis(), 0);
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
    }

    #[test]
    fn since_never_underflows() {
        let (early, late) = (Timestamp::from_millis(10), Timestamp::from_millis(25));
        assert_eq!(late.since(early), Duration::from_millis(15));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
