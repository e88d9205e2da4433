use std::collections::HashMap;

use proptest::prelude::*;

use crate::base::error::Kind;
use crate::domain::conversation::Progress;
use crate::domain::ids::MemoryId;
use crate::domain::job::JobKind;
use crate::domain::memory::{MemoryChange, MemoryEvent};
use crate::index::Index;
use crate::store::testing::{
    Fixture, Tested, WIDTH, add, at, block_on, cases, learned, unit, vector,
};

async fn texts<S: Tested>(
    f: &Fixture<S>,
    user: &crate::domain::user::User,
    query: &str,
) -> Vec<String> {
    let ids = f.store.search_text(&user.id, query, 10).await.unwrap();
    let found = f.store.memories_by_id(&ids).await.unwrap();
    found.into_iter().map(|memory| memory.text).collect()
}

pub(crate) async fn what_is_learned_is_found_everywhere_and_settles_the_conversation<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let learned =
        f.remember(&anna, &[add("Anna likes green tea", 3), add("Anna has a dog", 9)]).await;
    assert_eq!(learned.len(), 2);
    let tea = &learned[0];
    assert_eq!((tea.text.as_str(), tea.prompt_version.as_str()), ("Anna likes green tea", "v1"));
    assert_eq!((tea.created_at, tea.updated_at), (at(7), at(7)));
    assert_eq!(tea.user_id, anna.id);
    assert!(tea.client_id.is_some());

    let conversation = f.get(tea.conversation_id.as_ref().unwrap()).await;
    assert_eq!(conversation.memory, Progress::Completed);
    assert_eq!(conversation.title.as_deref(), Some("A title"));

    assert_eq!(f.store.memory(&tea.id).await.unwrap().as_ref(), Some(tea));
    assert_eq!(f.store.memory_count(&anna.id).await.unwrap(), 2);
    assert_eq!(f.store.memories(&anna.id, 1).await.unwrap()[0].text, "Anna has a dog");
    assert_eq!(texts(&f, &anna, "TEA?").await, ["Anna likes green tea"]);
    let near = f.store.index().nearest(&anna.id, &vector(9), 1).await.unwrap();
    assert_eq!(near[0].0, learned[1].id);
    let history = f.store.memory_history(&tea.id).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!((history[0].event, history[0].old_text.as_deref()), (MemoryEvent::Add, None));
}

pub(crate) async fn an_update_replaces_text_vector_and_origin<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let old = f.remember(&anna, &[add("Anna lives in Bern", 3)]).await.remove(0);
    let change = MemoryChange::Update {
        id: old.id.clone(),
        text: "Anna lives in Basel".into(),
        vector: vector(20),
    };
    let new = f.remember(&anna, &[change]).await.remove(0);
    assert_eq!(new.id, old.id);
    assert_ne!(new.conversation_id, old.conversation_id);
    assert_eq!(f.store.memory_count(&anna.id).await.unwrap(), 1);
    assert!(texts(&f, &anna, "Bern").await.is_empty());
    assert_eq!(texts(&f, &anna, "Basel").await.len(), 1);
    let near = f.store.index().nearest(&anna.id, &vector(20), 5).await.unwrap();
    assert_eq!(near.len(), 1);
    assert!((near[0].1 - 1.0).abs() < 1e-4, "{near:?}");

    let history = f.store.memory_history(&old.id).await.unwrap();
    assert_eq!(history[1].event, MemoryEvent::Update);
    assert_eq!(history[1].old_text.as_deref(), Some("Anna lives in Bern"));
    assert_eq!(history[1].new_text.as_deref(), Some("Anna lives in Basel"));
    assert_eq!(f.get(&old.conversation_id.unwrap()).await.memory, Progress::Completed);
}

pub(crate) async fn a_forgotten_memory_leaves_only_its_history<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let kept = f.remember(&anna, &[add("one", 1), add("two", 2), add("three", 3)]).await;
    f.remember(&anna, &[MemoryChange::Delete { id: kept[0].id.clone() }]).await;
    assert!(f.store.delete_memory(&kept[1].id, at(30)).await.unwrap());
    assert!(!f.store.delete_memory(&kept[1].id, at(31)).await.unwrap());

    for gone in &kept[..2] {
        assert_eq!(f.store.memory(&gone.id).await.unwrap(), None);
        let history = f.store.memory_history(&gone.id).await.unwrap();
        assert_eq!(history.len(), 2);
        assert_eq!(history[1].event, MemoryEvent::Delete);
        assert_eq!(history[1].old_text.as_deref(), Some(gone.text.as_str()));
        assert_eq!(history[1].new_text, None);
    }
    assert!(texts(&f, &anna, "one two").await.is_empty());
    let near = f.store.index().nearest(&anna.id, &vector(1), 5).await.unwrap();
    assert_eq!(near.into_iter().map(|n| n.0).collect::<Vec<_>>(), [kept[2].id.clone()]);
}

pub(crate) async fn the_memories_of_others_cannot_be_changed<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, bert) = (f.user("anna").await, f.user("bert").await);
    let hers = f.remember(&anna, &[add("a secret of Anna", 1)]).await.remove(0);
    let id = f.opened(&bert).await;
    f.close(&id, &[]).await;
    f.finish().await;
    let job = f.claim(JobKind::Remember).await.unwrap();
    for change in [
        MemoryChange::Delete { id: hers.id.clone() },
        MemoryChange::Update { id: hers.id.clone(), text: "mine".into(), vector: vector(1) },
    ] {
        let learned = learned(&[add("a fact of Bert", 2), change]);
        let refused = f.store.complete_memories(job.lease(), &id, &learned, at(8)).await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Forbidden);
    }
    assert_eq!(f.store.memory(&hers.id).await.unwrap(), Some(hers));
    assert_eq!(f.store.memory_count(&bert.id).await.unwrap(), 0, "all or nothing");
    assert_eq!(f.get(&id).await.memory, Progress::Pending);

    f.store.complete_memories(job.lease(), &id, &learned(&[]), at(9)).await.unwrap();
    assert_eq!(f.get(&id).await.memory, Progress::Empty);
    let again = f.store.complete_memories(job.lease(), &id, &learned(&[]), at(9)).await;
    assert_eq!(again.unwrap_err().kind(), Kind::Conflict);
}

