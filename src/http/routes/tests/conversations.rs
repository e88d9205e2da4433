use serde_json::json;

use super::World;
use crate::store::sqlite::testing::{add, window};

#[tokio::test]
async fn conversations_are_grouped_by_client_or_flat() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[window(0)]).await;
    world.fixture.transcribe("Good morning").await;

    let body = world.get("/api/conversations", &ann).await.is(200);
    let client = format!("{}-phone", ann.user.id.suffix());
    let entry = &body["conversations"][&client][0];
    assert_eq!(entry["audio_uuid"], json!(id));
    assert_eq!(entry["conversation_id"], json!(id));
    assert_eq!(entry["audio_path"], format!("{id}.wav"));
    assert_eq!(entry["timestamp"], 1_753_190_001);
    assert_eq!(entry["created_at"], "2025-07-22T13:13:21.000Z");
    let said = &entry["transcript"][0];
    assert_eq!(said["text"], "Good morning");
    assert_eq!(said["start"], 0.5);
    assert_eq!(said["speaker"], format!("speaker_{client}"));
    assert_eq!(entry["has_memory"], false);
    assert_eq!(entry["version_info"]["transcript_count"], 1);
    for field in ["speakers_identified", "speech_segments", "memories"] {
        assert!(entry[field].is_array(), "{field}");
    }
    for field in ["cropped_audio_path", "cropped_duration", "summary"] {
        assert!(entry.get(field).is_some_and(|value| value.is_null()), "{field}");
    }
    let flat = world.get("/api/conversations?view=list", &ann).await.is(200);
    assert_eq!(flat["conversations"], json!([entry]));
}

#[tokio::test]
async fn one_conversation_shows_its_words_and_what_became_of_its_audio() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.add_window(&id, 0).await;
    world.fixture.transcribe("Good").await;
    world.fixture.close(&id, &[window(1)]).await;

    let body = world.get(&format!("/api/conversations/{id}"), &ann).await.is(200);
    let conversation = &body["conversation"];
    assert_eq!(conversation["transcript"], "Good");
    assert_eq!(conversation["segments"][0]["text"], "Good");
    assert_eq!(conversation["segments"][0]["words"], json!([]));
    assert_eq!(conversation["windows"][1]["state"], "waiting");
    // 160,000 samples accepted, one second in each of two windows.
    let coverage = &conversation["coverage"];
    assert_eq!(
        coverage["samples"],
        json!({
            "accepted": 160_000, "on_disk": 160_000, "silent": 128_000,
            "transcribed": 16_000, "waiting": 16_000, "failed": 0,
        })
    );
    assert_eq!(
        (&coverage["accepted_seconds"], &coverage["silent_seconds"]),
        (&json!(10.0), &json!(8.0))
    );
    // The sums over days say the same.
    let days = world.get("/api/coverage?from=2025-07-22&to=2025-07-22", &ann).await.is(200);
    assert_eq!(days["total"], *coverage);
    assert_eq!(days["days"][0]["day"], "2025-07-22");
    let before = world.get("/api/coverage?to=2025-07-21", &ann).await.is(200);
    assert_eq!((&before["days"], &before["total"]["accepted_seconds"]), (&json!([]), &json!(0.0)));
    world.get("/api/coverage?from=yesterday", &ann).await.is(422);
    let bob = world.person("bob", false).await;
    assert_eq!(world.get("/api/coverage", &bob).await.is(200)["days"], json!([]));
    let path = format!("/api/coverage?user_id={}", ann.user.id);
    world.get(&path, &bob).await.is(404);
    let kept = world.fixture.remember(&ann.user, &[add("a fact", 0)]).await;
    let learned = kept[0].conversation_id.as_ref().unwrap();
    let body = world.get(&format!("/api/conversations/{learned}"), &ann).await.is(200);
    assert_eq!(body["conversation"]["memory_count"], 1);
    assert_eq!(body["conversation"]["memories"][0]["memory_id"], json!(kept[0].id));
    assert_eq!(body["conversation"]["title"], "A title");
    assert_eq!(body["conversation"]["summary"], "A summary.");
    assert_eq!(body["conversation"]["memory_versions"][0]["memory_count"], 1);
    assert_eq!(body["conversation"]["active_memory_version"], "1");
}

#[tokio::test]
async fn conversations_belong_to_their_users() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.opened(&ben.user).await;

    let count = async |path: &str, person| {
        let body = world.get(path, person).await.is(200);
        body["conversations"].as_array().unwrap().len()
    };
    let list = "/api/conversations?view=list";
    assert_eq!(count(list, &ann).await, 1);
    assert_eq!(count(list, &ben).await, 1);
    assert_eq!(count(list, &admin).await, 2);
    assert_eq!(count(&format!("{list}&limit=1"), &admin).await, 1);
    let of_ann = format!("{list}&user_id={}", ann.user.id);
    assert_eq!(count(&of_ann, &admin).await, 1);
    assert_eq!(count(&of_ann, &ann).await, 1);
    world.get(&of_ann, &ben).await.is(404);

    let one = format!("/api/conversations/{id}");
    world.get(&one, &ann).await.is(200);
    world.get(&one, &admin).await.is(200);
    let gone = json!({ "error": "Conversation not found" });
    assert_eq!(world.get(&one, &ben).await.is(404), gone);
    assert_eq!(world.get("/api/conversations/nope", &ben).await.is(404), gone);
}
