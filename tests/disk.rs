//! The disk: full, read-only, forbidden, and well again, on the real daemon.
//! These mount small file systems of their own, for which they need to be root;
//! elsewhere they say so and do nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::{Client, Socket};
use crate::harness::daemon::Daemon;
use crate::harness::speech::{noise, reading};

/// A file system in memory, gone with this.
pub struct Mount(PathBuf);

impl Mount {
    pub fn new(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"], at);
        Self(at.into())
    }

    /// Remounts it as soon as nothing on it is open for writing.
    async fn remount_once_free(&self, options: &str) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let attempt = || {
            Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).output()
        };
        while !attempt().unwrap().status.success() {
            assert!(Instant::now() < deadline, "{} stays busy", self.0.display());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}")], &self.0);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&str], at: &Path) {
    let status = Command::new(program).args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "{program} {arguments:?} {}", at.display());
}

/// Whether file systems can be mounted here.
pub fn may_mount(test: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mounted = rustix::process::geteuid().is_root()
        && Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
    if mounted {
        run("umount", &[], dir.path());
    } else {
        eprintln!("SKIPPED {test}: it has to mount a file system, which takes root");
    }
    mounted
}

/// Waits until `/health` fits.
async fn until(client: &Client, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let health = client.get("/health").await;
        if fits(&health) {
            return health;
        }
        assert!(Instant::now() < deadline, "{what}: {health}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn refused(health: &Value) -> bool {
    health["services"]["disk"]["healthy"] == false && health["status"] == "critical"
}

fn accepted(health: &Value) -> bool {
    health["services"]["disk"]["healthy"] == true
}

/// The message and the code with which a socket is closed.
async fn ending(socket: &mut Socket) -> (String, u16) {
    let mut said = String::new();
    loop {
        match socket.stream.next().await.expect("a close frame").expect("a frame") {
            Message::Text(text) => {
                let body: Value = serde_json::from_str(text.trim()).unwrap();
                said = body["message"].as_str().unwrap_or_default().to_owned();
            }
            Message::Close(close) => return (said, close.expect("a code").code.into()),
            _ => {}
        }
    }
}

/// Tries to stream a second; how that ends when it is refused.
async fn attempt(client: &Client, device: &str) -> Option<(String, u16)> {
    let url = format!(
        "{}/ws_pcm?token={}&device_name={device}",
        client.url.replace("http", "ws"),
        client.token
    );
    let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut socket = Socket { stream };
    let first = socket.next_text().await;
    if first["type"] == "ready" {
        socket.session(&noise(1.0, 2000.0), 0.0).await;
        socket.close().await;
        return None;
    }
    assert_eq!(first["type"], "error", "{first}");
    Some((first["message"].as_str().unwrap().to_owned(), ending(&mut socket).await.1))
}

/// Uploads a file; the status, and what is said.
async fn upload(client: &Client) -> (u16, String) {
    use reqwest::multipart::{Form, Part};
    let bytes = std::fs::read(&crate::harness::speech::jfk().path).unwrap();
    let form = Form::new().part("files", Part::bytes(bytes).file_name("talk.wav"));
    let request = client.request("POST", "/api/audio/upload").multipart(form);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn newest(client: &Client) -> Value {
    client.conversations().await.into_iter().next().expect("a conversation")
}

/// How often the log says so of the disk itself, rather than of a stream.
fn said_by_keeper(daemon: &Daemon, what: &str) -> usize {
    let log = daemon.log();
    log.lines().filter(|line| line.contains("pipeline::disk") && line.contains(what)).count()
}

/// All that was accepted is on disk: no row tells of more than its file has.
fn rows_fit_files(state: &Path) {
    let database = rusqlite::Connection::open(state.join("friend-lite.db")).unwrap();
    let mut rows = database
        .prepare(
            "select audio_path, samples from conversations
             where audio_deleted_at is null and ended_at is not null and samples > 0",
        )
        .unwrap();
    let rows = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)));
    let mut count = 0;
    for row in rows.unwrap() {
        let (name, samples) = row.unwrap();
        let bytes = std::fs::metadata(state.join("audio").join(&name)).unwrap().len();
        assert!(bytes >= 44 + 2 * samples as u64, "{name}: {bytes} bytes for {samples} samples");
        count += 1;
    }
    assert!(count > 0);
}

