use std::fs::File;
use std::io::Write as _;

use super::wav_file::HEADER;
use super::*;
use crate::domain::ids::UserId;

fn conversation() -> Conversation {
    conversation_in(Format::Wav)
}

pub(super) fn conversation_in(format: Format) -> Conversation {
    let (id, client) = (ConversationId::generate(), ClientId::from_text("439011-my-phone"));
    let started_at = Timestamp::from_millis(1_753_190_000_250);
    let name = Recordings::file_name(started_at, &client, &id, format);
    let user = UserId::from_text("507f1f77bcf86cd799439011");
    Conversation::begin(id, user, client, name, started_at)
}

pub(super) struct Bench {
    pub(super) recordings: Recordings,
    clock: Clock,
    dir: tempfile::TempDir,
}

pub(super) fn bench(sync: Duration) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(Timestamp::from_millis(0));
    let recordings = Recordings::open(dir.path(), sync, clock.clone()).unwrap();
    Bench { recordings, clock, dir }
}

impl Bench {
    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.recordings.dir().join(name)).unwrap()
    }
}

/// The samples of a WAV file as any program reads it.
fn play(bytes: &[u8]) -> Vec<i16> {
    let reader = hound::WavReader::new(bytes).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (16_000, 1));
    reader.into_samples::<i16>().map(|s| s.unwrap()).collect()
}

pub(super) async fn closed(recorder: Recorder) -> u64 {
    let (samples, error) = recorder.close().await;
    assert!(error.is_none(), "{error:?}");
    samples
}

fn ramp(from: i16, count: i16) -> Vec<i16> {
    (from..from + count).collect()
}

#[test]
fn names_tell_where_a_recording_came_from() {
    let conversation = conversation();
    let name = &conversation.audio_path;
    assert!(name.starts_with("1753190000_439011-my-phone_"), "{name}");
    let origin = Recordings::origin(name).unwrap();
    assert_eq!(origin.started_at.seconds(), 1_753_190_000);
    assert_eq!(origin.client_id, conversation.client_id);
    assert_eq!(origin.conversation_id, conversation.id);
    for other in ["notes.wav", "x_y_z.wav", "1__z.wav", "1_a_.wav", "1_a_b.ogg"] {
        assert_eq!(Recordings::origin(other), None, "{other}");
    }
}

#[tokio::test]
async fn a_recording_is_playable_at_every_sync() {
    let bench = bench(Duration::from_secs(1));
    let conversation = conversation();
    let name = &conversation.audio_path;
    let mut recorder = bench.recordings.create(&conversation).await.unwrap();
    assert!(play(&bench.bytes(name)).is_empty());
    recorder.append(&ramp(0, 100)).await.unwrap();
    assert_eq!(recorder.due_in(), Some(Duration::from_secs(1)));
    recorder.sync().await.unwrap();
    assert_eq!(recorder.due_in(), None);
    assert_eq!(play(&bench.bytes(name)), ramp(0, 100));
    recorder.append(&ramp(100, 50)).await.unwrap();
    recorder.sync().await.unwrap();
    // The header may lag a little behind; the samples do not.
    assert_eq!(play(&bench.bytes(name)), ramp(0, 100));
    assert_eq!(bench.recordings.samples(name).await.unwrap(), 150);
    assert_eq!(closed(recorder).await, 150);
    assert_eq!(play(&bench.bytes(name)), ramp(0, 150));
    assert_eq!(bench.recordings.repair(name).await.unwrap(), 150);
    assert!(bench.recordings.create(&conversation).await.is_err(), "never overwritten");
}

#[tokio::test]
async fn the_directory_and_files_are_private() {
    let bench = bench(Duration::ZERO);
    let conversation = conversation();
    bench.recordings.create(&conversation).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(bench.recordings.dir()), 0o700);
    assert_eq!(mode(&bench.recordings.dir().join(&conversation.audio_path)), 0o600);
    assert!(bench.recordings.dir().starts_with(bench.dir.path()));
}

