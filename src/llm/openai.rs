//! A language model behind OpenAI's API, of OpenAI or of anybody who speaks it:
//! <https://platform.openai.com/docs/api-reference/chat/create>.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::{Line, Written, streamed, with_schema_in_words};
use super::schema::without_lengths;
use super::{Generate, LanguageModel, Told};
use crate::base::error::{Error, Kind, Result};
use crate::remote::http::Http;
use crate::remote::{Fault, Service};

/// How the form of an answer is asked for, the strictest first: servers differ
/// in what they know.
const FORMS: [Form; 4] = [Form::Schema, Form::BareSchema, Form::Json, Form::Words];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// By the schema.
    Schema,
    /// By the schema without the lengths of strings, which OpenAI does not know.
    BareSchema,
    /// As JSON; the schema is in the prompt.
    Json,
    /// In the prompt alone.
    Words,
}

/// A server with `/chat/completions`.
#[derive(Debug)]
pub struct OpenaiModel {
    service: Arc<Service>,
    http: Http,
    model: String,
    /// The first of [`FORMS`] that the server has not refused.
    form: AtomicUsize,
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default, alias = "delta")]
    message: Content,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    content: Option<String>,
}

impl OpenaiModel {
    /// With `model` of the server behind `http`.
    pub fn new(service: Arc<Service>, http: Http, model: &str) -> Self {
        Self { service, http, model: model.to_owned(), form: AtomicUsize::new(0) }
    }

    async fn once(&self, request: &Generate) -> Result<String, Fault> {
        let Some(schema) = &request.schema else {
            return self.complete(request, None).await?.check(self.service.name(), request);
        };
        let known = self.form.load(Ordering::Relaxed);
        let mut refusal = None;
        for (n, form) in FORMS.iter().enumerate().skip(known) {
            match self.complete(request, Some((*form, schema))).await {
                Ok(written) => {
                    self.form.store(n, Ordering::Relaxed);
                    return written.check(self.service.name(), request);
                }
                Err(Fault::Refused(error)) => refusal = refusal.or(Some(error)),
                Err(fault) => return Err(fault),
            }
        }
        // Refused in every form: it was something else.
        let nothing = || Error::new(Kind::BadInput, "the request was refused");
        Err(Fault::Refused(refusal.unwrap_or_else(nothing)))
    }

    async fn complete(
        &self,
        request: &Generate,
        form: Option<(Form, &Value)>,
    ) -> Result<Written, Fault> {
        let answer: Answer = self.http.json(self.request(request, form, false)).await?;
        let choice = answer.choices.into_iter().next();
        let choice = choice.ok_or_else(|| Fault::passing("the answer holds no text"))?;
        let cut = choice.finish_reason.as_deref() == Some("length");
        Ok(Written { text: choice.message.content.unwrap_or_default(), cut })
    }

    fn request(
        &self,
        request: &Generate,
        form: Option<(Form, &Value)>,
        stream: bool,
    ) -> RequestBuilder {
        let by_schema = |schema: &Value| {
            let schema = json!({"name": "answer", "strict": true, "schema": schema});
            Some(json!({"type": "json_schema", "json_schema": schema}))
        };
        let (messages, format) = match form {
            None => (request.messages.clone(), None),
            Some((Form::Schema, schema)) => (request.messages.clone(), by_schema(schema)),
            Some((Form::BareSchema, schema)) => {
                (request.messages.clone(), by_schema(&without_lengths(schema)))
            }
            Some((form, schema)) => {
                let format = (form == Form::Json).then(|| json!({"type": "json_object"}));
                (with_schema_in_words(&request.messages, schema), format)
            }
        };
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stream": stream,
        });
        if let (Some(format), Some(body)) = (format, body.as_object_mut()) {
            body.insert("response_format".into(), format);
        }
        self.http.request(Method::POST, "/chat/completions").json(&body)
    }
}

#[async_trait]
impl LanguageModel for OpenaiModel {
    fn name(&self) -> String {
        format!("openai/{}", self.model)
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
        let request = || self.request(&request, None, true);
        streamed(&self.service, &self.http, request, told, |line| {
            let Some(data) = line.strip_prefix("data:").map(str::trim) else {
                return Ok(Line::default());
            };
            if data == "[DONE]" {
                return Ok(Line { ended: true, last: true, ..Line::default() });
            }
            let odd = |_| Fault::passing(format!("{} writes nonsense", self.service.name()));
            let answer: Answer = serde_json::from_str(data).map_err(odd)?;
            let Some(choice) = answer.choices.into_iter().next() else {
                return Ok(Line::default());
            };
            let (text, ended) = (choice.message.content, choice.finish_reason.is_some());
            Ok(Line { text: text.unwrap_or_default(), ended, last: false })
        })
        .await
    }
}
