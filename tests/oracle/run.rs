//! One run: stream, kill, look at the disk, start again; then count.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use friend_lite::engine::{LLAMA, WHISPER};

use crate::device::{Device, Target};
use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::numbered::{self, Block};
use crate::tally::{Disk, Tally, report};

/// Devices at once, each of a user of its own.
const DEVICES: u16 = 3;
/// How many times faster than real time they talk.
const SPEED: f64 = 12.0;
/// Longest wait for the last transcript.
const PATIENCE: Duration = Duration::from_secs(400);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Daemon,
    Engine,
    Both,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Daemon => "the daemon",
            Self::Engine => "the engine",
            Self::Both => "either or both",
        })
    }
}

/// Streams, kills `victim` that many times, and counts.
pub async fn run(victim: Victim, kills: u32, seed: u64) -> Tally {
    let mut random = StdRng::seed_from_u64(seed);
    let place = tempfile::tempdir().unwrap();
    let mut daemon = start(place.path());
    let (url, urls) = watch::channel(daemon.url.clone());
    let end = CancellationToken::new();
    let mut users = Vec::new();
    let mut devices = tokio::task::JoinSet::new();
    for number in 0..DEVICES {
        let user = daemon.user(&format!("user{number}@example.com")).await;
        let target = Target { url: urls.clone(), token: user.token.clone(), end: end.clone() };
        devices.spawn(Device::new(number, target, seed, SPEED).run());
        users.push(user);
    }
    let mut disk = Disk::default();
    let mut done = 0;
    while done < kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await;
        let (the_daemon, the_engine) = match victim {
            Victim::Daemon => (true, false),
            Victim::Engine => (false, true),
            Victim::Both => [(true, true), (true, false), (false, true)][random.random_range(0..3)],
        };
        let killed = the_engine && kill_engine(&daemon);
        if the_daemon {
            daemon.kill();
        }
        disk.read(&daemon.state_dir().join("audio"));
        if the_daemon {
            // Now and then it dies again before it is up.
            while random.random_bool(0.2) {
                let soon = Duration::from_millis(random.random_range(0..150));
                daemon.start_and_kill_after(soon);
                disk.read(&daemon.state_dir().join("audio"));
            }
            daemon.restart();
            url.send_replace(daemon.url.clone());
        }
        done += u32::from(killed || the_daemon);
    }
    end.cancel();
    devices.join_all().await;

    let told = transcripts(&daemon, &users).await;
    settle(&daemon.state_dir()).await;
    daemon.stop_clean();
    disk.read(&daemon.state_dir().join("audio"));
    nothing_left(&daemon.state_dir());
    let tally = Tally::of(&disk.blocks, &told);
    if !tally.is_perfect() {
        report(&disk.blocks, &told);
        daemon.keep();
    }
    tally
}

/// A daemon whose speech engine is this program.
fn start(place: &Path) -> Daemon {
    let (engines, models) = (place.join("engines"), place.join("models"));
    for dir in [&engines, &models] {
        std::fs::create_dir(dir).unwrap();
    }
    let this = std::env::current_exe().unwrap();
    // The other engine has to be there; with memory off it is never started.
    for engine in [WHISPER, LLAMA] {
        std::os::unix::fs::symlink(&this, engines.join(engine)).unwrap();
    }
    let model = models.join("numbers.bin");
    std::fs::write(&model, "the stand-in needs none").unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    Daemon::without_models(
        &models,
        &[
            ("ENGINES__DIR", &text(&engines)),
            ("STT__MODEL", &text(&model)),
            ("MEMORY__ENABLED", "false"),
            // On a busy machine it would get no turn at all.
            ("ENGINES__NICE", "0"),
            ("RECORDING__SYNC_INTERVAL", "100ms"),
            // Faster than real time, so that windows are cut while all is alive.
            ("TRANSCRIBE__WINDOW_MIN", "3s"),
            ("TRANSCRIBE__WINDOW_MAX", "7s"),
            ("CONVERSATION__SILENCE_TIMEOUT", "4s"),
            ("JOBS__RETRY_PAUSE", "50ms"),
            ("JOBS__MAX_ATTEMPTS", "25"),
            ("JOBS__SWEEP_INTERVAL", "1s"),
        ],
    )
}

/// Whether there was an engine to kill.
fn kill_engine(daemon: &Daemon) -> bool {
    let engines = daemon.engines(WHISPER);
    for pid in &engines {
        let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    !engines.is_empty()
}

/// Waits until everything is transcribed; how often each block is told.
async fn transcripts(daemon: &Daemon, users: &[Client]) -> BTreeMap<Block, u32> {
    let deadline = Instant::now() + PATIENCE;
    let mut told = BTreeMap::new();
    for user in users {
        let user = Client { url: daemon.url.clone(), ..user.clone() };
        let conversations = loop {
            let page = user.get("/api/conversations?view=list&limit=1000").await;
            let all = page["conversations"].as_array().unwrap().clone();
            assert!(all.len() < 1_000, "more conversations than one page holds");
            let waits = |c: &&Value| c["transcription_status"] == "PENDING";
            match all.iter().find(waits) {
                None => break all,
                Some(one) => assert!(Instant::now() < deadline, "not transcribed: {one}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        for conversation in conversations {
            assert_ne!(conversation["transcription_status"], "FAILED", "{conversation}");
            for segment in conversation["transcript"].as_array().unwrap() {
                numbered::count(segment["text"].as_str().unwrap(), &mut told);
            }
        }
    }
    told
}

/// Waits for the jobs that come after the transcripts, and for those that the
/// sweep has yet to make: every recording is archived in the end.
async fn settle(state: &Path) {
    let deadline = Instant::now() + PATIENCE;
    let unarchived = "select count(*) from conversations
                      where samples > 0 and substr(audio_path, -4) = '.wav'";
    let left = |db: &rusqlite::Connection| {
        let waiting: i64 = db.query_row(unarchived, [], |row| row.get(0)).unwrap();
        waiting + unfinished(db, "jobs")
    };
    while left(&open(state)) > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The daemon's database, to look at.
fn open(state: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    rusqlite::Connection::open_with_flags(state.join("friend-lite.db"), flags).unwrap()
}

/// How many rows of a table are waiting, held or given up.
fn unfinished(db: &rusqlite::Connection, table: &str) -> i64 {
    let sql = format!("select count(*) from {table} where state <> 'done'");
    db.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// No job and no window is left waiting, held or given up.
fn nothing_left(state: &Path) {
    let db = open(state);
    assert_eq!(unfinished(&db, "jobs"), 0, "jobs left");
    assert_eq!(unfinished(&db, "windows"), 0, "windows left");
    let open = "select count(*) from conversations where ended_at is null";
    assert_eq!(db.query_row(open, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}
