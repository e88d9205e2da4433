//! Embeddings by OpenAI's API, of OpenAI or of anybody who speaks it:
//! <https://platform.openai.com/docs/api-reference/embeddings/create>.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::Embedder;
use super::outside::{batches, checked};
use crate::base::error::{Error, Kind, Result};
use crate::remote::http::Http;
use crate::remote::{Fault, Service};

/// A server with `/embeddings`.
#[derive(Debug)]
pub struct OpenaiEmbedder {
    service: Arc<Service>,
    http: Http,
    model: String,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    index: usize,
    embedding: Vec<f32>,
}

impl OpenaiEmbedder {
    /// With `model` of the server behind `http`.
    pub fn new(service: Arc<Service>, http: Http, model: &str) -> Self {
        Self { service, http, model: model.to_owned() }
    }

    async fn once(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Fault> {
        let body = json!({"model": self.model, "input": texts, "encoding_format": "float"});
        let request = self.http.request(Method::POST, "/embeddings").json(&body);
        let answer = self.http.json::<Answer>(request).await;
        let mut rows = answer.map_err(refusal)?.data;
        rows.sort_by_key(|row| row.index);
        let rows = rows.into_iter().map(|row| row.embedding).collect();
        checked(self.service.name(), rows, texts.len())
    }
}

/// llama.cpp calls a text that is too long for it a fault of its own.
fn refusal(fault: Fault) -> Fault {
    match fault {
        Fault::Passing(error, _) if error.report().contains("too large to process") => {
            Fault::Refused(Error::new(Kind::BadInput, error.message()).with_source(error))
        }
        fault => fault,
    }
}

#[async_trait]
impl Embedder for OpenaiEmbedder {
    fn name(&self) -> String {
        format!("openai/{}", self.model)
    }

    fn is_ready(&self) -> bool {
        self.service.is_ready()
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        batches(texts, |texts| async move { self.service.call(|| self.once(&texts)).await }).await
    }
}
