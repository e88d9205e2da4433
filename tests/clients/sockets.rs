//! The clients that log in and open a WebSocket, and the one that only posts.

use std::io::Write;

use serde_json::Value;

use super::{PATIENCE, WEARER, assert_heard, daemon};
use crate::harness::{opus, python, speech};

/// Runs a client's script as a user of its own; the conversation that came of it.
async fn conversation(script: &str, user: &str, more: &[&str]) -> Value {
    let daemon = daemon();
    let email = format!("{user}@example.com");
    let client = daemon.user(&email).await;
    let args = [&[&*daemon.url, &*email, "pass of this user"], more].concat();
    python::script(script, &args, PATIENCE).await;
    client.settled().await
}

#[tokio::test]
async fn havpe_relay() {
    let conversation = conversation("havpe_relay.py", "relay", &[]).await;
    assert_heard(&conversation, "havpe", "disconnect");
}

#[tokio::test]
async fn laptop_client() {
    let conversation = conversation("laptop_client.py", "laptop", &[]).await;
    assert_heard(&conversation, "laptop", "audio-stop");
}

#[tokio::test]
async fn mobile_app_with_an_omi() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // An Omi sends 10 ms a packet; the end of the speech fills the last one.
    let mut samples = speech::samples(&speech::jfk().path);
    samples.resize(samples.len().next_multiple_of(160), 0);
    for packet in opus::packets(&samples, 160) {
        file.write_all(&u16::try_from(packet.len()).unwrap().to_le_bytes()).unwrap();
        file.write_all(&packet).unwrap();
    }
    let packets = file.path().to_str().unwrap();
    let conversation = conversation("mobile_app.py", "omi", &["omi", packets]).await;
    assert_heard(&conversation, "phone", "audio-stop");
}

#[tokio::test]
async fn mobile_app_with_its_own_microphone() {
    let conversation = conversation("mobile_app.py", "phone", &["phone-mic"]).await;
    assert_heard(&conversation, "phone-mic", "audio-stop");
}

#[tokio::test]
async fn send_to_adv() {
    let conversation = conversation("send_to_adv.py", "bt", &[]).await;
    assert_heard(&conversation, "omi-bt", "audio-stop");
}

#[tokio::test]
async fn live_record() {
    let conversation = conversation("live_record.py", "web", &[]).await;
    assert_heard(&conversation, "webui-simp", "audio-stop");
}

#[tokio::test]
async fn audio_stream_client() {
    for form in ["events", "bare"] {
        let conversation = conversation("audio_stream_client.py", form, &[form]).await;
        assert_heard(&conversation, "robot-test", "audio-stop");
    }
}

#[tokio::test]
async fn omi_webhook() {
    let daemon = daemon();
    let client = daemon.user(WEARER).await;
    python::script("omi_webhook.py", &[&daemon.url], PATIENCE).await;
    assert_heard(&client.settled().await, "omi-f10b6c", "disconnect");
}
