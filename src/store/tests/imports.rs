use crate::domain::chat::{Chat, ChatRole};
use crate::domain::conversation::{CloseReason, Progress, Span, WindowState};
use crate::domain::ids::{ChatId, ConversationId, MemoryId, UserId};
use crate::domain::job::{JobKind, JobState};
use crate::domain::memory::IndexedMemory;
use crate::domain::past::{
    Arrived, Imported, PastConversation, PastMessage, PastSet, PastTranscript, PastWindow,
};
use crate::domain::user::User;
use crate::domain::version::Crop;
use crate::store::testing::{
    Fixture, Tested, WIDTH, at, conversation, segment, user, vector, window,
};

fn span(seq: u64) -> Span {
    Span { start: seq * 16_000, end: (seq + 1) * 16_000 }
}

fn transcript(active: bool, texts: &[&str]) -> PastTranscript {
    let windows = (0..).zip(texts).map(|(seq, text)| PastWindow {
        spans: vec![span(seq)],
        state: WindowState::Done,
        segments: vec![segment(text)],
    });
    PastTranscript {
        active,
        state: Progress::Completed,
        engine: Some("deepgram/nova-3".into()),
        created_at: at(4),
        windows: windows.collect(),
    }
}

/// A conversation of which everything is done.
fn past(user: &User) -> PastConversation {
    let mut conversation = conversation(user);
    conversation.ended_at = Some(at(3));
    conversation.close_reason = Some(CloseReason::Imported);
    conversation.samples = 32_000;
    (conversation.transcription, conversation.memory) = (Progress::Completed, Progress::Completed);
    conversation.title = Some("Lunch".into());
    PastConversation {
        transcripts: vec![transcript(false, &["early"]), transcript(true, &["one", "two"])],
        memories: Some(PastSet {
            state: Progress::Completed,
            model: Some("gpt-4o".into()),
            created_at: at(5),
        }),
        speakers: vec!["anna".into()],
        summary: Some("Tea.".into()),
        crop: Some(Crop {
            audio_path: Some(format!("cropped_{}.wav", conversation.id)),
            spans: vec![span(0)],
            at: at(6),
        }),
        conversation,
    }
}

fn memory(user: &UserId, text: &str, origin: Option<&ConversationId>) -> IndexedMemory {
    IndexedMemory {
        user_id: user.clone(),
        text: text.into(),
        vector: vector(3),
        conversation_id: origin.cloned(),
        created_at: at(5),
        updated_at: at(6),
    }
}

pub(crate) async fn a_user_who_comes_is_new_or_somebody_known<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, mut ben) = (f.user("anna").await, user("ben"));
    let arrived = f.store.import_user(&ben).await.unwrap();
    assert_eq!(arrived, Arrived { id: ben.id.clone(), new: true });
    assert_eq!(f.store.user(&ben.id).await.unwrap().unwrap(), ben);
    let mut other = user("other");
    other.email = "ANNA@example.com".into();
    let arrived = f.store.import_user(&other).await.unwrap();
    assert_eq!(arrived, Arrived { id: anna.id.clone(), new: false });
    assert_eq!(f.store.user(&anna.id).await.unwrap().unwrap(), anna, "she stays as she is");
    // Whatever becomes of them.
    ben.email = "ben@elsewhere.example".into();
    f.store.delete_user(&ben.id, Default::default(), None, at(9)).await.unwrap();
    assert!(!f.store.import_user(&ben).await.unwrap().new);
    assert_eq!(f.store.users().await.unwrap(), [anna]);
    assert_eq!(f.store.imported(Imported::User).await.unwrap().len(), 2);
}

