use std::slice::from_ref;

use crate::base::error::Kind;
use crate::domain::conversation::{Progress, Span, WindowState};
use crate::domain::ids::{ConversationId, MemoryId};
use crate::domain::job::{JobKind, Payload};
use crate::domain::memory::{Memory, MemoryChange};
use crate::domain::transcript::plain_text;
use crate::domain::user::User;
use crate::domain::version::{Crop, SegmentEdit};
use crate::index::Index;
use crate::store::testing::{Fixture, Rows, Tested, add, at, learned, vector, window};

impl<S: Tested> Fixture<S> {
    /// A closed conversation of `user` in which two windows were said.
    async fn spoken(&self, user: &User, words: [&str; 2]) -> ConversationId {
        let id = self.opened(user).await;
        self.close(&id, &[window(0), window(1)]).await;
        self.transcribe(words[0]).await;
        self.transcribe(words[1]).await;
        self.finish().await;
        self.learn(&id, &[]).await;
        id
    }

    async fn text(&self, id: &ConversationId) -> String {
        let windows = self.windows(id).await;
        plain_text(&windows.into_iter().flat_map(|w| w.segments).collect::<Vec<_>>())
    }

    /// Which transcripts there are: number, state, whether it is shown.
    async fn transcripts(&self, id: &ConversationId) -> Vec<(u32, Progress, bool)> {
        let versions = self.store.transcript_versions(id).await.unwrap();
        versions.iter().map(|v| (v.version, v.state, v.active)).collect()
    }

    async fn remembered(&self, id: &ConversationId) -> Vec<(u32, Progress, bool, u64)> {
        let versions = self.store.memory_versions(id).await.unwrap();
        versions.iter().map(|v| (v.version, v.state, v.active, v.memories)).collect()
    }

    /// What `user` has in lists, oldest first, after checking that searches and
    /// the index agree.
    async fn listed(&self, user: &User) -> Vec<String> {
        let mut all = self.store.memories(&user.id, 100).await.unwrap();
        all.reverse();
        let index = self.store.index();
        let near = index.nearest(&user.id, &vector(0), 100).await.unwrap();
        let ids: Vec<&MemoryId> = all.iter().map(|memory| &memory.id).collect();
        assert_eq!(near.len(), all.len(), "the index holds what the list shows");
        assert!(near.iter().all(|(id, _)| ids.contains(&id)));
        let found = self.store.search_text(&user.id, "fact", 100).await.unwrap();
        assert_eq!(found.len(), all.len(), "words find what the list shows");
        all.into_iter().map(|memory| memory.text).collect()
    }

    async fn again(&self, id: &ConversationId, changes: &[MemoryChange]) -> Vec<Memory> {
        self.store.reprocess_memory(id, None, at(20)).await.unwrap();
        self.learn(id, changes).await
    }
}

fn update(memory: &Memory, text: &str, axis: usize) -> MemoryChange {
    MemoryChange::Update { id: memory.id.clone(), text: text.into(), vector: vector(axis) }
}

pub(crate) async fn a_new_transcript_is_shown_when_it_is_complete<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.spoken(&f.user("anna").await, ["one", "two"]).await;
    let begun = f.store.reprocess_transcript(&id, at(20)).await.unwrap();
    assert_eq!((begun.version, begun.jobs.len()), (2, 2));
    let twice = f.store.reprocess_transcript(&id, at(20)).await.unwrap_err();
    assert_eq!(twice.kind(), Kind::Conflict);
    let early = f.store.activate_transcript(&id, 2).await.unwrap_err();
    assert_eq!(early.kind(), Kind::Conflict);

    f.transcribe("uno").await;
    assert_eq!(f.text(&id).await, "one two");
    assert_eq!(f.get(&id).await.transcription, Progress::Completed);
    f.transcribe("due").await;
    assert_eq!(f.text(&id).await, "one two", "not settled yet");
    f.finish().await;
    assert_eq!(f.text(&id).await, "uno due");
    assert_eq!(
        f.transcripts(&id).await,
        [(1, Progress::Completed, false), (2, Progress::Completed, true)]
    );
    assert_eq!(f.remembered(&id).await[1].1, Progress::Pending, "its memories follow");

    f.store.activate_transcript(&id, 1).await.unwrap();
    assert_eq!(f.text(&id).await, "one two");
    let windows = f.store.version_windows(&id, 2).await.unwrap();
    assert_eq!(windows.len(), 2);
    assert_eq!(windows[1].segments[0].text, "due", "nothing is lost");
    let none = f.store.activate_transcript(&id, 9).await.unwrap_err();
    assert_eq!(none.kind(), Kind::NotFound);
}