#[tokio::test]
async fn a_full_disk_is_refused_until_there_is_room() {
    if !may_mount("a_full_disk_is_refused_until_there_is_room") {
        return;
    }
    let models = tempfile::tempdir().unwrap();
    let mut mount = None;
    let keys = [
        ("DISK__RESERVE_MIB", "4"),
        ("DISK__CHECK_INTERVAL", "100ms"),
        ("RECORDING__SYNC_INTERVAL", "200ms"),
        // The length of a file tells how much is in it.
        ("RECORDING__ARCHIVE", "wav"),
        ("JOBS__SWEEP_INTERVAL", "1s"),
    ];
    let mut daemon = Daemon::prepared(&keys, models.path(), |dir| {
        mount = Some(Mount::new(&dir.join("state"), "24m"));
    });
    let admin = daemon.admin().await;
    let health = until(&admin, "looked at", |health| !health["disk"].is_null()).await;
    assert_eq!(health["disk"]["reserve_bytes"], 4 << 20);

    // Streamed until the reserve is reached: the stream is refused, in words.
    let mut socket = admin.socket("phone").await;
    socket.event("audio-start", None).await;
    // Speech, which no model is there to hear: none of it may be deleted.
    let bytes: Vec<u8> = reading(0.5).0.iter().flat_map(|s| s.to_le_bytes()).collect();
    let began = Instant::now();
    for second in bytes.chunks_exact(32_000).cycle() {
        if socket.stream.send(Message::binary(second.to_vec())).await.is_err() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(180), "never refused");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until(&admin, "refused", refused).await;
    let (said, code) = attempt(&admin, "tablet").await.expect("a refusal");
    assert_eq!((said.contains("the disk is full"), code), (true, 1013), "{said}");
    assert_eq!(said_by_keeper(&daemon, "the disk is full"), 1);
    let (status, said) = upload(&admin).await;
    assert_eq!((status, said.contains("the disk is full")), (507, true), "{said}");
    assert_eq!(std::fs::read_dir(daemon.state_dir().join("uploads")).unwrap().count(), 0);

    // Somebody else fills the rest, to the last byte. The daemon stays up.
    let filler = daemon.state_dir().join("filler");
    let full = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", &format!("of={}", filler.display())])
        .output()
        .unwrap();
    assert!(!full.status.success(), "the disk took everything");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let health = admin.get("/health").await;
    assert!(refused(&health), "{health}");
    assert_eq!(attempt(&admin, "tablet").await.expect("a refusal").1, 1013);

    // Nothing was deleted; with room it goes on by itself.
    std::fs::remove_file(&filler).unwrap();
    assert!(refused(&until(&admin, "still below the reserve", refused).await));
    mount.as_ref().unwrap().remount("size=48m");
    until(&admin, "accepted again", accepted).await;
    assert_eq!(attempt(&admin, "tablet").await, None);
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let closed = newest(&admin).await;
        if closed["is_open"] == false && closed["duration_seconds"] == 1.0 {
            break;
        }
        assert!(Instant::now() < deadline, "{closed}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(upload(&admin).await.0, 200);
    assert!(daemon.log().contains("audio is accepted again"));
    daemon.stop_clean();
    rows_fit_files(&daemon.state_dir());
}

#[tokio::test]
async fn the_oldest_transcribed_audio_makes_room_and_no_other() {
    if !may_mount("the_oldest_transcribed_audio_makes_room_and_no_other") {
        return;
    }
    let models = tempfile::tempdir().unwrap();
    let mut mount = None;
    let keys = [
        ("DISK__RESERVE_MIB", "4"),
        ("DISK__CHECK_INTERVAL", "100ms"),
        ("RECORDING__ARCHIVE", "wav"),
        ("CROPPING__ENABLED", "false"),
    ];
    let mut daemon = Daemon::prepared(&keys, models.path(), |dir| {
        mount = Some(Mount::new(&dir.join("state"), "48m"));
    });
    let admin = daemon.admin().await;
    // Nobody speaks in it, so it is done with; and one in which somebody does,
    // which no model has heard.
    let half_minute = vec![0; 30 * 16_000];
    for _ in 0..3 {
        let mut socket = admin.socket("quiet").await;
        socket.session(&half_minute, 0.0).await;
        socket.close().await;
    }
    let mut socket = admin.socket("loud").await;
    socket.session(&reading(0.5).0, 0.0).await;
    socket.close().await;
    let settled = |list: &[Value]| {
        list.len() == 4
            && list.iter().all(|c| c["is_open"] == false)
            && list.iter().filter(|c| c["transcription_status"] == "EMPTY").count() == 3
    };
    let deadline = Instant::now() + Duration::from_secs(180);
    while !settled(&admin.conversations().await) {
        assert!(Instant::now() < deadline, "{:?}", admin.conversations().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let audio = daemon.state_dir().join("audio");
    let files = || -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&audio)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".wav"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(files().len(), 4);
    // Room for one of them is missing: the oldest goes, and one is enough.
    let disk = rustix::fs::statvfs(daemon.state_dir()).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    let filler = daemon.state_dir().join("filler");
    std::fs::write(&filler, vec![1; usize::try_from(free - (4 << 20) + (64 << 10)).unwrap()])
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while files().len() == 4 {
        assert!(Instant::now() < deadline, "{}", admin.get("/health").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until(&admin, "accepted", accepted).await;
    assert_eq!(files().len(), 3);
    // With far too little room all that may go goes, and the rest stays.
    std::fs::write(daemon.state_dir().join("filler2"), vec![1; 4 << 20]).unwrap();
    until(&admin, "refused", refused).await;
    let left = files();
    assert!(left.len() == 1 && left[0].contains("-loud_"), "{left:?}");
    let coverage = admin.get("/api/coverage").await["total"]["samples"].clone();
    let of = |key: &str| coverage[key].as_u64().unwrap();
    assert_eq!(of("accepted") - of("on_disk"), 3 * 30 * 16_000, "{coverage}");
    assert_eq!(
        of("accepted"),
        of("silent") + of("transcribed") + of("waiting") + of("failed"),
        "{coverage}"
    );
    assert!(of("waiting") > 0);
    std::fs::remove_file(daemon.state_dir().join("filler2")).unwrap();
    std::fs::remove_file(&filler).unwrap();
    until(&admin, "accepted again", accepted).await;
    daemon.stop_clean();
}

#[tokio::test]
async fn a_read_only_disk_says_so_and_recording_resumes_by_itself() {
    if !may_mount("a_read_only_disk_says_so_and_recording_resumes_by_itself") {
        return;
    }
    let models = tempfile::tempdir().unwrap();
    let mut mount = None;
    let keys = [
        ("DISK__RESERVE_MIB", "1"),
        ("DISK__CHECK_INTERVAL", "100ms"),
        ("RECORDING__ARCHIVE", "wav"),
    ];
    let mut daemon = Daemon::prepared(&keys, models.path(), |dir| {
        // The audio alone: a database that is open for writing keeps its file
        // system from being remounted.
        mount = Some(Mount::new(&dir.join("state/audio"), "16m"));
    });
    let admin = daemon.admin().await;
    assert_eq!(attempt(&admin, "phone").await, None);
    for round in 1..=2 {
        mount.as_ref().unwrap().remount_once_free("ro").await;
        let health = until(&admin, "refused", refused).await;
        let message = health["message"].as_str().unwrap();
        assert!(message.contains("the disk is read-only"), "{message}");
        let (said, code) = attempt(&admin, "phone").await.expect("a refusal");
        assert_eq!((said.contains("the disk is read-only"), code), (true, 1013), "{said}");
        // A stream may have met it before the keeper of the disk did.
        let deadline = Instant::now() + Duration::from_secs(120);
        while said_by_keeper(&daemon, "the disk is read-only") < round {
            assert!(Instant::now() < deadline, "the log does not say so");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        mount.as_ref().unwrap().remount("rw");
        until(&admin, "accepted again", accepted).await;
        assert_eq!(attempt(&admin, "phone").await, None);
    }
    assert_eq!(said_by_keeper(&daemon, "the disk is read-only"), 2);
    daemon.stop_clean();
}

#[tokio::test]
async fn a_lost_permission_says_so_and_recording_resumes_by_itself() {
    use std::os::unix::fs::{PermissionsExt, chown};
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a_lost_permission…: it gives files to another user, which takes root");
        return;
    }
    let models = tempfile::tempdir().unwrap();
    let keys = [
        ("DISK__RESERVE_MIB", "1"),
        ("DISK__CHECK_INTERVAL", "100ms"),
        ("RECORDING__ARCHIVE", "wav"),
    ];
    // As nobody in particular: root may write everywhere.
    let nobody = |path: &Path| chown(path, Some(65_534), Some(65_534)).unwrap();
    nobody(models.path());
    let mut daemon = Daemon::prepared(&keys, models.path(), |dir| {
        std::fs::create_dir(dir.join("state")).unwrap();
        nobody(dir);
        nobody(&dir.join("state"));
    });
    let admin = daemon.admin().await;
    assert_eq!(attempt(&admin, "phone").await, None);
    let audio = daemon.state_dir().join("audio");
    chown(&audio, Some(0), Some(0)).unwrap();
    let health = until(&admin, "refused", refused).await;
    let message = health["message"].as_str().unwrap();
    assert!(message.contains("may not be written"), "{message}");
    let (said, code) = attempt(&admin, "phone").await.expect("a refusal");
    assert_eq!((said.contains("may not be written"), code), (true, 1013), "{said}");
    nobody(&audio);
    until(&admin, "accepted again", accepted).await;
    assert_eq!(attempt(&admin, "phone").await, None);
    assert_eq!(std::fs::metadata(&audio).unwrap().permissions().mode() & 0o777, 0o700);
    daemon.stop_clean();
}
