use crate::base::error::Kind;
use crate::domain::conversation::{CloseReason, Conversation, Progress};
use crate::domain::ids::ClientId;
use crate::domain::job::{JobKind, Lane};
use crate::domain::upload::{Upload, UploadJob, UploadState};
use crate::domain::user::User;
use crate::store::testing::{Fixture, Tested, at, conversation, window};

/// A file of that content, to become `conversation`.
fn file(content: &str, conversation: &Conversation) -> Upload {
    Upload {
        filename: format!("{content}.wav"),
        bytes: 7,
        sha256: content.into(),
        spooled: Some(format!("abc{content}")),
        state: UploadState::Waiting,
        conversation_id: Some(conversation.id.clone()),
        duplicate: false,
        seconds: Some(1.5),
        note: None,
        error: None,
        started_at: None,
        ended_at: None,
    }
}

fn job(id: &str, user: &User, files: Vec<Upload>) -> UploadJob {
    let client_id = ClientId::for_device(&user.id, Some("upload"), 1);
    UploadJob { id: id.into(), user_id: user.id.clone(), client_id, created_at: at(1), files }
}

impl<S: Tested> Fixture<S> {
    /// Uploads one file of that content as `id`; what came of it.
    async fn upload(&self, id: &str, user: &User, content: &str, force: bool) -> Upload {
        let conversation = conversation(user);
        let job = job(id, user, vec![file(content, &conversation)]);
        self.store.add_uploads(&job, &[conversation], force).await.unwrap().files.remove(0)
    }
}

pub(crate) async fn a_file_waits_for_its_recording_and_is_closed_with_it<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let upload = f.upload("one", &anna, "a", false).await;
    let id = upload.conversation_id.clone().unwrap();
    assert_eq!(f.store.spooled_uploads().await.unwrap(), ["abca"]);
    // The sweep must not close it meanwhile.
    assert!(f.store.open_conversations().await.unwrap().is_empty());

    // An attempt that did not get far.
    let lost = f.claim(JobKind::Import).await.unwrap();
    assert!(f.store.begin_upload(&id, at(2)).await.unwrap().is_some());
    f.store.add_window(&id, 16_000, &window(0), Lane::Backlog, at(2)).await.unwrap();
    f.store.void_leases(false, at(3)).await.unwrap();
    let import = f.claim(JobKind::Import).await.unwrap();
    let begun = f.store.begin_upload(&id, at(3)).await.unwrap().unwrap();
    assert_eq!((begun.started_at, begun.state), (Some(at(2)), UploadState::Waiting));
    assert!(f.windows(&id).await.is_empty());
    assert!(f.claim(JobKind::Transcribe).await.is_none(), "gone with its window");

    f.store.add_window(&id, 16_000, &window(0), Lane::Backlog, at(4)).await.unwrap();
    let stale = f.store.complete_upload(lost.lease(), &id, 1, None, at(4)).await;
    assert_eq!(stale.unwrap_err().kind(), Kind::Conflict);
    f.store.complete_upload(import.lease(), &id, 24_000, Some("cut"), at(5)).await.unwrap();
    let closed = f.get(&id).await;
    assert_eq!((closed.samples, closed.ended_at), (24_000, Some(at(5))));
    assert_eq!(closed.close_reason, Some(CloseReason::EndOfFile));
    let kept = f.store.upload_job("one").await.unwrap().unwrap().files.remove(0);
    assert_eq!(
        (kept.state, kept.spooled, kept.note),
        (UploadState::Recorded, None, Some("cut".into()))
    );
    assert!(f.store.spooled_uploads().await.unwrap().is_empty());
    assert!(f.store.begin_upload(&id, at(6)).await.unwrap().is_none());
    f.transcribe("hello").await;
    assert_eq!(f.finish().await, id);
}

pub(crate) async fn the_same_bytes_of_one_user_are_one_conversation<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, ben) = (f.user("anna").await, f.user("ben").await);
    let first = f.upload("one", &anna, "a", false).await;
    let again = f.upload("two", &anna, "a", false).await;
    assert!(again.duplicate && again.spooled.is_none(), "{again:?}");
    assert_eq!(again.conversation_id, first.conversation_id);
    assert_eq!(again.state, UploadState::Recorded);
    for (id, user, content, force) in
        [("three", &anna, "b", false), ("four", &anna, "a", true), ("five", &ben, "a", false)]
    {
        let other = f.upload(id, user, content, force).await;
        assert!(!other.duplicate, "{id}");
        assert_ne!(other.conversation_id, first.conversation_id, "{id}");
    }
    // Twice in one request, too.
    let (one, two) = (conversation(&ben), conversation(&ben));
    let both = job("six", &ben, vec![file("c", &one), file("c", &two)]);
    let both = f.store.add_uploads(&both, &[one, two], false).await.unwrap();
    assert_eq!(both.files[1].conversation_id, both.files[0].conversation_id);
    let all: Vec<String> =
        f.store.upload_jobs(Some(&anna.id), 9).await.unwrap().into_iter().map(|j| j.id).collect();
    assert_eq!(all, ["four", "three", "two", "one"]);
    assert_eq!(f.store.upload_jobs(None, 2).await.unwrap().len(), 2);
}

pub(crate) async fn a_file_that_is_given_up_can_be_tried_again<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let upload = f.upload("one", &f.user("anna").await, "a", false).await;
    let id = upload.conversation_id.unwrap();
    let import = f.claim(JobKind::Import).await.unwrap();
    f.store.begin_upload(&id, at(2)).await.unwrap();
    f.store.fail_job(import.lease(), "disk on fire", None, at(3)).await.unwrap();
    let failed = f.store.upload_job("one").await.unwrap().unwrap().files.remove(0);
    assert_eq!((failed.state, failed.error), (UploadState::Failed, Some("disk on fire".into())));
    let conversation = f.get(&id).await;
    assert_eq!(conversation.transcription, Progress::Failed);
    assert!(!conversation.is_open());
    assert_eq!(f.store.spooled_uploads().await.unwrap().len(), 1, "kept for the retry");

    f.store.retry_job(import.id, at(4)).await.unwrap();
    let import = f.claim(JobKind::Import).await.unwrap();
    assert!(f.get(&id).await.is_open());
    f.store.begin_upload(&id, at(5)).await.unwrap().unwrap();
    f.store.complete_upload(import.lease(), &id, 160, None, at(6)).await.unwrap();
    assert_eq!(f.get(&id).await.ended_at, Some(at(6)));
    assert_eq!(f.store.requeue_lost(at(7)).await.unwrap(), 0);
}

pub(crate) async fn a_file_whose_job_was_lost_gets_another<S: Tested>() {
    let f = Fixture::<S>::open().await;
    f.upload("one", &f.user("anna").await, "a", false).await;
    f.store.lose_jobs(JobKind::Import).await;
    assert_eq!(f.store.requeue_lost(at(7)).await.unwrap(), 1);
    assert!(f.claim(JobKind::Import).await.is_some());
}