pub(crate) async fn a_new_transcript_that_fails_leaves_the_old_one<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.spoken(&f.user("anna").await, ["one", "two"]).await;
    f.store.reprocess_transcript(&id, at(20)).await.unwrap();
    f.transcribe("uno").await;
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    f.store.fail_job(job.lease(), "engine died", None, at(21)).await.unwrap();
    // The finish handler finds a failed window.
    let finish = f.claim(JobKind::Finish).await.unwrap();
    let settled = crate::domain::version::Settled {
        version: 2,
        transcription: Progress::Failed,
        memory: Progress::Skipped,
        next: vec![],
    };
    f.store.finish_conversation(finish.lease(), &id, &settled, at(22)).await.unwrap();
    assert_eq!(f.text(&id).await, "one two");
    assert_eq!(f.get(&id).await.transcription, Progress::Completed);
    assert_eq!(f.get(&id).await.memory, Progress::Empty);
    assert_eq!(
        f.transcripts(&id).await,
        [(1, Progress::Completed, true), (2, Progress::Failed, false)]
    );

    // The failed window can still be tried again, and then it is complete.
    f.store.retry_job(job.id, at(30)).await.unwrap();
    assert_eq!(f.transcripts(&id).await[1], (2, Progress::Pending, false));
    f.transcribe("due").await;
    f.finish().await;
    assert_eq!(f.text(&id).await, "uno due");
}

pub(crate) async fn only_what_is_there_can_be_made_again<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let open = f.opened(&anna).await;
    let nowhere = ConversationId::from_text("none");
    for (id, kind) in [(&open, Kind::Conflict), (&nowhere, Kind::NotFound)] {
        let transcript = f.store.reprocess_transcript(id, at(20)).await.unwrap_err();
        let memory = f.store.reprocess_memory(id, None, at(20)).await.unwrap_err();
        assert_eq!((transcript.kind(), memory.kind()), (kind, kind));
    }
    let id = f.spoken(&anna, ["one", "two"]).await;
    let unknown = f.store.reprocess_memory(&id, Some(7), at(20)).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
    let begun = f.store.reprocess_memory(&id, Some(1), at(20)).await.unwrap();
    assert_eq!((begun.version, begun.jobs.len()), (2, 1));
    let twice = f.store.reprocess_memory(&id, None, at(20)).await.unwrap_err();
    assert_eq!(twice.kind(), Kind::Conflict);
}

pub(crate) async fn lost_jobs_of_new_versions_are_found<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.spoken(&f.user("anna").await, ["one", "two"]).await;
    f.store.reprocess_transcript(&id, at(20)).await.unwrap();
    f.store.reprocess_memory(&id, None, at(20)).await.unwrap();
    for kind in [JobKind::Transcribe, JobKind::Remember] {
        f.store.lose_jobs(kind).await;
    }
    assert_eq!(f.store.requeue_lost(at(30)).await.unwrap(), 3);
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    let Payload::Window(window) = job.payload else { panic!("{job:?}") };
    assert_eq!(f.store.window(window).await.unwrap().unwrap().version, 2);
    assert!(f.claim(JobKind::Remember).await.is_some());
}

pub(crate) async fn new_memories_take_the_place_of_the_old_ones_and_give_it_back<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.remember(&anna, &[add("old fact", 1), add("older fact", 2)]).await[0]
        .conversation_id
        .clone()
        .unwrap();
    f.remember(&anna, &[add("a fact from elsewhere", 5)]).await;
    assert_eq!(f.store.reprocess_memory(&id, None, at(20)).await.unwrap().version, 2);
    assert_eq!(f.listed(&anna).await.len(), 3, "until the new ones are there");

    let new = f.learn(&id, &[add("new fact", 1)]).await;
    assert_eq!(new.len(), 1);
    assert_eq!(f.listed(&anna).await, ["a fact from elsewhere", "new fact"]);
    assert_eq!(
        f.remembered(&id).await,
        [(1, Progress::Completed, false, 2), (2, Progress::Completed, true, 1)]
    );
    assert_eq!(f.store.memory(&new[0].id).await.unwrap().as_ref(), Some(&new[0]));

    for _ in 0..2 {
        f.store.activate_memory(&id, 1, at(30)).await.unwrap();
        let mut listed = f.listed(&anna).await;
        listed.sort();
        assert_eq!(listed, ["a fact from elsewhere", "old fact", "older fact"]);
        assert_eq!(f.store.memory(&new[0].id).await.unwrap(), None);
    }
    f.store.activate_memory(&id, 2, at(31)).await.unwrap();
    assert_eq!(f.listed(&anna).await.len(), 2);
    assert_eq!(f.store.memory(&new[0].id).await.unwrap().as_ref(), Some(&new[0]));

    // An empty set is a set too.
    assert_eq!(f.again(&id, &[]).await, []);
    assert_eq!(f.get(&id).await.memory, Progress::Empty);
    assert_eq!(f.listed(&anna).await, ["a fact from elsewhere"]);
    f.store.activate_memory(&id, 2, at(32)).await.unwrap();
    assert_eq!(f.get(&id).await.memory, Progress::Completed);
    assert_eq!(f.listed(&anna).await.len(), 2);
}

