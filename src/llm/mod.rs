//! The language model: the port, with its adapters beside it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::base::error::Result;
use crate::domain::job::Lane;

mod chat;
pub mod failover;
pub mod llama;
pub mod ollama;
pub mod openai;
mod schema;

/// Who says a message in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The request.
    User,
    /// An earlier answer.
    Assistant,
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// A request for text.
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// The chat so far; the model writes the next message.
    pub messages: Vec<Message>,
    /// A JSON schema the answer must follow; free text without one.
    pub schema: Option<serde_json::Value>,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// 0 gives the same answer each time.
    pub temperature: f32,
    /// Seed of the sampler.
    pub seed: u32,
    /// Who waits for it.
    pub lane: Lane,
}

/// A model that writes text.
#[async_trait]
pub trait LanguageModel: Send + Sync {
    /// Engine and model: `llama/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf`.
    fn name(&self) -> String;

    /// Whether it can be asked: false while its model is not on this machine, or
    /// its service is known to be away.
    fn is_ready(&self) -> bool;

    /// The model's next message. With a schema it parses as JSON of that form,
    /// unless the model ran out of tokens, which is an error.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Away`: try again. `BadInput`: the prompt is longer
    /// than the model's context, or the schema cannot be used.
    async fn generate(&self, request: Generate) -> Result<String>;

    /// As [`LanguageModel::generate`]; `told` hears the message piece by piece as
    /// it is written.
    ///
    /// # Errors
    /// As [`LanguageModel::generate`], at any time.
    async fn write(&self, request: Generate, told: &mut Told<'_>) -> Result<String> {
        let text = self.generate(request).await?;
        told(&text);
        Ok(text)
    }
}

/// Hears pieces of a message.
pub type Told<'a> = dyn FnMut(&str) + Send + 'a;
