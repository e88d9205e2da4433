//! What is SQLite's own; the suite of the port is in tests/conformance/graph.rs.

use super::*;
use crate::domain::graph::{EntityKind, Sighting, Statement};
use crate::store::sqlite::testing::{Fixture, add, at};
use crate::store::{Deletions, UserData, Users, Versions};

fn friends() -> Reading {
    let person = |name: &str| Sighting { name: name.into(), kind: EntityKind::Person };
    let (subject, predicate, object) = ("Max".into(), "knows".into(), "Zoe".into());
    Reading {
        entities: vec![person("Max"), person("Zoe")],
        relations: vec![Statement { subject, predicate, object }],
    }
}

#[tokio::test]
async fn a_user_takes_the_graph_along() {
    let f = Fixture::new();
    let ann = f.user("ann").await;
    let graph = SqliteGraph::new(&f.store);
    let memories = f.remember(&ann, &[add("Max knows Zoe.", 0), add("Ida paints.", 1)]).await;
    let of_max = memories.iter().find(|memory| memory.text.contains("Max")).unwrap();
    graph.learn(of_max, &friends()).await.unwrap();
    let left = "select (select count(*) from entities) + (select count(*) from mentions)
                     + (select count(*) from relations) + (select count(*) from unread_memories)";
    assert_eq!(f.number(left).await, 6);
    let with = UserData { conversations: true, memories: true };
    f.store.delete_user(&ann.id, with, None, at(9)).await.unwrap();
    assert_eq!(f.number(left).await, 0);
    assert!(f.store.user(&ann.id).await.unwrap().is_none());
}

#[tokio::test]
async fn memories_that_are_put_away_say_nothing() {
    let f = Fixture::new();
    let ann = f.user("ann").await;
    let graph = SqliteGraph::new(&f.store);
    let of_max = f.remember(&ann, &[add("Max knows Zoe.", 0)]).await.remove(0);
    graph.learn(&of_max, &friends()).await.unwrap();
    let query = EntityQuery { limit: 10, ..EntityQuery::default() };
    assert_eq!(graph.entities(&ann.id, &query).await.unwrap().1, 2);

    let conversation = of_max.conversation_id.clone().unwrap();
    f.store.reprocess_memory(&conversation, None, at(9)).await.unwrap();
    f.learn(&conversation, &[add("Ida paints.", 3)]).await;
    assert_eq!(graph.entities(&ann.id, &query).await.unwrap().1, 0);
    let unread = graph.unread(10).await.unwrap();
    let texts: Vec<&str> = unread.iter().map(|memory| memory.text.as_str()).collect();
    assert_eq!(texts, ["Ida paints."]);
}
