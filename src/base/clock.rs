//! The only place that reads a clock. Time is a parameter everywhere else.
//!
//! The machine's wall clock is followed rather than read: between two looks at
//! it ([`Clock::follow`]) wall time goes on with the time since boot, so that a
//! step is one event that somebody answers for, and never a jump in the middle
//! of something. A machine without a battery-backed clock starts in the past;
//! until its clock is set, time goes on from the last that was known.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::{Context, Kind, Result};
use super::system;

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

    /// This time moved by `millis`, either way.
    #[must_use]
    pub const fn moved(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// How far from `other` this is, before or after it.
    pub fn apart(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
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

/// No clock that is right tells an earlier time than this: 2026-01-01.
const EARLIEST: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// A difference of the machine's clock that is followed without a word: what
/// slewing and leap seconds come to between two looks.
const SLEW: i64 = 2_000;

/// Tells wall time and time that never goes back. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Arc<Followed>),
    Simulated { wall: Arc<AtomicI64>, monotonic: Arc<AtomicI64> },
    Timers { wall: Timestamp, started: tokio::time::Instant },
}

/// The machine's clock, as far as it has been followed.
#[derive(Debug)]
struct Followed {
    started: Instant,
    /// Wall time in milliseconds when the machine booted.
    offset: AtomicI64,
    /// Not set yet: the wall time is made up.
    estimated: AtomicBool,
    history: Mutex<History>,
}

/// The steps that wall time has taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Tells it from others, which began when nobody knew the time.
    id: u32,
    /// By how many milliseconds each step moved wall time.
    steps: Vec<i64>,
}

impl History {
    fn new() -> Self {
        Self { id: rand::random(), steps: Vec::new() }
    }
}

/// The wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it told just before.
    pub from: Timestamp,
    /// What it tells now.
    pub to: Timestamp,
    /// It had not been set before: what `from` and earlier times of this boot
    /// say was made up.
    pub estimated: bool,
}

impl Step {
    /// Milliseconds forward.
    pub const fn by(&self) -> i64 {
        self.to.millis() - self.from.millis()
    }
}

/// Names the course of wall time between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    history: u32,
    steps: usize,
}

/// What the machine's clock tells, and how far that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Wall time.
    pub wall: Timestamp,
    /// Since boot, suspended time included.
    pub since_boot: Duration,
    /// Some service keeps it right.
    pub synchronized: bool,
    /// It starts from a time that was saved before the machine was switched off.
    pub saved: bool,
}

impl Reading {
    /// Looks now.
    fn take() -> Self {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Self {
            wall: Timestamp(millis),
            since_boot: system::since_boot(),
            synchronized: system::clock_is_synchronized(),
            saved: system::clock_is_saved(),
        }
    }

    /// Whether the clock was set since the machine started, when `last` is a time
    /// that has already been.
    fn is_set(&self, last: Timestamp) -> bool {
        self.wall >= EARLIEST && (self.synchronized || (self.wall >= last && !self.saved))
    }
}

/// Tells at once when the machine's clock is set, by a timer that the kernel then
/// cancels (`timerfd_create(2)`).
#[derive(Debug)]
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// A watch from now on.
    ///
    /// # Errors
    /// `Internal` when the kernel has no such timer.
    #[allow(unsafe_code)]
    pub fn new() -> Result<Self> {
        // SAFETY: the descriptor is owned, and open until it is dropped with the
        // registration.
        let register =
            |timer| unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)
            .map_err(std::io::Error::from)
            .and_then(|timer| register(timer).map_err(std::io::Error::from))
            .context(Kind::Internal, "cannot watch the machine's clock")?;
        let watch = Self(timer);
        watch.arm()?;
        Ok(watch)
    }

    /// Far in the future: it is only there to be cancelled.
    fn arm(&self) -> Result<()> {
        let never = Timespec { tv_sec: u32::MAX.into(), tv_nsec: 0 };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: never };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(self.0.get_ref(), flags, &once)
            .map(drop)
            .map_err(std::io::Error::from)
            .context(Kind::Internal, "cannot watch the machine's clock")
    }

    /// Returns when the clock has been set.
    ///
    /// # Errors
    /// `Internal` when the kernel does not let it be watched.
    pub async fn changed(&self) -> Result<()> {
        let mut ready =
            self.0.readable().await.context(Kind::Internal, "cannot watch the machine's clock")?;
        // Either it was cancelled, or the year 2106 has come.
        let _ = rustix::io::read(self.0.get_ref(), &mut [0; 8]);
        ready.clear_ready();
        self.arm()
    }
}

