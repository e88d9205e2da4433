use super::*;
use crate::domain::graph::{EntityKind, Sighting, Statement};
use crate::domain::memory::MemoryChange;
use crate::domain::user::User;
use crate::store::sqlite::testing::{Fixture, add, at, vector};
use crate::store::{Deletions, Memories, UserData, Users, Versions};

fn reading(names: &[&str], relations: &[(&str, &str, &str)]) -> Reading {
    let sighting = |name: &&str| Sighting { name: (*name).into(), kind: EntityKind::Person };
    let statement = |(subject, predicate, object): &(&str, &str, &str)| Statement {
        subject: (*subject).into(),
        predicate: (*predicate).into(),
        object: (*object).into(),
    };
    Reading {
        entities: names.iter().map(sighting).collect(),
        relations: relations.iter().map(statement).collect(),
    }
}

/// A memory of `user` for each pair of friends, read.
async fn friends(f: &Fixture, user: &User, pairs: &[(&str, &str)]) -> (SqliteGraph, Vec<Memory>) {
    let graph = SqliteGraph::new(&f.store);
    let texts: Vec<String> = pairs.iter().map(|(a, b)| format!("{a} knows {b}.")).collect();
    let changes: Vec<_> = texts.iter().enumerate().map(|(n, text)| add(text, n)).collect();
    let memories = f.remember(user, &changes).await;
    for (a, b) in pairs {
        let text = format!("{a} knows {b}.");
        let memory = memories.iter().find(|memory| memory.text == text).unwrap();
        graph.learn(memory, &reading(&[a, b], &[(a, "knows", b)])).await.unwrap();
    }
    (graph, memories)
}

async fn names(graph: &SqliteGraph, user: &User, query: EntityQuery) -> (Vec<String>, u64) {
    let (found, total) = graph.entities(&user.id, &query).await.unwrap();
    let mut names: Vec<String> = found.into_iter().map(|entity| entity.name).collect();
    names.sort_unstable();
    (names, total)
}

fn all() -> EntityQuery {
    EntityQuery { limit: 100, ..EntityQuery::default() }
}

#[tokio::test]
async fn names_meet_in_any_case_and_users_do_not_meet() {
    let f = Fixture::new();
    let (ann, ben) = (f.user("ann").await, f.user("ben").await);
    let (graph, memories) = friends(&f, &ann, &[("Max", "Zoe"), ("MAX", "Tom")]).await;
    friends(&f, &ben, &[("Max", "Eva")]).await;
    let (found, total) = names(&graph, &ann, all()).await;
    assert_eq!((found.len(), total), (3, 3), "{found:?}");
    let max = EntityId::of(&ann.id, "max");
    assert_eq!(graph.relations(&max, 10).await.unwrap().len(), 2);
    assert_eq!(graph.relations(&max, 1).await.unwrap().len(), 1);
    assert_eq!(graph.memories(&max, 10).await.unwrap().len(), memories.len());
    let entity = graph.entity(&max).await.unwrap().unwrap();
    assert_eq!((&entity.user_id, entity.first_seen), (&ann.id, memories[0].created_at));

    let one = |change: fn(&mut EntityQuery)| {
        let mut query = all();
        change(&mut query);
        names(&graph, &ann, query)
    };
    assert_eq!(one(|q| q.name = "ZO".into()).await, (vec!["Zoe".into()], 1));
    assert_eq!(one(|q| q.kind = Some(EntityKind::Place)).await, (vec![], 0));
    let (page, total) = one(|q| (q.limit, q.offset) = (2, 2)).await;
    assert_eq!((page.len(), total), (1, 3));
}

