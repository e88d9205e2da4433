//! Several speech engines, in order of preference: the first that can be asked
//! is, and where it fails the next one.

use std::sync::Arc;

use async_trait::async_trait;

use super::{HearsWhole, Speech, SpeechToText};
use crate::base::error::{Error, Kind, Result};
use crate::domain::transcript::Transcript;

/// Speech engines, the preferred one first. One at least.
pub struct Failover(Vec<Arc<dyn SpeechToText>>);

impl Failover {
    /// With these.
    pub fn new(engines: Vec<Arc<dyn SpeechToText>>) -> Self {
        Self(engines)
    }

    fn current(&self) -> Option<&Arc<dyn SpeechToText>> {
        self.0.iter().find(|engine| engine.is_ready()).or(self.0.first())
    }
}

#[async_trait]
impl SpeechToText for Failover {
    fn name(&self) -> String {
        self.current().map(|engine| engine.name()).unwrap_or_default()
    }

    fn languages(&self) -> &[&str] {
        self.current().map(|engine| engine.languages()).unwrap_or_default()
    }

    fn is_ready(&self) -> bool {
        self.0.iter().any(|engine| engine.is_ready())
    }

    fn whole(&self) -> Option<&dyn HearsWhole> {
        self.current().and_then(|engine| engine.whole())
    }

    async fn transcribe(&self, speech: Speech) -> Result<Transcript> {
        let mut failure: Option<Error> = None;
        for engine in self.0.iter().filter(|engine| engine.is_ready()) {
            match engine.transcribe(speech.clone()).await {
                Ok(heard) => {
                    let engine = heard.engine.or_else(|| Some(engine.name()));
                    return Ok(Transcript { engine, ..heard });
                }
                Err(error) => {
                    tracing::debug!("the next speech engine is asked: {}", error.report());
                    // One that may pass leaves hope.
                    let hopeless = failure.as_ref().is_some_and(|_| !error.is_transient());
                    failure = if hopeless { failure } else { Some(error) };
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(Kind::Away, "no speech engine can be asked")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::job::Lane;

    struct Engine {
        name: &'static str,
        fails: Mutex<Option<Kind>>,
    }

    #[async_trait]
    impl SpeechToText for Engine {
        fn name(&self) -> String {
            self.name.into()
        }

        fn languages(&self) -> &[&str] {
            &["en"]
        }

        fn is_ready(&self) -> bool {
            *self.fails.lock().unwrap() != Some(Kind::Away)
        }

        async fn transcribe(&self, _: Speech) -> Result<Transcript> {
            match *self.fails.lock().unwrap() {
                None => Ok(Transcript::default()),
                Some(kind) => Err(Error::new(kind, self.name)),
            }
        }
    }

    #[tokio::test]
    async fn the_first_that_works_answers_and_what_may_pass_is_told() {
        let engine = |name| Arc::new(Engine { name, fails: Mutex::default() });
        let (first, second) = (engine("first"), engine("second"));
        let failover = Failover::new(vec![first.clone(), second.clone()]);
        let ask = async || {
            let speech =
                Speech { samples: Vec::new(), lane: Lane::Live, language: None, place: None };
            let heard = failover.transcribe(speech).await;
            heard.map(|heard| heard.engine.unwrap()).map_err(|error| error.kind())
        };
        assert_eq!(ask().await, Ok("first".into()));
        for (one, other, outcome) in [
            (Some(Kind::Unavailable), None, Ok("second".to_owned())),
            (Some(Kind::Away), None, Ok("second".into())),
            (Some(Kind::BadInput), None, Ok("second".into())),
            (Some(Kind::Away), Some(Kind::Away), Err(Kind::Away)),
            (Some(Kind::Away), Some(Kind::BadInput), Err(Kind::BadInput)),
            (Some(Kind::Timeout), Some(Kind::BadInput), Err(Kind::Timeout)),
            (Some(Kind::BadInput), Some(Kind::Unavailable), Err(Kind::Unavailable)),
            (None, Some(Kind::Away), Ok("first".into())),
        ] {
            *first.fails.lock().unwrap() = one;
            *second.fails.lock().unwrap() = other;
            assert_eq!(ask().await, outcome, "{one:?} {other:?}");
            assert_eq!(failover.is_ready(), (one, other) != (Some(Kind::Away), Some(Kind::Away)));
        }
        assert_eq!(failover.name(), "first");
    }
}