pub(crate) async fn what_a_set_did_to_other_memories_is_undone_with_it<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let base = f.remember(&anna, &[add("fact: lives in Bern", 1), add("fact: has a car", 2)]).await;
    let gone = MemoryChange::Delete { id: base[1].id.clone() };
    let changed = f.remember(&anna, &[update(&base[0], "fact: lives in Basel", 3), gone]).await;
    let id = changed[0].conversation_id.clone().unwrap();
    assert_eq!(f.listed(&anna).await, ["fact: lives in Basel"]);
    let before = f.store.replaced_memories(&id).await.unwrap();
    assert_eq!(
        before.iter().map(|m| &m.text).collect::<Vec<_>>(),
        ["fact: lives in Bern", "fact: has a car"]
    );

    // A second look finds neither.
    f.again(&id, &[add("fact: likes tea", 9)]).await;
    let mut listed = f.listed(&anna).await;
    listed.sort();
    assert_eq!(listed, ["fact: has a car", "fact: likes tea", "fact: lives in Bern"]);
    assert_eq!(f.store.memory(&base[0].id).await.unwrap().as_ref(), Some(&base[0]));

    f.store.activate_memory(&id, 1, at(30)).await.unwrap();
    assert_eq!(f.listed(&anna).await, ["fact: lives in Basel"]);
    f.store.activate_memory(&id, 2, at(31)).await.unwrap();
    assert_eq!(f.listed(&anna).await.len(), 3);
}

pub(crate) async fn a_memory_changed_since_stays_as_it_is<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let first = f.remember(&anna, &[add("fact: lives in Bern", 1)]).await.remove(0);
    let second = f.remember(&anna, &[update(&first, "fact: lives in Basel", 2)]).await.remove(0);
    let third = f.remember(&anna, &[update(&first, "fact: lives in Brig", 3)]).await.remove(0);
    let middle = second.conversation_id.unwrap();
    f.again(&middle, &[]).await;
    assert_eq!(f.listed(&anna).await, ["fact: lives in Brig"]);

    // With the last change undone too, the first memory is what is left.
    f.again(&third.conversation_id.unwrap(), &[]).await;
    assert_eq!(f.listed(&anna).await, ["fact: lives in Bern"]);
    assert_eq!(f.store.memory(&first.id).await.unwrap(), Some(first));
}

pub(crate) async fn a_forgotten_memory_does_not_come_back<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let first = f.remember(&anna, &[add("fact: a secret", 1)]).await.remove(0);
    let second = f.remember(&anna, &[update(&first, "fact: still a secret", 2)]).await.remove(0);
    assert!(f.store.delete_memory(&first.id, at(20)).await.unwrap());
    f.again(&second.conversation_id.unwrap(), &[]).await;
    assert_eq!(f.listed(&anna).await, Vec::<String>::new());
    assert_eq!(f.store.count(Rows::Shelved).await, 0);

    f.remember(&anna, &[add("fact one", 1), add("fact two", 2)]).await;
    assert_eq!(f.store.delete_memories(&anna.id, at(21)).await.unwrap(), 2);
    assert_eq!(f.listed(&anna).await, Vec::<String>::new());
}

pub(crate) async fn a_stale_lease_makes_no_set<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.remember(&anna, &[add("old fact", 1)]).await[0].conversation_id.clone().unwrap();
    f.store.reprocess_memory(&id, None, at(20)).await.unwrap();
    let old = f.claim(JobKind::Remember).await.unwrap();
    f.store.void_leases(false, at(21)).await.unwrap();
    let new = learned(&[add("new fact", 1)]);
    let stale = f.store.complete_memories(old.lease(), &id, &new, at(22)).await.unwrap_err();
    assert_eq!(stale.kind(), Kind::Conflict);
    assert_eq!(f.listed(&anna).await, ["old fact"]);
    let job = f.claim(JobKind::Remember).await.unwrap();
    f.store.fail_job(job.lease(), "no model", None, at(23)).await.unwrap();
    assert_eq!(f.get(&id).await.memory, Progress::Completed, "the old ones stand");
    assert_eq!(f.remembered(&id).await[1].1, Progress::Failed);
    f.store.retry_job(job.id, at(24)).await.unwrap();
    f.learn(&id, &[add("new fact", 1)]).await;
    assert_eq!(f.listed(&anna).await, ["new fact"]);
}

