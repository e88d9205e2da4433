use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};

use super::{Answer, Person, World};
use crate::store::sqlite::testing::add;

impl World {
    async fn tell(&self, method: &str, path: &str, person: &Person, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", person.token))
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// The events of an answer, `[DONE]` checked and left out.
    async fn ask_chat(&self, person: &Person, body: Value) -> Vec<Value> {
        let answer = self.tell("POST", "/api/chat/send", person, body).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("content-type"), "text/event-stream");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let mut lines: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(lines.pop(), Some("[DONE]"), "{text}");
        lines.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_question_is_answered_from_the_memories_that_fit_it() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let kept = world
        .fixture
        .remember(&ann.user, &[add("Ann has a dog called Rex", 0), add("Ann works in Lyon", 20)])
        .await;
    let events = world.ask_chat(&ann, json!({ "message": " What is my pet called? " })).await;
    let kinds: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    // It is told as it is written, and whole at the end.
    assert_eq!(kinds[..2], ["memory_context", "token"]);
    let (complete, tokens) = events[1..].split_last().unwrap();
    assert_eq!(complete["type"], "complete");
    assert_eq!(tokens.len(), 7, "{events:?}");
    let told: String =
        tokens.iter().map(|event| event["data"]["token"].as_str().unwrap()).collect();
    assert_eq!(complete["data"]["content"], json!(told));
    assert_eq!(events[0]["data"]["memory_ids"], json!([kept[0].id]));
    assert_eq!(told, "You said: What is my pet called?");
    assert_eq!(events[0]["timestamp"], 1_753_190_100.0);
    let id = complete["data"]["session_id"].as_str().unwrap();

    let session = world.get(&format!("/api/chat/sessions/{id}"), &ann).await.is(200);
    assert_eq!(session["title"], "What is my pet called?");
    assert_eq!(session["message_count"], 2);
    let messages = world.get(&format!("/api/chat/sessions/{id}/messages"), &ann).await.is(200);
    assert_eq!((&messages[0]["role"], &messages[1]["role"]), (&json!("user"), &json!("assistant")));
    assert_eq!(messages[1]["memories_used"], json!([kept[0].id]));
    assert_eq!(messages[1]["message_id"], complete["data"]["message_id"]);

    world.ask_chat(&ann, json!({ "message": "And why?", "session_id": id })).await;
    let latest = world.get(&format!("/api/chat/sessions/{id}/messages?limit=2"), &ann).await;
    assert_eq!(latest.is(200)[0]["content"], "And why?");
    let figures = world.get("/api/chat/statistics", &ann).await.is(200);
    assert_eq!((&figures["total_sessions"], &figures["total_messages"]), (&json!(1), &json!(4)));
    assert_eq!(figures["last_chat"], "2025-07-22T13:15:00.000Z");
}

#[tokio::test]
async fn without_a_model_the_answer_says_so_and_the_question_is_kept() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    world.llm.away.store(true, Ordering::Relaxed);
    let events = world.ask_chat(&ann, json!({ "message": "Hello?" })).await;
    assert_eq!(events[1]["type"], "error");
    let error = events[1]["data"]["error"].as_str().unwrap();
    assert!(error.contains("friend-lite models fetch"), "{error}");
    let id = events[1]["data"]["session_id"].as_str().unwrap();
    let messages = world.get(&format!("/api/chat/sessions/{id}/messages"), &ann).await.is(200);
    assert_eq!(messages.as_array().unwrap().len(), 1);
    let health = world.ask("GET", "/api/chat/health", None).await.is(200);
    assert_eq!((&health["status"], &health["service"]), (&json!("degraded"), &json!("chat")));
    let extract = format!("/api/chat/sessions/{id}/extract-memories");
    world.ask("POST", &extract, Some(&ann)).await.is(503);
}

