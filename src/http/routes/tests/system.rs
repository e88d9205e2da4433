use serde_json::json;

use super::World;
use crate::http::health::{Part, State};

#[tokio::test]
async fn health_follows_the_parts() {
    let world = World::new().await;
    let health = async || world.ask("GET", "/health", None).await.is(200);
    let body = health().await;
    assert_eq!(body["status"], "healthy");
    assert_eq!(body["timestamp"], 1_753_190_100);
    assert_eq!(body["overall_healthy"], true);
    assert_eq!(body["services"]["store"]["critical"], true);
    assert_eq!(body["config"]["new_conversation_timeout_minutes"], 1.5);
    assert_eq!(body["config"]["active_clients"], 0);
    assert!(body.get("message").is_none());

    let model = "ggml-base.bin".to_owned();
    world.api.health.set(Part::Stt, State::ModelMissing { model });
    let body = health().await;
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["overall_healthy"], false);
    assert_eq!(body["critical_services_healthy"], true);
    assert_eq!(body["services"]["speech_to_text"]["model_present"], false);
    assert!(body["message"].is_string());
    assert_eq!(world.ask("GET", "/api/health", None).await.is(200), body);

    let ready = world.ask("GET", "/readiness", None).await.is(200);
    assert_eq!(ready, json!({ "status": "ready", "timestamp": 1_753_190_100 }));
}

#[tokio::test]
async fn the_front_page_and_the_login_form_are_public() {
    let world = World::new().await;
    let page = world.ask("GET", "/", None).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let config = world.ask("GET", "/api/auth/config", None).await.is(200);
    assert_eq!(config["features"]["email_login"], true);
}

#[tokio::test]
async fn unknown_paths_and_methods_answer_as_the_framework_did() {
    let world = World::new().await;
    let answer = world.ask("GET", "/api/nothing", None).await;
    assert_eq!(answer.is(404), json!({ "detail": "Not Found" }));
    assert_eq!(answer.header("x-request-id").len(), 16);
    let answer = world.ask("PUT", "/api/memories", None).await;
    assert_eq!(answer.is(405), json!({ "detail": "Method Not Allowed" }));
    assert!(answer.header("allow").contains("GET"));
}
