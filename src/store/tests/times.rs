use std::time::Duration;

use crate::base::clock::{Clock, Step, Timestamp};
use crate::domain::job::{JobKind, Lane};
use crate::store::KnownTime;
use crate::store::testing::{Fixture, Tested, at, conversation, window};

const YEAR: i64 = 365 * 24 * 3_600_000;

pub(crate) fn known(at: Timestamp) -> KnownTime {
    KnownTime {
        at,
        boot: Some("a".into()),
        since_boot: Duration::from_secs(9),
        estimated_since: None,
        steady_since: at,
        history: Clock::simulated(at).history(),
    }
}

/// The clock is found to be a year behind.
pub(crate) fn step(seconds: u64) -> Step {
    Step { from: at(seconds), to: at(seconds).moved(YEAR), estimated: true }
}

pub(crate) async fn a_step_corrects_the_times_of_an_estimate_and_no_others<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let user = f.user("ann").await;
    let mut ids = Vec::new();
    for (minute, time_estimated) in [(10, false), (60, true), (70, true)] {
        let mut one = conversation(&user);
        (one.started_at, one.time_estimated) = (at(minute * 60), time_estimated);
        f.store.open_conversation(&one).await.unwrap();
        let (id, closed) = (one.id, at(minute * 60 + 30));
        let reason = crate::domain::conversation::CloseReason::AudioStop;
        f.store.close_conversation(&id, 16_000, &[window(0)], reason, closed).await.unwrap();
        ids.push(id);
    }
    let again = f.store.reprocess_transcript(&ids[2], at(75 * 60)).await;
    assert!(again.is_err(), "its first transcript is being made");
    let step = step(80 * 60);
    // The first began in a run of the machine that never learnt the time.
    let since = at(65 * 60);
    let corrected = f.store.clock_stepped(step, Some(since), &known(step.to)).await.unwrap();
    assert_eq!(corrected, 1);
    let mut times = Vec::new();
    for id in &ids {
        let one = f.get(id).await;
        let made = f.store.transcript_versions(id).await.unwrap()[0].created_at;
        let job = f.store.conversation_jobs(id).await.unwrap()[0].created_at;
        times.push((one.started_at, one.ended_at.unwrap(), one.time_estimated, made, job));
    }
    let old = |minute: u64| (at(minute * 60), at(minute * 60 + 30));
    let ((one, one_end), (two, two_end)) = (old(10), old(60));
    let (three, three_end) = (at(70 * 60).moved(YEAR), at(70 * 60 + 30).moved(YEAR));
    assert_eq!(
        times,
        [
            (one, one_end, false, one, one_end),
            (two, two_end, true, two, two_end),
            (three, three_end, false, three, three_end),
        ]
    );
    assert_eq!(f.store.known_time().await.unwrap(), Some(known(step.to)));
    let f = f.reopened().await;
    assert_eq!(f.store.known_time().await.unwrap(), Some(known(step.to)));
}

pub(crate) async fn what_is_to_come_is_carried_over_a_step<S: Tested>() {
    let f = Fixture::<S>::open().await;
    let user = f.user("ann").await;
    let id = f.opened(&user).await;
    f.add_window(&id, 0).await;
    let kinds = [JobKind::Transcribe];
    let job = f.store.claim_job(&kinds, Lane::Backlog, "me", at(10)).await.unwrap().unwrap();
    f.store.fail_job(job.lease(), "away", Some(at(60)), at(10)).await.unwrap();
    f.store.end_token(&user.id, "one", at(100), at(10)).await.unwrap();
    let step = step(20);
    let corrected = f.store.clock_stepped(step, None, &known(step.to)).await.unwrap();
    assert_eq!(corrected, 0);
    let due = f.store.next_due(&kinds, Lane::Backlog).await.unwrap();
    assert_eq!(due, Some(at(60).moved(YEAR)));
    // Those that have expired are forgotten by the next.
    let now = at(90).moved(YEAR);
    f.store.end_token(&user.id, "two", at(200).moved(YEAR), now).await.unwrap();
    assert!(f.store.bearer(&user.id, "one").await.unwrap().is_none());
    let now = at(101).moved(YEAR);
    f.store.end_token(&user.id, "three", at(200).moved(YEAR), now).await.unwrap();
    assert!(f.store.bearer(&user.id, "one").await.unwrap().is_some());
    // Nothing that has been is moved where the time was known.
    let one = f.store.conversation_jobs(&id).await.unwrap().remove(0);
    assert_eq!((one.created_at, one.updated_at), (at(2), at(10)));
    assert_eq!(f.get(&id).await.started_at, conversation(&user).started_at);
}
