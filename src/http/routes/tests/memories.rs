use serde_json::{Value, json};

use super::World;
use crate::store::sqlite::testing::{add, window};

#[tokio::test]
async fn the_configuration_is_shown_and_is_set_elsewhere() {
    let world = World::new().await;
    let (ann, admin) = (world.person("ann", false).await, world.person("root", true).await);
    let raw = "/api/admin/memory/config/raw";
    world.get(raw, &ann).await.is(403);
    let shown = world.get(raw, &admin).await.is(200);
    let yaml = shown["config_yaml"].as_str().unwrap();
    assert!(yaml.ends_with("enabled: true\n  min_characters: 10\n  deadline: 5m\n"), "{yaml}");
    for path in [raw, "/api/admin/memory/config/validate", "/api/admin/memory/config/reload"] {
        let refusal = world.ask("POST", path, Some(&admin)).await.is(400);
        assert!(refusal["error"].as_str().unwrap().contains("[memory]"), "{refusal}");
    }
}

#[tokio::test]
async fn memories_are_listed_newest_first_with_the_fields_of_both_versions() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let changes = [add("Ann has a dog called Rex", 0), add("Ann works in Lyon", 1)];
    let kept = world.fixture.remember(&ann.user, &changes).await;
    let body = world.get("/api/memories?limit=1", &ann).await.is(200);
    assert_eq!(body["count"], 1);
    assert_eq!(body["total_count"], 2);
    assert_eq!(body["user_id"], json!(ann.user.id));
    let memory = &body["memories"][0];
    let same = kept.iter().find(|kept| memory["id"] == json!(kept.id)).unwrap();
    assert_eq!(memory["memory"], json!(same.text));
    assert_eq!(memory["created_at"], "2025-07-22T13:13:27.000Z");
    assert_eq!(memory["metadata"]["user_email"], "ann@example.com");
    assert_eq!(memory["metadata"]["audio_uuid"], json!(same.conversation_id));
    assert_eq!(memory["metadata"]["client_id"], json!(same.client_id));
}

#[tokio::test]
async fn search_finds_by_meaning_and_says_how_well() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let changes = [add("Ann has a dog called Rex", 0), add("Ann works in Lyon", 20)];
    world.fixture.remember(&ann.user, &changes).await;
    let path = "/api/memories/search?query=which+pet&score_threshold=0.8";
    let body = world.get(path, &ann).await.is(200);
    assert_eq!(body["query"], "which pet");
    assert_eq!(body["count"], 1, "{body}");
    assert_eq!(body["results"][0]["memory"], "Ann has a dog called Rex");
    assert!(body["results"][0]["score"].as_f64().unwrap() > 0.99);
    let empty = world.get("/api/memories/search?query=", &ann).await.is(200);
    assert_eq!(empty["count"], 0);
}

#[tokio::test]
async fn wrong_parameters_are_described_as_fastapi_does() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let problem = async |path: &str| -> Value {
        let body = world.get(path, &ann).await.is(422);
        body["detail"][0].clone()
    };
    assert_eq!(
        problem("/api/memories/search").await,
        json!({ "type": "missing", "loc": ["query", "query"], "msg": "Field required", "input": null })
    );
    let search = "/api/memories/search?query=x";
    for (path, kind) in [
        (format!("{search}&limit=0"), "greater_than_equal"),
        (format!("{search}&limit=101"), "less_than_equal"),
        (format!("{search}&limit=ten"), "int_parsing"),
        (format!("{search}&score_threshold=-0.5"), "greater_than_equal"),
        (format!("{search}&score_threshold=1.5"), "less_than_equal"),
        (format!("{search}&score_threshold=NaN"), "float_parsing"),
        ("/api/memories?limit=1001".into(), "less_than_equal"),
        ("/api/conversations?limit=x".into(), "int_parsing"),
    ] {
        assert_eq!(problem(&path).await["type"], kind, "{path}");
    }
}

#[tokio::test]
async fn a_memory_is_forgotten_by_its_owner_only() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    let changes = [add("one", 0), add("two", 1)];
    let kept = world.fixture.remember(&ann.user, &changes).await;
    let paths: Vec<String> = kept.iter().map(|m| format!("/api/memories/{}", m.id)).collect();
    let gone = json!({ "message": "Memory not found" });

    assert_eq!(world.ask("DELETE", &paths[0], Some(&ben)).await.is(404), gone);
    let body = world.ask("DELETE", &paths[0], Some(&ann)).await.is(200);
    assert_eq!(body["message"], format!("Memory {} deleted successfully", kept[0].id));
    assert_eq!(world.ask("DELETE", &paths[0], Some(&ann)).await.is(404), gone);
    world.ask("DELETE", &paths[1], Some(&admin)).await.is(200);
    let audited = "SELECT count(*) FROM audit WHERE action = 'memory-deleted'";
    assert_eq!(world.fixture.number(audited).await, 2);
}

