//! How the parts of the daemon are, as `/health` tells it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::base::error::{Error, Kind, Result};
use crate::remote;

/// The answer of a part that is asked how it is.
///
/// # Errors
/// What it says; `Timeout` when it has said nothing after `limit`.
pub(super) async fn ask<T>(limit: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f64();
        Err(Error::new(Kind::Timeout, format!("no answer in {seconds} s")))
    })
}

/// A part whose absence the daemon survives. (The store, which it does not, is
/// asked when somebody wants to know.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Speech to text.
    Stt,
    /// The language model.
    Llm,
    /// Embeddings.
    Embed,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Stt => "speech_to_text",
            Self::Llm => "llm",
            Self::Embed => "embeddings",
        }
    }
}

/// How a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Ready, with this engine and model.
    Ready {
        /// As the engine names itself: `whisper/ggml-base.bin`.
        model: String,
    },
    /// Its model is not on this machine.
    ModelMissing {
        /// Which.
        model: String,
    },
    /// It does not work at the moment.
    Failing {
        /// What to tell a person.
        reason: String,
    },
    /// Switched off.
    Off,
}

/// The states of all parts. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    parts: RwLock<BTreeMap<Part, State>>,
    outside: Vec<Arc<remote::Service>>,
}

impl Health {
    /// Of a daemon that uses these services outside.
    pub fn new(outside: Vec<Arc<remote::Service>>) -> Self {
        Self(Arc::new(Shared { outside, ..Shared::default() }))
    }

    /// Notes how `part` is from now on; whether it works that did not before.
    pub fn set(&self, part: Part, state: State) -> bool {
        let works = state.works();
        let mut parts = self.0.parts.write().unwrap_or_else(PoisonError::into_inner);
        let before = parts.insert(part, state);
        works && before.is_some_and(|before| !before.works())
    }

    /// The services outside.
    pub(super) fn outside(&self) -> &[Arc<remote::Service>] {
        &self.0.outside
    }

    /// The engine and model of `part`, where one is known.
    pub(super) fn model(&self, part: Part) -> Option<String> {
        match self.0.parts.read().unwrap_or_else(PoisonError::into_inner).get(&part) {
            Some(State::Ready { model } | State::ModelMissing { model }) => Some(model.clone()),
            _ => None,
        }
    }

    /// Every part by name, in the form of the original, and whether all work.
    pub(super) fn services(&self) -> (BTreeMap<String, Service>, bool) {
        let states = self.0.parts.read().unwrap_or_else(PoisonError::into_inner);
        let parts = states.iter().map(|(part, state)| (part.name(), state.service()));
        let outside = self.0.outside.iter().map(|one| (one.name(), Service::outside(one)));
        let services: BTreeMap<_, _> =
            parts.chain(outside).map(|(name, service)| (name.to_owned(), service)).collect();
        let all = services.values().all(|service| service.healthy);
        (services, all)
    }
}

/// A part of the daemon, in the form of the original.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Service {
    /// How it is, for people.
    pub(super) status: String,
    pub(super) healthy: bool,
    /// Whether the daemon can do without it.
    pub(super) critical: bool,
    /// The model it runs, as the engine names it.
    pub(super) model: Option<String>,
    /// Whether the model is on this machine; only where there is to be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model_present: Option<bool>,
    /// Of a service outside: whether it is asked at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) breaker: Option<remote::Phase>,
    /// Of a service outside: what its latest answer took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_ms: Option<u64>,
}

impl Service {
    /// A part without a model.
    pub(super) fn plain(status: impl Into<String>, healthy: bool, critical: bool) -> Self {
        let status = status.into();
        Self {
            status,
            healthy,
            critical,
            model: None,
            model_present: None,
            breaker: None,
            latency_ms: None,
        }
    }

    fn outside(service: &remote::Service) -> Self {
        let remote::Standing { phase, latency, reason } = service.standing();
        let status = match &reason {
            Some(reason) => format!("❌ {reason}"),
            None => "✅ Ready".into(),
        };
        let latency = latency.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Self {
            breaker: Some(phase),
            latency_ms: latency,
            ..Self::plain(status, reason.is_none(), false)
        }
    }
}

impl State {
    fn service(&self) -> Service {
        let (healthy, status, model) = match self {
            Self::Ready { model } => (true, "✅ Ready".to_owned(), Some(model)),
            Self::ModelMissing { model } => {
                (false, format!("⚠️ Model missing: {model}"), Some(model))
            }
            Self::Failing { reason } => (false, format!("❌ {reason}"), None),
            Self::Off => (true, "⏸️ Switched off".to_owned(), None),
        };
        let model_present = matches!(self, Self::Ready { .. });
        Service {
            model: model.cloned(),
            model_present: Some(model_present),
            ..Service::plain(status, healthy, false)
        }
    }

    fn works(&self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_hangs_is_given_the_time_that_is_configured() {
        let limit = crate::config::Health::default().store_timeout.get();
        let began = tokio::time::Instant::now();
        let silence = ask(limit, std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!((silence.kind(), began.elapsed().as_secs()), (Kind::Timeout, 5));
        assert_eq!(ask(limit, async { Ok(7) }).await.unwrap(), 7);
    }

    #[test]
    fn a_missing_model_shows_and_heals() {
        let health = Health::default();
        assert!(health.services().1);
        health.set(Part::Llm, State::Off);
        health.set(Part::Stt, State::ModelMissing { model: "ggml-base.bin".into() });
        let (services, all) = health.services();
        assert!(!all);
        let speech = &services["speech_to_text"];
        assert_eq!(speech.model_present, Some(false));
        assert_eq!(speech.status, "⚠️ Model missing: ggml-base.bin");
        health.set(Part::Stt, State::Ready { model: "whisper/ggml-base.bin".into() });
        assert!(health.services().1);
        assert_eq!(health.model(Part::Stt).as_deref(), Some("whisper/ggml-base.bin"));
    }
}
