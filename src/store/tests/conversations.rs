use crate::base::error::Kind;
use crate::domain::conversation::{CloseReason, Progress, WindowState};
use crate::domain::ids::ConversationId;
use crate::domain::job::{JobKind, JobState, Lane, Lease, Payload};
use crate::domain::transcript::plain_text;
use crate::domain::version::Settled;
use crate::store::testing::{
    Fixture, Rows, Tested, at, conversation, segment, transcribed, window,
};

pub(crate) async fn a_conversation_comes_back_as_it_was_stored<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let mut new = conversation(&anna);
    new.title = Some("Morning".into());
    f.store.open_conversation(&new).await.unwrap();
    assert_eq!(f.get(&new.id).await, new);
    assert_eq!(f.store.conversation_by_audio(&new.audio_path).await.unwrap(), Some(new.clone()));
    assert_eq!(f.store.open_conversation(&new).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(f.store.open_conversations().await.unwrap(), vec![new]);
}

pub(crate) async fn lists_are_newest_first_and_of_one_user<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let (anna, bert) = (f.user("anna").await, f.user("bert").await);
    let mut ids = Vec::new();
    for (user, started) in [(&anna, 10), (&bert, 20), (&anna, 30)] {
        let mut new = conversation(user);
        new.started_at = at(started);
        f.store.open_conversation(&new).await.unwrap();
        ids.push(new.id);
    }
    let list = |user, limit| {
        let store = &f.store;
        async move {
            let found = store.conversations(user, limit).await.unwrap();
            found.into_iter().map(|c| c.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(list(None, 10).await, [ids[2].clone(), ids[1].clone(), ids[0].clone()]);
    assert_eq!(list(Some(&anna.id), 10).await, [ids[2].clone(), ids[0].clone()]);
    assert_eq!(list(Some(&anna.id), 1).await, [ids[2].clone()]);
}

pub(crate) async fn a_window_comes_with_its_job_and_only_once<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    f.add_window(&id, 0).await;
    f.add_window(&id, 1).await;

    let windows = f.windows(&id).await;
    assert_eq!(windows.iter().map(|w| w.seq).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(windows[1].spans, window(1).spans);
    assert_eq!(windows[1].state, WindowState::Waiting);
    assert_eq!(f.store.window(windows[1].id).await.unwrap().as_ref(), Some(&windows[1]));
    assert_eq!(f.store.job_counts().await.unwrap().ready, 2);
    assert_eq!(f.get(&id).await.samples, 32_000);

    let nowhere = ConversationId::from_text("none");
    let error = f.store.add_window(&nowhere, 1, &window(0), Lane::Live, at(2)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(f.store.job_counts().await.unwrap().ready, 2);
}

pub(crate) async fn closing_adds_the_tail_once_and_keeps_the_first_reason<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    f.close(&id, &[window(0), window(1)]).await;
    let closed = f.get(&id).await;
    assert_eq!(closed.close_reason, Some(CloseReason::AudioStop));
    assert_eq!((closed.ended_at, closed.samples), (Some(at(3)), 160_000));
    assert_eq!(f.windows(&id).await.len(), 2);

    f.store
        .close_conversation(&id, 999_999, &[window(5)], CloseReason::Sweep, at(50))
        .await
        .unwrap();
    assert_eq!(f.get(&id).await, closed);
    assert_eq!(f.windows(&id).await.len(), 2);
    assert!(f.claim(JobKind::Finish).await.is_none(), "windows wait still");

    let nowhere = ConversationId::from_text("none");
    let error = f.store.close_conversation(&nowhere, 0, &[], CloseReason::Sweep, at(3)).await;
    assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
}

pub(crate) async fn a_conversation_without_speech_is_settled_at_its_close<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[]).await;
    let job = f.claim(JobKind::Finish).await.unwrap();
    assert_eq!(job.payload, Payload::Conversation(id));
    assert_eq!(job.lane, Lane::Live);
}

pub(crate) async fn the_tail_takes_the_lane_of_what_came_before<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let upload = f.opened(&anna).await;
    f.store.add_window(&upload, 1, &window(0), Lane::Backlog, at(2)).await.unwrap();
    f.close(&upload, &[window(1)]).await;
    let lost = f.opened(&anna).await;
    f.store.close_conversation(&lost, 1, &[window(0)], CloseReason::Sweep, at(3)).await.unwrap();
    while let Some(job) = f.claim(JobKind::Transcribe).await {
        assert_eq!(job.lane, Lane::Backlog, "{job:?}");
    }
}

pub(crate) async fn the_last_transcript_of_a_closed_conversation_makes_the_finish_job<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    f.transcribe("hello").await;
    assert!(f.claim(JobKind::Finish).await.is_none(), "still open");

    f.close(&id, &[window(1), window(2)]).await;
    f.transcribe("there").await;
    assert!(f.claim(JobKind::Finish).await.is_none(), "one window waits");
    f.transcribe("friend").await;

    let windows = f.windows(&id).await;
    assert!(windows.iter().all(|w| w.state == WindowState::Done));
    assert_eq!(windows[0].engine.as_deref(), Some("test"));
    assert_eq!(windows[0].segments, [segment("hello")]);
    let all: Vec<_> = windows.iter().flat_map(|w| w.segments.clone()).collect();
    assert_eq!(plain_text(&all), "hello there friend");

    assert_eq!(f.finish().await, id);
    let done = f.get(&id).await;
    assert_eq!((done.transcription, done.memory), (Progress::Completed, Progress::Pending));
    assert!(f.claim(JobKind::Remember).await.is_some());
}

