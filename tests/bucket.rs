//! The daemon with a bucket: recordings are copied there, leave a disk that is
//! full, are played and heard again from there, and go from there when they are
//! deleted; and all of that is made up for after the bucket was away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use friend_lite::base::clock::Clock;
use friend_lite::config::{self, Interval, Secret};
use friend_lite::remote::Service;
use friend_lite::remote::bucket::Bucket;
use serde_json::Value;
use tokio::time::sleep;

use crate::disk::{Mount, may_mount};
use crate::harness::client::{Client, until};
use crate::harness::daemon::{Daemon, count, models_dir, program};
use crate::harness::faulty::{self, Fault, Proxy};
use crate::harness::services::{BUCKET, KEY, KEY_ID, Server};
use crate::harness::{speech, wer};

/// What the bucket of `server` holds.
fn bucket(server: &Server) -> Bucket {
    let config = config::S3 {
        bucket: BUCKET.into(),
        endpoint: format!("http://{}", server.address()),
        prefix: "recordings".into(),
        access_key_id: Secret::new(KEY_ID),
        secret_access_key: Secret::new(KEY),
        ..config::S3::default()
    };
    let remote = config::Remote { pause: Interval::from_millis(50), ..config::Remote::default() };
    let service = Arc::new(Service::new("tests", remote.pause.get(), Clock::system()));
    Bucket::new(&config, &remote, service).unwrap()
}

/// The keys of a daemon that has it, at `endpoint`.
fn keys(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("S3__BUCKET", BUCKET),
        ("S3__ENDPOINT", endpoint),
        ("S3__PREFIX", "recordings"),
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", KEY),
        ("S3__INTERVAL", "200ms"),
        ("S3__DEADLINE", "2s"),
        ("REMOTE__PAUSE", "200ms"),
        ("JOBS__SWEEP_INTERVAL", "500ms"),
        ("DISK__RESERVE_MIB", "4"),
        ("DISK__CHECK_INTERVAL", "200ms"),
    ]
}

