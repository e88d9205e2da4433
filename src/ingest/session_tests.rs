use super::super::fake_store::{FakeStore, Row};
use super::*;
use crate::audio::ogg::{self, Page};
use crate::audio::opus::OpusDecoder;
use crate::audio::synthetic::{Noise, speech};
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Kind;
use crate::config::{Config, Interval};
use crate::domain::ids::UserId;
use crate::domain::user::User;
use crate::jobs::Wake;
use crate::recording::Recordings;
use crate::supervisor::Supervisor;

pub(in crate::ingest) struct Bench {
    pub(in crate::ingest) ingest: Arc<Ingest>,
    pub(in crate::ingest) store: FakeStore,
    pub(in crate::ingest) supervisor: Supervisor,
    pub(in crate::ingest) clock: Clock,
    _dir: tempfile::TempDir,
}

pub(in crate::ingest) fn user(last: char) -> User {
    User {
        id: UserId::from_text(format!("507f1f77bcf86cd79943901{last}")),
        email: format!("{last}@example.com"),
        password_hash: String::new(),
        display_name: None,
        is_active: true,
        is_superuser: false,
        is_verified: true,
        token_epoch: 0,
        created_at: Timestamp::default(),
    }
}

pub(in crate::ingest) fn bench(clock: Clock, change: impl FnOnce(&mut Config)) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    // What ends, ends at once, but in the tests of the grace itself.
    config.conversation.reconnect_grace = Interval::from_secs(0);
    change(&mut config);
    let sync = config.recording.sync_interval.get();
    let recordings = Recordings::open(dir.path(), sync, clock.clone()).unwrap();
    let (store, supervisor) = (FakeStore::default(), Supervisor::new());
    let ingest = Ingest::new(
        Arc::new(store.clone()),
        recordings,
        Wake::default(),
        clock.clone(),
        Arc::new(config),
        supervisor.clone(),
        None,
    );
    Bench { ingest, store, supervisor, clock, _dir: dir }
}

fn standing() -> Bench {
    bench(Clock::simulated(Timestamp::from_millis(1_753_190_000_000)), |_| {})
}

impl Bench {
    pub(super) async fn session(&self) -> Session {
        self.ingest.connect(&user('1'), Some("phone")).await.unwrap()
    }

    /// The samples on disk of a conversation.
    pub(in crate::ingest) fn recorded(&self, row: &Row) -> Vec<i16> {
        let name = &row.conversation.audio_path;
        let bytes = std::fs::read(self.ingest.recordings.dir().join(name)).unwrap();
        if name.ends_with(".wav") {
            let samples = bytes[44..].as_chunks().0;
            return samples.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
        }
        let (mut decoder, mut samples) = (OpusDecoder::new().unwrap(), Vec::new());
        let mut rest = bytes.as_slice();
        while let Some(page) = Page::parse(rest) {
            for packet in page.packets().filter(|packet| !ogg::is_header(packet)) {
                decoder.decode(packet, &mut samples).unwrap();
            }
            rest = &rest[page.len()..];
        }
        samples
    }

    pub(super) fn closed(&self) -> Vec<(Vec<i16>, CloseReason)> {
        let rows = self.store.rows();
        rows.iter()
            .map(|row| {
                let samples = self.recorded(row);
                assert_eq!(row.conversation.samples, samples.len() as u64);
                assert!(!self.ingest.is_open(&row.conversation.id));
                (samples, row.conversation.close_reason.expect("closed"))
            })
            .collect()
    }
}

pub(in crate::ingest) fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

fn silence(seconds: usize) -> Vec<i16> {
    Noise::new(9).white(12.0).take(seconds * 16_000).collect()
}

pub(super) async fn send(session: &mut Session, samples: &[i16]) {
    for chunk in bytes(samples).chunks(1_024) {
        session.audio(chunk, None).await.unwrap();
    }
}

