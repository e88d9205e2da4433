use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::base::error::Error;
use crate::domain::graph::EntityKind;
use crate::domain::ids::EntityId;
use crate::graph::EntityQuery;
use crate::graph::sqlite::SqliteGraph;
use crate::llm::Generate;
use crate::store::sqlite::testing::{Fixture, add};

/// A model that gives these answers, the last one first.
struct Scripted(Mutex<Vec<Result<String>>>);

#[async_trait]
impl LanguageModel for Scripted {
    fn name(&self) -> String {
        "test/scripted".into()
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn generate(&self, _: Generate) -> Result<String> {
        self.0.lock().unwrap().pop().unwrap()
    }
}

fn sighting(name: &str) -> Sighting {
    Sighting { name: name.into(), kind: EntityKind::Person }
}

fn statement(subject: &str, predicate: &str, object: &str) -> Statement {
    Statement { subject: subject.into(), predicate: predicate.into(), object: object.into() }
}

#[test]
fn only_what_the_memory_says_counts() {
    let text = "The speaker's brother Max moved to Berlin.";
    let entities = ["speaker", "Max", "berlin", "Siemens", "the", "Ber"].map(sighting);
    let relations = [
        statement("Max", "moved to", "Berlin"),
        statement("the speaker", "brother", "Max"),
        statement("Max", "lives in", "Berlin"),
        statement("Max", "moved to", "Siemens"),
        statement("Berlin", "moved to", "Max"),
        statement("Max", "moved to", "max"),
    ];
    let reading = borne_out(text, &entities, &relations);
    assert_eq!(reading.entities, ["speaker", "Max", "berlin"].map(sighting));
    assert_eq!(reading.relations, relations[..2]);
}

#[test]
fn a_denial_is_not_turned_round() {
    let entities = ["Max", "Zoe"].map(sighting);
    let relations = [statement("Max", "like", "Zoe"), statement("Max", "does not like", "Zoe")];
    let reading = borne_out("Max does not like Zoe.", &entities, &relations);
    assert_eq!(reading.relations, relations[1..]);
}

#[tokio::test]
async fn memories_of_one_user_are_read_together_and_failures_later() {
    let f = Fixture::new();
    let (ann, ben) = (f.user("ann").await, f.user("ben").await);
    f.remember(&ann, &[add("Max knows Zoe.", 0), add("Zoe paints.", 1)]).await;
    f.remember(&ben, &[add("Max knows Tom.", 2)]).await;
    let answer = r#"{"entities":[{"name":"Max","type":"person"},{"name":"Zoe","type":"person"},
                                 {"name":"Tom","type":"person"}],
                     "relations":[{"first":"Max","link":"knows","second":"Zoe"}]}"#;
    let away = Error::new(Kind::Away, "away");
    let script =
        [Ok(answer.to_owned()), Ok(answer.to_owned()), Ok("{".to_owned()), Err(away)].into();
    let graph: Arc<dyn Graph> = Arc::new(SqliteGraph::new(&f.store));
    let relate = Relate::new(graph.clone(), Arc::new(Scripted(Mutex::new(script))), POLL);
    assert_eq!(relate.step().await.unwrap_err().kind(), Kind::Away);
    let failed = "select sum(attempts) from unread_memories";
    assert_eq!(f.number(failed).await, 0, "nobody was asked");
    assert_eq!(relate.step().await.unwrap_err().kind(), Kind::Internal);
    assert_eq!(f.number(failed).await, 2, "hers");
    assert!(relate.step().await.unwrap(), "his, meanwhile");
    assert!(relate.step().await.unwrap(), "hers");
    assert!(!relate.step().await.unwrap());

    let all = EntityQuery { limit: 10, ..EntityQuery::default() };
    assert_eq!(graph.entities(&ann.id, &all).await.unwrap().1, 2, "she never spoke of Tom");
    assert_eq!(graph.entities(&ben.id, &all).await.unwrap().1, 2);
    let of = |user, name| EntityId::of(user, name);
    assert_eq!(graph.memories(&of(&ann.id, "Zoe"), 10).await.unwrap().len(), 2);
    assert_eq!(graph.relations(&of(&ann.id, "Zoe"), 10).await.unwrap()[0].predicate, "knows");
    assert!(graph.relations(&of(&ben.id, "Max"), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_has_room_for_one_long_memory() {
    let f = Fixture::new();
    let ann = f.user("ann").await;
    let long = "x".repeat(BATCH_CHARACTERS);
    let memories = f.remember(&ann, &[add(&long, 0), add("Zoe paints.", 1)]).await;
    assert_eq!(batch(memories.clone()).len(), 1);
    assert_eq!(batch(memories.into_iter().rev().collect()).len(), 1);
    assert!(batch(Vec::new()).is_empty());
}
