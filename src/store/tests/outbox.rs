use crate::domain::ids::MemoryId;
use crate::store::Follower;
use crate::store::testing::{Fixture, Tested, add, at};

const INDEX: Follower = Follower::Index;

/// The memories that are news, and whether each is still there.
async fn news<S: Tested>(store: &S) -> Vec<(MemoryId, bool)> {
    let news = store.memory_news(INDEX, 100).await.unwrap();
    news.into_iter().map(|one| (one.id, one.now.is_some())).collect()
}

pub(crate) async fn changes_are_noted_once_and_only_while_somebody_follows<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let early = f.remember(&anna, &[add("early", 1)]).await.remove(0).id;
    assert!(news(&f.store).await.is_empty());
    assert!(!f.store.follow_memories(INDEX, None, false).await.unwrap());

    assert!(f.store.follow_memories(INDEX, Some("there"), false).await.unwrap());
    assert!(!f.store.follow_memories(INDEX, Some("there"), false).await.unwrap());
    let late = f.remember(&anna, &[add("late", 2)]).await.remove(0).id;
    let told = f.store.memory_news(INDEX, 100).await.unwrap();
    assert_eq!(told.iter().map(|one| &one.id).collect::<Vec<_>>(), [&early, &late]);
    let of_late = told[1].now.clone().unwrap();
    assert_eq!((of_late.user_id, of_late.text.as_str()), (anna.id.clone(), "late"));

    // What changes while it is being told is told again.
    assert!(f.store.delete_memory(&late, at(9)).await.unwrap());
    f.store.strike_memory_news(INDEX, told[1].number).await.unwrap();
    assert_eq!(news(&f.store).await, [(late, false)]);

    assert!(f.store.follow_memories(INDEX, Some("elsewhere"), false).await.unwrap());
    assert_eq!(news(&f.store).await, [(early.clone(), true)]);
    assert!(f.store.follow_memories(INDEX, None, false).await.unwrap());
    assert!(f.store.delete_memory(&early, at(9)).await.unwrap());
    assert!(news(&f.store).await.is_empty());
}

pub(crate) async fn each_follower_hears_of_changes_by_itself<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    for follower in [Follower::Index, Follower::Graph] {
        assert!(f.store.follow_memories(follower, Some("there"), false).await.unwrap());
    }
    f.remember(&anna, &[add("first", 1)]).await;
    let told = f.store.memory_news(Follower::Graph, 100).await.unwrap();
    f.store.strike_memory_news(Follower::Graph, told[0].number + 1).await.unwrap();
    assert!(f.store.memory_news(Follower::Graph, 100).await.unwrap().is_empty());
    assert_eq!(news(&f.store).await.len(), 1);

    assert!(f.store.follow_memories(Follower::Index, None, false).await.unwrap());
    f.remember(&anna, &[add("second", 2)]).await;
    assert!(news(&f.store).await.is_empty());
    let told = f.store.memory_news(Follower::Graph, 100).await.unwrap();
    assert_eq!(told.len(), 1);
}
