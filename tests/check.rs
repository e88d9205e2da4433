//! `friend-lite check` on what the real daemon leaves, and a database that is
//! damaged between two runs of it.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::harness::speech::{noise, reading};

async fn record(client: &Client, device: &str, samples: &[i16]) {
    let mut socket = client.socket(device).await;
    socket.session(samples, 0.0).await;
    socket.close().await;
}

/// Waits until so many conversations are there, all of them closed.
async fn closed(client: &Client, conversations: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let mut all = client.conversations().await;
        all.sort_by_key(|c| c["conversation_id"].to_string());
        let silent_are_known = all.iter().all(|c| {
            let long = c["duration_seconds"].as_f64().unwrap() > 5.0;
            c["is_open"] == false && (long || c["transcription_status"] == "EMPTY")
        });
        if all.len() == conversations && silent_are_known {
            return all;
        }
        assert!(Instant::now() < deadline, "{all:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Writes over the database and its log.
fn damage(state: &Path) {
    for (name, from) in [("friend-lite.db", 4096), ("friend-lite.db-wal", 0)] {
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(false).open(state.join(name)).unwrap();
        file.seek(SeekFrom::Start(from)).unwrap();
        file.write_all(&vec![0x55; 256 * 1024]).unwrap();
    }
}

#[tokio::test]
async fn a_check_says_what_is_wrong_and_a_repair_mends_it() {
    let models = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::without_models(models.path(), &[]);
    let admin = daemon.admin().await;
    record(&admin, "phone", &noise(1.0, 2000.0)).await;
    closed(&admin, 1).await;
    daemon.assert_clean();
    let (code, said) = daemon.command(&["check", "--repair"]);
    assert_eq!((code, said.contains("another friend-lite is using")), (Some(2), true), "{said}");

    // Killed in the middle of a conversation.
    let mut socket = admin.socket("tablet").await;
    socket.event("audio-start", None).await;
    socket.stream(&reading(0.2).0, 0.0).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while admin.conversations().await.len() < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    daemon.kill();
    let (code, said) = daemon.command(&["check"]);
    assert_eq!((code, said.contains("was left open")), (Some(1), true), "{said}");
    assert!(said.contains("what to do:"), "{said}");
    let (code, said) = daemon.command(&["check", "--json"]);
    let found: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((code, &found["findings"][0]["fault"]), (Some(1), &"conversation-open".into()));
    let (code, said) = daemon.command(&["check", "--repair"]);
    assert_eq!((code, said.contains("mended: ")), (Some(0), true), "{said}");
    daemon.assert_clean();

    // A file that is gone cannot be mended, and nothing else is made up for it.
    let audio = daemon.state_dir().join("audio");
    let tablet = std::fs::read_dir(&audio).unwrap().flatten();
    let tablet = tablet.filter(|e| e.file_name().to_string_lossy().contains("-tablet_"));
    let tablet = tablet.map(|entry| entry.path()).next().unwrap();
    std::fs::rename(&tablet, models.path().join("kept.wav")).unwrap();
    let (code, said) = daemon.command(&["check", "--repair"]);
    assert_eq!((code, said.contains("recording-missing")), (Some(1), true), "{said}");
    std::fs::rename(models.path().join("kept.wav"), &tablet).unwrap();
    daemon.assert_clean();

    std::fs::remove_dir_all(daemon.state_dir()).unwrap();
    let (code, said) = daemon.command(&["check"]);
    assert_eq!((code, said.contains("no database")), (Some(2), true), "{said}");
}

#[tokio::test]
async fn a_damaged_database_is_replaced_and_all_recordings_are_found_again() {
    let place = tempfile::tempdir().unwrap();
    let backups = place.path().join("backups");
    let to = backups.to_str().unwrap();
    let keys = [("BACKUP__DIR", to), ("RECORDING__ARCHIVE", "wav"), ("CROPPING__ENABLED", "false")];
    let mut daemon = Daemon::without_models(place.path(), &keys);
    let (admin, ben) = (daemon.admin().await, daemon.user("ben@example.com").await);
    record(&admin, "phone", &noise(1.0, 2000.0)).await;
    record(&ben, "watch", &reading(0.2).0).await;
    closed(&ben, 1).await;
    let (code, said) = daemon.command(&["backup", to]);
    assert_eq!(code, Some(0), "{said}");
    record(&ben, "later", &noise(2.0, 2000.0)).await;
    let his = closed(&ben, 2).await;

    daemon.kill();
    damage(&daemon.state_dir());
    let (code, said) = daemon.command(&["check"]);
    assert_eq!((code, said.contains("database-damaged")), (Some(1), true), "{said}");
    daemon.restart();
    assert!(daemon.log().contains("the database is damaged"), "{}", daemon.log());
    // Ben is in the backup, and so is what he said before it; the rest is found.
    let ben = Client::login(&daemon.url, "ben@example.com", "pass of this user").await;
    let names = |all: &[Value]| -> Vec<(String, String)> {
        let text = |c: &Value, key: &str| c[key].as_str().unwrap().to_owned();
        all.iter().map(|c| (text(c, "conversation_id"), text(c, "client_id"))).collect()
    };
    let found = closed(&ben, 2).await;
    assert_eq!(names(&found), names(&his));
    let lengths = |all: &[Value]| -> Vec<Value> {
        all.iter().map(|c| c["duration_seconds"].clone()).collect()
    };
    assert_eq!(lengths(&found), lengths(&his));
    daemon.stop_clean();

    // Without a backup there is a new one, and an administrator has it all.
    std::fs::remove_dir_all(&backups).unwrap();
    damage(&daemon.state_dir());
    daemon.restart();
    let all = closed(&daemon.admin().await, 3).await;
    assert!(names(&his).iter().all(|name| names(&all).contains(name)), "{all:?}");
    daemon.stop_clean();
    let aside = std::fs::read_dir(daemon.state_dir()).unwrap().flatten();
    let aside = aside.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("friend-lite.damaged-") && name.ends_with(".db")
    });
    assert_eq!(aside.count(), 2);
}
