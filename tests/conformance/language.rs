//! The language model.

use std::time::Duration;

use friend_lite::base::error::Kind;
use friend_lite::domain::job::Lane;
use friend_lite::engine::gate::Gate;
use friend_lite::llm::llama::LlamaEngine;
use friend_lite::llm::ollama::{self, OllamaModel};
use friend_lite::llm::openai::OpenaiModel;
use friend_lite::llm::{Generate, LanguageModel, Message, Role};
use friend_lite::supervisor::Supervisor;
use serde_json::{Value, json};

use super::faults::{self, DEADLINE};
use super::{Report, http, service};
use crate::engines;
use crate::harness::faulty::Proxy;
use crate::harness::services::{CHAT_MODEL, KEY, Server};

const PATIENCE: Duration = Duration::from_secs(180);

fn request(max_tokens: u32, schema: Option<Value>) -> Generate {
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    Generate {
        messages: vec![
            message(
                Role::System,
                "You list the facts in a note as JSON. A fact is one short sentence.",
            ),
            message(Role::User, "Anna moved to Lisbon in May and pays 900 euros of rent."),
        ],
        schema,
        max_tokens,
        temperature: 0.0,
        seed: 1,
        lane: Lane::Live,
    }
}

fn facts() -> Option<Value> {
    Some(json!({
        "type": "object",
        "properties": {
            "facts": {
                "type": "array", "maxItems": 3,
                "items": {"type": "string", "minLength": 3, "maxLength": 120},
            },
        },
        "required": ["facts"],
        "additionalProperties": false,
    }))
}

async fn suite(report: &mut Report, model: &dyn LanguageModel) {
    assert!(model.is_ready() && model.name().contains('/'), "{}", model.name());
    report.passed("says what it is");

    let answer = model.generate(request(300, facts())).await.unwrap();
    let value: Value = serde_json::from_str(&answer).expect("JSON");
    let listed = value["facts"].as_array().expect("facts");
    assert!(!listed.is_empty() && listed.iter().all(Value::is_string), "{answer}");
    assert!(answer.contains("Lisbon"), "{answer}");
    report.passed("keeps to the schema");

    let error = model.generate(request(3, facts())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput, "{}", error.report());
    report.passed("half an answer is none");

    let free = model.generate(request(40, None)).await.unwrap();
    assert!(!free.trim().is_empty());
    let brief = model.generate(request(2, None)).await.unwrap();
    assert!(brief.len() < 40, "{brief}");
    report.passed("writes freely, as long as it may");

    let (mut pieces, mut joined) = (0, String::new());
    let mut told = |piece: &str| {
        pieces += 1;
        joined.push_str(piece);
    };
    let written = model.write(request(40, None), &mut told).await.unwrap();
    assert!(pieces > 3, "{pieces}: {joined}");
    assert_eq!(joined, written);
    report.passed("tells it piece by piece");
}

#[tokio::test]
async fn llama() {
    let (gate, supervisor) = (Gate::new(false), Supervisor::new());
    let settings = engines::settings(friend_lite::engine::LLAMA, CHAT_MODEL);
    let model = LlamaEngine::new(&settings, 1024, &gate, &supervisor);
    suite(&mut Report::of("language", "llama"), &model).await;
}

#[tokio::test]
async fn openai() {
    let mut report = Report::of("language", "openai (llama.cpp's server)");
    let mut server = Server::openai_chat();
    let at = |port: u16, key: &str, deadline| {
        let (service, url) = (service("openai"), format!("http://127.0.0.1:{port}/v1"));
        let http = http("openai", &url, "Bearer", key, deadline);
        (service.clone(), OpenaiModel::new(service, http, "qwen"))
    };
    suite(&mut report, &at(server.port, KEY, PATIENCE).1).await;
    let error = at(server.port, "not the key", PATIENCE).1.generate(request(5, None)).await;
    let error = error.unwrap_err();
    assert!(error.message().contains("refuses the key"), "{}", error.report());
    report.passed("a wrong key is told");
    let proxy = Proxy::before(server.port).await;
    let (service, model) = at(proxy.port, KEY, DEADLINE);
    let ask = async || model.generate(request(5, None)).await.map(drop);
    faults::suite(&mut report, &mut server, &proxy, &service, ask).await;
}

#[tokio::test]
async fn ollama() {
    let mut report = Report::of("language", "ollama (stand-in)");
    let mut server = Server::ollama();
    let http_at =
        |port: u16, total| http("ollama", &format!("http://127.0.0.1:{port}"), "", "", total);
    let at = |port: u16, deadline| {
        let service = service("ollama");
        let http = http_at(port, deadline);
        (service.clone(), OllamaModel::new(service, http, "some-chat", 2048))
    };
    let error = at(server.port, PATIENCE).1.generate(request(5, None)).await.unwrap_err();
    assert!(error.is_transient() && error.report().contains("not found"), "{}", error.report());
    report.passed("a model that is missing is told");
    let mut steps = Vec::new();
    let http = http_at(server.port, PATIENCE);
    ollama::pull(&http, "some-chat", |step| steps.push(step.clone())).await.unwrap();
    assert!(steps.iter().any(|step| (step.total, step.completed) == (1000, 400)), "{steps:?}");
    let error = ollama::pull(&http, "missing", |_| ()).await.unwrap_err();
    assert!(error.message().contains("does not exist"), "{}", error.report());
    report.passed("gets a model, and tells how far it is");
    suite(&mut report, &at(server.port, PATIENCE).1).await;
    let proxy = Proxy::before(server.port).await;
    let (service, model) = at(proxy.port, DEADLINE);
    let ask = async || model.generate(request(5, None)).await.map(drop);
    faults::suite(&mut report, &mut server, &proxy, &service, ask).await;
}
