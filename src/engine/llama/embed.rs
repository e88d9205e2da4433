//! Texts to vectors.

use std::num::NonZeroU32;

use friend_lite::base::error::{Context, Error, Kind, Result};
use friend_lite::engine::messages::{Embed, Embedded, vectors_to_bytes};
use friend_lite::engine::serve::{Service, Tell};
use friend_lite::wyoming::event::{Event, Info};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_batch::LlamaBatch;

use super::Loaded;

/// An embedding model that is ready to work.
#[derive(Debug)]
pub(crate) struct Embedder<'m> {
    loaded: &'m Loaded,
    context: LlamaContext<'m>,
    /// Tokens that it reads of a text.
    most: usize,
}

impl<'m> Embedder<'m> {
    /// Makes ready to read up to `context` tokens of a text, or what the model
    /// was trained on if that is less.
    ///
    /// # Errors
    /// `Internal` when memory does not suffice.
    pub(crate) fn new(loaded: &'m Loaded, context: u32, threads: i32) -> Result<Self> {
        let most = context.clamp(8, loaded.model.n_ctx_train().max(8));
        // The encoder reads a text at once: batch and context are one.
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(most))
            .with_n_batch(most)
            .with_n_ubatch(most)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_embeddings(true)
            .with_pooling_type(LlamaPoolingType::Mean);
        let context = loaded
            .model
            .new_context(&loaded.backend, params)
            .context(Kind::Internal, "no memory for the model's context")?;
        Ok(Self { loaded, context, most: most as usize })
    }

    fn vector(&mut self, text: &str) -> Result<Vec<f32>> {
        let mut tokens = self.loaded.model.vocab().tokenize(text.as_bytes(), true, false);
        if tokens.len() > self.most {
            // What closes a text stays at its end.
            let last = tokens.pop();
            tokens.truncate(self.most - 1);
            tokens.extend(last);
        }
        let mut batch = LlamaBatch::new(tokens.len().max(1), 1);
        let added = batch.add_sequence(&tokens, 0, true);
        added.context(Kind::Internal, "a text does not fit")?;
        self.context.encode(&mut batch).context(Kind::Internal, "llama.cpp failed")?;
        let vector = self.context.embeddings_seq_ith(0);
        Ok(unit(vector.context(Kind::Internal, "the model makes no embeddings")?))
    }
}

impl Service for Embedder<'_> {
    fn info(&self) -> Info {
        Info::default()
    }

    fn handle(&mut self, event: Event, _: &mut Tell<'_>) -> Result<Option<Event>> {
        if !event.is::<Embed>() {
            let message = format!("this engine does not answer `{}`", event.kind);
            return Err(Error::new(Kind::BadInput, message));
        }
        let texts = event.body::<Embed>()?.texts;
        let vectors = texts.iter().map(|text| self.vector(text)).collect::<Result<Vec<_>>>()?;
        let width = usize::try_from(self.loaded.model.n_embd_out()).unwrap_or(0);
        let answer = Embedded { count: vectors.len(), width };
        Ok(Some(Event::of(&answer).with_payload(vectors_to_bytes(&vectors))))
    }
}

/// `vector` at unit length, so that a dot product is a cosine.
fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    vector.iter().map(|x| (f64::from(*x) * scale) as f32).collect()
}
