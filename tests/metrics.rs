//! The metrics, read the way Prometheus reads them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::daemon::Daemon;
use crate::harness::{python, speech};

const TOKEN: &str = "a token for the scraper";

async fn scrape(daemon: &Daemon) -> Value {
    let said = python::script("scrape.py", &[&daemon.url, TOKEN], Duration::from_secs(60)).await;
    serde_json::from_str(&said).unwrap()
}

/// The value of `family` without labels.
fn value(families: &Value, family: &str) -> f64 {
    families[family]["samples"][0][2].as_f64().unwrap_or_else(|| panic!("{family}: {families}"))
}

/// Seconds are added up frame by frame.
fn near(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() < 1e-6
}

#[tokio::test]
async fn prometheus_reads_every_figure_and_they_follow_what_happens() {
    let models = tempfile::tempdir().unwrap();
    let keys = [("SERVER__METRICS_TOKEN", TOKEN), ("RECORDING__SYNC_INTERVAL", "100ms")];
    let daemon = Daemon::without_models(models.path(), &keys);
    let client = daemon.admin().await;
    let before = scrape(&daemon).await;
    for (name, family) in before.as_object().unwrap() {
        assert!(matches!(family["type"].as_str(), Some("counter" | "gauge")), "{name}: {family}");
        assert_ne!(family["help"], "", "{name}");
    }
    assert_eq!(value(&before, "friend_lite_audio_accepted_seconds"), 0.0);

    let mut socket = client.socket("phone").await;
    socket.session(&speech::noise(3.0, 2_000.0), 0.0).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let after = loop {
        let after = scrape(&daemon).await;
        if near(value(&after, "friend_lite_audio_synced_seconds"), 3.0) {
            break after;
        }
        assert!(Instant::now() < deadline, "{after}");
    };
    assert!(near(value(&after, "friend_lite_audio_accepted_seconds"), 3.0), "{after}");
    assert_eq!(value(&after, "friend_lite_streams_opened"), 1.0);
    assert_eq!(value(&after, "friend_lite_streams"), 1.0);
    assert!(value(&after, "process_resident_memory_bytes") > 1e6);
    let requests = after["friend_lite_http_requests"]["samples"].as_array().unwrap();
    let login = json!({"method": "POST", "route": "/auth/jwt/login", "status": "200"});
    let logins: Vec<_> = requests.iter().filter(|sample| sample[1] == login).collect();
    assert!(logins.len() == 1 && logins[0][2] == 1.0, "{requests:?}");
    // A series is there once, however often what it counts has happened.
    let series: BTreeSet<String> = requests.iter().map(|sample| sample[1].to_string()).collect();
    assert_eq!(series.len(), requests.len());
    socket.close().await;
}