#[tokio::test]
async fn between_start_and_stop_everything_is_kept() {
    let bench = standing();
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    assert!(bench.store.rows().is_empty(), "nothing before the first sample");
    let sound = [silence(3), speech(20.0), silence(1), speech(5.0)].concat();
    send(&mut session, &sound).await;
    session.audio_start(PcmFormat::SPEECH);
    let view = bench.ingest.clients().list(None).remove(0);
    let current = view.conversation.unwrap();
    assert!(bench.ingest.is_open(&current.id));
    assert_eq!(current.windows, 1);
    session.audio_stop().await;
    assert_eq!(bench.closed(), [(sound, CloseReason::AudioStop)]);
    let row = bench.store.rows().remove(0);
    assert_eq!(row.windows.len(), 2);
    assert_eq!(row.windows[1].seq, 1);
    assert_eq!(row.conversation.started_at.millis(), 1_753_190_000_000 - 32);
    assert_eq!(bench.ingest.clients().list(None)[0].conversation, None);
    session.end(CloseReason::Disconnect).await;
    assert_eq!(bench.store.rows().len(), 1, "no conversation without audio");
    assert_eq!(bench.ingest.clients().count(), 0);
}

#[tokio::test]
async fn without_boundaries_speech_opens_and_silence_closes() {
    let bench = standing();
    let mut session = bench.session().await;
    let sound = [silence(30), speech(4.0), silence(100), speech(3.0), silence(2)].concat();
    send(&mut session, &sound).await;
    session.end(CloseReason::Disconnect).await;
    let closed = bench.closed();
    assert_eq!(closed.len(), 2);
    let seconds = |i: usize| closed[i].0.len() as f64 / 16_000.0;
    // Two seconds before, the speech, and ninety without it.
    assert!((95.5..97.0).contains(&seconds(0)), "{}", seconds(0));
    assert_eq!(closed[0].1, CloseReason::Silence);
    assert!((6.5..7.5).contains(&seconds(1)), "{}", seconds(1));
    assert_eq!(closed[1].1, CloseReason::Disconnect);
    // The recording is the very audio from there on.
    let start = sound.windows(400).position(|w| w == &closed[0].0[..400]).unwrap();
    assert!((27.8..28.3).contains(&(start as f64 / 16_000.0)), "{start}");
    assert_eq!(closed[0].0[..], sound[start..start + closed[0].0.len()]);
    for row in bench.store.rows() {
        let span = row.windows[0].spans[0];
        assert!((24_000..34_000).contains(&span.start), "{span:?}");
    }
}

#[tokio::test]
async fn silence_alone_opens_nothing() {
    let bench = standing();
    let mut session = bench.session().await;
    send(&mut session, &silence(300)).await;
    session.end(CloseReason::Disconnect).await;
    assert!(bench.store.rows().is_empty());
}

#[tokio::test]
async fn inside_boundaries_silence_splits_and_drops_nothing() {
    let bench = standing();
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    let sound = [speech(3.0), silence(200), speech(3.0), silence(5)].concat();
    send(&mut session, &sound).await;
    session.audio_stop().await;
    let closed = bench.closed();
    let reasons: Vec<_> = closed.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, [CloseReason::Silence, CloseReason::AudioStop]);
    assert_eq!(closed.into_iter().flat_map(|(s, _)| s).collect::<Vec<_>>(), sound);
}

#[tokio::test]
async fn a_long_conversation_goes_on_in_another() {
    let clock = Clock::simulated(Timestamp::from_millis(0));
    let bench = bench(clock, |c| c.conversation.max_length = Interval::from_secs(10));
    let mut session = bench.session().await;
    let sound = speech(25.0);
    send(&mut session, &sound).await;
    session.end(CloseReason::Shutdown).await;
    let closed = bench.closed();
    let reasons: Vec<_> = closed.iter().map(|(_, reason)| *reason).collect();
    use CloseReason::{MaxLength, Shutdown};
    assert_eq!(reasons, [MaxLength, MaxLength, Shutdown]);
    let total: usize = closed.iter().map(|(s, _)| s.len()).sum();
    assert!(total + 16_000 > sound.len(), "{total} of {}", sound.len());
}

#[tokio::test]
async fn audio_before_audio_start_belongs_to_the_same_conversation() {
    let bench = standing();
    let mut session = bench.session().await;
    let sound = speech(2.0);
    send(&mut session, &sound).await;
    session.audio_start(PcmFormat::SPEECH);
    send(&mut session, &sound).await;
    session.audio_stop().await;
    let closed = bench.closed();
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].0, [&sound[..], &sound].concat());
}

