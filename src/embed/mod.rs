//! Embeddings: text to vectors. The port, with its adapters beside it.

use async_trait::async_trait;

use crate::base::error::Result;

pub mod llama;
pub mod ollama;
pub mod openai;
mod outside;

/// A model that places texts in a vector space.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Engine and model. Vectors of different models cannot be compared, so the
    /// index remembers this name.
    fn name(&self) -> String;

    /// Whether it can be asked: false while its model is not on this machine, or
    /// its service is known to be away.
    fn is_ready(&self) -> bool;

    /// One vector of unit length for each text, all of the same width. A text
    /// longer than the model reads is cut.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Away`: try again.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>>;
}
