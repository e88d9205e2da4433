use serde_json::json;

use super::{Person, World};
use crate::domain::graph::{EntityKind, Reading, Sighting, Statement};
use crate::domain::ids::EntityId;
use crate::domain::memory::Memory;
use crate::store::sqlite::testing::add;

/// Two memories of `person`: Max is in Berlin, and Zoe is too.
async fn told(world: &World, person: &Person) -> Vec<Memory> {
    let changes = [add("Max lives in Berlin", 0), add("Zoe lives in Berlin", 1)];
    let memories = world.fixture.remember(&person.user, &changes).await;
    for memory in &memories {
        let name = memory.text.split(' ').next().unwrap();
        let sighting = |name: &str, kind| Sighting { name: name.into(), kind };
        let reading = Reading {
            entities: vec![
                sighting(name, EntityKind::Person),
                sighting("Berlin", EntityKind::Place),
            ],
            relations: vec![Statement {
                subject: name.into(),
                predicate: "lives in".into(),
                object: "Berlin".into(),
            }],
        };
        world.api.graph.learn(memory, &reading).await.unwrap();
    }
    memories
}

#[tokio::test]
async fn entities_are_shown_with_their_relations_and_memories() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let memories = told(&world, &ann).await;
    let body = world.get("/api/graph/entities?limit=2&offset=1", &ann).await.is(200);
    assert_eq!((&body["count"], &body["total_count"]), (&json!(2), &json!(3)), "{body}");
    assert_eq!(body["user_id"], json!(ann.user.id));
    let places = world.get("/api/graph/entities?kind=place&name=BER", &ann).await.is(200);
    let berlin = &places["entities"][0];
    assert_eq!((&places["count"], &berlin["name"]), (&json!(1), &json!("Berlin")));
    assert_eq!(berlin["first_seen"], json!(memories[0].created_at.to_rfc3339()));

    let path = format!("/api/graph/entities/{}", berlin["id"].as_str().unwrap());
    let details = world.get(&path, &ann).await.is(200);
    assert_eq!(&details["entity"], berlin);
    assert_eq!(details["memories"].as_array().unwrap().len(), 2);
    assert_eq!(details["memories"][0]["metadata"]["user_email"], "ann@example.com");
    let relation = &details["relations"][0];
    assert_eq!(
        (&relation["predicate"], &relation["object"]["id"]),
        (&json!("lives in"), &berlin["id"])
    );
    assert!(memories.iter().any(|memory| relation["memory_id"] == json!(memory.id)));
    let one = world.get(&format!("{path}?limit=1"), &ann).await.is(200);
    assert_eq!(one["relations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn paths_join_entities_of_one_user() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    told(&world, &ann).await;
    told(&world, &ben).await;
    let id = |person: &Person, name| EntityId::of(&person.user.id, name);
    let path = |from: &EntityId, to: &EntityId| format!("/api/graph/path?from={from}&to={to}");
    let chain = path(&id(&ann, "Max"), &id(&ann, "Zoe"));
    let body = world.get(&chain, &ann).await.is(200);
    assert_eq!(body["found"], true);
    assert_eq!(body["relations"][0]["subject"]["name"], "Max");
    assert_eq!(body["relations"][1]["subject"]["name"], "Zoe");
    let short = world.get(&format!("{chain}&max_hops=1"), &ann).await.is(200);
    assert_eq!(short, json!({ "found": false, "relations": [] }));
    let missing = json!({ "message": "Entity not found" });
    for (from, to) in [("Max", "Nobody"), ("Nobody", "Max")] {
        let chain = path(&id(&ann, from), &id(&ann, to));
        assert_eq!(world.get(&chain, &ann).await.is(404), missing);
    }
    let across = path(&id(&ann, "Max"), &id(&ben, "Max"));
    assert_eq!(world.get(&across, &ann).await.is(404), missing);
}

#[tokio::test]
async fn nobody_sees_who_others_speak_of() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    told(&world, &ann).await;
    let list = "/api/graph/entities";
    let of_ann = format!("{list}?user_id={}", ann.user.id);
    assert_eq!(world.get(list, &ben).await.is(200)["total_count"], 0);
    world.get(&of_ann, &ben).await.is(404);
    assert_eq!(world.get(&of_ann, &admin).await.is(200)["total_count"], 3);
    let one = format!("{list}/{}", EntityId::of(&ann.user.id, "Berlin"));
    world.get(&one, &ben).await.is(404);
    let seen = world.get(&one, &admin).await.is(200);
    assert_eq!(seen["memories"][0]["metadata"]["user_email"], "ann@example.com");
    for path in [list, &one, "/api/graph/path?from=a&to=b"] {
        world.ask("GET", path, None).await.is(401);
    }
}

#[tokio::test]
async fn wrong_parameters_are_told() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    for (path, kind) in [
        ("/api/graph/entities?kind=planet", "enum"),
        ("/api/graph/entities?limit=0", "greater_than_equal"),
        ("/api/graph/entities?offset=-1", "greater_than_equal"),
        ("/api/graph/entities/x?limit=1001", "less_than_equal"),
        ("/api/graph/path?from=a", "missing"),
        ("/api/graph/path?from=a&to=b&max_hops=7", "less_than_equal"),
    ] {
        let body = world.get(path, &ann).await.is(422);
        assert_eq!(body["detail"][0]["type"], kind, "{path}: {body}");
    }
}