pub(crate) async fn a_change_to_a_memory_deleted_meanwhile_keeps_the_new_fact<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let gone = MemoryId::generate();
    let update =
        MemoryChange::Update { id: gone.clone(), text: "still true".into(), vector: vector(4) };
    let learned = f.remember(&anna, &[MemoryChange::Delete { id: gone.clone() }, update]).await;
    assert_eq!(learned.len(), 1);
    assert_eq!(learned[0].text, "still true");
    assert_ne!(learned[0].id, gone);
}

pub(crate) async fn words_are_found_in_any_form_and_best_first<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, bert) = (f.user("anna").await, f.user("bert").await);
    f.remember(
        &anna,
        &[
            add("Anna runs every morning", 1),
            add("Anna drinks coffee in the café", 2),
            add("The meeting about coffee beans is on Monday", 3),
        ],
    )
    .await;
    f.remember(&bert, &[add("Bert hates coffee", 4)]).await;

    assert_eq!(texts(&f, &anna, "running").await, ["Anna runs every morning"]);
    assert_eq!(texts(&f, &anna, "CAFE").await, ["Anna drinks coffee in the café"]);
    let both = texts(&f, &anna, "coffee OR meetings").await;
    assert_eq!(both.len(), 2);
    assert!(both[0].starts_with("The meeting"), "{both:?}");
    assert_eq!(texts(&f, &bert, "coffee").await, ["Bert hates coffee"]);
    assert!(texts(&f, &bert, "meeting").await.is_empty());
}

pub(crate) async fn one_embedding_model_at_a_time<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let memory = f.remember(&anna, &[add("one", 1)]).await.remove(0);
    f.store.bind_embedding("test-model", WIDTH).await.unwrap();
    for (model, width) in [("other-model", WIDTH), ("test-model", 3)] {
        let error = f.store.bind_embedding(model, width).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        for part in ["test-model", model, "64", &width.to_string(), "friend-lite reindex"] {
            assert!(error.message().contains(part), "{}", error.message());
        }
    }

    let index = f.store.index();
    let refused = f.store.replace_embeddings("other-model", 3, HashMap::new()).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(index.nearest(&anna.id, &vector(1), 1).await.unwrap().len(), 1, "unchanged");

    let short = unit(vec![1.0, 2.0, 3.0]);
    assert_eq!(f.store.memory_texts().await.unwrap(), ["one"]);
    let vectors = ["one", "a stranger"].map(|text| (text.to_owned(), short.clone()));
    f.store.replace_embeddings("other-model", 3, vectors.into()).await.unwrap();
    f.store.bind_embedding("other-model", 3).await.unwrap();
    let near = index.nearest(&anna.id, &short, 1).await.unwrap();
    assert_eq!(near[0].0, memory.id);
    assert_eq!(texts(&f, &anna, "one").await, ["one"]);
}

pub(crate) async fn a_vector_of_the_wrong_shape_is_refused<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.opened(&anna).await;
    f.close(&id, &[]).await;
    f.finish().await;
    let lease = f.claim(JobKind::Remember).await.unwrap().lease();
    let complete = |vector: Vec<f32>| {
        let (store, id) = (&f.store, &id);
        async move {
            let learned = learned(&[MemoryChange::Add { text: "x".into(), vector }]);
            let done = store.complete_memories(lease, id, &learned, at(8));
            done.await.map_err(|e| e.kind())
        }
    };
    assert_eq!(complete(vector(1)).await, Err(Kind::Conflict), "no model yet");
    f.store.bind_embedding("test-model", WIDTH).await.unwrap();
    assert_eq!(complete(vec![1.0]).await, Err(Kind::Conflict));
    assert_eq!(complete(vec![f32::NAN; WIDTH]).await, Err(Kind::BadInput));
    assert_eq!(f.store.memory_count(&anna.id).await.unwrap(), 0);
    assert_eq!(complete(vector(1)).await, Ok(()));
}

/// Twenty times fifty queries on one store each: opening one is slow.
pub(crate) fn any_text_is_a_query<S: Tested>() {
    let words = vec!["AND", "OR", "NOT", "NEAR(", "\"", "*", "text:", "\0", "tea", "-"];
    let query = prop_oneof![
        any::<String>(),
        "[\"'*^:(){}+\\-a-z ]{0,20}",
        prop::collection::vec(prop::sample::select(words), 0..8).prop_map(|parts| parts.join(" ")),
    ];
    let queries = prop::collection::vec(query, 50);
    proptest!(cases::<S>(20), |(queries in queries)| {
        block_on(async {
            let f = Fixture::<S>::open().await;
            let (anna, bert) = (f.user("anna").await, f.user("bert").await);
            f.remember(&anna, &[add("Anna likes tea AND near text", 1)]).await;
            for query in &queries {
                let found = f.store.search_text(&anna.id, query, 10).await;
                prop_assert!(found.is_ok(), "{query:?}: {found:?}");
                let hers = f.store.search_text(&bert.id, query, 10).await.unwrap();
                prop_assert!(hers.is_empty(), "{query:?} found another user's memory");
            }
            Ok(())
        })?;
    });
}
