//! A circuit breaker: leaves a service alone that has failed, and lets one
//! request at a time find out whether it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};

/// The longest time a service is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BreakerPhase)]
pub enum Phase {
    /// The service works.
    Closed,
    /// It failed, and may be asked again: the next request decides.
    HalfOpen,
    /// It failed, and is left alone.
    Open,
}

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where its breaker stands.
    pub phase: Phase,
    /// What the latest answer took.
    pub latency: Option<Duration>,
    /// Why it does not work, while it does not.
    pub reason: Option<String>,
}

/// Guards one service.
#[derive(Debug)]
pub(super) struct Breaker {
    name: &'static str,
    pause: Duration,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None while the service works.
    failure: Option<Failure>,
    latency: Option<Duration>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    /// Left alone until then, by the monotonic clock.
    until: Duration,
    pause: Duration,
    /// Somebody is finding out whether it is back.
    probed: bool,
}

/// The right to ask once. Dropped without a verdict, it tells nothing.
pub(super) struct Turn<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    pub(super) fn new(name: &'static str, pause: Duration, clock: Clock) -> Self {
        Self { name, pause, clock, state: Mutex::default() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn is_ready(&self) -> bool {
        let now = self.clock.monotonic();
        self.state().failure.as_ref().is_none_or(|failure| failure.may_be_asked(now))
    }

    pub(super) fn standing(&self) -> Standing {
        let now = self.clock.monotonic();
        let state = self.state();
        let phase = match &state.failure {
            None => Phase::Closed,
            Some(failure) if failure.probed || failure.may_be_asked(now) => Phase::HalfOpen,
            Some(_) => Phase::Open,
        };
        let reason = state.failure.as_ref().map(|failure| failure.reason.clone());
        Standing { phase, latency: state.latency, reason }
    }

    /// # Errors
    /// `Away` while the service is left alone, or somebody else finds out.
    pub(super) fn enter(&self) -> Result<Turn<'_>> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let probe = match &mut state.failure {
            None => false,
            Some(failure) if failure.may_be_asked(now) => {
                failure.probed = true;
                true
            }
            Some(failure) => return Err(Error::new(Kind::Away, failure.reason.clone())),
        };
        Ok(Turn { breaker: self, probe })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn may_be_asked(&self, now: Duration) -> bool {
        !self.probed && now >= self.until
    }
}

impl Turn<'_> {
    /// Whether the service was known to be away before.
    pub(super) fn is_probe(&self) -> bool {
        self.probe
    }

    /// It answered in that time.
    pub(super) fn worked(&mut self, took: Duration) {
        self.probe = false;
        let mut state = self.breaker.state();
        state.latency = Some(took);
        if state.failure.take().is_some() {
            tracing::info!("{} answers again", self.breaker.name);
        }
    }

    /// It failed; not to be asked `after` so long, where it says so itself. The
    /// error as the asker gets it.
    pub(super) fn failed(&mut self, error: Error, after: Option<Duration>) -> Error {
        let (breaker, now) = (self.breaker, self.breaker.clock.monotonic());
        let probe = std::mem::take(&mut self.probe);
        let mut state = breaker.state();
        let pause = match &state.failure {
            Some(earlier) if probe => (earlier.pause * 2).min(LONGEST_PAUSE),
            // Others found out meanwhile.
            Some(_) => return error,
            None => breaker.pause,
        };
        let wait = after.unwrap_or(pause).max(pause).min(LONGEST_PAUSE);
        let known = state.failure.is_some();
        let reason = error.message().to_owned();
        state.failure = Some(Failure { reason, until: now + wait, pause, probed: false });
        drop(state);
        match known {
            true => tracing::debug!("still away: {}", error.report()),
            false => tracing::warn!("{}; it is asked again from time to time", error.report()),
        }
        if probe {
            return Error::new(Kind::Away, error.message()).with_source(error);
        }
        error
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(failure) = &mut self.breaker.state().failure
        {
            failure.probed = false;
        }
    }
}
