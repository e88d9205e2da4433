//! Embeddings by Ollama: <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::Embedder;
use super::outside::{batches, checked};
use crate::base::error::Result;
use crate::remote::http::Http;
use crate::remote::{Fault, Service};

/// An Ollama server.
#[derive(Debug)]
pub struct OllamaEmbedder {
    service: Arc<Service>,
    http: Http,
    model: String,
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Vec<f32>>,
}

impl OllamaEmbedder {
    /// With `model` of the server behind `http`.
    pub fn new(service: Arc<Service>, http: Http, model: &str) -> Self {
        Self { service, http, model: model.to_owned() }
    }

    async fn once(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Fault> {
        let body = json!({"model": self.model, "input": texts, "truncate": true});
        let request = self.http.request(Method::POST, "/api/embed").json(&body);
        let answer: Answer = self.http.json(request).await?;
        checked(self.service.name(), answer.embeddings, texts.len())
    }
}

#[async_trait]
impl Embedder for OllamaEmbedder {
    fn name(&self) -> String {
        format!("ollama/{}", self.model)
    }

    fn is_ready(&self) -> bool {
        self.service.is_ready()
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        batches(texts, |texts| async move { self.service.call(|| self.once(&texts)).await }).await
    }
}