#[tokio::test]
async fn nobody_reads_or_finds_the_memories_of_others() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    world.fixture.remember(&ann.user, &[add("Ann has a dog called Rex", 0)]).await;
    let of_ann = format!("user_id={}", ann.user.id);

    for path in [
        "/api/memories",
        "/api/memories/search?query=dog",
        "/api/memories/unfiltered",
        "/api/memories/with-transcripts",
    ] {
        let join = if path.contains('?') { '&' } else { '?' };
        assert_eq!(world.get(path, &ann).await.is(200)["count"], 1, "{path}");
        assert_eq!(world.get(path, &ben).await.is(200)["count"], 0, "{path}");
        assert_eq!(world.get(path, &admin).await.is(200)["count"], 0, "{path}");
        let path = format!("{path}{join}{of_ann}");
        assert_eq!(world.get(&path, &ann).await.is(200)["count"], 1, "{path}");
        world.get(&path, &ben).await.is(404);
        let body = world.get(&path, &admin).await.is(200);
        assert_eq!(body["count"], 1, "{path}");
        assert_eq!(body["user_id"], json!(ann.user.id));
    }
    world.get("/api/memories?user_id=nobody", &admin).await.is(404);
}

#[tokio::test]
async fn memories_come_with_what_was_said() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let id = world.fixture.opened(&ann.user).await;
    world.fixture.close(&id, &[window(0)]).await;
    world.fixture.transcribe("Ann has a dog called Rex, she says").await;
    world.fixture.finish().await;
    world.fixture.learn(&id, &[add("Ann has a dog", 0)]).await;
    let body = world.get("/api/memories/with-transcripts", &ann).await.is(200);
    let memory = &body["memories"][0];
    assert_eq!(memory["memory_text"], "Ann has a dog");
    assert_eq!(memory["transcript"], "Ann has a dog called Rex, she says");
    assert_eq!((&memory["memory_length"], &memory["transcript_length"]), (&json!(13), &json!(34)));
    assert_eq!(memory["compression_ratio"], 38.2);
    assert_eq!(memory["user_email"], "ann@example.com");
    assert_eq!(memory["audio_uuid"], json!(id));

    let unfiltered = world.get("/api/memories/unfiltered?limit=5", &ann).await.is(200);
    assert_eq!(unfiltered["includes_fallback"], true);
    let entry = &unfiltered["memories"][0];
    assert_eq!(entry["hash"].as_str().unwrap().len(), 32);
    for field in ["source", "source_id", "organization_id", "project_id", "app_id", "device_type"] {
        assert!(entry["metadata"][field].is_string(), "{field}");
    }
}

#[tokio::test]
async fn administrators_see_and_forget_everybodys_memories() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    world.fixture.remember(&ann.user, &[add("one", 0), add("two", 1)]).await;
    world.fixture.remember(&ben.user, &[add("three", 2)]).await;
    for path in ["/api/memories/admin", "/api/admin/memories"] {
        let body = world.get(path, &admin).await.is(200);
        assert_eq!(body["total_memories"], 3, "{path}");
        assert_eq!(body["memories"].as_array().unwrap().len(), 3);
        let hers = &body["user_memories"][ann.user.id.as_str()];
        assert_eq!(hers.as_array().unwrap().len(), 2);
        assert_eq!(hers[0]["metadata"]["user_email"], "ann@example.com");
        assert_eq!(body["stats"]["total_users"], 2);
        assert_eq!(body["stats"]["users_with_memories"].as_array().unwrap().len(), 2);
        assert_eq!(body["stats"]["client_ids_with_memories"].as_array().unwrap().len(), 2);
        let one = format!("{path}?limit=1&user_id={}", ann.user.id);
        assert_eq!(world.get(&one, &admin).await.is(200)["total_memories"], 1);
        assert_eq!(world.get(path, &ann).await.is(403), json!({ "detail": "Forbidden" }));
    }
    let debug = world.get("/api/admin/memories/debug", &admin).await.is(200);
    assert_eq!(debug["total_memories"], 3);
    // Made at one moment of a clock that stands still, they come in any order.
    let mut conversations: Vec<u64> = debug["users"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|u| u["conversations"].as_u64())
        .collect();
    conversations.sort_unstable();
    assert_eq!(conversations, [0, 1, 1]);
    world.get("/api/admin/memories/debug", &ben).await.is(403);

    let all = "/api/admin/memory/delete-all";
    assert_eq!(world.ask("DELETE", all, Some(&admin)).await.is(200)["deleted_count"], 0);
    world.ask("DELETE", all, Some(&ann)).await.is(403);
    let of_ann = format!("{all}?user_id={}", ann.user.id);
    assert_eq!(world.ask("DELETE", &of_ann, Some(&admin)).await.is(200)["deleted_count"], 2);
    assert_eq!(world.get("/api/memories", &ann).await.is(200)["total_count"], 0);
    assert_eq!(world.get("/api/memories", &ben).await.is(200)["total_count"], 1);
}