#[tokio::test]
async fn a_path_is_a_shortest_one_and_goes_either_way() {
    let f = Fixture::new();
    let ann = f.user("ann").await;
    let pairs =
        [("A1", "B1"), ("C1", "B1"), ("C1", "D1"), ("A1", "E1"), ("E1", "D1"), ("X1", "Y1")];
    let (graph, _) = friends(&f, &ann, &pairs).await;
    let id = |name: &str| EntityId::of(&ann.id, name);
    let path = async |from, to, hops| {
        let chain = graph.path(&id(from), &id(to), hops).await.unwrap()?;
        Some(chain.iter().map(|r| format!("{}-{}", r.subject.name, r.object.name)).collect())
    };
    let chain: Option<Vec<String>> = path("A1", "D1", 6).await;
    assert_eq!(chain, Some(vec!["A1-E1".into(), "E1-D1".into()]));
    assert_eq!(path("A1", "C1", 2).await, Some(vec!["A1-B1".into(), "C1-B1".into()]));
    assert_eq!(path("A1", "C1", 1).await, None, "it is two hops away");
    assert_eq!(path("A1", "Y1", 6).await, None, "nothing leads there");
    assert_eq!(path("A1", "A1", 6).await, Some(vec![]));
}

#[tokio::test]
async fn what_no_memory_says_any_more_is_gone() {
    let f = Fixture::new();
    let ann = f.user("ann").await;
    let (graph, memories) = friends(&f, &ann, &[("Max", "Zoe"), ("Max", "Tom")]).await;
    assert!(graph.unread(10).await.unwrap().is_empty());
    let of_tom = memories.iter().find(|memory| memory.text.contains("Tom")).unwrap();
    f.store.delete_memory(&of_tom.id, at(8)).await.unwrap();
    assert_eq!(names(&graph, &ann, all()).await.0, ["Max", "Zoe"]);

    // One that changes is to be read again; what it said counts no more.
    let of_zoe = memories.iter().find(|memory| memory.text.contains("Zoe")).unwrap();
    let changed = MemoryChange::Update {
        id: of_zoe.id.clone(),
        text: "Eva sings.".into(),
        vector: vector(1),
    };
    let later = f.remember(&ann, &[changed]).await.remove(0);
    assert_eq!(names(&graph, &ann, all()).await.1, 0);
    assert_eq!(graph.unread(10).await.unwrap(), std::slice::from_ref(&later));
    // A reading of what it was before comes too late.
    graph.learn(of_zoe, &reading(&["Zoe"], &[])).await.unwrap();
    assert_eq!(names(&graph, &ann, all()).await.1, 0);
    graph.learn(&later, &reading(&["Eva"], &[])).await.unwrap();
    assert_eq!(names(&graph, &ann, all()).await.0, ["Eva"]);

    // Its set is put away: what it had replaced is back, and to be read again.
    let conversation = later.conversation_id.clone().unwrap();
    f.store.reprocess_memory(&conversation, None, at(9)).await.unwrap();
    f.learn(&conversation, &[add("Ida paints.", 3)]).await;
    assert_eq!(names(&graph, &ann, all()).await.1, 0);
    let unread = graph.unread(10).await.unwrap();
    let texts: Vec<&str> = unread.iter().map(|memory| memory.text.as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts.contains(&"Max knows Zoe.") && texts.contains(&"Ida paints."), "{texts:?}");
}

#[tokio::test]
async fn a_user_takes_the_graph_along() {
    let f = Fixture::new();
    let ann = f.user("ann").await;
    friends(&f, &ann, &[("Max", "Zoe")]).await;
    let with = UserData { conversations: true, memories: true };
    f.store.delete_user(&ann.id, with, None, at(9)).await.unwrap();
    let left = "select (select count(*) from entities) + (select count(*) from mentions)
                     + (select count(*) from relations) + (select count(*) from unread_memories)";
    assert_eq!(f.number(left).await, 0);
    assert!(f.store.user(&ann.id).await.unwrap().is_none());
}

#[tokio::test]
async fn what_cannot_be_read_is_left_alone_in_the_end() {
    let f = Fixture::new();
    let ann = f.user("ann").await;
    let memories = f.remember(&ann, &[add("Max sings.", 0), add("Zoe paints.", 1)]).await;
    let graph = SqliteGraph::new(&f.store);
    let first = graph.unread(1).await.unwrap().remove(0);
    for _ in 0..4 {
        graph.failed(std::slice::from_ref(&first.id)).await.unwrap();
        let unread = graph.unread(10).await.unwrap();
        assert_eq!((unread.len(), &unread[1].id), (memories.len(), &first.id), "it comes last");
    }
    graph.failed(std::slice::from_ref(&first.id)).await.unwrap();
    assert_eq!(graph.unread(10).await.unwrap().len(), 1);
}
