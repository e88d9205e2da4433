//! Backups of the real daemon while it works: made, cut short, and restored.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, program};
use crate::harness::speech::{noise, reading};

/// A daemon that keeps what it records as it is, and has no models.
fn daemon(models: &Path) -> Daemon {
    let keys = [("RECORDING__ARCHIVE", "wav"), ("CROPPING__ENABLED", "false")];
    Daemon::without_models(models, &keys)
}

/// Records conversations, half of them with speech, which waits for a model.
async fn filled(daemon: &Daemon, conversations: usize) -> Client {
    let admin = daemon.admin().await;
    for number in 0..conversations {
        let speech = if number % 2 == 0 { noise(2.0, 2000.0) } else { reading(0.2).0 };
        record(&admin, &format!("phone{number}"), &speech).await;
    }
    at_rest(&admin, conversations, conversations.div_ceil(2)).await;
    admin
}

async fn record(client: &Client, device: &str, samples: &[i16]) {
    let mut socket = client.socket(device).await;
    socket.session(samples, 0.0).await;
    socket.close().await;
}

/// Waits until so many conversations are closed, and so many known to be silent.
async fn at_rest(client: &Client, conversations: usize, silent: usize) {
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    loop {
        let all = client.conversations().await;
        let open = all.iter().filter(|c| c["is_open"] == true).count();
        let empty = all.iter().filter(|c| c["transcription_status"] == "EMPTY").count();
        if (all.len(), open, empty) == (conversations, 0, silent) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{all:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the API says of everything, and the audio itself.
async fn answers(client: &Client) -> (Vec<Value>, Value, Vec<String>) {
    let mut conversations = client.conversations().await;
    conversations.sort_by_key(|c| c["conversation_id"].to_string());
    let mut audio = Vec::new();
    for conversation in &conversations {
        let name = conversation["audio_path"].as_str().unwrap();
        let response = client.request("GET", &format!("/audio/{name}")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{name}");
        let bytes = response.bytes().await.unwrap();
        audio.push(hex::encode(Sha256::digest(&bytes)));
    }
    (conversations, client.get("/api/memories").await, audio)
}

/// Everything that a directory holds, with the sizes of the files.
fn contents(dir: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            let below = contents(&entry.path());
            found.extend(below.into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            found.push((name, metadata.len()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_backup_gives_the_same_answers_as_what_it_was_made_of() {
    let place = tempfile::tempdir().unwrap();
    let backups = place.path().join("backups");
    let to = backups.to_str().unwrap();
    let mut daemon = daemon(place.path());
    let admin = filled(&daemon, 4).await;
    let before = answers(&admin).await;

    let (code, said) = daemon.command(&["backup", to]);
    assert_eq!((code, said.contains("backup 1 in")), (Some(0), true), "{said}");
    // A second one shares what has not changed.
    let (code, said) = daemon.command(&["backup", to, "--verify"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(", 0 of them new"), "{said}");

    let (code, said) = daemon.command(&["restore", to]);
    assert_eq!((code, said.contains("another friend-lite is using")), (Some(1), true), "{said}");
    daemon.stop_clean();
    let (code, said) = daemon.command(&["restore", to]);
    assert_eq!((code, said.contains("--force")), (Some(1), true), "{said}");

    std::fs::remove_dir_all(daemon.state_dir()).unwrap();
    let (code, said) = daemon.command(&["restore", to]);
    assert_eq!(code, Some(0), "{said}");
    daemon.assert_clean();
    daemon.restart();
    let admin = daemon.admin().await;
    assert_eq!(answers(&admin).await, before);

    // Over what is there: that is put aside, and nothing of it is mixed in.
    record(&admin, "later", &noise(1.0, 2000.0)).await;
    at_rest(&admin, 5, 3).await;
    daemon.stop_clean();
    let (code, said) = daemon.command(&["restore", to, "--force", "--number", "1"]);
    assert_eq!((code, said.contains("before-restore-")), (Some(0), true), "{said}");
    daemon.restart();
    assert_eq!(answers(&daemon.admin().await).await, before);
    daemon.stop_clean();
}

#[tokio::test]
async fn a_backup_or_restore_that_is_killed_starts_over_without_harm() {
    let place = tempfile::tempdir().unwrap();
    let backups = place.path().join("backups");
    let to = backups.to_str().unwrap();
    let mut daemon = daemon(place.path());
    let admin = filled(&daemon, 4).await;
    let state = daemon.state_dir();
    let killed = |arguments: &[&str], after: Duration| {
        let mut child = Command::new(program("friend-lite"))
            .args(arguments)
            .args(["--config", "/dev/null", "--state-dir"])
            .arg(&state)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(after);
        let early = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        early
    };
    let (code, said) = daemon.command(&["backup", to]);
    assert_eq!(code, Some(0), "{said}");
    let first = contents(&backups);
    record(&admin, "later", &noise(1.0, 2000.0)).await;
    at_rest(&admin, 5, 3).await;
    let before = answers(&admin).await;
    let mut cut_short = 0;
    for attempt in 0..12 {
        cut_short += u32::from(killed(&["backup", to], Duration::from_millis(4 * attempt)));
    }
    assert!(cut_short > 0, "it was always faster");
    // What the first is made of is all there.
    let now = contents(&backups);
    let of_first = first.iter().filter(|(name, _)| name != ".lock");
    assert!(of_first.clone().all(|file| now.contains(file)), "{first:?}\n{now:?}");
    let (code, said) = daemon.command(&["backup", to]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!contents(&backups).iter().any(|(name, _)| name.ends_with(".part")));

    daemon.stop_clean();
    std::fs::remove_dir_all(daemon.state_dir()).unwrap();
    for attempt in 0..12 {
        killed(&["restore", to, "--force"], Duration::from_millis(4 * attempt));
    }
    let (code, said) = daemon.command(&["restore", to, "--force"]);
    assert_eq!(code, Some(0), "{said}");
    daemon.restart();
    assert_eq!(answers(&daemon.admin().await).await, before);
    daemon.stop_clean();
}

#[tokio::test]
async fn an_export_can_be_read_by_anybody() {
    let place = tempfile::tempdir().unwrap();
    let mut daemon = daemon(place.path());
    filled(&daemon, 2).await;
    daemon.user("ben@example.com").await;
    let to = place.path().join("export");
    let (code, said) = daemon.command(&["export", to.to_str().unwrap()]);
    assert_eq!((code, said.contains("2 users with 2 conversations")), (Some(0), true), "{said}");
    let (code, said) = daemon.command(&["export", to.to_str().unwrap()]);
    assert_eq!((code, said.contains("there already")), (Some(1), true), "{said}");
    let hers = to.join("admin@example.com");
    let lines = std::fs::read_to_string(hers.join("conversations.jsonl")).unwrap();
    let all: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(all.len(), 2);
    for conversation in &all {
        let audio = std::fs::read(hers.join(conversation["audio"].as_str().unwrap())).unwrap();
        let seconds = conversation["duration_seconds"].as_f64().unwrap();
        assert_eq!(audio.len(), 44 + 2 * (seconds * 16_000.0).round() as usize);
    }
    let pages = contents(&hers).into_iter().filter(|(name, _)| name.ends_with(".md")).count();
    assert_eq!(pages, 3, "two conversations and the memories");

    let one = place.path().join("ben");
    let (code, said) =
        daemon.command(&["export", one.to_str().unwrap(), "--user", "ben@example.com"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(one.join("ben@example.com/memories.jsonl").exists());
    assert!(!one.join("admin@example.com").exists());
    daemon.stop_clean();
}
