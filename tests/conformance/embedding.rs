//! Embeddings.

use std::time::Duration;

use friend_lite::embed::Embedder;
use friend_lite::embed::llama::LlamaEmbedder;
use friend_lite::embed::ollama::OllamaEmbedder;
use friend_lite::embed::openai::OpenaiEmbedder;
use friend_lite::llm::ollama;
use friend_lite::supervisor::Supervisor;

use super::faults::{self, DEADLINE};
use super::{Report, http, service};
use crate::engines;
use crate::harness::faulty::Proxy;
use crate::harness::services::{EMBED_MODEL, KEY, Server};

const PATIENCE: Duration = Duration::from_secs(120);

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

async fn suite(report: &mut Report, embedder: &dyn Embedder) {
    assert!(embedder.is_ready() && embedder.name().contains('/'), "{}", embedder.name());
    report.passed("says what it is");

    let long = "the cat sleeps on the sofa ".repeat(400);
    let texts =
        ["A cat sleeps on the sofa.", "The kitten naps on a couch.", "Interest rates rose."];
    let texts: Vec<String> = texts.into_iter().chain(["", &long]).map(str::to_owned).collect();
    let vectors = embedder.embed(&texts).await.unwrap();
    assert_eq!(vectors.len(), texts.len());
    for vector in &vectors {
        assert_eq!(vector.len(), 384);
        assert!((dot(vector, vector) - 1.0).abs() < 1e-3);
    }
    report.passed("one vector of unit length for each text");
    assert!(dot(&vectors[0], &vectors[1]) > 0.5 && dot(&vectors[0], &vectors[2]) < 0.25);
    report.passed("what means the same is near");
    assert!(dot(&vectors[0], &vectors[4]) > 0.4);
    report.passed("a long text is cut");

    let some: Vec<String> = (0..70).map(|n| texts[n % 3].clone()).collect();
    for (n, vector) in embedder.embed(&some).await.unwrap().iter().enumerate() {
        assert!(dot(vector, &vectors[n % 3]) > 0.999, "{n}");
    }
    report.passed("many, in their order");
    assert!(embedder.embed(&[]).await.unwrap().is_empty());
    report.passed("none of none");
}

#[tokio::test]
async fn llama() {
    let supervisor = Supervisor::new();
    let settings = engines::settings(friend_lite::engine::LLAMA, EMBED_MODEL);
    let embedder = LlamaEmbedder::new(&settings, &supervisor);
    suite(&mut Report::of("embedding", "llama"), &embedder).await;
}

#[tokio::test]
async fn openai() {
    let mut report = Report::of("embedding", "openai (llama.cpp's server)");
    let mut server = Server::openai_embed();
    let at = |port: u16, deadline| {
        let (service, url) = (service("openai_embeddings"), format!("http://127.0.0.1:{port}/v1"));
        let http = http("openai_embeddings", &url, "Bearer", KEY, deadline);
        (service.clone(), OpenaiEmbedder::new(service, http, "minilm"))
    };
    suite(&mut report, &at(server.port, PATIENCE).1).await;
    let proxy = Proxy::before(server.port).await;
    let (service, embedder) = at(proxy.port, DEADLINE);
    let ask = async || embedder.embed(&["hello".into()]).await.map(drop);
    faults::suite(&mut report, &mut server, &proxy, &service, ask).await;
}

#[tokio::test]
async fn ollama() {
    let mut report = Report::of("embedding", "ollama (stand-in)");
    let mut server = Server::ollama();
    let http_at = |port: u16, total| {
        http("ollama_embeddings", &format!("http://127.0.0.1:{port}"), "", "", total)
    };
    let at = |port: u16, deadline| {
        let service = service("ollama_embeddings");
        let http = http_at(port, deadline);
        (service.clone(), OllamaEmbedder::new(service, http, "some-embed"))
    };
    ollama::pull(&http_at(server.port, PATIENCE), "some-embed", |_| ()).await.unwrap();
    suite(&mut report, &at(server.port, PATIENCE).1).await;
    let proxy = Proxy::before(server.port).await;
    let (service, embedder) = at(proxy.port, DEADLINE);
    let ask = async || embedder.embed(&["hello".into()]).await.map(drop);
    faults::suite(&mut report, &mut server, &proxy, &service, ask).await;
}
