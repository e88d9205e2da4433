//! Friend-Lite's clients, each sending byte for byte what it sends. They share a
//! daemon and its engine, and have a user each.

mod pages;
mod sockets;
mod tcp;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;

use crate::harness::daemon::Daemon;
use crate::harness::{speech, wer};

/// Time a script has for all it does, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(240);
/// For whom the sources without a login record.
const SATELLITE: &str = "satellite@example.com";
const BOARD: &str = "board@example.com";
const WEARER: &str = "wearer@example.com";

/// The daemon that the tests of this module share; ended with the last of them.
fn daemon() -> Arc<Daemon> {
    static SHARED: Mutex<Weak<Daemon>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(daemon) = shared.upgrade() {
        return daemon;
    }
    let daemon = Arc::new(Daemon::with(&[
        ("MEMORY__ENABLED", "false"),
        ("STT__MODEL", "whisper-tiny"),
        ("CONVERSATION__RECONNECT_GRACE", "1s"),
        ("WYOMING__USER", SATELLITE),
        ("ESP32__USER", BOARD),
        ("WEBHOOK__USER", WEARER),
    ]));
    *shared = Arc::downgrade(&daemon);
    daemon
}

/// That a conversation came from that device, was ended so, and has all the
/// words of the speech that every client sends.
fn assert_heard(conversation: &Value, device: &str, reason: &str) {
    let client = conversation["client_id"].as_str().unwrap();
    assert!(client.ends_with(&format!("-{device}")), "{client}");
    assert_eq!(conversation["close_reason"], reason, "{conversation}");
    let text = conversation["transcript"].as_str().unwrap();
    assert_eq!(wer::rate(&speech::jfk().text, text), 0.0, "{device}: {text}");
    let seconds = conversation["duration_seconds"].as_f64().unwrap();
    assert!((10.4..=11.1).contains(&seconds), "{device}: {seconds} s");
}
