use proptest::prelude::*;

use crate::base::clock::Timestamp;
use crate::domain::conversation::{CloseReason, NewWindow, Span, WindowState};
use crate::domain::coverage::Coverage;
use crate::domain::job::{JobKind, Lane};
use crate::domain::object::Object;
use crate::store::testing::*;

const EVER: (Timestamp, Timestamp) =
    (Timestamp::from_millis(i64::MIN), Timestamp::from_millis(i64::MAX));

#[derive(Clone, Debug)]
enum Step {
    /// A window of so many samples, in one or two spans.
    Window(u64, bool),
    Transcribe,
    Fail,
    Retry,
    Close,
    DeleteAudio,
    Reprocess,
    /// Another conversation begins, of the next user, an hour later.
    Next,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (2u64..400_000, any::<bool>()).prop_map(|(length, two)| Step::Window(length, two)),
        4 => Just(Step::Transcribe),
        2 => Just(Step::Fail),
        1 => Just(Step::Retry),
        2 => Just(Step::Close),
        1 => Just(Step::DeleteAudio),
        1 => Just(Step::Reprocess),
        2 => Just(Step::Next),
    ]
}

async fn run<S: Tested>(steps: &[Step]) {
    let fixture = Fixture::<S>::open().await;
    let store = &fixture.store;
    let users = [fixture.user("anna").await, fixture.user("bert").await];
    let (mut all, mut position, mut seq, mut now) = (Vec::new(), 0, 0, 10);
    for (number, step) in [Step::Next].iter().chain(steps).enumerate() {
        now += 1;
        match step {
            Step::Next => {
                if let Some(last) = all.last() {
                    let _ = store
                        .close_conversation(last, position, &[], CloseReason::Silence, at(now))
                        .await;
                }
                let mut next = conversation(&users[all.len() % 2]);
                next.started_at = at(3_600 * all.len() as u64 * 7);
                store.open_conversation(&next).await.unwrap();
                all.push(next.id);
                (position, seq) = (0, 0);
            }
            Step::Window(length, two) => {
                let (start, end) = (position + 1_000, position + 1_000 + length);
                let middle = start + length / 2;
                let spans = match two {
                    true => vec![
                        Span { start, end: middle },
                        Span { start: middle + 500, end: end + 500 },
                    ],
                    false => vec![Span { start, end }],
                };
                position = end + 700;
                let window = NewWindow { seq, spans };
                seq += 1;
                let id = all.last().unwrap();
                store.add_window(id, position, &window, Lane::Live, at(now)).await.unwrap();
            }
            Step::Close => {
                let id = all.last().unwrap();
                let reason = CloseReason::Silence;
                store.close_conversation(id, position, &[], reason, at(now)).await.unwrap();
            }
            Step::Transcribe | Step::Fail => {
                let kinds = [JobKind::Transcribe];
                let Some(job) = store.claim_job(&kinds, Lane::Backlog, "w", at(now)).await.unwrap()
                else {
                    continue;
                };
                let crate::domain::job::Payload::Window(window) = job.payload else { panic!() };
                if matches!(step, Step::Fail) {
                    store.fail_job(job.lease(), "no", None, at(now)).await.unwrap();
                } else {
                    let done = transcribed(job.lease(), window, "word");
                    store.complete_windows(&[done], at(now)).await.unwrap();
                }
            }
            Step::Retry => {
                if let Some(dead) = store.dead_jobs(1).await.unwrap().first() {
                    let _ = store.retry_job(dead.id, at(now)).await;
                }
            }
            Step::DeleteAudio => {
                let _ = store.delete_audio(&all[number % all.len()], at(now)).await;
            }
            Step::Reprocess => {
                let _ = store.reprocess_transcript(&all[number % all.len()], at(now)).await;
            }
        }
        // Settles what can be, so that audio may be deleted.
        fixture.finish_all().await;
    }

    let mut wanted = Vec::new();
    for id in &all {
        let row = store.conversation(id).await.unwrap().unwrap();
        let windows = store.windows(id).await.unwrap();
        let total = |state| -> u64 {
            let of_state = windows.iter().filter(|w| w.state == state);
            of_state.flat_map(|w| &w.spans).map(|s| s.len()).sum()
        };
        let coverage = Coverage {
            accepted: row.samples,
            on_disk: if row.has_audio() { row.samples } else { 0 },
            transcribed: total(WindowState::Done),
            waiting: total(WindowState::Waiting),
            failed: total(WindowState::Failed),
        };
        let parts = coverage.transcribed + coverage.waiting + coverage.failed;
        assert_eq!(coverage.accepted, coverage.silent() + parts, "{coverage:?}");
        wanted.push((row.user_id, coverage));
    }
    let days = store.coverage(None, EVER.0, EVER.1).await.unwrap();
    let all: Coverage = days.iter().map(|day| day.coverage).sum();
    assert_eq!(all, wanted.iter().map(|(_, coverage)| *coverage).sum());
    for user in &users {
        let days = store.coverage(Some(&user.id), EVER.0, EVER.1).await.unwrap();
        assert!(days.iter().all(|day| day.user_id == user.id));
        assert!(days.is_sorted_by(|a, b| a.day < b.day), "each day once");
        let own = wanted.iter().filter(|(owner, _)| *owner == user.id);
        let sum: Coverage = days.iter().map(|day| day.coverage).sum();
        assert_eq!(sum, own.map(|(_, coverage)| *coverage).sum());
    }
}