impl Followed {
    fn new() -> Self {
        let reading = Reading::take();
        Self {
            started: Instant::now(),
            offset: AtomicI64::new(reading.wall.0 - millis(reading.since_boot)),
            estimated: AtomicBool::new(false),
            history: Mutex::new(History::new()),
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, since_boot: Duration) -> Timestamp {
        Timestamp(self.offset.load(Ordering::SeqCst).saturating_add(millis(since_boot)))
    }

    /// Goes on from `last`, where the machine has not been told the time.
    fn begin(&self, last: Timestamp, reading: Reading) {
        if reading.is_set(last) {
            return;
        }
        self.estimated.store(true, Ordering::SeqCst);
        let wall = reading.wall.max(last).max(EARLIEST);
        self.offset.store(wall.0 - millis(reading.since_boot), Ordering::SeqCst);
    }

    fn follow(&self, reading: Reading) -> Option<Step> {
        let from = self.at(reading.since_boot);
        let step =
            Step { from, to: reading.wall, estimated: self.estimated.load(Ordering::SeqCst) };
        let set =
            reading.synchronized || step.by() > SLEW || (step.by() >= -SLEW && !reading.saved);
        if step.estimated && !set {
            return None;
        }
        self.offset.fetch_add(step.by(), Ordering::SeqCst);
        self.estimated.store(false, Ordering::SeqCst);
        if step.by().abs() <= SLEW && !step.estimated {
            return None;
        }
        self.history().steps.push(step.by());
        Some(step)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Clock {
    /// The machine's clock, as it tells the time now.
    pub fn system() -> Self {
        Self(Source::System(Arc::new(Followed::new())))
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

    /// Wall time now. It steps when [`Clock::follow`] finds that the machine's
    /// clock was set.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System(followed) => followed.at(system::since_boot()),
            Source::Simulated { wall, .. } => Timestamp(wall.load(Ordering::SeqCst)),
            Source::Timers { wall, started } => wall.plus(started.elapsed()),
        }
    }

    /// Goes on from `last`, a time that has already been, where the machine has
    /// not been told the time since it started. Then [`Clock::is_estimated`].
    pub fn begin(&self, last: Timestamp) {
        if let Source::System(followed) = &self.0 {
            followed.begin(last, Reading::take());
        }
    }

    /// Goes on as an earlier process of this boot did: wall time was `wall` when
    /// the machine had run for `since_boot`, and made up.
    pub fn resume(&self, wall: Timestamp, since_boot: Duration) {
        if let Source::System(followed) = &self.0 {
            followed.offset.store(wall.0 - millis(since_boot), Ordering::SeqCst);
            followed.estimated.store(true, Ordering::SeqCst);
        }
    }

    /// The steps so far.
    pub fn history(&self) -> History {
        match &self.0 {
            Source::System(followed) => followed.history().clone(),
            _ => History { id: 0, steps: Vec::new() },
        }
    }

    /// Takes over the steps of an earlier process, so that what that one stamped
    /// is carried over them too.
    pub fn recall(&self, history: &History) {
        if let Source::System(followed) = &self.0 {
            followed.history().clone_from(history);
        }
    }

    /// Takes over what the machine's clock tells by now; the step, if it was set.
    pub fn follow(&self) -> Option<Step> {
        match &self.0 {
            Source::System(followed) => followed.follow(Reading::take()),
            _ => None,
        }
    }

    /// Whether wall time is made up, because the machine's clock has not been set.
    pub fn is_estimated(&self) -> bool {
        match &self.0 {
            Source::System(followed) => followed.estimated.load(Ordering::SeqCst),
            _ => false,
        }
    }

    /// Names the present course of wall time.
    pub fn stamp(&self) -> Stamp {
        let history = self.history();
        Stamp { history: history.id, steps: history.steps.len() }
    }

    /// What `time` of the course `stamp` is now: what has been stepped over since
    /// is added. One of another history is taken as it is.
    pub fn carried(&self, time: Timestamp, stamp: Stamp) -> Timestamp {
        let history = self.history();
        if stamp.history != history.id {
            return time;
        }
        let since = history.steps.iter().skip(stamp.steps);
        since.fold(time, |time, by| time.moved(*by))
    }

    /// The minute of the day where this machine is, from midnight. In tests the
    /// day is that of UTC.
    pub fn minute_of_day(&self) -> u16 {
        let zone = match &self.0 {
            Source::System(_) => jiff::tz::TimeZone::system(),
            _ => jiff::tz::TimeZone::UTC,
        };
        let Ok(now) = jiff::Timestamp::from_millisecond(self.now().0) else { return 0 };
        let time = zone.to_datetime(now).time();
        u16::try_from(time.hour()).unwrap_or(0) * 60 + u16::try_from(time.minute()).unwrap_or(0)
    }

    /// Time since this clock was made; it never goes back.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System(followed) => followed.started.elapsed(),
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

    /// A machine that has run for `seconds`, whose clock tells `wall`.
    fn reading(wall: i64, seconds: u64) -> Reading {
        Reading {
            wall: Timestamp(wall),
            since_boot: Duration::from_secs(seconds),
            synchronized: false,
            saved: false,
        }
    }

    fn begun(last: Timestamp, reading: Reading) -> Followed {
        let followed = Followed::new();
        followed.offset.store(reading.wall.0 - millis(reading.since_boot), Ordering::SeqCst);
        followed.begin(last, reading);
        followed
    }

    const HOUR: i64 = 3_600_000;
    const LAST: Timestamp = EARLIEST.moved(100 * HOUR);

    #[test]
    fn goes_on_from_the_last_known_time_until_the_clock_is_set() {
        let clock = begun(LAST, reading(0, 10));
        assert!(clock.estimated.load(Ordering::SeqCst));
        assert_eq!(clock.at(Duration::from_secs(70)), LAST.plus(Duration::from_secs(60)));
        assert_eq!(clock.follow(reading(60_000, 70)), None, "still in 1970");
        let set = LAST.moved(50 * HOUR);
        let step = clock.follow(reading(set.0, 80)).unwrap();
        assert!(step.estimated);
        assert_eq!(step.from, LAST.plus(Duration::from_secs(70)));
        assert_eq!(step.to, set);
        assert!(!clock.estimated.load(Ordering::SeqCst));
        assert_eq!(clock.at(Duration::from_secs(81)), set.plus(Duration::from_secs(1)));
        assert_eq!(clock.follow(reading(set.0 + 1_000, 81)), None);
    }

    #[test]
    fn a_clock_that_was_set_is_followed_both_ways() {
        let start = LAST.moved(HOUR);
        let clock = begun(LAST, reading(start.0, 10));
        assert!(!clock.estimated.load(Ordering::SeqCst));
        // Slewed: without a word. Suspended time is in both.
        assert_eq!(clock.follow(reading(start.0 + 60_900, 70)), None);
        assert_eq!(clock.at(Duration::from_secs(70)).0, start.0 + 60_900);
        for day in [24 * HOUR, -24 * HOUR] {
            let from = clock.at(Duration::from_secs(80));
            let step = clock.follow(reading(from.0 + day, 80)).unwrap();
            assert_eq!(step, Step { from, to: from.moved(day), estimated: false });
        }
        let now = clock.at(Duration::from_secs(90));
        // Set back to before the last start: it was set all the same.
        assert!(clock.follow(reading(now.0 - 1_000 * HOUR, 90)).is_some());
    }

    #[test]
    fn a_saved_clock_is_an_estimate_until_it_is_set() {
        let saved = |wall, seconds| Reading { saved: true, ..reading(wall, seconds) };
        let start = LAST.moved(HOUR);
        let clock = begun(LAST, saved(start.0, 10));
        assert!(clock.estimated.load(Ordering::SeqCst));
        assert_eq!(clock.follow(saved(start.0 + 10_000, 20)), None);
        assert_eq!(clock.at(Duration::from_secs(20)).0, start.0 + 10_000);
        let right = Reading { synchronized: true, ..saved(start.0 + 20_500, 30) };
        let step = clock.follow(right).unwrap();
        assert!(step.estimated && step.by() == 500, "{step:?}");
        assert_eq!(clock.follow(right), None);
    }

    #[test]
    fn times_are_carried_over_steps() {
        let clock = Clock::system();
        let Source::System(followed) = &clock.0 else { unreachable!() };
        let (before, time) = (clock.stamp(), Timestamp(5));
        let seconds = system::since_boot().as_secs();
        let far = clock.now().moved(24 * HOUR);
        let step = followed.follow(reading(far.0, seconds)).unwrap();
        assert_eq!(clock.carried(time, before), time.moved(step.by()));
        assert_eq!(clock.carried(time, clock.stamp()), time);
        let next = Clock::system();
        assert_eq!(next.carried(time, before), time, "not of its history");
        next.recall(&clock.history());
        assert_eq!(next.carried(time, before), time.moved(step.by()));
    }

    #[test]
    fn since_never_underflows() {
        let (early, late) = (Timestamp::from_millis(10), Timestamp::from_millis(25));
        assert_eq!(late.since(early), Duration::from_millis(15));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