pub(crate) async fn a_past_conversation_comes_whole_and_once<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let past = past(&anna);
    let id = past.conversation.id.clone();
    assert!(f.store.import_conversation(&past).await.unwrap());
    assert!(!f.store.import_conversation(&past).await.unwrap());
    assert_eq!(f.get(&id).await, past.conversation);
    let details = f.store.details(std::slice::from_ref(&id)).await.unwrap().remove(&id).unwrap();
    let said: Vec<_> = details.windows.iter().flat_map(|w| &w.segments).map(|s| &s.text).collect();
    assert_eq!(said, ["one", "two"]);
    assert_eq!(details.windows[0].engine.as_deref(), Some("deepgram/nova-3"));
    assert_eq!(details.transcripts.iter().map(|t| t.active).collect::<Vec<_>>(), [false, true]);
    assert_eq!(details.memory_versions[0].transcript_version, 2);
    assert_eq!((details.summary.as_deref(), details.speakers), (Some("Tea."), vec!["anna".into()]));
    assert_eq!(details.crop, past.crop);
    let day = f.store.coverage(None, at(0), at(100)).await.unwrap().remove(0);
    assert_eq!((day.coverage.accepted, day.coverage.transcribed), (32_000, 32_000));
    assert!(f.store.import_audio(&id, 32_000, &[]).await.unwrap());
    assert!(!f.store.import_audio(&id, 32_000, &[]).await.unwrap());
    assert_eq!(f.get(&id).await, past.conversation, "that is noted, and nothing else");
    // Nothing is left to do, and nothing contradicts anything.
    assert_eq!(f.store.requeue_lost(at(9)).await.unwrap(), 0);
    assert!(f.store.contradictions().await.unwrap().is_empty());

    f.store.delete_conversation(&id, false, None, at(9)).await.unwrap();
    assert!(!f.store.import_conversation(&past).await.unwrap(), "it stays deleted");
    assert_eq!(f.store.conversation(&id).await.unwrap(), None);

    // One that is there without having come is left as it is.
    let own = f.opened(&anna).await;
    let mut same = self::past(&anna);
    same.conversation.id = own.clone();
    assert!(!f.store.import_conversation(&same).await.unwrap());
    assert!(f.get(&own).await.is_open());
}

pub(crate) async fn what_a_past_conversation_waits_for_is_done_here<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let mut untold = past(&anna);
    untold.transcripts = vec![transcript(true, &["", ""])];
    untold.transcripts[0].state = Progress::Pending;
    for window in &mut untold.transcripts[0].windows {
        (window.state, window.segments) = (WindowState::Waiting, Vec::new());
    }
    (untold.memories, untold.crop) = (None, None);
    (untold.conversation.transcription, untold.conversation.memory) =
        (Progress::Pending, Progress::Pending);
    assert!(f.store.import_conversation(&untold).await.unwrap());
    let mut unlearned = past(&anna);
    unlearned.memories = Some(PastSet { state: Progress::Pending, model: None, created_at: at(5) });
    unlearned.conversation.memory = Progress::Pending;
    assert!(f.store.import_conversation(&unlearned).await.unwrap());
    assert_eq!(f.store.requeue_lost(at(9)).await.unwrap(), 3);
    assert_eq!(f.jobs(JobKind::Transcribe, JobState::Ready).await, 2);
    f.learn(&unlearned.conversation.id, &[]).await;
    f.transcribe("one").await;
    f.transcribe("two").await;
    assert_eq!(f.finish().await, untold.conversation.id);
    assert_eq!(f.get(&untold.conversation.id).await.transcription, Progress::Completed);
    assert!(f.store.contradictions().await.unwrap().is_empty());
}

pub(crate) async fn a_recording_that_was_left_comes_later<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let mut told = past(&anna);
    told.conversation.audio_deleted_at = Some(at(8));
    told.crop = None;
    let mut untold = told.clone();
    untold.conversation = past(&anna).conversation;
    untold.conversation.audio_deleted_at = Some(at(8));
    untold.conversation.transcription = Progress::Failed;
    untold.conversation.memory = Progress::Skipped;
    untold.conversation.error = Some("no recording".into());
    (untold.transcripts, untold.memories) = (vec![transcript(true, &[])], None);
    untold.transcripts[0].state = Progress::Failed;
    for past in [&told, &untold] {
        let id = &past.conversation.id;
        assert!(f.store.import_conversation(past).await.unwrap());
        assert!(f.store.import_audio(id, 48_000, &[window(0)]).await.unwrap());
        assert!(!f.store.import_audio(id, 48_000, &[window(0)]).await.unwrap());
        let there = f.get(id).await;
        assert!(there.has_audio());
        assert_eq!(there.samples, 48_000);
    }
    assert_eq!(f.windows(&told.conversation.id).await.len(), 2, "it has its transcript");
    let there = f.get(&untold.conversation.id).await;
    assert_eq!((there.transcription, there.memory), (Progress::Pending, Progress::Pending));
    assert_eq!(there.error, None);
    assert_eq!(f.store.requeue_lost(at(9)).await.unwrap(), 1);
    f.transcribe("late").await;
    assert_eq!(f.finish().await, untold.conversation.id);
    assert!(f.store.contradictions().await.unwrap().is_empty());

    // One that was deleted here stays deleted.
    f.store.delete_audio(&told.conversation.id, at(9)).await.unwrap();
    assert!(!f.store.import_audio(&told.conversation.id, 48_000, &[]).await.unwrap());
}

