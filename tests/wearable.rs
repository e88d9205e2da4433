//! A wearable on a bad network: its connection breaks every few seconds, and it
//! is back a moment later.

use std::process::Command;
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, models_dir, program};
use crate::harness::opus::packets;
use crate::harness::speech;

/// Samples of a packet: 20 ms.
const PACKET: usize = 320;
/// How much faster than in life it all goes.
const SPEED: f64 = 3.0;
/// Samples between two breaks, and of a break: what is said then is not heard.
const CONNECTED: usize = 5 * 16_000;
const AWAY: usize = 16_000;

/// A word and when it is spoken, in samples.
struct Word {
    text: String,
    start: usize,
    end: usize,
}

/// What the speech engine hears in a file, word by word.
fn words(file: &std::path::Path) -> Vec<Word> {
    let output = Command::new(program("friend-lite"))
        .args(["transcribe", "--json", "--config", "/dev/null"])
        .arg(file)
        .env("FRIEND_LITE__MODELS__DIR", models_dir())
        .env("FRIEND_LITE__STT__LANGUAGE", "en")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let body: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut found = Vec::new();
    collect(&body, &mut found);
    found
}

/// All words below `value`, in order.
fn collect(value: &Value, found: &mut Vec<Word>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => match fields.get("words") {
            Some(Value::Array(words)) => found.extend(words.iter().map(|word| {
                let at = |name: &str| (word[name].as_f64().unwrap() * 16_000.0) as usize;
                let text = word.get("word").or(word.get("text")).unwrap().as_str().unwrap();
                Word { text: plain(text), start: at("start"), end: at("end") }
            })),
            _ => fields.values().for_each(|item| collect(item, found)),
        },
        _ => {}
    }
}

fn plain(word: &str) -> String {
    word.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect()
}

/// The words of `expected` that are not in `heard` in their order, by the
/// longest common subsequence.
fn missing<'a>(expected: &[&'a str], heard: &[String]) -> Vec<&'a str> {
    let mut best = vec![vec![0_usize; heard.len() + 1]; expected.len() + 1];
    for (i, word) in expected.iter().enumerate().rev() {
        for (j, other) in heard.iter().enumerate().rev() {
            best[i][j] = if word == other {
                best[i + 1][j + 1] + 1
            } else {
                best[i + 1][j].max(best[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut missing) = (0, 0, Vec::new());
    while i < expected.len() {
        if j < heard.len() && expected[i] == heard[j] {
            (i, j) = (i + 1, j + 1);
        } else if j < heard.len() && best[i][j + 1] >= best[i + 1][j] {
            j += 1;
        } else {
            missing.push(expected[i]);
            i += 1;
        }
    }
    missing
}

async fn connect(client: &Client) -> crate::harness::client::Socket {
    let server = client.url.replace("http", "ws");
    let url = format!("{server}/ws_omi?token={}&device_name=wearable", client.token);
    let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    crate::harness::client::Socket { stream }
}

#[tokio::test]
async fn a_wearable_that_drops_every_5_s_makes_one_conversation_without_a_word_missing() {
    let daemon =
        Daemon::with(&[("MEMORY__ENABLED", "false"), ("CONVERSATION__RECONNECT_GRACE", "30s")]);
    let client = daemon.admin().await;
    let (reading, _) = speech::reading(0.5);
    let minute: Vec<i16> = reading.iter().copied().cycle().take(60 * 16_000).collect();

    // What a connection that holds gives, with the times of its words.
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("minute.wav");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(&whole, spec).unwrap();
    minute.iter().for_each(|sample| wav.write_sample(*sample).unwrap());
    wav.finalize().unwrap();
    let spoken = words(&whole);
    assert!(spoken.len() > 100, "{}", spoken.len());

    // The encoder of the device runs on; what it makes while away is lost.
    let all = packets(&minute, PACKET);
    let started = Instant::now();
    let (mut sent, mut breaks, mut ids) = (0, 0, std::collections::BTreeSet::new());
    for (turn, stretch) in all.chunks((CONNECTED + AWAY) / PACKET).enumerate() {
        let mut socket = connect(&client).await;
        for (number, packet) in stretch.iter().take(CONNECTED / PACKET).enumerate() {
            let at = (turn * (CONNECTED + AWAY) + number * PACKET) as f64 / 16_000.0;
            sleep_until(started + Duration::from_secs_f64(at / SPEED)).await;
            socket.stream.send(Message::binary(packet.clone())).await.unwrap();
            sent += PACKET;
        }
        for active in client.get("/api/clients/active").await["clients"].as_array().unwrap() {
            ids.insert(active["client_id"].as_str().unwrap().to_owned());
        }
        if (turn + 1) * (CONNECTED + AWAY) >= minute.len() {
            socket.event("audio-stop", None).await;
            socket.close().await;
        } else {
            // Without a close frame, as when the network is gone.
            drop(socket);
            breaks += 1;
        }
    }

    let conversation = client.settled().await;
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(conversation["close_reason"], "audio-stop");
    let seconds = conversation["duration_seconds"].as_f64().unwrap();
    assert!((seconds - sent as f64 / 16_000.0).abs() < 0.05, "{seconds} s of {sent} samples");

    // Spoken while connected: not cut by a break, nor with its sound reaching in.
    let near = 4_000;
    let expected: Vec<&str> = spoken
        .iter()
        .filter(|word| {
            let (start, end) = (word.start % (CONNECTED + AWAY), word.end % (CONNECTED + AWAY));
            (start >= near || word.start < near) && start < end && end + near < CONNECTED
        })
        .map(|word| word.text.as_str())
        .collect();
    let text = conversation["transcript"].as_str().unwrap();
    let heard: Vec<String> = text
        .split(|c: char| c.is_whitespace() || c == '-')
        .map(plain)
        .filter(|w| !w.is_empty())
        .collect();
    let missing = missing(&expected, &heard);
    println!(
        "{breaks} breaks, {} words spoken while connected, {} missing: {missing:?}",
        expected.len(),
        missing.len()
    );
    assert!(missing.is_empty(), "{missing:?} of\n{text}");
}
