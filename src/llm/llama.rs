//! A language model in llama.cpp, in a process of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Generate, LanguageModel, Role, Told};
use crate::base::error::{Error, Kind, Result};
use crate::engine::Settings;
use crate::engine::gate::Gate;
use crate::engine::messages::{self, Finish, Generated, Piece};
use crate::engine::process::{Engine, Link};
use crate::supervisor::Supervisor;
use crate::wyoming::Event;

/// The local language engine.
#[derive(Clone, Debug)]
pub struct LlamaEngine {
    engine: Arc<Engine>,
    gate: Gate,
    deadline: Duration,
}

impl LlamaEngine {
    /// An engine that starts with its first request and holds chats of up to
    /// `context` tokens, answer included.
    pub fn new(settings: &Settings, context: u32, gate: &Gate, supervisor: &Supervisor) -> Self {
        let context = context.to_string();
        let spec = settings.spec("llama", &["--role", "generate", "--context", &context]);
        let engine = Engine::new(spec, supervisor);
        gate.admit(&engine);
        Self { engine, gate: gate.clone(), deadline: settings.deadline }
    }

    /// The process behind it, for its figures.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    async fn ask(&self, request: Generate, told: Option<&mut Told<'_>>) -> Result<String> {
        let (lane, strict) = (request.lane, request.schema.is_some());
        let request = messages::Generate { stream: told.is_some(), ..to_message(request) };
        let request = Event::of(&request);
        let _permit = self.gate.enter(lane, &self.engine).await;
        let ask = async |link: &mut Link| {
            link.send(request).await?;
            match told {
                Some(told) => {
                    link.answer_telling::<Generated, Piece>(|piece| told(&piece.text)).await
                }
                None => link.answer::<Generated>().await,
            }
        };
        let (answer, _) = self.engine.call(self.deadline, ask).await?;
        tracing::debug!(
            engine = self.engine.name(),
            prompt = answer.prompt_tokens,
            reused = answer.reused_tokens,
            tokens = answer.tokens,
            "generated"
        );
        if strict && answer.finish == Finish::Length {
            // The same request would end at the same place.
            let message = format!("the model ran out of tokens after {}", answer.tokens);
            return Err(Error::new(Kind::BadInput, message));
        }
        Ok(answer.text)
    }
}

#[async_trait]
impl LanguageModel for LlamaEngine {
    fn name(&self) -> String {
        self.engine.name().to_owned()
    }

    fn is_ready(&self) -> bool {
        self.engine.is_ready()
    }

    async fn generate(&self, request: Generate) -> Result<String> {
        self.ask(request, None).await
    }

    async fn write(&self, request: Generate, told: &mut Told<'_>) -> Result<String> {
        self.ask(request, Some(told)).await
    }
}

fn to_message(request: Generate) -> messages::Generate {
    let role = |role| match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    let messages = request.messages.into_iter().map(|message| messages::Message {
        role: role(message.role).to_owned(),
        content: message.content,
    });
    messages::Generate {
        messages: messages.collect(),
        schema: request.schema,
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        seed: request.seed,
        stream: false,
    }
}
