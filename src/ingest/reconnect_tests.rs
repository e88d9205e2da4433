use super::tests::{Bench, bench, send, user};
use super::*;
use crate::audio::synthetic::speech;
use crate::base::clock::{Clock, Timestamp};
use crate::config::Interval;
use crate::domain::ids::UserId;

/// A bench whose clock moves with the runtime's timers, which are paused.
fn waiting() -> Bench {
    let clock = Clock::of_timers(Timestamp::from_millis(1_753_190_000_000));
    bench(clock, |c| c.conversation.reconnect_grace = Interval::from_secs(30))
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_back_in_time_goes_on_with_its_conversation() {
    let bench = waiting();
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    let sound = speech(3.0);
    for part in 0..5 {
        send(&mut session, &sound).await;
        // The last frame was torn in the middle of a sample.
        session.audio(&[7], None).await.unwrap();
        session.lost().await;
        let view = bench.ingest.clients().list(None).remove(0);
        assert!(!view.connected && view.conversation.is_some(), "{part}");
        assert_eq!(bench.ingest.clients().count(), 0);
        tokio::time::sleep(Duration::from_secs(29)).await;
        // On disk by then, though nobody called for it.
        let row = bench.store.rows().remove(0);
        let on_disk = bench.ingest.recordings.samples(&row.conversation.audio_path).await.unwrap();
        assert_eq!(on_disk, (part + 1) * sound.len() as u64);
        assert!(row.conversation.is_open() && bench.ingest.is_open(&row.conversation.id));
        session = bench.session().await;
        assert_eq!(session.client_id().as_str(), "439011-phone");
        assert_eq!(bench.ingest.clients().count(), 1);
        // Some say it again, some do not.
        if part % 2 == 0 {
            session.audio_start(PcmFormat::SPEECH);
        }
    }
    session.audio_stop().await;
    assert_eq!(bench.closed(), [(sound.repeat(5), CloseReason::AudioStop)]);
    session.lost().await;
    assert!(bench.ingest.clients().list(None).is_empty(), "nothing waits without a conversation");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_stays_away_has_its_conversation_closed() {
    let bench = waiting();
    let mut session = bench.session().await;
    let sound = speech(3.0);
    send(&mut session, &sound).await;
    session.lost().await;
    let began = tokio::time::Instant::now();
    while !bench.ingest.clients().list(None).is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    assert!((29.9..30.5).contains(&seconds), "{seconds}");
    assert_eq!(bench.closed(), [(sound.clone(), CloseReason::Disconnect)]);
    let mut session = bench.session().await;
    assert_eq!(session.client_id().as_str(), "439011-phone");
    send(&mut session, &sound).await;
    session.end(CloseReason::Disconnect).await;
    assert_eq!(bench.closed().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_waits_can_be_closed_and_does_not_hold_up_shutdown() {
    let bench = waiting();
    let mut session = bench.session().await;
    let (clients, id) = (bench.ingest.clients().clone(), session.client_id().clone());
    send(&mut session, &speech(3.0)).await;
    session.lost().await;
    clients.close_conversation(&id).await.unwrap();
    assert_eq!(bench.closed()[0].1, CloseReason::Request);
    let mut session = bench.session().await;
    send(&mut session, &speech(3.0)).await;
    session.lost().await;
    bench.supervisor.stop();
    assert!(bench.supervisor.drain(Duration::from_secs(1)).await);
    assert_eq!(bench.closed()[1].1, CloseReason::Shutdown);
    assert!(clients.list(None).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_known_again_is_not_waited_for() {
    let bench = waiting();
    let mut session = bench.ingest.connect(&user('1'), None).await.unwrap();
    send(&mut session, &speech(3.0)).await;
    session.lost().await;
    assert_eq!(bench.closed()[0].1, CloseReason::Disconnect);
    // Nor does another user get what is waited for.
    let mut session = bench.session().await;
    send(&mut session, &speech(3.0)).await;
    session.lost().await;
    let mut namesake = user('1');
    namesake.id = UserId::from_text("607f1f77bcf86cd799439011");
    let other = bench.ingest.connect(&namesake, Some("phone")).await.unwrap();
    assert_eq!(other.client_id().as_str(), "439011-phone-2");
}
