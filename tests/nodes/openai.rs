//! A stand-in for a server of OpenAI's API: of real models, one machine hears and
//! learns too slowly for so many streams. It hears the numbers in numbered audio and a
//! sentence that everybody says, and learns that sentence.

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::numbered;

/// What everybody says besides their numbers.
pub const SENTENCE: &str = "Our dog is called Rex.";

/// Starts one, which ends with the test; its address.
pub async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/v1/audio/transcriptions", post(hear))
        .route("/v1/chat/completions", post(learn))
        .route("/v1/embeddings", post(embed))
        .layer(DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/v1")
}

/// The numbers in the WAV file of a form.
async fn hear(form: Bytes) -> Json<Value> {
    let at = form.windows(4).position(|bytes| bytes == b"RIFF").unwrap();
    let length: [u8; 4] = form[at + 40..at + 44].try_into().unwrap();
    let samples = &form[at + 44..][..u32::from_le_bytes(length) as usize];
    let samples: Vec<i16> =
        samples.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    let numbers = numbered::to_text(&numbered::blocks(&samples));
    Json(json!({ "text": format!("{numbers} {SENTENCE}") }))
}

async fn learn(Json(request): Json<Value>) -> Json<Value> {
    let asked = request["messages"].as_array().unwrap().last().unwrap()["content"].clone();
    let asked = asked.as_str().unwrap();
    assert!(asked.starts_with("Transcript:") && asked.contains(SENTENCE), "{asked}");
    let point = json!({ "quote": SENTENCE, "kind": "person", "fact": SENTENCE });
    let answer = json!({ "points": [point] }).to_string();
    let message = json!({ "role": "assistant", "content": answer });
    Json(json!({ "choices": [{ "message": message, "finish_reason": "stop" }] }))
}

/// The same texts have the same place, and no others are asked about.
async fn embed(Json(request): Json<Value>) -> Json<Value> {
    let texts = request["input"].as_array().unwrap();
    let row = |index| json!({ "index": index, "embedding": [0.6, 0.8, 0.0, 0.0] });
    Json(json!({ "data": (0..texts.len()).map(row).collect::<Vec<_>>() }))
}
