//! Speech to text: the port, with its adapters beside it.

use async_trait::async_trait;

use crate::base::error::Result;
use crate::domain::job::Lane;
use crate::domain::transcript::Transcript;

pub mod whisper;

/// A piece of speech to transcribe.
#[derive(Clone, Debug)]
pub struct Speech {
    /// 16 kHz mono samples, at most 30 s for one pass of the model.
    pub samples: Vec<i16>,
    /// Who waits for it.
    pub lane: Lane,
    /// The language spoken, as an ISO 639-1 code; none: the one the engine is
    /// configured for.
    pub language: Option<String>,
}

/// An engine that turns speech into text.
#[async_trait]
pub trait SpeechToText: Send + Sync {
    /// Engine and model, as recorded with each transcript: `whisper/ggml-base.bin`.
    fn name(&self) -> String;

    /// ISO 639-1 codes of the languages it understands.
    fn languages(&self) -> &[&str];

    /// Whether it can be asked: false while its model is not on this machine.
    fn is_ready(&self) -> bool;

    /// The transcript of `speech`, with times in seconds from its first sample.
    /// Silence and noise give an empty one.
    ///
    /// # Errors
    /// `Unavailable` and `Timeout` when the engine died or took too long: the
    /// same audio may be tried again. `BadInput` when it never can be, or for a
    /// language that it does not know.
    async fn transcribe(&self, speech: Speech) -> Result<Transcript>;
}