/// The recordings on disk, the cropped among them.
fn files(daemon: &Daemon) -> BTreeSet<String> {
    let audio = std::fs::read_dir(daemon.state_dir().join("audio")).unwrap();
    audio
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// Leaves so many bytes of the disk free.
fn fill(state: &Path, leave: u64) {
    let disk = rustix::fs::statvfs(state).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    std::fs::write(state.join("filler"), vec![1; usize::try_from(free - leave).unwrap()]).unwrap();
}

/// Every file that the rows name.
async fn named(client: &Client) -> BTreeSet<String> {
    let rows = client.conversations().await;
    let name = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
    rows.iter()
        .flat_map(|row| [name(row, "audio_path"), name(row, "cropped_audio_path")])
        .flatten()
        .collect()
}

async fn stored(bucket: &Bucket) -> BTreeSet<String> {
    bucket.list().await.map(|listed| listed.into_keys().collect()).unwrap_or_default()
}

async fn play(client: &Client, name: &str, range: Option<&str>) -> (u16, Vec<u8>) {
    let mut request = client.request("GET", &format!("/audio/{name}"));
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}

/// Runs a command on the state that knows of the bucket.
fn command(daemon: &Daemon, endpoint: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(program("friend-lite"));
    command.args(arguments).args(["--config", "/dev/null", "--state-dir"]).arg(daemon.state_dir());
    for (key, value) in keys(endpoint) {
        match key.contains("__") {
            true => command.env(format!("FRIEND_LITE__{key}"), value),
            false => command.env(key, value),
        };
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn recordings_leave_a_full_disk_and_are_heard_again_from_the_bucket() {
    if !may_mount("recordings_leave_a_full_disk_and_are_heard_again_from_the_bucket") {
        return;
    }
    let server = Server::s3();
    let (bucket, endpoint) = (bucket(&server), format!("http://{}", server.address()));
    let mut keys = keys(&endpoint);
    keys.extend([("STT__MODEL", "whisper-tiny"), ("MEMORY__ENABLED", "false")]);
    let mut mount = None;
    let mut daemon = Daemon::prepared(&keys, &models_dir(), |dir| {
        mount = Some(Mount::new(&dir.join("state"), "64m"));
    });
    let client = daemon.admin().await;
    let clip = speech::jfk();
    client.say("talk", &speech::samples(&clip.path)).await;
    // Longer than is asked of the bucket at once.
    client.say("quiet", &vec![0; 60 * 16_000]).await;
    until("archived, and all in the bucket", async || {
        let named = named(&client).await;
        let archived = named.iter().filter(|name| name.ends_with(".opus")).count();
        archived == 2 && named.len() == 3 && stored(&bucket).await == named
    })
    .await;
    let names = named(&client).await;
    assert_eq!(files(&daemon), names);
    let local: BTreeMap<&String, Vec<u8>> = names
        .iter()
        .map(|name| (name, std::fs::read(daemon.state_dir().join("audio").join(name)).unwrap()))
        .collect();

    fill(&daemon.state_dir(), 4 << 20);
    until("gone from the disk", async || files(&daemon).is_empty()).await;
    for (name, bytes) in &local {
        assert!(play(&client, name, None).await == (200, bytes.clone()), "{name}");
        let (status, part) = play(&client, name, Some("bytes=1000-2999")).await;
        assert!((status, part.as_slice()) == (206, &bytes[1000..3000]), "{name}");
        let (status, end) = play(&client, name, Some("bytes=-77")).await;
        assert!((status, end.as_slice()) == (206, &bytes[bytes.len() - 77..]), "{name}");
    }
    std::fs::remove_file(daemon.state_dir().join("filler")).unwrap();
    daemon.assert_clean();
    let (code, said) = command(&daemon, &endpoint, &["check", "--bucket"]);
    assert_eq!(code, Some(0), "{said}");

    let talk = names.iter().find(|name| name.contains("-talk_")).unwrap();
    let rows = client.conversations().await;
    let row = rows.iter().find(|row| row["audio_path"] == **talk).unwrap();
    let id = row["conversation_id"].as_str().unwrap();
    let again = format!("/api/conversations/{id}/reprocess-transcript");
    assert_eq!(client.call("POST", &again).await.0, 200);
    until("heard again", async || {
        let versions = client.get(&format!("/api/conversations/{id}/versions")).await;
        versions["transcript_versions"].as_array().is_some_and(|all| {
            all.len() == 2 && all.iter().all(|version| version["status"] != "PENDING")
        })
    })
    .await;
    let one = client.get(&format!("/api/conversations/{id}")).await["conversation"].clone();
    assert_eq!(one["transcription_status"], "COMPLETED");
    assert!(wer::rate(&clip.text, one["transcript"].as_str().unwrap()) < 0.2, "{one}");
    assert!(files(&daemon).is_empty(), "it was read where it is");

    let dir = tempfile::tempdir().unwrap();
    let export = dir.path().join("export");
    let (code, said) = command(&daemon, &endpoint, &["export", export.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let exported = export.join("admin@example.com/audio").join(talk);
    assert!(std::fs::read(exported).unwrap() == local[talk]);

    let id = row["audio_uuid"].as_str().unwrap();
    assert_eq!(client.call("DELETE", &format!("/api/conversations/{id}")).await.0, 200);
    until("gone from the bucket too", async || stored(&bucket).await.len() == 1).await;
    assert!(stored(&bucket).await.iter().all(|name| name.contains("-quiet_")));
    let gone: Vec<String> = stored(&bucket).await.into_iter().collect();
    bucket.delete(&gone).await.unwrap();
    daemon.assert_clean();
    let (code, said) = command(&daemon, &endpoint, &["check", "--bucket"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("object-missing") && said.contains("nowhere else"), "{said}");
    assert!(daemon.stop().success());
    assert!(!daemon.log().contains(KEY) && !said.contains(KEY));
}

#[tokio::test]
async fn what_happens_while_the_bucket_is_away_is_made_up_for() {
    let mut server = Server::s3();
    let bucket = bucket(&server);
    let proxy = Proxy::before(server.port).await;
    let endpoint = format!("http://127.0.0.1:{}", proxy.port);
    let mut keys = keys(&endpoint);
    // Files as they are recorded, with no model to hear them.
    keys.extend([("RECORDING__ARCHIVE", "wav"), ("CROPPING__ENABLED", "false")]);
    let models = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::without_models(models.path(), &keys);
    let client = daemon.admin().await;
    let away = async || {
        until("known to be away", async || {
            client.get("/health").await["services"]["s3"]["healthy"] == false
        })
        .await;
        assert_eq!(client.get("/health").await["status"], "degraded");
    };
    let in_step = async |what: &str| {
        until(what, async || stored(&bucket).await == files(&daemon)).await;
        assert_eq!(stored(&bucket).await, named(&client).await, "{what}");
    };
    // In each outage one conversation comes, and one goes.
    let change = async |number: usize| {
        let rows = client.conversations().await;
        client.say(&format!("device{number}"), &speech::noise(1.0, 2000.0)).await;
        let oldest = rows.last().unwrap()["audio_uuid"].as_str().unwrap();
        let path = format!("/api/conversations/{oldest}");
        assert_eq!(client.call("DELETE", &path).await.0, 200);
    };
    client.say("first", &speech::noise(1.0, 2000.0)).await;
    until("the first is there", async || stored(&bucket).await.len() == 1).await;

    for (number, fault) in faulty::ALL.into_iter().enumerate() {
        proxy.set(fault);
        change(number).await;
        away().await;
        proxy.set(Fault::None);
        in_step(&format!("{fault:?}")).await;
    }
    server.kill();
    change(10).await;
    away().await;
    let log = daemon.log();
    server.restart();
    in_step("killed and started again").await;
    server.freeze();
    change(11).await;
    away().await;
    server.thaw();
    in_step("thawed").await;
    assert_eq!(count(&log, "WARN friend_lite::remote::breaker: s3 "), faulty::ALL.len() + 1);
    assert!(count(&daemon.log(), "s3 answers again") >= faulty::ALL.len() + 2);

    // A daemon that ends in the middle goes on where it was.
    server.freeze();
    change(12).await;
    sleep(Duration::from_millis(500)).await;
    daemon.kill();
    server.thaw();
    daemon.restart();
    let client = daemon.admin().await;
    until("in step after a restart", async || {
        let there = stored(&bucket).await;
        there == files(&daemon) && there == named(&client).await
    })
    .await;
    daemon.stop_clean();
    assert!(!daemon.log().contains(KEY));
}