#[tokio::test]
async fn one_answer_at_a_time_and_it_is_kept_without_a_listener() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let busy = world.llm.busy.lock().await;
    let question = json!({ "message": "Hello?" });
    let asking = world.tell("POST", "/api/chat/send", &ann, question.clone());
    let gone = tokio::time::timeout(Duration::from_millis(300), asking).await;
    assert!(gone.is_err(), "nobody is answered while the model is held");
    let refused = world.tell("POST", "/api/chat/send", &ann, question.clone()).await.is(429);
    assert!(refused["error"].as_str().unwrap().contains("on its way"), "{refused}");
    drop(busy);
    world.ask_chat(&ben, question.clone()).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let figures = world.get("/api/chat/statistics", &ann).await.is(200);
        if figures["total_messages"] == 2 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{figures}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.ask_chat(&ann, question).await;
}

#[tokio::test]
async fn talks_are_made_renamed_deleted_and_private() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    let sessions = "/api/chat/sessions";
    let untitled = world.tell("POST", sessions, &ann, json!({})).await.is(200);
    assert_eq!(untitled["title"], "New Chat");
    let made = world.tell("POST", sessions, &ann, json!({ "title": "Trips" })).await.is(200);
    let one = format!("{sessions}/{}", made["session_id"].as_str().unwrap());
    let renamed = world.tell("PUT", &one, &ann, json!({ "title": " Travels " })).await.is(200);
    assert_eq!(renamed["title"], "Travels");
    assert_eq!(world.get(sessions, &ann).await.is(200).as_array().unwrap().len(), 2);

    let gone = json!({ "error": "Chat session not found" });
    for other in [&ben, &admin] {
        assert_eq!(world.get(&one, other).await.is(404), gone);
        assert_eq!(world.get(sessions, other).await.is(200), json!([]));
        world.get(&format!("{one}/messages"), other).await.is(404);
        world.tell("PUT", &one, other, json!({ "title": "x" })).await.is(404);
        world.ask("DELETE", &one, Some(other)).await.is(404);
        world.ask("POST", &format!("{one}/extract-memories"), Some(other)).await.is(404);
        let message = json!({ "message": "x", "session_id": made["session_id"] });
        world.tell("POST", "/api/chat/send", other, message).await.is(404);
    }
    for (path, body, kind) in [
        (sessions, json!({ "title": "x".repeat(201) }), "string_too_long"),
        ("/api/chat/send", json!({ "message": " " }), "string_too_short"),
        ("/api/chat/send", json!({ "message": "x".repeat(4001) }), "string_too_long"),
        ("/api/chat/send", json!({}), "missing"),
    ] {
        let body = world.tell("POST", path, &ann, body).await.is(422);
        assert_eq!(body["detail"][0]["type"], kind, "{path}");
    }
    world.tell("PUT", &one, &ann, json!({ "title": "" })).await.is(422);
    world.ask("DELETE", &one, Some(&ann)).await.is(200);
    assert_eq!(world.ask("DELETE", &one, Some(&ann)).await.is(404), gone);
}

#[tokio::test]
async fn what_the_user_says_in_a_talk_is_remembered_when_asked() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let message = "I fly to Lisbon on the fourteenth of June";
    let events = world.ask_chat(&ann, json!({ "message": message })).await;
    let id = events[0]["data"]["session_id"].as_str().unwrap();
    let extract = format!("/api/chat/sessions/{id}/extract-memories");
    let learned = world.ask("POST", &extract, Some(&ann)).await.is(200);
    assert_eq!((&learned["success"], &learned["count"]), (&json!(true), &json!(1)));
    let memory = &world.get("/api/memories", &ann).await.is(200)["memories"][0];
    assert_eq!(memory["id"], learned["memory_ids"][0]);
    assert!(memory["memory"].as_str().unwrap().contains("Lisbon"), "{memory}");
    assert_eq!(memory["metadata"]["audio_uuid"], json!(null));
    let again = world.ask("POST", &extract, Some(&ann)).await.is(200);
    assert_eq!(again["count"], 0, "it is known");
    // It stays when the talk goes.
    world.ask("DELETE", &format!("/api/chat/sessions/{id}"), Some(&ann)).await.is(200);
    assert_eq!(world.get("/api/memories", &ann).await.is(200)["count"], 1);
}
