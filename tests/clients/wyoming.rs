//! Home Assistant's speech to text: the `wyoming` package against the port.

use serde_json::Value;

use super::{PATIENCE, daemon};
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
