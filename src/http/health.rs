//! How the parts of the daemon are, as `/health` tells it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value, json};

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
pub struct Health(Arc<RwLock<BTreeMap<Part, State>>>);

impl Health {
    /// Notes how `part` is from now on.
    pub fn set(&self, part: Part, state: State) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    /// The engine and model of `part`, where one is known.
    pub(super) fn model(&self, part: Part) -> Option<String> {
        match self.0.read().unwrap_or_else(PoisonError::into_inner).get(&part) {
            Some(State::Ready { model } | State::ModelMissing { model }) => Some(model.clone()),
            _ => None,
        }
    }

    /// Every part by name, in the form of the original, and whether all work.
    pub(super) fn services(&self) -> (serde_json::Map<String, Value>, bool) {
        let states = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = true;
        let services = states
            .iter()
            .map(|(part, state)| {
                let (healthy, text, model) = match state {
                    State::Ready { model } => (true, "✅ Ready".to_owned(), Some(model)),
                    State::ModelMissing { model } => {
                        (false, format!("⚠️ Model missing: {model}"), Some(model))
                    }
                    State::Failing { reason } => (false, format!("❌ {reason}"), None),
                    State::Off => (true, "⏸️ Switched off".to_owned(), None),
                };
                all &= healthy;
                let service = json!({
                    "status": text,
                    "healthy": healthy,
                    "critical": false,
                    "model": model,
                    "model_present": matches!(state, State::Ready { .. }),
                });
                (part.name().to_owned(), service)
            })
            .collect();
        (services, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_model_shows_and_heals() {
        let health = Health::default();
        assert!(health.services().1);
        health.set(Part::Llm, State::Off);
        health.set(Part::Stt, State::ModelMissing { model: "ggml-base.bin".into() });
        let (services, all) = health.services();
        assert!(!all);
        assert_eq!(services["speech_to_text"]["model_present"], false);
        assert_eq!(services["speech_to_text"]["status"], "⚠️ Model missing: ggml-base.bin");
        health.set(Part::Stt, State::Ready { model: "whisper/ggml-base.bin".into() });
        assert!(health.services().1);
        assert_eq!(health.model(Part::Stt).as_deref(), Some("whisper/ggml-base.bin"));
    }
}