#[tokio::test]
async fn formats_may_change_in_the_middle() {
    let bench = standing();
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    send(&mut session, &vec![1_000; 16_000]).await;
    let stereo = PcmFormat::new(48_000, 2, 2).unwrap();
    let half = bytes(&vec![2_000; 2 * 24_000]);
    session.audio(&half, Some(stereo)).await.unwrap();
    session.audio(&half, Some(stereo)).await.unwrap();
    send(&mut session, &vec![3_000; 16_000]).await;
    session.audio_stop().await;
    let closed = bench.closed();
    assert_eq!(closed[0].0.len(), 48_000);
    assert!(closed[0].0[20_000..28_000].iter().all(|s| s.abs_diff(2_000) < 10));
    assert_eq!(closed[0].0[47_999], 3_000);
}

#[tokio::test]
async fn a_request_closes_the_conversation() {
    let bench = standing();
    let mut session = bench.session().await;
    let clients = bench.ingest.clients().clone();
    let id = session.client_id().clone();
    let kind = |result: Result<_>| {
        result.map(|_: crate::domain::ids::ConversationId| ()).unwrap_err().kind()
    };
    assert_eq!(kind(clients.close_conversation(&id).await), Kind::BadInput);
    send(&mut session, &speech(2.0)).await;
    let asked = tokio::spawn({
        let (clients, id) = (clients.clone(), id.clone());
        async move { clients.close_conversation(&id).await }
    });
    let request = session.next_request().await;
    session.fulfil(request).await;
    let row = bench.store.rows().remove(0);
    assert_eq!(asked.await.unwrap().unwrap(), row.conversation.id);
    assert_eq!(row.conversation.close_reason, Some(CloseReason::Request));
    drop(session);
    assert_eq!(kind(clients.close_conversation(&id).await), Kind::NotFound);
}

#[tokio::test]
async fn a_dropped_session_is_closed() {
    let bench = standing();
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    let sound = speech(2.0);
    send(&mut session, &sound).await;
    drop(session);
    assert!(bench.supervisor.drain(Duration::from_secs(10)).await);
    assert_eq!(bench.closed(), [(sound, CloseReason::Disconnect)]);
}

#[tokio::test]
async fn ids_are_reused_once_a_device_is_gone() {
    let bench = standing();
    let connect = async |user| bench.ingest.connect(&user, Some("phone")).await.unwrap();
    let (first, second) = (connect(user('1')).await, connect(user('1')).await);
    let other = connect(user('2')).await;
    assert_eq!(first.client_id().as_str(), "439011-phone");
    assert_eq!(second.client_id().as_str(), "439011-phone-2");
    assert_eq!(other.client_id().as_str(), "439012-phone");
    drop(first);
    assert_eq!(connect(user('1')).await.client_id().as_str(), "439011-phone");
    let views = bench.ingest.clients().list(Some(&user('1').id));
    assert_eq!(views.len(), 1);
    assert_eq!(bench.store.state().devices.len(), 4);
}

