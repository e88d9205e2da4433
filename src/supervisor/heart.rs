//! Signs of life. Each part that the daemon cannot do without beats while it
//! moves; one that has stopped moving is found by its silence.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::Clock;

/// How often a part beats that has nothing else to do.
pub const BEAT: Duration = Duration::from_secs(1);

/// Listens to the parts. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Heart {
    clock: Clock,
    pulses: Arc<Mutex<Vec<(&'static str, Pulse)>>>,
}

/// The sign of life of one part. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pulse {
    clock: Clock,
    /// Monotonic milliseconds of the last beat, plus one; zero before the first.
    last: Arc<AtomicU64>,
}

impl Heart {
    /// A heart with no parts.
    pub fn new(clock: Clock) -> Self {
        Self { clock, pulses: Arc::default() }
    }

    /// The pulse of the part called `name`: from the first time that it is asked
    /// for, the daemon is not alive without it.
    pub fn part(&self, name: &'static str) -> Pulse {
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pulse)) = pulses.iter().find(|(known, _)| *known == name) {
            return pulse.clone();
        }
        let pulse = Pulse::new(self.clock.clone());
        pulses.push((name, pulse.clone()));
        pulse
    }

    /// A part that has not moved for longer than `limit`, or not yet at all.
    pub fn still(&self, limit: Duration) -> Option<&'static str> {
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let still = |pulse: &Pulse| pulse.quiet().is_none_or(|quiet| quiet > limit);
        pulses.iter().find(|(_, pulse)| still(pulse)).map(|(name, _)| *name)
    }
}

impl Default for Heart {
    fn default() -> Self {
        Self::new(Clock::system())
    }
}

impl Pulse {
    /// A pulse that nobody listens to yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: Arc::default() }
    }

    /// The part moved.
    pub fn beat(&self) {
        let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX - 1);
        self.last.store(now + 1, Ordering::Relaxed);
    }

    /// Beats for as long as `wait` takes, which has a limit of its own: a sleep,
    /// a request to a model.
    pub async fn during<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        loop {
            self.beat();
            tokio::select! {
                done = wait.as_mut() => return done,
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }

    /// Time since the last beat; none before the first.
    pub fn quiet(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.clock.monotonic().saturating_sub(Duration::from_millis(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    #[tokio::test]
    async fn the_part_that_stopped_is_named() {
        let clock = Clock::simulated(Timestamp::from_millis(0));
        let heart = Heart::new(clock.clone());
        let limit = Duration::from_secs(10);
        assert_eq!(heart.still(limit), None);
        let (one, two) = (heart.part("one"), heart.part("two"));
        one.beat();
        assert_eq!(heart.still(limit), Some("two"), "it has not begun");
        two.during(std::future::ready(())).await;
        assert_eq!(heart.still(limit), None);
        clock.advance(Duration::from_secs(11));
        two.beat();
        assert_eq!(heart.still(limit), Some("one"));
        // Setting the time moves nobody.
        clock.step_wall(Timestamp::from_millis(1 << 40));
        one.beat();
        assert_eq!(heart.still(limit), None);
    }
}