pub(crate) fn coverage_adds_up_whatever_happens<S: Tested>() {
    let steps = prop::collection::vec(step(), 1..40);
    proptest!(cases::<S>(40), |(steps in steps)| {
        block_on(run::<S>(&steps));
    });
}

pub(crate) async fn only_what_nothing_waits_for_is_archived_and_only_once<S: Tested>() {
    let fixture = Fixture::<S>::open().await;
    let store = &fixture.store;
    let anna = fixture.user("anna").await;
    let id = fixture.opened(&anna).await;
    fixture.add_window(&id, 0).await;
    assert_eq!(store.queue_archives(at(5)).await.unwrap(), 0, "it is open");
    fixture.close(&id, &[]).await;
    assert_eq!(store.queue_archives(at(6)).await.unwrap(), 0, "it has no transcript");
    fixture.transcribe("Good").await;
    fixture.finish_all().await;
    assert_eq!(store.queue_archives(at(8)).await.unwrap(), 1);
    assert_eq!(store.queue_archives(at(9)).await.unwrap(), 0, "it is queued");

    let claim = || store.claim_job(&[JobKind::Archive], Lane::Backlog, "w", at(10));
    let job = claim().await.unwrap().unwrap();
    let before = store.conversation(&id).await.unwrap().unwrap().audio_path;
    // A deletion takes along what an attempt may have left.
    let twin = before.replace(".wav", ".opus");
    let goes = store.complete_archive(job.lease(), &id, &twin, at(11)).await.unwrap();
    assert_eq!(goes, Some(before.clone()));
    assert_eq!(store.conversation(&id).await.unwrap().unwrap().audio_path, twin);
    assert_eq!(store.deletions().await.unwrap(), [before]);
    assert_eq!(store.queue_archives(at(12)).await.unwrap(), 0, "it is archived");
    let stale = store.complete_archive(job.lease(), &id, "x.opus", at(13)).await;
    assert!(stale.is_err());
}

pub(crate) async fn a_copy_that_nobody_wants_any_more_goes<S: Tested>() {
    let fixture = Fixture::<S>::open().await;
    let store = &fixture.store;
    let anna = fixture.user("anna").await;
    let id = fixture.opened(&anna).await;
    fixture.add_window(&id, 0).await;
    fixture.close(&id, &[]).await;
    fixture.transcribe("Good").await;
    fixture.finish_all().await;
    store.queue_archives(at(8)).await.unwrap();
    let job =
        store.claim_job(&[JobKind::Archive], Lane::Backlog, "w", at(9)).await.unwrap().unwrap();
    let wav = store.conversation(&id).await.unwrap().unwrap().audio_path;
    let opus = wav.replace(".wav", ".opus");
    // Its audio is deleted meanwhile.
    let mut gone = store.delete_audio(&id, at(10)).await.unwrap();
    gone.sort();
    assert_eq!(gone, [opus.clone(), wav.clone()], "both, since either may be there");
    let goes = store.complete_archive(job.lease(), &id, &opus, at(11)).await.unwrap();
    assert_eq!(goes, Some(opus));
    assert_eq!(store.conversation(&id).await.unwrap().unwrap().audio_path, wav);
}

