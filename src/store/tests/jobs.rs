use std::collections::HashSet;

use crate::base::error::Kind;
use crate::domain::conversation::{Progress, Window, WindowState};
use crate::domain::job::{Backlog, Job, JobCounts, JobKind, JobState, Lane, Payload};
use crate::store::testing::{Fixture, Tested, at, transcribed, window};

pub(crate) async fn lanes_go_before_age<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    for (seq, lane) in [
        (0, Lane::Backlog),
        (1, Lane::Live),
        (2, Lane::Interactive),
        (3, Lane::Live),
        (4, Lane::Interactive),
    ] {
        f.store.add_window(&id, 1, &window(seq), lane, at(2)).await.unwrap();
    }
    let windows = f.windows(&id).await;
    let mut order = Vec::new();
    while let Some(job) = f.claim(JobKind::Transcribe).await {
        let window = windows.iter().find(|w| job.payload == Payload::Window(w.id)).unwrap();
        order.push(window.seq);
    }
    assert_eq!(order, [2, 4, 1, 3, 0]);
}

pub(crate) async fn a_claim_is_counted_and_only_for_what_is_due<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    let claim = |kinds: &'static [JobKind], seconds| {
        f.store.claim_job(kinds, Lane::Backlog, "me", at(seconds))
    };

    assert_eq!(f.store.next_due(&[JobKind::Transcribe], Lane::Backlog).await.unwrap(), Some(at(2)));
    assert!(claim(&[JobKind::Transcribe], 1).await.unwrap().is_none(), "not due");
    assert!(claim(&[JobKind::Finish, JobKind::Remember], 9).await.unwrap().is_none());
    assert!(claim(&[], 9).await.unwrap().is_none());
    let job = claim(&[JobKind::Finish, JobKind::Transcribe], 9).await.unwrap().unwrap();
    assert_eq!((job.attempts, job.epoch, job.state), (1, 1, JobState::Leased));
    assert_eq!((job.created_at, job.updated_at), (at(2), at(9)));
    assert_eq!(f.store.next_due(&[JobKind::Transcribe], Lane::Backlog).await.unwrap(), None);

    f.store.fail_job(job.lease(), "away", Some(at(60)), at(10)).await.unwrap();
    assert_eq!(
        f.store.next_due(&[JobKind::Transcribe], Lane::Backlog).await.unwrap(),
        Some(at(60))
    );
    assert_eq!(f.store.next_due(&[JobKind::Finish], Lane::Backlog).await.unwrap(), None);
    assert!(claim(&[JobKind::Transcribe], 59).await.unwrap().is_none());
    let again = claim(&[JobKind::Transcribe], 60).await.unwrap().unwrap();
    assert_eq!((again.id, again.attempts, again.epoch), (job.id, 2, 2));
    assert_eq!(again.last_error.as_deref(), Some("away"));

    let late = f.store.fail_job(job.lease(), "late", None, at(61)).await;
    assert_eq!(late.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(f.windows(&id).await[0].state, WindowState::Waiting);
}

pub(crate) async fn while_work_is_put_off_only_what_somebody_waits_for_is_given_out<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    for (seq, lane) in [(0, Lane::Live), (1, Lane::Interactive), (2, Lane::Backlog)] {
        f.store.add_window(&id, 1, &window(seq), lane, at(2)).await.unwrap();
    }
    assert_eq!(f.store.backlog().await.unwrap(), Backlog { windows: 3, samples: 48_000 });
    let kinds = [JobKind::Transcribe];
    let due = f.store.next_due(&kinds, Lane::Interactive).await.unwrap();
    assert_eq!(due, Some(at(2)));
    let job = f.store.claim_job(&kinds, Lane::Interactive, "me", at(3)).await.unwrap().unwrap();
    assert_eq!(job.lane, Lane::Interactive);
    assert_eq!(f.store.next_due(&kinds, Lane::Interactive).await.unwrap(), None);
    assert!(f.store.claim_job(&kinds, Lane::Interactive, "me", at(3)).await.unwrap().is_none());
    f.transcribe("the live one").await;
    assert_eq!(f.store.backlog().await.unwrap(), Backlog { windows: 2, samples: 32_000 });
}

