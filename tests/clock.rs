//! The machine's clock is wrong, and then it is set: in the daemon's eyes, by
//! libfaketime, which changes what the wall clock tells and leaves all others.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::client::{Client, PATIENCE};
use crate::harness::daemon::Daemon;
use crate::harness::{speech, wer};

const DAY: i64 = 24 * 3600;

/// Seconds since 1970, really.
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// What the daemon's wall clock tells.
struct Wall(tempfile::NamedTempFile);

impl Wall {
    fn off_by(seconds: i64) -> Self {
        let wall = Self(tempfile::NamedTempFile::new().unwrap());
        wall.set_off_by(seconds);
        wall
    }

    fn set_off_by(&self, seconds: i64) {
        // In one piece, so that nobody reads half of it.
        let new = self.0.path().with_extension("new");
        std::fs::write(&new, format!("{seconds:+}")).unwrap();
        std::fs::rename(new, self.0.path()).unwrap();
    }

    fn daemon(&self) -> Daemon {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        Daemon::with(&[
            ("LD_PRELOAD", &text(&library())),
            ("FAKETIME_TIMESTAMP_FILE", &text(self.0.path())),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            // The kernel does not know of this clock, so nobody is told at once.
            ("JOBS__SWEEP_INTERVAL", "500ms"),
            ("MEMORY__ENABLED", "false"),
        ])
    }
}

fn library() -> PathBuf {
    let dirs = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = dirs.map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).expect("the package libfaketime; `./dev test` installs it")
}

/// Waits until the daemon's log says `words` that many times.
async fn said(daemon: &Daemon, words: &str, times: usize) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while daemon.log().matches(words).count() < times {
        assert!(std::time::Instant::now() < deadline, "no `{words}` in\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// When a conversation began, in seconds since 1970, and whether that is a guess.
fn began(conversation: &Value) -> (i64, bool) {
    let at = conversation["timestamp"].as_f64().unwrap_or_else(|| panic!("{conversation}"));
    (at as i64, conversation["time_estimated"].as_bool().unwrap())
}

#[tokio::test]
async fn a_board_that_wakes_up_in_1970_records_and_is_put_right() {
    let wall = Wall::off_by(30 - now());
    let mut daemon = wall.daemon();
    said(&daemon, "clock has not been set", 1).await;
    let client = daemon.admin().await;
    let sample = speech::jfk();
    let samples = speech::samples(&sample.path);

    let mut socket = client.socket("board").await;
    socket.session(&samples, 8.0).await;
    let first = client.settled().await;
    let (at, estimated) = began(&first);
    // Not 1970: time goes on from the earliest that it can be.
    assert!(estimated && (1_767_225_600..now()).contains(&at), "{first}");
    socket.close().await;

    // The same boot, another process: it goes on where that was.
    daemon.kill_and_restart();
    let client = Client { url: daemon.url.clone(), ..client.clone() };
    let (half, rest) = samples.split_at(samples.len() / 2);
    let mut socket = client.socket("board").await;
    socket.event("audio-start", None).await;
    socket.stream(half, 8.0).await;
    wall.set_off_by(0);
    said(&daemon, "corrected the times", 1).await;
    socket.stream(rest, 8.0).await;
    socket.event("audio-stop", None).await;
    socket.close().await;

    // With the token of 1970, which is not a minute old.
    let all = settled(&client, 2).await;
    for conversation in &all {
        let (at, estimated) = began(conversation);
        assert!(!estimated && (now() - 120..=now()).contains(&at), "{conversation}");
        let text = conversation["transcript"].as_str().unwrap_or_default();
        assert_eq!(wer::rate(&sample.text, text), 0.0, "{text}");
    }
    assert!(began(&all[0]).0 >= began(&all[1]).0, "the newest is first");
    daemon.stop_clean();
}

#[tokio::test]
async fn a_clock_that_is_moved_by_a_day_does_no_harm() {
    let wall = Wall::off_by(0);
    let daemon = wall.daemon();
    let client = daemon.admin().await;
    let sample = speech::jfk();
    let samples = speech::samples(&sample.path);
    let mut socket = client.socket("board").await;
    socket.event("audio-start", None).await;
    let third = samples.len() / 3;
    socket.stream(&samples[..third], 8.0).await;
    for (number, offset) in [DAY, 0].into_iter().enumerate() {
        wall.set_off_by(offset);
        said(&daemon, "clock was moved by", number + 1).await;
        let from = third * (number + 1);
        let to = if number == 1 { samples.len() } else { from + third };
        socket.stream(&samples[from..to], 8.0).await;
        // The token is as old as it is.
        client.get("/users/me").await;
    }
    socket.event("audio-stop", None).await;
    socket.close().await;
    let all = settled(&client, 1).await;
    let text = all[0]["transcript"].as_str().unwrap_or_default();
    assert_eq!(wer::rate(&sample.text, text), 0.0, "{text}");
    assert!(!began(&all[0]).1, "{}", all[0]);
    assert!(!daemon.log().contains("WARN friend_lite::pipeline::reconcile"), "{}", daemon.log());
}

/// Waits until there are `count` conversations, all of them transcribed.
async fn settled(client: &Client, count: usize) -> Vec<Value> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let all = client.conversations().await;
        let done = |one: &Value| one["transcription_status"] != "PENDING";
        if all.len() == count && all.iter().all(done) {
            let mut whole = Vec::new();
            for one in all {
                let id = one["conversation_id"].as_str().unwrap();
                let one = client.get(&format!("/api/conversations/{id}")).await;
                whole.push(one["conversation"].clone());
            }
            return whole;
        }
        assert!(std::time::Instant::now() < deadline, "{all:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
