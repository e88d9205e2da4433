use crate::base::error::Kind;
use crate::domain::conversation::{Conversation, Progress};
use crate::domain::ids::ConversationId;
use crate::domain::job::JobKind;
use crate::domain::memory::MemoryChange;
use crate::store::testing::{Fixture, Rows, Tested, add, at, conversation, vector, window};
use crate::store::{UserData, UserUpdate};

const ALL: UserData = UserData { conversations: true, memories: true };

impl<S: Tested> Fixture<S> {
    /// Rows of everything that belongs to conversations and memories.
    async fn rows(&self) -> [u64; 7] {
        [
            self.store.count(Rows::Conversations).await,
            self.store.count(Rows::Windows).await,
            self.store.count(Rows::Jobs).await,
            self.store.count(Rows::Memories).await,
            self.store.count(Rows::Tea).await,
            self.store.count(Rows::Vectors).await,
            self.store.count(Rows::History).await,
        ]
    }

    async fn actions(&self) -> String {
        self.store.actions().await.join(" ")
    }

    async fn closed(&self, user: &crate::domain::user::User) -> ConversationId {
        let id = self.opened(user).await;
        self.add_window(&id, 0).await;
        self.close(&id, &[window(1)]).await;
        id
    }
}

pub(crate) async fn a_conversation_goes_with_all_that_hangs_on_it<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    f.remember(&anna, &[add("Anna likes tea", 1)]).await;
    let kept = f.rows().await;
    let learned = f.remember(&anna, &[add("Anna has tea at five", 2)]).await;
    let id = learned[0].conversation_id.clone().unwrap();
    let path = f.get(&id).await.audio_path;

    let deleted = f.store.delete_conversation(&id, true, Some(&anna.id), at(9)).await.unwrap();
    assert_eq!((deleted.conversations, deleted.memories), (1, 1));
    assert_eq!(deleted.files, std::slice::from_ref(&path));
    assert_eq!(f.rows().await, kept);
    assert_eq!(f.store.deletions().await.unwrap(), std::slice::from_ref(&path));
    assert_eq!(f.actions().await, "conversation-deleted");

    let again = f.store.delete_conversation(&id, true, None, at(9)).await;
    assert_eq!(again.unwrap_err().kind(), Kind::NotFound);
    f.store.strike_deletions(&[path]).await.unwrap();
    assert!(f.store.deletions().await.unwrap().is_empty());
}

pub(crate) async fn memories_that_are_to_stay_lose_only_their_origin<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let learned = f.remember(&anna, &[add("Anna likes tea", 1)]).await;
    let id = learned[0].conversation_id.clone().unwrap();
    let deleted = f.store.delete_conversation(&id, false, None, at(9)).await.unwrap();
    assert_eq!(deleted.memories, 0);
    let memory = f.store.memory(&learned[0].id).await.unwrap().unwrap();
    assert_eq!((memory.text.as_str(), memory.conversation_id), ("Anna likes tea", None));
    assert_eq!(f.store.search_text(&anna.id, "tea", 5).await.unwrap(), [memory.id]);
}

pub(crate) async fn an_open_conversation_is_not_deleted<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.opened(&anna).await;
    for error in [
        f.store.delete_conversation(&id, true, None, at(9)).await.unwrap_err(),
        f.store.delete_user(&anna.id, ALL, None, at(9)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.message().contains("still being recorded"), "{}", error.message());
    }
    f.get(&id).await;
    assert!(f.store.deletions().await.unwrap().is_empty());
}

pub(crate) async fn the_job_at_hand_of_a_deleted_conversation_is_void<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.closed(&anna).await;
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    f.store.delete_conversation(&id, true, None, at(9)).await.unwrap();
    let failed = f.store.fail_job(job.lease(), "too late", None, at(10)).await;
    assert_eq!(failed.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(f.claim(JobKind::Transcribe).await, None);
    assert_eq!(f.store.requeue_lost(at(11)).await.unwrap(), 0);
}