pub(crate) async fn a_clock_that_is_set_back_strands_no_job<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    // Failed in a year that never was; then the time is set right.
    let year = 365 * 24 * 3600;
    f.store.fail_job(job.lease(), "away", Some(at(year)), at(year - 5)).await.unwrap();
    let claim = || f.store.claim_job(&[JobKind::Transcribe], Lane::Backlog, "me", at(10));
    assert!(claim().await.unwrap().is_none());
    assert_eq!(f.store.requeue_lost(at(10)).await.unwrap(), 1);
    let again = claim().await.unwrap().unwrap();
    assert_eq!((again.id, again.attempts), (job.id, 2));
    // An ordinary pause is left alone.
    f.store.fail_job(again.lease(), "away", Some(at(600)), at(11)).await.unwrap();
    assert_eq!(f.store.requeue_lost(at(12)).await.unwrap(), 0);
    assert!(claim().await.unwrap().is_none());
}

pub(crate) async fn a_worker_that_starts_anew_puts_back_its_own_jobs_alone<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[window(0), window(1)]).await;
    let claim = |owner: &'static str| {
        f.store.claim_job(&[JobKind::Transcribe], Lane::Backlog, owner, at(9))
    };
    let (mine, theirs) =
        (claim("me").await.unwrap().unwrap(), claim("they").await.unwrap().unwrap());
    assert_eq!(f.store.take_back("me", at(10)).await.unwrap(), 1);
    assert_eq!(f.store.take_back("me", at(10)).await.unwrap(), 0);
    let stale = f.store.fail_job(mine.lease(), "late", None, at(11)).await;
    assert_eq!(stale.unwrap_err().kind(), Kind::Conflict);
    let again = claim("me").await.unwrap().unwrap();
    assert_eq!((again.id, again.epoch), (mine.id, mine.epoch + 1));
    f.store.fail_job(theirs.lease(), "theirs still", Some(at(20)), at(12)).await.unwrap();
}

pub(crate) async fn a_dead_window_is_failed_and_the_conversation_goes_on<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[window(0), window(1)]).await;
    f.transcribe("fine").await;
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    f.store.fail_job(job.lease(), "cannot decode", None, at(5)).await.unwrap();

    assert_eq!(f.windows(&id).await[1].state, WindowState::Failed);
    assert_eq!(f.get(&id).await.error.as_deref(), Some("cannot decode"));
    let dead = f.store.dead_jobs(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].id, dead[0].last_error.as_deref()), (job.id, Some("cannot decode")));
    assert_eq!(f.store.job_counts().await.unwrap(), JobCounts { ready: 1, leased: 0, dead: 1 });
    assert_eq!(f.finish().await, id);
}

pub(crate) async fn a_postponed_job_has_lost_no_attempt<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    let claim =
        |seconds| f.store.claim_job(&[JobKind::Transcribe], Lane::Backlog, "me", at(seconds));
    let job = claim(9).await.unwrap().unwrap();
    f.store.postpone_job(job.lease(), "away", at(60), at(10)).await.unwrap();
    let late = f.store.postpone_job(job.lease(), "away", at(60), at(10)).await;
    assert_eq!(late.unwrap_err().kind(), Kind::Conflict);
    assert!(claim(59).await.unwrap().is_none());
    let again = claim(60).await.unwrap().unwrap();
    assert_eq!((again.id, again.attempts, again.epoch), (job.id, 1, 2));
    assert_eq!(again.last_error.as_deref(), Some("away"));
}

pub(crate) async fn dead_steps_mark_their_conversation_and_a_retry_unmarks_it<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[]).await;

    let finish = f.claim(JobKind::Finish).await.unwrap();
    f.store.fail_job(finish.lease(), "first", None, at(5)).await.unwrap();
    let failed = f.get(&id).await;
    assert_eq!((failed.transcription, failed.error.as_deref()), (Progress::Failed, Some("first")));
    assert_eq!(f.store.requeue_lost(at(6)).await.unwrap(), 0);
    f.store.retry_job(finish.id, at(6)).await.unwrap();
    assert_eq!(f.get(&id).await.transcription, Progress::Pending);
    f.finish().await;
    assert_eq!(f.get(&id).await.error, None);

    let remember = f.claim(JobKind::Remember).await.unwrap();
    f.store.fail_job(remember.lease(), "second", None, at(7)).await.unwrap();
    let failed = f.get(&id).await;
    assert_eq!((failed.memory, failed.error.as_deref()), (Progress::Failed, Some("second")));
    assert_eq!(failed.transcription, Progress::Completed);
    f.store.retry_job(remember.id, at(8)).await.unwrap();
    assert_eq!(f.get(&id).await.memory, Progress::Pending);

    let again = f.claim(JobKind::Remember).await.unwrap();
    assert_eq!((again.id, again.attempts), (remember.id, 1));
    assert_eq!(f.store.retry_job(remember.id, at(9)).await.unwrap_err().kind(), Kind::NotFound);
}