#[tokio::test]
async fn audio_goes_to_disk_when_it_is_due() {
    let bench = bench(Duration::from_secs(1));
    let conversation = conversation();
    let mut recorder = bench.recordings.create(&conversation).await.unwrap();
    recorder.append(&ramp(0, 10)).await.unwrap();
    bench.clock.advance(Duration::from_millis(999));
    recorder.append(&ramp(10, 10)).await.unwrap();
    assert!(recorder.write.is_none(), "too early");
    bench.clock.advance(Duration::from_millis(1));
    recorder.poll().unwrap();
    assert!(recorder.write.is_some(), "no further audio is needed");
    recorder.append(&ramp(20, 10)).await.unwrap();
    recorder.sync().await.unwrap();
    let all = [Span { start: 0, end: 30 }];
    let read = bench.recordings.read(&conversation.audio_path, &all).await.unwrap();
    assert_eq!(read, ramp(0, 30));
}

#[tokio::test]
async fn with_no_interval_each_append_is_on_disk() {
    let bench = bench(Duration::ZERO);
    let conversation = conversation();
    let mut recorder = bench.recordings.create(&conversation).await.unwrap();
    for i in 0..5 {
        recorder.append(&ramp(i * 10, 10)).await.unwrap();
        let span = [Span { start: 0, end: 10 * (i as u64 + 1) }];
        let read = bench.recordings.read(&conversation.audio_path, &span).await.unwrap();
        assert_eq!(read, ramp(0, 10 * (i + 1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_recorder_leaves_everything_in_order() {
    let bench = bench(Duration::from_millis(1));
    for round in 0..20 {
        let conversation = conversation();
        let mut recorder = bench.recordings.create(&conversation).await.unwrap();
        for i in 0..50 {
            recorder.append(&ramp(i * 10, 10)).await.unwrap();
            bench.clock.advance(Duration::from_millis(1));
        }
        drop(recorder);
        assert_eq!(play(&bench.bytes(&conversation.audio_path)), ramp(0, 500), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_recordings_at_once_do_not_mix() {
    let bench = bench(Duration::from_millis(2));
    let mut tasks = tokio::task::JoinSet::new();
    for value in 0..16 {
        let (recordings, clock) = (bench.recordings.clone(), bench.clock.clone());
        tasks.spawn(async move {
            let conversation = conversation();
            let mut recorder = recordings.create(&conversation).await.unwrap();
            for i in 0..200u64 {
                recorder.append(&[value; 32]).await.unwrap();
                clock.advance(Duration::from_millis(1));
                if i % 50 == 49 {
                    recorder.sync().await.unwrap();
                    let end = (i + 1) * 32;
                    let span = [Span { start: end - 32, end }];
                    let tail = recordings.read(&conversation.audio_path, &span).await;
                    assert_eq!(tail.unwrap(), [value; 32]);
                }
            }
            closed(recorder).await;
            (conversation.audio_path, value)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (name, value) = done.unwrap();
        assert_eq!(play(&bench.bytes(&name)), [value; 6_400]);
    }
    let found = bench.recordings.scan().await.unwrap();
    assert_eq!(found.len(), 16);
    assert!(found.iter().all(|f| f.bytes == 44 + 2 * 6_400));
}

#[tokio::test]
async fn a_failed_write_is_told_and_made_again() {
    let bench = bench(Duration::from_secs(1));
    let conversation = conversation();
    let mut recorder = bench.recordings.create(&conversation).await.unwrap();
    let path = bench.recordings.dir().join(&conversation.audio_path);
    recorder.append(&ramp(0, 10)).await.unwrap();
    // A handle that cannot write stands for a disk that refuses.
    let refusing = Box::new(File::open(&path).unwrap());
    let good = recorder.shared.file.lock().unwrap().replace_file(refusing);
    assert!(recorder.sync().await.is_err());
    recorder.append(&ramp(10, 10)).await.unwrap();
    assert!(recorder.sync().await.is_err());
    {
        let mut file = recorder.shared.file.lock().unwrap();
        assert_eq!(file.waiting(), 20, "nothing is forgotten");
        file.replace_file(good);
    }
    bench.clock.advance(Duration::from_secs(1));
    recorder.poll().unwrap();
    assert_eq!(closed(recorder).await, 20);
    assert_eq!(play(&bench.bytes(&conversation.audio_path)), ramp(0, 20));
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let bench = bench(Duration::from_secs(1));
    let mut recorder = bench.recordings.create(&conversation()).await.unwrap();
    recorder.shared.file.lock().unwrap().replace_file(Box::new(full));
    recorder.append(&ramp(0, 10)).await.unwrap();
    assert_eq!(recorder.sync().await.unwrap_err().kind(), Kind::NoSpace);
    assert_eq!(recorder.shared.file.lock().unwrap().waiting(), 10);
}

#[tokio::test]
async fn a_crash_at_any_byte_leaves_a_prefix() {
    let bench = bench(Duration::ZERO);
    let conversation = conversation();
    let name = &conversation.audio_path;
    let mut recorder = bench.recordings.create(&conversation).await.unwrap();
    recorder.append(&ramp(1, 40)).await.unwrap();
    let before = bench.bytes(name);
    recorder.append(&ramp(41, 40)).await.unwrap();
    drop(recorder);
    let after = bench.bytes(name);
    let path = bench.recordings.dir().join(name);
    // The last write got as far as `length`, with the header of before or after
    // it, or with none of it on disk.
    for length in 0..=after.len() {
        let mut blank = after.clone();
        blank[..HEADER].fill(0);
        let mut old = after.clone();
        old[..HEADER].copy_from_slice(&before[..HEADER]);
        for bytes in [&after, &old, &blank] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let samples = bench.recordings.repair(name).await.unwrap();
            let want = (length.saturating_sub(HEADER) / 2) as i16;
            assert_eq!(samples, want as u64);
            assert_eq!(play(&bench.bytes(name)), ramp(1, want), "at {length}");
        }
    }
}

#[tokio::test]
async fn repair_leaves_foreign_files_alone() {
    let bench = bench(Duration::ZERO);
    let path = bench.recordings.dir().join("other.wav");
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 44_100,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(&path, spec).unwrap();
    writer.write_sample(1i16).unwrap();
    writer.write_sample(2i16).unwrap();
    writer.finalize().unwrap();
    let before = bench.bytes("other.wav");
    let error = bench.recordings.repair("other.wav").await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadInput);
    assert_eq!(bench.bytes("other.wav"), before);
}

#[tokio::test]
async fn reads_are_bounded_and_inside_the_directory() {
    let bench = bench(Duration::ZERO);
    let conversation = conversation();
    let name = conversation.audio_path.as_str();
    let mut recorder = bench.recordings.create(&conversation).await.unwrap();
    recorder.append(&ramp(0, 100)).await.unwrap();
    let spans = [Span { start: 10, end: 12 }, Span { start: 98, end: 100 }];
    assert_eq!(bench.recordings.read(name, &spans).await.unwrap(), [10, 11, 98, 99]);
    let kind = |result: Result<Vec<i16>>| result.unwrap_err().kind();
    let short = bench.recordings.read(name, &[Span { start: 99, end: 101 }]).await;
    assert_eq!(kind(short), Kind::BadInput);
    let huge = bench.recordings.read(name, &[Span { start: 0, end: u64::MAX }; 2]).await;
    assert_eq!(kind(huge), Kind::TooLarge);
    let whole = bench.recordings.playable(name).await.unwrap();
    assert_eq!(whole.bytes, 244);
    let pieces = whole.stream(0, 244).await.unwrap();
    let all: Vec<_> = futures_util::TryStreamExt::try_collect(pieces).await.unwrap();
    assert_eq!(play(&all.concat()), ramp(0, 100));

    let mut outside = File::create(bench.dir.path().join("secret.wav")).unwrap();
    outside.write_all(b"secret").unwrap();
    for bad in ["../secret.wav", "..", ".", "", ".hidden", "a/b", "a\\b", "a\0b", "/etc/passwd"] {
        let result = bench.recordings.playable(bad).await;
        assert_eq!(result.err().map(|e| e.kind()), Some(Kind::NotFound), "{bad:?}");
    }
}
