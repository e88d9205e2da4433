//! Services outside the daemon, each asked with care: a request that fails for a
//! passing reason is tried again, a service that stays away is left alone for a
//! while ([`breaker`]), and the log says once that it went and once that it is
//! back. [`http`] is how those are asked that speak HTTP, [`bucket`] those that
//! speak S3.

pub mod authorities;
pub mod breaker;
pub mod bucket;
pub mod http;

use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::metrics;
use breaker::{Breaker, Turn};
pub use breaker::{Phase, Standing};

/// Requests that are made before a service counts as away.
const TRIES: u32 = 3;
/// Pause after the first; each one after doubles it.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a service may ask for while a request waits.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Why a request brought no answer.
#[derive(Debug)]
pub enum Fault {
    /// The service works, and refuses just this: it always would.
    Refused(Error),
    /// It may be over in a moment, or after the time that the service names.
    Passing(Error, Option<Duration>),
    /// Every request fails like this until somebody mends it: a wrong key, a
    /// model that is not there.
    Lasting(Error),
}

impl Fault {
    /// A passing fault that says `message`.
    pub fn passing(message: impl Into<String>) -> Self {
        Self::Passing(Error::new(Kind::Unavailable, message), None)
    }

    /// What is wrong, whether or not it may pass.
    pub fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Passing(error, _) | Self::Lasting(error) => error,
        }
    }
}

/// A service outside.
#[derive(Debug)]
pub struct Service {
    breaker: Breaker,
    clock: Clock,
}

impl Service {
    /// The service called `name` in the log and in `/health`. After a failure it
    /// is left alone for `pause`, which doubles up to a minute.
    pub fn new(name: &'static str, pause: Duration, clock: Clock) -> Self {
        Self { breaker: Breaker::new(name, pause, clock.clone()), clock }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.breaker.name()
    }

    /// Whether it may be asked now.
    pub fn is_ready(&self) -> bool {
        self.breaker.is_ready()
    }

    /// How it is.
    pub fn standing(&self) -> Standing {
        self.breaker.standing()
    }

    /// What `request` brings in the end, made again where that may help.
    ///
    /// # Errors
    /// As [`Asking::weigh`].
    pub async fn call<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut asking = self.ask()?;
        loop {
            let outcome = request().await;
            if let Some(end) = asking.weigh(outcome).await {
                return end;
            }
        }
    }

    /// What `request` brings, which is made once: whoever makes it knows what of
    /// it may be made again.
    ///
    /// # Errors
    /// As [`Asking::weigh`].
    pub async fn once<T>(&self, request: impl Future<Output = Result<T, Fault>>) -> Result<T> {
        let mut asking = self.ask()?;
        asking.tried = TRIES;
        let end = asking.weigh(request.await).await;
        end.unwrap_or_else(|| Err(Error::new(Kind::Internal, "a request has no outcome")))
    }

    /// Begins to ask it: make the request, and have its outcome
    /// [weighed](Asking::weigh), until that comes to an end.
    ///
    /// # Errors
    /// `Away` while it is left alone.
    pub fn ask(&self) -> Result<Asking<'_>> {
        let turn = self.breaker.enter()?;
        Ok(Asking { service: self, turn, tried: 0, began: self.clock.monotonic() })
    }
}

/// One thing that a service is asked for, in one request or a few.
pub struct Asking<'a> {
    service: &'a Service,
    turn: Turn<'a>,
    tried: u32,
    began: Duration,
}