pub(crate) async fn a_window_that_is_tried_again_waits_again<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[window(0)]).await;
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    f.store.fail_job(job.lease(), "bad", None, at(5)).await.unwrap();
    f.store.retry_job(job.id, at(6)).await.unwrap();
    assert_eq!(f.windows(&id).await[0].state, WindowState::Waiting);
    assert_eq!(f.get(&id).await.transcription, Progress::Pending);
    assert_eq!(f.store.job_counts().await.unwrap().dead, 0);
}

pub(crate) async fn dead_work_that_is_queued_again_is_not_queued_twice<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[window(0)]).await;
    f.transcribe("hello").await;
    let finish = f.claim(JobKind::Finish).await.unwrap();
    f.store.fail_job(finish.lease(), "x", None, at(5)).await.unwrap();
    f.store.unsettle_transcripts().await;
    assert_eq!(f.store.requeue_lost(at(6)).await.unwrap(), 1);
    assert_eq!(f.store.retry_job(finish.id, at(7)).await.unwrap_err().kind(), Kind::Conflict);
}

pub(crate) async fn voiding_leases_can_take_the_attempt_back<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.add_window(&id, 0).await;
    f.claim(JobKind::Transcribe).await.unwrap();
    assert_eq!(f.store.void_leases(true, at(5)).await.unwrap(), 1);
    assert_eq!(f.store.void_leases(true, at(5)).await.unwrap(), 0);
    assert_eq!(f.claim(JobKind::Transcribe).await.unwrap().attempts, 1);

    // A crash counts: the attempt was written before the job was given out.
    let f = f.reopened().await;
    assert_eq!(f.store.job_counts().await.unwrap().leased, 1);
    assert_eq!(f.store.void_leases(false, at(6)).await.unwrap(), 1);
    let job = f.claim(JobKind::Transcribe).await.unwrap();
    assert_eq!((job.attempts, job.epoch), (2, 3));
}

pub(crate) async fn two_workers_never_get_the_same_job<S: Tested>() {
    const JOBS: u32 = 60;
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    let windows: Vec<_> = (0..JOBS).map(window).collect();
    f.close(&id, &windows).await;

    let mut workers = Vec::new();
    for name in ["one", "two"] {
        let store = f.store.clone();
        workers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            while let Some(job) =
                store.claim_job(&[JobKind::Transcribe], Lane::Backlog, name, at(9)).await.unwrap()
            {
                mine.push(job.id);
            }
            mine
        }));
    }
    let mut claimed = Vec::new();
    for worker in workers {
        claimed.extend(worker.await.unwrap());
    }
    assert_eq!(claimed.len(), JOBS as usize);
    assert_eq!(claimed.iter().collect::<HashSet<_>>().len(), JOBS as usize);
}

pub(crate) async fn what_is_held_waits_for_the_close<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let id = f.opened(&anna).await;
    for seq in 0..3 {
        f.store.add_window(&id, 1, &window(seq), Lane::Held, at(2)).await.unwrap();
    }
    let kinds = [JobKind::Transcribe];
    assert!(f.claim(JobKind::Transcribe).await.is_none());
    assert_eq!(f.store.next_due(&kinds, Lane::Backlog).await.unwrap(), None);
    // Unless nobody is there for whom it is held.
    let served = f.store.claim_job(&kinds, Lane::Held, "me", at(9)).await.unwrap().unwrap();
    assert_eq!((served.lane, served.state), (Lane::Held, JobState::Leased));
    let put_off = f.store.claim_job(&kinds, Lane::Held, "me", at(9)).await.unwrap().unwrap();
    f.store.fail_job(put_off.lease(), "away", Some(at(60)), at(10)).await.unwrap();
    // Of another conversation, which goes on.
    let other = f.opened(&anna).await;
    f.store.add_window(&other, 1, &window(0), Lane::Held, at(2)).await.unwrap();

    f.close(&id, &[window(3)]).await;
    let jobs = f.store.conversation_jobs(&id).await.unwrap();
    assert!(jobs.iter().all(|job| job.lane == Lane::Live), "{jobs:?}");
    let mut claimed = 0;
    while let Some(job) = f.claim(JobKind::Transcribe).await {
        assert!(jobs.iter().any(|one| one.id == job.id), "{job:?}");
        claimed += 1;
    }
    assert_eq!(claimed, 3);
}