pub(crate) async fn a_stale_lease_changes_nothing<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    f.add_window(&id, 1).await;
    let old = f.claim(JobKind::Transcribe).await.unwrap();
    let Payload::Window(first) = old.payload else { panic!("{old:?}") };
    let complete = |lease: Lease, window| {
        let store = &f.store;
        async move {
            let result = store.complete_windows(&[transcribed(lease, window, "x")], at(9)).await;
            result.map_err(|e| e.kind())
        }
    };

    let other = f.windows(&id).await[1].id;
    assert_eq!(complete(old.lease(), other).await, Err(Kind::Conflict), "another subject");

    f.store.void_leases(false, at(8)).await.unwrap();
    assert_eq!(complete(old.lease(), first).await, Err(Kind::Conflict), "taken back");

    let new = f.claim(JobKind::Transcribe).await.unwrap();
    assert_eq!(new.id, old.id);
    assert_eq!(complete(old.lease(), first).await, Err(Kind::Conflict), "claimed again");
    assert_eq!(f.windows(&id).await[0].state, WindowState::Waiting);

    assert_eq!(complete(new.lease(), first).await, Ok(()));
    assert_eq!(complete(new.lease(), first).await, Err(Kind::Conflict), "done already");
}

pub(crate) async fn a_transcript_after_the_finish_settles_the_conversation_again<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[window(0)]).await;
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    f.store.fail_job(job.lease(), "engine died", None, at(4)).await.unwrap();
    f.finish().await;
    assert_eq!(f.get(&id).await.error.as_deref(), Some("engine died"), "a window is missing");

    f.store.retry_job(job.id, at(10)).await.unwrap();
    assert_eq!(f.get(&id).await.transcription, Progress::Pending);
    f.transcribe("at last").await;
    assert_eq!(f.finish().await, id);
    let done = f.get(&id).await;
    assert_eq!((done.transcription, done.error), (Progress::Completed, None));
}

pub(crate) async fn a_finish_job_at_work_is_started_over_when_a_transcript_arrives<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[window(0)]).await;
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    f.store.fail_job(job.lease(), "engine died", None, at(4)).await.unwrap();

    let early = f.claim(JobKind::Finish).await.unwrap();
    f.store.retry_job(job.id, at(10)).await.unwrap();
    f.transcribe("at last").await;
    let settled = Settled {
        version: 1,
        transcription: Progress::Failed,
        memory: Progress::Skipped,
        next: vec![],
    };
    let stale = f.store.finish_conversation(early.lease(), &id, &settled, at(11)).await;
    assert_eq!(stale.unwrap_err().kind(), Kind::Conflict);
    let again = f.claim(JobKind::Finish).await.unwrap();
    assert_eq!((again.id, again.attempts), (early.id, 1));
}

pub(crate) async fn what_lost_its_job_is_queued_again<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let nothing = || async { f.store.requeue_lost(at(20)).await.unwrap() };
    assert_eq!(nothing().await, 0);

    let talking = f.opened(&anna).await;
    f.add_window(&talking, 0).await;
    let failed = f.opened(&anna).await;
    f.close(&failed, &[window(0)]).await;
    let closed = f.opened(&anna).await;
    f.close(&closed, &[]).await;
    assert_eq!(nothing().await, 0, "all have their jobs");

    let is_of = |job: &crate::domain::job::Job| job.payload.clone();
    let first = f.claim(JobKind::Transcribe).await.unwrap();
    assert_eq!(nothing().await, 0, "a lease is a live job");
    f.store.void_leases(true, at(20)).await.unwrap();

    // A failed window is not lost: it waits for a person.
    f.store.lose_jobs(JobKind::Transcribe).await;
    assert_eq!(f.store.requeue_lost(at(20)).await.unwrap(), 2);
    let again = f.claim(JobKind::Transcribe).await.unwrap();
    assert_eq!(is_of(&again), is_of(&first));
    let other = f.claim(JobKind::Transcribe).await.unwrap();
    f.store.fail_job(other.lease(), "bad", None, at(21)).await.unwrap();
    assert_eq!(nothing().await, 0);

    f.store.lose_jobs(JobKind::Finish).await;
    assert_eq!(f.store.requeue_lost(at(22)).await.unwrap(), 2, "failed and closed");
    f.finish().await;
    f.finish().await;
    assert_eq!(nothing().await, 0);

    f.store.lose_jobs(JobKind::Remember).await;
    assert_eq!(f.store.requeue_lost(at(23)).await.unwrap(), 2);
    assert!(f.claim(JobKind::Remember).await.is_some());
}

pub(crate) async fn finished_jobs_are_forgotten_after_a_week<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    f.transcribe("hello").await;
    f.store.requeue_lost(at(6 * 86_400)).await.unwrap();
    assert_eq!(f.jobs(JobKind::Transcribe, JobState::Done).await, 1);
    f.store.requeue_lost(at(8 * 86_400)).await.unwrap();
    assert_eq!(f.store.count(Rows::Jobs).await, 0);
    assert_eq!(f.windows(&id).await[0].segments, [segment("hello")]);
}
