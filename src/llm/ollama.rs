//! A language model of Ollama: <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::json;

use super::chat::{Line, Written, cut_off, streamed};
use super::{Generate, LanguageModel, Told};
use crate::base::error::{Error, Kind, Result};
use crate::remote::http::Http;
use crate::remote::{Fault, Service};

/// An Ollama server.
#[derive(Debug)]
pub struct OllamaModel {
    service: Arc<Service>,
    http: Http,
    model: String,
    context: u32,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    message: Content,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    done_reason: Option<String>,
    /// In a stream that has begun, instead of a status.
    #[serde(default)]
    error: Option<String>,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    content: String,
}

impl OllamaModel {
    /// With `model` of the server behind `http`, which holds chats of `context`
    /// tokens.
    pub fn new(service: Arc<Service>, http: Http, model: &str, context: u32) -> Self {
        Self { service, http, model: model.to_owned(), context }
    }

    async fn once(&self, request: &Generate) -> Result<String, Fault> {
        let answer: Answer = self.http.json(self.request(request, false)).await?;
        if !answer.done {
            return Err(cut_off(self.service.name(), ""));
        }
        let cut = answer.done_reason.as_deref() == Some("length");
        Written { text: answer.message.content, cut }.check(self.service.name(), request)
    }

    fn request(&self, request: &Generate, stream: bool) -> RequestBuilder {
        let mut body = json!({
            "model": self.model,
            "messages": request.messages,
            "stream": stream,
            "options": {
                "temperature": request.temperature,
                "seed": request.seed,
                "num_predict": request.max_tokens,
                "num_ctx": self.context,
            },
        });
        if let (Some(schema), Some(body)) = (&request.schema, body.as_object_mut()) {
            body.insert("format".into(), schema.clone());
        }
        self.http.request(Method::POST, "/api/chat").json(&body)
    }
}

#[async_trait]
impl LanguageModel for OllamaModel {
    fn name(&self) -> String {
        format!("ollama/{}", self.model)
    }

    fn is_ready(&self) -> bool {
        self.service.is_ready()
    }

    async fn generate(&self, request: Generate) -> Result<String> {
        self.service.call(|| self.once(&request)).await
    }

    async fn write(&self, request: Generate, told: &mut Told<'_>) -> Result<String> {
        if request.schema.is_some() {
            let text = self.generate(request).await?;
            told(&text);
            return Ok(text);
        }
        let request = || self.request(&request, true);
        streamed(&self.service, &self.http, request, told, |line| {
            if line.is_empty() {
                return Ok(Line::default());
            }
            let name = self.service.name();
            let odd = |_| Fault::passing(format!("{name} writes nonsense"));
            let answer: Answer = serde_json::from_str(line).map_err(odd)?;
            match answer.error {
                Some(error) => Err(Fault::passing(format!("{name}: {error}"))),
                None => {
                    let done = answer.done;
                    Ok(Line { text: answer.message.content, ended: done, last: done })
                }
            }
        })
        .await
    }
}

/// How far a pull is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Pulled {
    /// What is being done.
    #[serde(default)]
    pub status: String,
    /// Bytes of this step.
    #[serde(default)]
    pub total: u64,
    /// Bytes of it that are done.
    #[serde(default)]
    pub completed: u64,
    #[serde(default)]
    error: Option<String>,
}

/// Has the server behind `http` get `model`; `told` hears how far it is.
///
/// # Errors
/// `Unavailable` when it cannot.
pub async fn pull(http: &Http, model: &str, mut told: impl FnMut(&Pulled)) -> Result<()> {
    let request = http.request(Method::POST, "/api/pull");
    let request = request.json(&json!({"model": model, "stream": true}));
    let mut done = false;
    let pulled = http.lines(request, |line| {
        if line.is_empty() {
            return Ok(true);
        }
        let odd = |_| Fault::passing("ollama answers something else than it should");
        let step: Pulled = serde_json::from_str(line).map_err(odd)?;
        if let Some(error) = step.error {
            return Err(Fault::passing(format!("ollama cannot get {model}: {error}")));
        }
        told(&step);
        done = step.status == "success";
        Ok(true)
    });
    match pulled.await {
        Ok(()) if done => Ok(()),
        Ok(()) => Err(Error::new(Kind::Unavailable, "ollama broke off; run it again to go on")),
        Err(fault) => Err(fault.into_error()),
    }
}
