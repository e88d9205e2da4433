//! The sources that have a port of their own: Wyoming, by the `wyoming` package,
//! and ESP32 boards.

use serde_json::Value;

use super::{BOARD, PATIENCE, SATELLITE, assert_heard, daemon};
use crate::harness::{python, speech, wer};

#[tokio::test]
async fn ten_clients_of_the_wyoming_package_get_their_transcripts() {
    let daemon = daemon();
    let (host, port) = daemon.sources["wyoming"].split_once(':').unwrap();
    let printed = python::script("wyoming_asr.py", &[host, port, "10"], PATIENCE).await;
    let results: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), 10);
    for result in results {
        assert_eq!(result["installed"], true);
        assert_eq!(result["streaming"], true);
        assert!(result["languages"].as_array().unwrap().contains(&"en".into()));
        // Home Assistant waits a second.
        assert!(result["took"].as_f64().unwrap() < 1.0, "{result}");
        let heard = &result["heard"];
        assert_eq!(wer::rate(&speech::jfk().text, heard["text"].as_str().unwrap()), 0.0, "{heard}");
        assert_eq!(heard["pieces"], heard["text"]);
        let kinds = serde_json::json!([
            "transcript-start",
            "transcript-chunk",
            "transcript",
            "transcript-stop"
        ]);
        assert_eq!(heard["kinds"], kinds);
        assert_eq!(result["silent"]["text"], "");
    }
}

#[tokio::test]
async fn a_satellite_is_recorded_for_its_user() {
    let daemon = daemon();
    let client = daemon.user(SATELLITE).await;
    let (host, port) = daemon.sources["wyoming"].split_once(':').unwrap();
    python::script("satellite.py", &[host, port], PATIENCE).await;
    assert_heard(&client.settled().await, "wyoming", "disconnect");
}

#[tokio::test]
async fn a_board_needs_no_relay() {
    let daemon = daemon();
    let client = daemon.user(BOARD).await;
    let (host, port) = daemon.sources["esp32"].split_once(':').unwrap();
    python::script("esp32.py", &[host, port], PATIENCE).await;
    assert_heard(&client.settled().await, "havpe", "disconnect");
}
