use std::path::PathBuf;

use super::*;
use crate::cli::user::Elsewhere;
use crate::config::Config;
use crate::domain::conversation::{CloseReason, NewWindow, Span};
use crate::domain::ids::ClientId;
use crate::domain::job::Lane;
use crate::domain::user::{Device, User};
use crate::jobs::Wake;
use crate::store::sqlite::testing::{self, Fixture, at};
use crate::store::{Conversations, Deletions, Memories, Upkeep, Users};

struct Bench {
    fixture: Fixture,
    recordings: Recordings,
    check: Check,
    sweep: Sweep,
    anna: User,
}

impl Bench {
    async fn new() -> Self {
        let fixture = Fixture::new();
        let mut anna = testing::user("anna");
        anna.is_superuser = true;
        fixture.store.add_user(&anna).await.unwrap();
        let clock = Clock::simulated(Clock::system().now().plus(Duration::from_secs(7_200)));
        let dir = fixture.dir.path().join("state");
        let recordings = Recordings::open(&dir, Duration::ZERO, clock.clone()).unwrap();
        let store: Arc<dyn Store> = Arc::new(fixture.store.clone());
        let check = Check::new(store.clone(), recordings.clone(), clock.clone(), false);
        let mut config = Config::default();
        config.recording.archive = "wav".into();
        let (live, wake) = (Arc::new(Elsewhere), Wake::default());
        let sweep = Sweep::new(store, recordings.clone(), live, &config, wake, clock);
        Self { fixture, recordings, check, sweep, anna }
    }

    /// A conversation of two seconds and its recording; one window waits.
    async fn recorded(&self) -> Conversation {
        let mut new = testing::conversation(&self.anna);
        new.audio_path =
            Recordings::file_name(new.started_at, &new.client_id, &new.id, Format::Wav);
        let device = Device {
            client_id: new.client_id.clone(),
            user_id: self.anna.id.clone(),
            device_name: None,
            first_seen: at(0),
            last_seen: at(0),
        };
        self.fixture.store.see_device(&device).await.unwrap();
        self.fixture.store.open_conversation(&new).await.unwrap();
        let mut recorder = self.recordings.create(&new).await.unwrap();
        recorder.append(&[1; 32_000]).await.unwrap();
        recorder.close().await;
        new
    }

    async fn closed(&self) -> Conversation {
        let row = self.recorded().await;
        self.close(&row, &[testing::window(0)]).await;
        row
    }

    async fn close(&self, row: &Conversation, windows: &[NewWindow]) {
        let (store, reason) = (&self.fixture.store, CloseReason::AudioStop);
        store.close_conversation(&row.id, 32_000, windows, reason, at(3)).await.unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.recordings.dir().join(name)
    }

    fn sql(&self, sql: &str) {
        let path = self.fixture.dir.path().join("state/friend-lite.db");
        let db = rusqlite::Connection::open(path).unwrap();
        db.execute_batch(sql).unwrap();
    }

    async fn faults(&self) -> Vec<Fault> {
        let report = self.check.run(|_, _| {}).await.unwrap();
        report.findings.into_iter().map(|finding| finding.fault).collect()
    }

    /// The faults before a repair, and those that it leaves.
    async fn repaired(&self) -> (Vec<Fault>, Vec<Fault>) {
        let before = self.faults().await;
        self.check.repair(&self.sweep).await.unwrap();
        let after = self.faults().await;
        for fault in &before {
            assert_eq!(fault.is_mendable(), !after.contains(fault), "{fault:?}");
        }
        (before, after)
    }
}

#[tokio::test]
async fn what_is_as_it_should_be_is_clean() {
    let bench = Bench::new().await;
    bench.closed().await;
    bench.fixture.remember(&bench.anna, &[testing::add("I like tea", 1)]).await;
    // That one has no audio at all.
    bench.sql("update conversations set samples = 0 where audio_path not like '%anna%'");
    let report = bench.check.run(|_, _| {}).await.unwrap();
    assert_eq!(report, Report { conversations: 2, recordings: 1, findings: vec![] });
}

#[tokio::test]
async fn rows_and_files_that_have_lost_each_other_are_found() {
    let bench = Bench::new().await;
    let [missing, renamed, lost] =
        [bench.closed().await, bench.closed().await, bench.closed().await];
    std::fs::remove_file(bench.path(&missing.audio_path)).unwrap();
    let to = Recordings::archived_name(&renamed.audio_path).unwrap();
    std::fs::copy(bench.path(&renamed.audio_path), bench.path(&to)).unwrap();
    assert_eq!(bench.faults().await, [Fault::RecordingMissing], "an archive cut short is fine");
    std::fs::remove_file(bench.path(&renamed.audio_path)).unwrap();
    bench.sql(&format!("delete from conversations where id = '{}'", lost.id));
    bench.sql("delete from devices");

    let (before, after) = bench.repaired().await;
    // The copy is no Ogg file, but that is another matter.
    assert!(before.contains(&Fault::RecordingRenamed), "{before:?}");
    assert!(before.contains(&Fault::RecordingWithoutRow), "{before:?}");
    assert!(after.contains(&Fault::RecordingMissing), "{after:?}");
    let row = bench.fixture.get(&renamed.id).await;
    assert_eq!(row.audio_path, to);
    let found = bench.fixture.get(&lost.id).await;
    assert_eq!((found.client_id, found.user_id), (lost.client_id, bench.anna.id.clone()));
    assert_eq!((found.samples, found.ended_at.is_some()), (32_000, true));
}