pub(crate) async fn windows_of_a_closed_conversation_are_claimed_together<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let anna = f.user("anna").await;
    let open = f.opened(&anna).await;
    f.add_window(&open, 0).await;
    f.add_window(&open, 1).await;
    let claim = async |seconds| {
        let kinds = [JobKind::Transcribe];
        f.store.claim_together(&kinds, Lane::Backlog, "me", at(seconds)).await.unwrap()
    };
    // Nothing is claimed with a window of a conversation that goes on.
    assert_eq!((claim(9).await.len(), claim(9).await.len(), claim(9).await.len()), (1, 1, 0));

    let id = f.opened(&anna).await;
    f.close(&id, &[window(0), window(1), window(2)]).await;
    // The second is not due.
    let first = f.claim(JobKind::Transcribe).await.unwrap();
    let second = f.claim(JobKind::Transcribe).await.unwrap();
    f.store.postpone_job(first.lease(), "away", at(9), at(9)).await.unwrap();
    f.store.fail_job(second.lease(), "away", Some(at(2_000_000)), at(9)).await.unwrap();
    let mut shares = Vec::new();
    for _ in 0..3 {
        let mut round = Vec::new();
        loop {
            let jobs = claim(20).await;
            if jobs.is_empty() {
                break;
            }
            assert!(jobs.iter().all(|job| job.state == JobState::Leased), "{jobs:?}");
            let ids: HashSet<_> = jobs.iter().map(|job| job.id).collect();
            assert_eq!(ids.len(), jobs.len());
            round.push(jobs);
        }
        for job in round.iter().flatten() {
            f.store.fail_job(job.lease(), "no", Some(at(20)), at(20)).await.unwrap();
        }
        shares.push(round.iter().map(Vec::len).collect::<Vec<_>>());
    }
    // What was tried twice comes by itself: the second first.
    assert_eq!(shares, [vec![3], vec![2, 1], vec![1, 1, 1]]);
}

pub(crate) async fn results_that_belong_together_are_kept_together<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let id = f.opened(&f.user("anna").await).await;
    f.close(&id, &[window(0), window(1)]).await;
    let claim = || f.store.claim_together(&[JobKind::Transcribe], Lane::Backlog, "me", at(9));
    let of = |job: &Job, text| {
        let Payload::Window(window) = job.payload else { panic!("{job:?}") };
        transcribed(job.lease(), window, text)
    };
    let jobs = claim().await.unwrap();
    let results = [of(&jobs[0], "hello"), of(&jobs[1], "there")];
    // One lease is lost: neither counts.
    f.store.fail_job(jobs[1].lease(), "no", Some(at(9)), at(9)).await.unwrap();
    let late = f.store.complete_windows(&results, at(10)).await.unwrap_err();
    assert_eq!(late.kind(), Kind::Conflict);
    assert!(f.windows(&id).await.iter().all(|window| window.state == WindowState::Waiting));

    f.store.fail_job(jobs[0].lease(), "no", Some(at(9)), at(9)).await.unwrap();
    let jobs = claim().await.unwrap();
    assert_eq!(f.jobs(JobKind::Finish, JobState::Ready).await, 0);
    let results = [of(&jobs[0], "hello"), of(&jobs[1], "there")];
    f.store.complete_windows(&results, at(10)).await.unwrap();
    let windows = f.windows(&id).await;
    let done = |window: &Window| window.state == WindowState::Done && window.segments.len() == 1;
    assert!(windows.iter().all(done), "{windows:?}");
    assert_eq!(f.jobs(JobKind::Transcribe, JobState::Done).await, 2);
    assert_eq!(f.jobs(JobKind::Finish, JobState::Ready).await, 1);
    f.store.complete_windows(&[], at(10)).await.unwrap();
}
