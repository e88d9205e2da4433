//! Embeddings by llama.cpp, in a process of its own.
//!
//! It works beside the heavy engines rather than in line with them: a sentence
//! takes a few milliseconds on one thread, and a search should not wait for a
//! transcription.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Embedder;
use crate::base::error::{Error, Kind, Result};
use crate::engine::Settings;
use crate::engine::messages::{Embed, Embedded, vectors_from_bytes};
use crate::engine::process::{Engine, Link};
use crate::supervisor::Supervisor;
use crate::wyoming::Event;

/// Tokens that are read of a text: what MiniLM was trained on.
const CONTEXT: &str = "256";
/// Texts in one request, so that a large index is made within the deadline.
const BATCH: usize = 32;

/// The local embedding engine.
#[derive(Clone, Debug)]
pub struct LlamaEmbedder {
    engine: Arc<Engine>,
    deadline: Duration,
}

impl LlamaEmbedder {
    /// An engine that starts with its first request.
    pub fn new(settings: &Settings, supervisor: &Supervisor) -> Self {
        let spec = settings.spec("llama", &["--role", "embed", "--context", CONTEXT]);
        Self { engine: Engine::new(spec, supervisor), deadline: settings.deadline }
    }

    /// The process behind it, for its figures.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

#[async_trait]
impl Embedder for LlamaEmbedder {
    fn name(&self) -> String {
        self.engine.name().to_owned()
    }

    fn is_ready(&self) -> bool {
        self.engine.is_ready()
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            let request = Event::of(&Embed { texts: batch.to_vec() });
            let ask = async |link: &mut Link| {
                link.send(request).await?;
                let (answer, payload) = link.answer::<Embedded>().await?;
                vectors_from_bytes(&payload, answer.count, answer.width)
                    .filter(|rows| rows.len() == batch.len())
                    .ok_or_else(|| Error::new(Kind::Unavailable, "vectors of the wrong size"))
            };
            vectors.extend(self.engine.call(self.deadline, ask).await?);
        }
        Ok(vectors)
    }
}
