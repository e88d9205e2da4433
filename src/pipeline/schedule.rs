//! When transcription may run.

use std::sync::Arc;

use super::reconcile::LiveConversations;
use crate::base::clock::Clock;
use crate::config::When;
use crate::domain::job::Lane;

/// The rule, and what it looks at.
pub struct Schedule {
    when: When,
    live: Arc<dyn LiveConversations>,
    clock: Clock,
}

impl Schedule {
    /// By that rule.
    pub fn new(when: When, live: Arc<dyn LiveConversations>, clock: Clock) -> Self {
        Self { when, live, clock }
    }

    /// The least urgent lane that may be served now: what somebody waits for is
    /// served at any time.
    pub fn least_urgent(&self) -> Lane {
        match self.when.allows(self.clock.minute_of_day(), !self.live.any_live()) {
            true => Lane::Backlog,
            false => Lane::Interactive,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::domain::ids::ConversationId;

    struct Live(AtomicBool);

    #[async_trait::async_trait]
    impl LiveConversations for Live {
        fn is_live(&self, _: &ConversationId) -> bool {
            self.any_live()
        }

        fn any_live(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }

        async fn close(&self, _: &ConversationId) {}
    }

    #[test]
    fn the_night_comes_and_goes_and_interactive_work_is_always_served() {
        // 2025-07-22, 13:13 UTC.
        let clock = Clock::simulated(Timestamp::from_millis(1_753_190_000_000));
        let live = Arc::new(Live(AtomicBool::new(true)));
        let schedule =
            |when: &str| Schedule::new(when.parse().unwrap(), live.clone(), clock.clone());
        let (always, idle, night) = (schedule("always"), schedule("idle"), schedule("22:00-06:00"));
        assert_eq!(always.least_urgent(), Lane::Backlog);
        assert_eq!(idle.least_urgent(), Lane::Interactive);
        assert_eq!(night.least_urgent(), Lane::Interactive);
        live.0.store(false, Ordering::Relaxed);
        assert_eq!(idle.least_urgent(), Lane::Backlog);
        let hour = Duration::from_secs(3600);
        let mut served = 0;
        for _ in 0..24 {
            clock.advance(hour);
            served += u32::from(night.least_urgent() == Lane::Backlog);
        }
        assert_eq!(served, 8);
        // A clock that is set is a clock like any other.
        clock.step_wall(Timestamp::from_millis(23 * 3_600_000));
        assert_eq!(night.least_urgent(), Lane::Backlog);
    }
}