#[tokio::test]
async fn a_recording_of_nobody_known_goes_to_an_administrator() {
    let bench = Bench::new().await;
    let lost = bench.closed().await;
    bench.sql("delete from conversations; delete from devices");
    let (id, client) = (ConversationId::generate(), ClientId::from_text("abcdef-phone"));
    let name = Recordings::file_name(at(9), &client, &id, Format::Wav);
    std::fs::rename(bench.path(&lost.audio_path), bench.path(&name)).unwrap();
    let (before, after) = bench.repaired().await;
    assert_eq!((before, after), (vec![Fault::RecordingWithoutRow], vec![]));
    let found = bench.fixture.get(&id).await;
    assert_eq!((found.client_id, found.user_id), (client, bench.anna.id.clone()));
}

#[tokio::test]
async fn lengths_and_windows_are_compared() {
    let bench = Bench::new().await;
    let (short, long) = (bench.closed().await, bench.closed().await);
    let cut = |row: &Conversation, bytes| {
        let path = bench.path(&row.audio_path);
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
    };
    cut(&short, 44 + 32_000);
    cut(&long, 44 + 96_000);
    let overlapping = bench.recorded().await;
    let twice = NewWindow { seq: 1, spans: vec![Span { start: 8_000, end: 20_000 }] };
    bench.close(&overlapping, &[testing::window(0), twice]).await;
    let beyond = bench.recorded().await;
    bench.close(&beyond, &[testing::window(2)]).await;
    let (before, after) = bench.repaired().await;
    let expected = [
        Fault::RecordingShort,
        Fault::RecordingLong,
        Fault::WindowMisplaced,
        Fault::WindowMisplaced,
    ];
    assert_eq!((before.as_slice(), after.as_slice()), (&expected[..], &expected[..]));
}

#[tokio::test]
async fn what_a_crash_leaves_is_mended() {
    let bench = Bench::new().await;
    let open = bench.recorded().await;
    let store = &bench.fixture.store;
    store.add_window(&open.id, 16_000, &testing::window(0), Lane::Live, at(2)).await.unwrap();
    bench.sql("delete from jobs");
    let gone = bench.closed().await;
    let deleted = store.delete_conversation(&gone.id, true, None, at(9)).await.unwrap();
    assert_eq!(deleted.files, [gone.audio_path.as_str()]);
    let crop = Recordings::cropped_name(&gone.id);
    let half = format!(".{}.part", Recordings::archived_name(&gone.audio_path).unwrap());
    for name in [&crop, &half] {
        std::fs::write(bench.path(name), b"left").unwrap();
    }
    let uncropped = bench.closed().await;
    bench.sql(&format!(
        "insert into crops values ('{}', 'cropped_x.wav', '[]', 0);
         update conversations set waiting = 7 where id = '{0}'",
        uncropped.id
    ));
    let (before, after) = bench.repaired().await;
    let expected = [
        Fault::JobMissing,
        Fault::CoverageWrong,
        Fault::ConversationOpen,
        Fault::CropMissing,
        Fault::DeletionUnfinished,
        Fault::FileLeft,
        Fault::FileLeft,
    ];
    assert_eq!(before, expected);
    assert_eq!(after, []);
    assert!(!bench.path(&gone.audio_path).exists() && !bench.path(&half).exists());
    assert!(bench.path(&open.audio_path).exists());
    assert_eq!(store.crops().await.unwrap(), []);
}

#[tokio::test]
async fn memories_and_their_indexes_are_compared() {
    let bench = Bench::new().await;
    let facts = [testing::add("I like tea", 1), testing::add("My cat is called Tom", 2)];
    bench.fixture.remember(&bench.anna, &facts).await;
    bench.sql("update conversations set samples = 0");
    assert_eq!(bench.faults().await, []);
    let store = &bench.fixture.store;
    store
        .write(|tx| {
            tx.execute_batch(
                "delete from memory_vectors where seq = 1;
                 delete from memories_fts where rowid = 2;
                 insert into memories_fts (rowid, text) values (9, 'nothing');",
            )?;
            Ok(())
        })
        .await
        .unwrap();
    let (before, after) = bench.repaired().await;
    let expected = [Fault::MemoryNotIndexed, Fault::MemoryNotIndexed, Fault::IndexEntryLeft];
    assert_eq!((before.as_slice(), after.as_slice()), (&expected[..], &[][..]));
    assert_eq!(store.search_text(&bench.anna.id, "cat", 5).await.unwrap().len(), 1);
    assert_eq!(store.search_text(&bench.anna.id, "nothing", 5).await.unwrap().len(), 0);
}
