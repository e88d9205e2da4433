use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

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
    assert_eq!(body["services"]["mongodb"], body["services"]["store"]);
    assert!(body["config"]["mongodb_uri"].is_string());

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

/// Routes for which OpenAPI has no words: WebSockets.
const UNDOCUMENTED: [&str; 4] = ["/ws", "/ws_omi", "/ws_omi/ws_pcm", "/ws_pcm"];

/// The paths of a router, which it tells only to those who debug it.
fn paths(router: &axum::Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let ids = shown.match_indices("RouteId(");
    let path = |(at, _): (usize, &str)| {
        let (_, rest) = shown[at..].split_once("): \"")?;
        // The text after the id itself, not after a later one.
        shown[at..].split_once(')')?.1.starts_with(": \"").then_some(())?;
        rest.split_once('"').map(|(path, _)| path.to_owned())
    };
    ids.filter_map(path).filter(|path| !path.contains("{*")).collect()
}

#[tokio::test]
async fn every_route_is_documented() {
    let world = World::new().await;
    let document = world.ask("GET", "/openapi.json", None).await.is(200);
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path) in crate::http::openapi::tests::operations(&document) {
        documented.entry(path).or_default().insert(method);
    }
    let mut served = BTreeMap::new();
    for path in paths(&world.router) {
        if UNDOCUMENTED.contains(&path.as_str()) {
            continue;
        }
        // No handler has this method, so the answer lists those there are.
        let answer = world.ask("TRACE", &path.replace(['{', '}'], ""), None).await;
        assert_eq!(answer.status, 405, "{path}");
        let methods = answer.header("allow").split(',').filter(|method| *method != "HEAD");
        served.insert(path, methods.map(str::to_owned).collect());
    }
    assert!(served.len() > 10, "{served:?}");
    assert_eq!(served, documented);
}

#[tokio::test]
async fn the_document_holds_together() {
    let world = World::new().await;
    let answer = world.ask("GET", "/openapi.json", None).await;
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.is(200);
    assert_eq!(document["openapi"], "3.1.0");
    let ids: Vec<&Value> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values().map(|op| &op["operationId"]))
        .collect();
    assert_eq!(ids.iter().map(|id| id.to_string()).collect::<BTreeSet<_>>().len(), ids.len());
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    for (at, prefix) in text.match_indices("#/components/schemas/") {
        let name = text[at + prefix.len()..].split('"').next().unwrap();
        assert!(schemas.contains_key(name), "no schema {name}");
    }
    let page = world.ask("GET", "/docs", None).await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(String::from_utf8_lossy(&page.body).contains("/api/conversations/{client_id}/close"));
}

#[tokio::test]
async fn no_two_files_describe_different_things_by_one_name() {
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    for resource in super::super::resources() {
        let Some(components) = &resource.get_openapi().components else { continue };
        for (name, schema) in &components.schemas {
            let schema = json!(schema);
            let first = seen.entry(name.clone()).or_insert_with(|| schema.clone());
            assert_eq!(*first, schema, "two schemas are called {name}");
        }
    }
}
