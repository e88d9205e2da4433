use serde_json::json;

use super::World;
use crate::domain::job::JobKind;
use crate::store::Jobs;
use crate::store::sqlite::testing::{add, at, window};

#[tokio::test]
async fn what_became_of_a_conversation_is_shown_to_its_owner() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[window(0)]).await;
    world.fixture.transcribe("Good morning").await;
    world.fixture.finish().await;
    world.fixture.learn(&id, &[add("It is morning", 0)]).await;

    let stats = world.get("/api/debug/memory/stats", &ann).await.is(200);
    assert_eq!(stats["total_sessions"], 1);
    assert_eq!((&stats["successful_sessions"], &stats["success_rate"]), (&json!(1), &json!(100.0)));
    assert_eq!(stats["avg_processing_time_seconds"], 1.0);
    assert_eq!(stats["total_memories"], 1);
    let sessions = world.get("/api/debug/memory/sessions?limit=5", &ann).await.is(200);
    assert_eq!(sessions["sessions"][0]["session_id"], json!(id));
    assert_eq!(sessions["sessions"][0]["memory_status"], "COMPLETED");
    assert_eq!(sessions["sessions"][0]["transcript_length"], 12);

    let session = world.get(&format!("/api/debug/memory/session/{id}"), &ann).await.is(200);
    assert_eq!(session["memories"][0]["memory_text"], "It is morning");
    assert_eq!(session["memories"][0]["history"][0]["event"], "ADD");
    assert_eq!(session["attempts"][0]["model"], "test-llm");
    let kinds: Vec<&str> =
        session["jobs"].as_array().unwrap().iter().map(|j| j["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["transcribe", "finish", "remember"]);
    let both = world.get(&format!("/api/debug/memory/transcript-vs-memory/{id}"), &ann).await;
    let both = both.is(200);
    assert_eq!(
        (&both["transcript"], &both["memories"]),
        (&json!("Good morning"), &json!(["It is morning"]))
    );
    assert_eq!(both["compression_ratio"], 108.3);

    let steps = world.get(&format!("/api/debug/memory/pipeline/{id}"), &ann).await.is(200);
    let status =
        |n: usize| (steps["stages"][n]["stage"].clone(), steps["stages"][n]["status"].clone());
    assert_eq!(status(0), (json!("audio"), json!("COMPLETED")));
    assert_eq!(status(1), (json!("transcription"), json!("COMPLETED")));
    assert_eq!(status(2), (json!("memory"), json!("COMPLETED")));
    assert_eq!(status(3), (json!("cropping"), json!("SKIPPED")));
    let config = world.get("/api/debug/memory/config", &ann).await.is(200);
    assert_eq!(config["memory_extraction"]["min_characters"], 10);

    for path in ["session", "transcript-vs-memory", "pipeline"] {
        world.get(&format!("/api/debug/memory/{path}/{id}"), &ben).await.is(404);
    }
    assert_eq!(world.get("/api/debug/memory/stats", &ben).await.is(200)["total_sessions"], 0);
}

#[tokio::test]
async fn failures_are_counted_and_explained() {
    let world = World::new().await;
    let admin = world.person("root", true).await;
    let ann = world.person("ann", false).await;
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[window(0)]).await;
    world.fixture.transcribe("Good morning").await;
    world.fixture.finish().await;
    let job = world.fixture.claim(JobKind::Remember).await.unwrap();
    world.fixture.store.fail_job(job.lease(), "no model", None, at(9)).await.unwrap();
    let stats = world.get("/api/debug/memory/stats", &admin).await.is(200);
    assert_eq!((&stats["failed_sessions"], &stats["success_rate"]), (&json!(1), &json!(0.0)));
    let session = world.get(&format!("/api/debug/memory/session/{id}"), &admin).await.is(200);
    assert_eq!(session["session"]["error"], "no model");
    assert_eq!(session["session"]["success"], false);
    assert_eq!(session["jobs"][2]["state"], "dead");
    assert_eq!(session["attempts"][0]["status"], "FAILED");
}