#[tokio::test]
async fn a_user_may_not_open_streams_without_end() {
    let bench =
        bench(Clock::simulated(Timestamp::default()), |c| c.server.max_streams_per_user = 2);
    let connect = async |user| bench.ingest.connect(&user, None).await;
    let one = connect(user('1')).await.unwrap();
    let _two = connect(user('1')).await.unwrap();
    let _other = connect(user('2')).await.unwrap();
    assert_eq!(connect(user('1')).await.err().unwrap().kind(), Kind::Busy);
    drop(one);
    assert!(connect(user('1')).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_while_loses_nothing() {
    let bench = standing();
    bench.store.state().failures = vec![Kind::Busy];
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    bench.store.state().failures = vec![Kind::Storage, Kind::Busy];
    send(&mut session, &speech(1.0)).await;
    let turn = |seconds| [speech(seconds), silence(1)].concat();
    // The first window fails, and fails again five seconds later.
    bench.store.state().failures = vec![Kind::Storage, Kind::Busy];
    let sound = [turn(16.0), turn(8.0), turn(3.0)].concat();
    send(&mut session, &sound).await;
    assert_eq!(bench.store.rows()[0].windows.len(), 1);
    // The close fails at first, and is made good in the background.
    bench.store.state().failures = vec![Kind::Storage, Kind::Busy];
    session.end(CloseReason::Disconnect).await;
    assert!(bench.store.rows()[0].conversation.is_open());
    assert!(bench.ingest.is_open(&bench.store.rows()[0].conversation.id));
    assert!(bench.supervisor.drain(Duration::from_secs(60)).await);
    let closed = bench.closed();
    assert_eq!(closed[0].0.len(), 16_000 + sound.len());
    let seqs: Vec<_> = bench.store.rows()[0].windows.iter().map(|w| w.seq).collect();
    assert_eq!(seqs, (0..seqs.len() as u32).collect::<Vec<_>>());
}

#[tokio::test]
async fn opus_packets_become_one_recording() {
    let bench = standing();
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    let sound = speech(3.0);
    let mut encoder =
        opus::Encoder::new(16_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    for chunk in sound.chunks_exact(320) {
        let packet = encoder.encode_vec(chunk, 1_000).unwrap();
        session.opus(&packet).await.unwrap();
        assert_eq!(session.opus(&[0xFF; 4]).await.unwrap_err().kind(), Kind::BadInput);
    }
    // The same device may send PCM as well: that is a recording of its own.
    send(&mut session, &sound).await;
    session.audio_stop().await;
    let closed = bench.closed();
    assert_eq!((closed[0].0.len(), closed[0].1), (sound.len(), CloseReason::FormatChange));
    assert_eq!(closed[1], (sound, CloseReason::AudioStop));
    let rows = bench.store.rows();
    assert!(rows[0].conversation.audio_path.ends_with(".opus"));
    assert!(rows[1].conversation.audio_path.ends_with(".wav"));
    let spoken: u64 = rows[0].windows.iter().flat_map(|w| &w.spans).map(|s| s.len()).sum();
    assert!(spoken > 40_000, "{spoken}");
}

#[tokio::test]
async fn packets_from_before_speech_are_kept_whole() {
    let bench = standing();
    let mut session = bench.session().await;
    let sound = [silence(10), speech(3.0)].concat();
    let mut encoder =
        opus::Encoder::new(16_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    for chunk in sound.chunks_exact(960) {
        let packet = encoder.encode_vec(chunk, 1_000).unwrap();
        session.opus(&packet).await.unwrap();
    }
    session.end(CloseReason::Disconnect).await;
    let row = bench.store.rows().remove(0);
    let recorded = bench.recorded(&row).len();
    assert_eq!(recorded % 960, 0);
    // Two seconds and a little from before the speech, which the windows are
    // counted from.
    assert!((75_000..90_000).contains(&recorded), "{recorded}");
    let start = row.windows[0].spans[0].start;
    assert!((20_000..=40_000).contains(&start), "{start}");
    assert_eq!(row.conversation.samples, recorded as u64);
}

#[tokio::test]
async fn audio_reaches_the_disk_though_no_more_comes() {
    let bench = standing();
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    send(&mut session, &speech(0.5)).await;
    assert_eq!(session.due_in(), Some(Duration::from_secs(1)));
    bench.clock.advance(Duration::from_secs(1));
    session.poll().unwrap();
    assert_eq!(session.due_in(), None);
    let row = bench.store.rows().remove(0);
    for _ in 0..500 {
        if bench.recorded(&row).len() == 8_000 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not on disk");
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 128, "{}", size_of::<Session>());
}

/// What an hour of a stream costs, but for its socket:
/// `cargo test --release --lib hour_of_stream -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures CPU time"]
async fn hour_of_stream() {
    let bench = standing();
    let mut session = bench.session().await;
    session.audio_start(PcmFormat::SPEECH);
    let minute = bytes(&[speech(25.0), silence(8), speech(20.0), silence(7)].concat());
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse().unwrap())
            .collect();
        fields[0] + fields[1]
    };
    let before = ticks();
    for _ in 0..60 {
        for frame in minute.chunks(640) {
            session.audio(frame, None).await.unwrap();
            bench.clock.advance(Duration::from_millis(20));
        }
    }
    session.end(CloseReason::Disconnect).await;
    let windows: usize = bench.store.rows().iter().map(|row| row.windows.len()).sum();
    println!("{} ms of CPU, {windows} windows", (ticks() - before) * 10);
}