impl Asking<'_> {
    /// What came of a request in the end: the answer, or `BadInput` and the like
    /// when it is refused, `Unavailable` or `Timeout` when the service fails,
    /// `Away` when it was known to. None, after a pause: ask again.
    pub async fn weigh<T>(&mut self, outcome: Result<T, Fault>) -> Option<Result<T>> {
        let (name, clock) = (self.service.name(), &self.service.clock);
        let took = clock.monotonic().saturating_sub(self.began);
        let word = match &outcome {
            Ok(_) => "answered",
            Err(Fault::Refused(_)) => "refused",
            Err(_) => "failed",
        };
        metrics::SERVICE_REQUESTS.add(&[name, word], 1.0);
        metrics::SERVICE_SECONDS.add(&[name], took.as_secs_f64());
        self.tried += 1;
        let (error, after) = match outcome {
            Ok(answer) => {
                self.turn.worked(took);
                return Some(Ok(answer));
            }
            Err(Fault::Refused(error)) => {
                self.turn.worked(took);
                return Some(Err(error));
            }
            Err(Fault::Lasting(error)) => return Some(Err(self.turn.failed(error, None))),
            Err(Fault::Passing(error, after)) => (error, after),
        };
        let tries = if self.turn.is_probe() { 1 } else { TRIES };
        let wait = after.unwrap_or(PAUSE * 2_u32.pow(self.tried - 1));
        // Who did not answer in all that time will not in as much again.
        let hopeless = error.kind() == Kind::Timeout || wait > LONGEST_WAIT;
        if self.tried >= tries || hopeless {
            return Some(Err(self.turn.failed(error, after)));
        }
        tracing::debug!("{}; asked again in {wait:?}", error.report());
        tokio::time::sleep(wait.mul_f64(1.0 + 0.25 * rand::random::<f64>())).await;
        self.began = clock.monotonic();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    fn service() -> (Service, Clock) {
        let clock = Clock::simulated(Timestamp::from_millis(0));
        (Service::new("test", Duration::from_secs(5), clock.clone()), clock)
    }

    fn away() -> Fault {
        Fault::passing("gone")
    }

    /// Asks once, with `answer` for each request.
    async fn ask(service: &Service, mut answer: impl FnMut() -> Result<u32, Fault>) -> Result<u32> {
        let mut asking = service.ask()?;
        loop {
            if let Some(end) = asking.weigh(answer()).await {
                return end;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_fault_is_tried_again() {
        let (service, _) = service();
        let mut asked = 0;
        let answer = ask(&service, || {
            asked += 1;
            if asked < 3 { Err(away()) } else { Ok(asked) }
        });
        assert_eq!(answer.await.unwrap(), 3);
        assert_eq!(service.standing().phase, Phase::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_away_is_left_alone_and_an_outage_costs_one_attempt() {
        let (service, clock) = service();
        let mut asked = 0;
        let mut fail = async || {
            let error = ask(&service, || {
                asked += 1;
                Err(away())
            });
            (error.await.unwrap_err().kind(), asked)
        };
        // Nobody knew: this one counts.
        assert_eq!(fail().await, (Kind::Unavailable, 3));
        assert_eq!((service.is_ready(), service.standing().phase), (false, Phase::Open));
        // Now it is known, and not asked.
        assert_eq!(fail().await, (Kind::Away, 3));
        clock.advance(Duration::from_secs(6));
        assert_eq!((service.is_ready(), service.standing().phase), (true, Phase::HalfOpen));
        assert_eq!(fail().await, (Kind::Away, 4));
        assert!(!service.is_ready());
        // The pause has doubled.
        clock.advance(Duration::from_secs(6));
        assert!(!service.is_ready());
        clock.advance(Duration::from_secs(5));
        ask(&service, || Ok(1)).await.unwrap();
        assert_eq!(service.standing().phase, Phase::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_and_a_wrong_key_are_not_tried_again() {
        let (service, _) = service();
        let error = |kind| Error::new(kind, "no");
        let refused = ask(&service, || Err(Fault::Refused(error(Kind::BadInput)))).await;
        assert_eq!(refused.unwrap_err().kind(), Kind::BadInput);
        assert!(service.is_ready());
        let wrong = ask(&service, || Err(Fault::Lasting(error(Kind::Unavailable)))).await;
        assert_eq!(wrong.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(service.standing().reason.as_deref(), Some("no"));
    }

    #[tokio::test]
    async fn a_probe_that_is_dropped_leaves_the_place_to_the_next() {
        let (service, clock) = service();
        let broken = || Err(Fault::Lasting(Error::new(Kind::Unavailable, "broken")));
        ask(&service, broken).await.unwrap_err();
        clock.advance(Duration::from_secs(6));
        let probe = service.ask().unwrap();
        assert_eq!(service.ask().err().map(|error| error.kind()), Some(Kind::Away));
        drop(probe);
        ask(&service, || Ok(1)).await.unwrap();
    }
}