pub(crate) async fn memories_come_once_and_know_their_conversation<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, ben) = (f.user("anna").await, f.user("ben").await);
    let past = past(&anna);
    let origin = &past.conversation.id;
    f.store.import_conversation(&past).await.unwrap();
    f.store.bind_embedding("test-model", WIDTH).await.unwrap();
    let id = |name: &str| MemoryId::from_text(name);
    let found = [
        (id("a"), memory(&anna.id, "likes tea", Some(origin))),
        (id("b"), memory(&ben.id, "likes coffee", Some(origin))),
        (id("c"), memory(&UserId::from_text("nobody"), "likes nothing", None)),
    ];
    assert_eq!(f.store.import_memories(&found).await.unwrap(), [id("a"), id("b")]);
    assert!(f.store.import_memories(&found).await.unwrap().is_empty());
    let of = f.store.conversation_memories(origin).await.unwrap();
    assert_eq!(of.iter().map(|memory| &memory.id).collect::<Vec<_>>(), [&id("a")]);
    assert_eq!(of[0].client_id.as_ref(), Some(&past.conversation.client_id));
    assert_eq!((of[0].created_at, of[0].updated_at), (at(5), at(6)));
    let theirs = f.store.memory(&id("b")).await.unwrap().unwrap();
    assert_eq!(theirs.conversation_id, None, "it is not theirs");
    assert_eq!(f.store.search_text(&anna.id, "tea", 5).await.unwrap(), [id("a")]);
    assert!(f.store.delete_memory(&id("a"), at(9)).await.unwrap());
    assert!(f.store.import_memories(&found).await.unwrap().is_empty(), "it stays forgotten");
    assert!(f.store.contradictions().await.unwrap().is_empty());
    let mut wide = memory(&anna.id, "wide", None);
    wide.vector.push(0.0);
    assert!(f.store.import_memories(&[(id("d"), wide)]).await.is_err());
}

pub(crate) async fn a_chat_comes_once_and_grows<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let chat = Chat {
        id: ChatId::from_text("talk"),
        user_id: anna.id.clone(),
        title: "Tea".into(),
        created_at: at(1),
        updated_at: at(2),
        messages: 0,
    };
    let message = |id: &str, role| PastMessage {
        id: id.into(),
        role,
        content: format!("says {id}"),
        memories: vec![MemoryId::from_text("m")],
        at: at(2),
    };
    let said = [message("1", ChatRole::User), message("2", ChatRole::Assistant)];
    assert_eq!(f.store.import_chat(&chat, &said).await.unwrap(), ["1", "2"]);
    assert!(f.store.import_chat(&chat, &said).await.unwrap().is_empty());
    let more = message("3", ChatRole::User);
    let all = [said[0].clone(), said[1].clone(), more];
    assert_eq!(f.store.import_chat(&chat, &all).await.unwrap(), ["3"]);
    let there = f.store.chat(&chat.id).await.unwrap().unwrap();
    assert_eq!((there.messages, there.updated_at), (3, at(2)));
    let said = f.store.chat_messages(&chat.id, 9).await.unwrap();
    assert_eq!(
        said.iter().map(|m| m.content.as_str()).collect::<Vec<_>>(),
        ["says 1", "says 2", "says 3"]
    );
    assert_eq!(said[0].memories, [MemoryId::from_text("m")]);
    f.store.delete_chat(&chat.id).await.unwrap();
    assert!(f.store.import_chat(&chat, &all).await.unwrap().is_empty(), "it stays deleted");
    let orphan = Chat { user_id: UserId::from_text("nobody"), id: ChatId::from_text("x"), ..chat };
    assert!(f.store.import_chat(&orphan, &[]).await.is_err());
}