pub(crate) async fn the_shelf_follows_a_change_of_the_embedding_model<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.remember(&anna, &[add("old fact", 1)]).await[0].conversation_id.clone().unwrap();
    f.again(&id, &[add("new fact", 2)]).await;
    let texts = f.store.memory_texts().await.unwrap();
    assert_eq!(texts, ["new fact", "old fact"]);
    let vectors = texts.into_iter().map(|text| (text, vec![1.0, 0.0])).collect();
    f.store.replace_embeddings("other", 2, vectors).await.unwrap();
    f.store.activate_memory(&id, 1, at(30)).await.unwrap();
    let near = f.store.index().nearest(&anna.id, &[1.0, 0.0], 5).await.unwrap();
    assert_eq!(near.len(), 1);
}

pub(crate) async fn segments_are_corrected_by_their_place<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.spoken(&f.user("anna").await, ["one", "two"]).await;
    let edit = |index, edit: SegmentEdit| {
        let (store, id) = (&f.store, &id);
        async move { store.edit_segment(id, index, &edit).await.map_err(|e| e.kind()) }
    };
    let named = SegmentEdit { speaker: Some("Anna".into()), ..SegmentEdit::default() };
    assert_eq!(edit(1, named.clone()).await, Ok(true));
    assert_eq!(edit(1, named.clone()).await, Ok(false), "no change");
    assert_eq!(edit(2, named).await, Err(Kind::NotFound));
    let late = SegmentEdit { start: Some(9.0), ..SegmentEdit::default() };
    assert_eq!(edit(0, late).await, Err(Kind::BadInput));
    let windows = f.windows(&id).await;
    assert_eq!(windows[0].segments[0].speaker, None);
    assert_eq!(windows[1].segments[0].speaker.as_deref(), Some("Anna"));
    assert_eq!(windows[1].state, WindowState::Done);
}

pub(crate) async fn details_come_for_many_conversations_at_once<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let spoken = f.spoken(&anna, ["one", "two"]).await;
    let memory = f.remember(&anna, &[add("a fact", 1)]).await.remove(0);
    let taught = memory.conversation_id.clone().unwrap();
    f.store.add_speaker(&spoken, "Anna \"A\"").await.unwrap();
    f.store.add_speaker(&spoken, "Bert").await.unwrap();
    f.store.add_speaker(&spoken, "Anna \"A\"").await.unwrap();
    let none = f.store.add_speaker(&ConversationId::from_text("none"), "x").await.unwrap_err();
    assert_eq!(none.kind(), Kind::NotFound);

    let details = f.store.details(&[spoken.clone(), taught.clone()]).await.unwrap();
    let first = &details[&spoken];
    assert_eq!(first.windows, f.windows(&spoken).await);
    assert_eq!(first.speakers, ["Anna \"A\"", "Bert"]);
    assert_eq!(first.transcripts[0].engine.as_deref(), Some("test"));
    assert_eq!((first.memories.len(), first.crop.as_ref()), (0, None));
    let second = &details[&taught];
    assert_eq!(second.memories, from_ref(&memory));
    assert_eq!(second.memory_versions[0].model.as_deref(), Some("test-llm"));
    assert_eq!(second.summary.as_deref(), Some("A summary."));
    assert!(f.store.details(&[]).await.unwrap().is_empty());
}

pub(crate) async fn a_crop_is_kept_with_its_job<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.opened(&anna).await;
    f.close(&id, &[]).await;
    let finish = f.claim(JobKind::Finish).await.unwrap();
    let job = crate::domain::job::NewJob {
        kind: JobKind::Crop,
        payload: Payload::Conversation(id.clone()),
        lane: crate::domain::job::Lane::Backlog,
    };
    let settled = crate::domain::version::Settled {
        version: 1,
        transcription: Progress::Empty,
        memory: Progress::Skipped,
        next: vec![job],
    };
    f.store.finish_conversation(finish.lease(), &id, &settled, at(6)).await.unwrap();
    let job = f.claim(JobKind::Crop).await.unwrap();
    let crop = Crop {
        audio_path: Some("cropped.wav".into()),
        spans: vec![Span { start: 0, end: 24_000 }],
        at: at(9),
    };
    f.store.complete_crop(job.lease(), &id, &crop).await.unwrap();
    assert_eq!(f.store.crop(&id).await.unwrap(), Some(crop.clone()));
    let owner = f.store.conversation_by_crop("cropped.wav").await.unwrap().unwrap();
    assert_eq!(owner.id, id);
    assert_eq!(f.store.details(from_ref(&id)).await.unwrap()[&id].crop, Some(crop.clone()));
    let stale = f.store.complete_crop(job.lease(), &id, &crop).await.unwrap_err();
    assert_eq!(stale.kind(), Kind::Conflict);
}
