//! Speech to text by whisper.cpp, in a process of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{LANGUAGES, Speech, SpeechToText};
use crate::base::error::Result;
use crate::domain::transcript::Transcript;
use crate::engine::Settings;
use crate::engine::gate::Gate;
use crate::engine::process::{Engine, Link};
use crate::supervisor::Supervisor;

/// The local speech engine.
#[derive(Clone, Debug)]
pub struct WhisperEngine {
    engine: Arc<Engine>,
    gate: Gate,
    deadline: Duration,
}

impl WhisperEngine {
    /// An engine that starts with its first request. `language` is an ISO 639-1
    /// code, or `auto` to detect it in each request.
    pub fn new(settings: &Settings, language: &str, gate: &Gate, supervisor: &Supervisor) -> Self {
        let spec = settings.spec("whisper", &["--language", language]);
        let engine = Engine::new(spec, supervisor);
        gate.admit(&engine);
        Self { engine, gate: gate.clone(), deadline: settings.deadline }
    }

    /// The process behind it, for its figures.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

#[async_trait]
impl SpeechToText for WhisperEngine {
    fn name(&self) -> String {
        self.engine.name().to_owned()
    }

    fn languages(&self) -> &[&str] {
        // English models are named so: ggml-base.en.bin.
        if self.engine.name().contains(".en") { &["en"] } else { &LANGUAGES }
    }

    fn is_ready(&self) -> bool {
        self.engine.is_ready()
    }

    async fn transcribe(&self, speech: Speech) -> Result<Transcript> {
        let Speech { samples, lane, language, .. } = speech;
        let _permit = self.gate.enter(lane, &self.engine).await;
        let ask = async |link: &mut Link| link.transcribe(&samples, language.as_deref()).await;
        let heard = self.engine.call(self.deadline, ask).await?.transcript;
        let (segments, language) = (heard.segments, heard.language);
        Ok(Transcript { segments, language, ..Transcript::default() })
    }
}