/// The object of the recording `name`, as it was seen.
fn object(name: &str) -> Object {
    Object { name: name.into(), bytes: 44, sha256: "ab".into(), verified_at: Some(at(20)) }
}

pub(crate) async fn recordings_come_to_the_bucket_once_they_have_come_to_rest<S: Tested>() {
    let fixture = Fixture::<S>::open().await;
    let store = &fixture.store;
    let anna = fixture.user("anna").await;
    // A recording in either format; both end three seconds after the start.
    let mut opus = conversation(&anna);
    opus.audio_path = opus.audio_path.replace(".wav", ".opus");
    store.open_conversation(&opus).await.unwrap();
    let wav = fixture.opened(&anna).await;
    let wav_path = fixture.get(&wav).await.audio_path;
    let unstored = async |wav_before| store.unstored_recordings(at(wav_before)).await.unwrap();
    assert!(unstored(100).await.is_empty(), "they are being recorded");
    fixture.close(&opus.id, &[]).await;
    fixture.close(&wav, &[]).await;
    assert_eq!(unstored(3).await, std::slice::from_ref(&opus.audio_path), "archived soon");
    assert_eq!(unstored(4).await.len(), 2);

    store.begin_object(&opus.audio_path).await.unwrap();
    assert_eq!(unstored(3).await.len(), 1, "it is not known to be there");
    let begun = store.objects(std::slice::from_ref(&opus.audio_path)).await.unwrap();
    assert_eq!((begun.len(), begun[0].verified_at), (1, None));
    assert!(store.complete_object(&object(&opus.audio_path), at(20)).await.unwrap());
    assert_eq!(unstored(4).await, std::slice::from_ref(&wav_path));
    let names = [wav_path.clone(), opus.audio_path.clone(), "other.wav".into()];
    assert_eq!(store.objects(&names).await.unwrap(), [object(&opus.audio_path)]);

    // What is in the bucket makes no room by being deleted.
    fixture.finish_all().await;
    let only_here = async |only_here| {
        let found = store.transcribed_audio(None, only_here, 9).await.unwrap();
        found.into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(only_here(true).await, std::slice::from_ref(&wav));
    assert_eq!(only_here(false).await.len(), 2);
    // It was gone, after all.
    store.begin_object(&opus.audio_path).await.unwrap();
    assert_eq!(only_here(true).await.len(), 2);
    assert_eq!(unstored(3).await, [opus.audio_path]);
}

pub(crate) async fn an_object_of_a_deleted_recording_is_known_until_it_is_gone<S: Tested>() {
    let fixture = Fixture::<S>::open().await;
    let store = &fixture.store;
    let anna = fixture.user("anna").await;
    let id = fixture.opened(&anna).await;
    fixture.close(&id, &[]).await;
    fixture.finish_all().await;
    let name = fixture.get(&id).await.audio_path;
    let names = std::slice::from_ref(&name);
    assert!(store.complete_object(&object(&name), at(20)).await.unwrap());
    store.delete_audio(&id, at(21)).await.unwrap();
    assert!(store.unstored_recordings(at(99)).await.unwrap().is_empty());
    assert_eq!(store.deletions().await.unwrap(), names);
    store.strike_deletions(names).await.unwrap();
    assert_eq!(store.objects(names).await.unwrap().len(), 1);
    store.forget_objects(names).await.unwrap();
    assert!(store.objects(names).await.unwrap().is_empty());

    // An upload that ends when its conversation has gone leaves one that goes too.
    store.delete_conversation(&id, true, None, at(22)).await.unwrap();
    assert!(store.deletions().await.unwrap().is_empty());
    assert!(!store.complete_object(&object(&name), at(23)).await.unwrap());
    assert_eq!(store.deletions().await.unwrap(), names);
    assert_eq!(store.objects(names).await.unwrap(), [object(&name)]);
}
