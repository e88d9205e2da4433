//! What packaging/full-deployment ships: nginx, as it is configured there, lets
//! streams and uploads through to real daemons; and every key that is set there is
//! one that the daemon knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use friend_lite::config::load::{Sources, load};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::daemon::{ADMIN_EMAIL, ADMIN_PASSWORD, Daemon};
use crate::harness::nginx::{Nginx, shipped};
use crate::harness::services::free_port;
use crate::harness::speech::noise;

fn daemon(models: &Path) -> Daemon {
    let keys = [
        ("SERVER__TRUSTED_PROXIES", "127.0.0.1"),
        ("RECORDING__ARCHIVE", "wav"),
        ("CROPPING__ENABLED", "false"),
    ];
    Daemon::without_models(models, &keys)
}

fn address(daemon: &Daemon) -> &str {
    daemon.url.strip_prefix("http://").unwrap()
}

/// Seconds of audio in the newest conversation of `device`, once it is closed.
async fn recorded(client: &Client, device: &str) -> f64 {
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        let rows = client.conversations().await;
        let of = rows.iter().find(|row| row["client_id"].as_str().unwrap().ends_with(device));
        if let Some(row) = of.filter(|row| row["is_open"] == false) {
            return row["duration_seconds"].as_f64().unwrap();
        }
        assert!(Instant::now() < limit, "{device}: {rows:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn nginx_lets_streams_and_uploads_through_and_goes_around_a_daemon_that_is_away() {
    let models = tempfile::tempdir().unwrap();
    let mut daemon = daemon(models.path());
    // The other daemon is away.
    let nginx = Nginx::before(&[&format!("127.0.0.1:{}", free_port()), address(&daemon)]);
    let client = Client::login(&nginx.url, ADMIN_EMAIL, ADMIN_PASSWORD).await;

    // In real time, with a pause that is longer than a ping.
    let mut socket = client.socket("wearable").await;
    socket.event("audio-start", None).await;
    socket.stream(&noise(3.0, 2000.0), 1.0).await;
    let open = client.get("/api/clients/active").await;
    assert_eq!(open["active_clients_count"], 1, "{open}");
    sleep(Duration::from_secs(12)).await;
    socket.stream(&noise(3.0, 2000.0), 1.0).await;
    socket.event("audio-stop", None).await;
    socket.close().await;
    assert!((recorded(&client, "wearable").await - 6.0).abs() < 0.1);

    // A long upload that takes its time, larger than nginx keeps in memory.
    let seconds = 20 * 60;
    let wav: Vec<u8> = {
        let mut bytes = friend_lite::audio::wav::header(seconds * 16_000).to_vec();
        bytes.resize(bytes.len() + usize::try_from(seconds * 32_000).unwrap(), 0);
        bytes
    };
    let pieces: Vec<_> = wav.chunks(1 << 20).map(<[u8]>::to_vec).collect();
    let slowly = stream::iter(pieces).then(|piece| async {
        sleep(Duration::from_millis(100)).await;
        Ok::<_, std::io::Error>(piece)
    });
    let body = reqwest::Body::wrap_stream(slowly);
    let part = reqwest::multipart::Part::stream_with_length(body, wav.len() as u64);
    let form = reqwest::multipart::Form::new().part("files", part.file_name("long.wav"));
    let request = client.request("POST", "/api/audio/upload?device_name=file").multipart(form);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    assert_eq!(recorded(&client, "file").await, seconds as f64);

    // The figures are not for the outside.
    assert_eq!(client.call("GET", "/metrics").await.0, 404);
    // A stream ends with its daemon, by a close frame.
    let mut socket = client.socket("last").await;
    assert!(daemon.stop().success());
    let ended = async {
        while let Some(Ok(message)) = socket.stream.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
}

/// The settings of a text in which each is on a line of its own.
fn settings(text: &str, between: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches("Environment=").split_once(between))
        .filter(|(name, _)| {
            let upper =
                name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit());
            upper && (name.starts_with("FRIEND_LITE__") || !name.starts_with("QDRANT__"))
        })
        .map(|(name, value)| {
            (name.to_owned(), value.trim().trim_matches('"').replace("%H", "machine"))
        })
        .collect()
}

#[test]
fn what_is_set_there_is_known_and_enough() {
    let compose: BTreeMap<String, String> = settings(&shipped("compose.yaml"), ": ")
        .into_iter()
        // What people fill in.
        .map(|(name, value)| match value.starts_with("${") {
            true if name == "COOKIE_SECURE" => (name, "false".into()),
            true if name == "LLM_PROVIDER" => (name, "llama".into()),
            true if name == "ADMIN_EMAIL" => (name, "admin@example.com".into()),
            true => (name, "0123456789abcdef".into()),
            false => (name, value),
        })
        .collect();
    let dropin = shipped("systemd/full-deployment.conf");
    let mut unit = settings(&dropin, "=");
    let secrets = tempfile::tempdir().unwrap();
    for line in dropin.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
        let (name, _) = line.split_once(':').unwrap();
        let value = match name {
            "mongodb.uri" => "mongodb://user:password@host:27017",
            _ => "0123456789abcdef",
        };
        std::fs::write(secrets.path().join(name), value).unwrap();
    }
    let credentials = secrets.path().display().to_string();
    unit.insert("CREDENTIALS_DIRECTORY".into(), credentials);
    for env in [compose, unit] {
        let sources = Sources { file: Some(PathBuf::from("/dev/null")), env, overrides: vec![] };
        let (config, _) = load(&sources).unwrap_or_else(|error| panic!("{error}"));
        assert!(config.store.is_mongodb() && config.s3.is_used());
        assert_eq!(config.index.engine, "qdrant");
        assert!(!config.mongodb.uri.is_empty() && !config.auth.secret_key.is_empty());
        assert!(!config.store.node.is_empty() && !config.qdrant.api_key.is_empty());
        assert!(!config.server.trusted_proxies.is_empty());
    }
}