pub(crate) async fn a_user_goes_with_the_data_that_was_named_or_not_at_all<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, bert) = (f.user("anna").await, f.user("bert").await);
    f.remember(&bert, &[add("Bert likes tea", 1)]).await;
    let kept = f.rows().await;
    f.remember(&anna, &[add("Anna likes tea", 2), add("Anna has a dog", 3)]).await;
    f.closed(&anna).await;
    let forgotten = f.remember(&anna, &[add("Anna has a cat", 4)]).await;
    f.store.delete_memory(&forgotten[0].id, at(8)).await.unwrap();
    let before = f.rows().await;

    for data in [
        UserData::default(),
        UserData { conversations: true, memories: false },
        UserData { conversations: false, memories: true },
    ] {
        let error = f.store.delete_user(&anna.id, data, None, at(9)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{data:?}");
        assert_eq!(f.rows().await, before, "{data:?}");
        assert!(f.store.deletions().await.unwrap().is_empty());
    }
    let deleted = f.store.delete_user(&anna.id, ALL, Some(&bert.id), at(9)).await.unwrap();
    assert_eq!((deleted.conversations, deleted.memories, deleted.files.len()), (3, 2, 3));
    assert_eq!(f.store.deletions().await.unwrap().len(), 3);
    assert_eq!(f.rows().await, kept);
    assert_eq!(f.store.users().await.unwrap().len(), 1);
    assert_eq!(f.actions().await, "user-removed");
}

pub(crate) async fn what_a_deleted_conversation_had_replaced_comes_back<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let old = f.remember(&anna, &[add("Anna drinks tea", 1)]).await.remove(0);
    let change = MemoryChange::Update {
        id: old.id.clone(),
        text: "Anna drinks coffee, not tea".into(),
        vector: vector(2),
    };
    let new = f.remember(&anna, &[change]).await.remove(0);
    let id = new.conversation_id.unwrap();
    let deleted = f.store.delete_conversation(&id, true, None, at(9)).await.unwrap();
    assert_eq!(deleted.memories, 1);
    let back = f.store.memory(&old.id).await.unwrap().unwrap();
    assert_eq!((back.text, back.conversation_id), (old.text, old.conversation_id));
    assert_eq!(f.rows().await[3..6], [1, 1, 1]);
    assert_eq!(f.store.count(Rows::Shelved).await, 0);
}

pub(crate) async fn audio_goes_only_once_it_is_transcribed<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.closed(&anna).await;
    let early = f.store.delete_audio(&id, at(4)).await.unwrap_err();
    assert_eq!(early.kind(), Kind::Conflict);
    assert!(f.store.deletions().await.unwrap().is_empty());
    assert!(f.store.transcribed_audio(None, false, 9).await.unwrap().is_empty());

    f.transcribe("one").await;
    f.transcribe("two").await;
    f.finish().await;
    let ids = |found: Vec<Conversation>| found.into_iter().map(|c| c.id).collect::<Vec<_>>();
    assert_eq!(
        ids(f.store.transcribed_audio(None, false, 9).await.unwrap()),
        std::slice::from_ref(&id)
    );
    assert!(f.store.transcribed_audio(Some(at(1)), false, 9).await.unwrap().is_empty());

    let path = f.get(&id).await.audio_path;
    assert_eq!(f.store.delete_audio(&id, at(9)).await.unwrap(), std::slice::from_ref(&path));
    assert_eq!(f.store.deletions().await.unwrap(), [path]);
    let row = f.get(&id).await;
    assert_eq!((row.audio_deleted_at, row.transcription), (Some(at(9)), Progress::Completed));
    assert_eq!(f.windows(&id).await[1].segments[0].text, "two");
    assert!(f.store.delete_audio(&id, at(9)).await.unwrap().is_empty());
    assert!(f.store.transcribed_audio(None, false, 9).await.unwrap().is_empty());
    // The row can go later, when there is no file left to note.
    let deleted = f.store.delete_conversation(&id, true, None, at(10)).await.unwrap();
    assert!(deleted.files.is_empty());
}

pub(crate) async fn a_recording_that_is_to_go_is_never_adopted<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.closed(&anna).await;
    let row = f.get(&id).await;
    f.store.delete_conversation(&id, true, None, at(9)).await.unwrap();
    assert!(!f.store.adopt_conversation(&row).await.unwrap());
    assert!(f.store.conversation(&id).await.unwrap().is_none());
    assert!(f.store.adopt_conversation(&conversation(&anna)).await.unwrap());
}

pub(crate) async fn somebody_who_may_not_log_in_begins_no_conversation<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let out = UserUpdate { is_active: Some(false), ..UserUpdate::default() };
    f.store.update_user(&anna.id, out).await.unwrap();
    let refused = f.store.open_conversation(&conversation(&anna)).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Forbidden);
    // What was recorded before is not lost for that.
    assert!(f.store.adopt_conversation(&conversation(&anna)).await.unwrap());
}
