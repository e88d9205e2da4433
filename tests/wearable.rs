//! A wearable on a bad network: its connection breaks every few seconds, and it
//! is back a moment later.

use std::process::Command;
use std::time::Duration;

use futures_util::SinkExt;
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

/// The words that the speech engine hears in a file.
fn words(file: &std::path::Path) -> Vec<String> {
    let output = Command::new(program("friend-lite"))
        .args(["transcribe", "--config", "/dev/null"])
        .arg(file)
        .env("FRIEND_LITE__MODELS__DIR", models_dir())
        .env("FRIEND_LITE__STT__LANGUAGE", "en")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    plain(&String::from_utf8_lossy(&output.stdout))
}

fn plain(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The words of `expected` that are not in `heard` in their order, by the
/// longest common subsequence.
fn missing<'a>(expected: &'a [String], heard: &[String]) -> Vec<&'a str> {
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
            missing.push(expected[i].as_str());
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

    // The encoder of the device runs on; what it makes while away is lost.
    let all = packets(&minute, PACKET);
    let stretches = all.chunks((CONNECTED + AWAY) / PACKET);
    let sent_packets = stretches.flat_map(|stretch| stretch.iter().take(CONNECTED / PACKET));

    // What the same packets give over a connection that holds.
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("received.wav");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(&whole, spec).unwrap();
    let mut decoder = opus::Decoder::new(16_000, opus::Channels::Mono).unwrap();
    for packet in sent_packets {
        let mut samples = [0; PACKET];
        assert_eq!(decoder.decode(packet, &mut samples, false).unwrap(), PACKET);
        samples.iter().for_each(|sample| wav.write_sample(*sample).unwrap());
    }
    wav.finalize().unwrap();
    let expected = words(&whole);
    assert!(expected.len() > 80, "{}", expected.len());

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

    let text = conversation["transcript"].as_str().unwrap();
    let heard = plain(text);
    let missing = missing(&expected, &heard);
    println!(
        "{breaks} breaks, {} words in what was sent, {} missing: {missing:?}",
        expected.len(),
        missing.len()
    );
    assert!(missing.is_empty(), "{missing:?} of\n{text}");
}

#[tokio::test]
async fn what_a_device_sent_before_it_went_is_kept_though_it_is_back_at_once() {
    const TURNS: usize = 8;
    let keys = [("MEMORY__ENABLED", "false"), ("CONVERSATION__RECONNECT_GRACE", "1s")];
    let daemon = Daemon::with(&keys);
    let client = daemon.admin().await;
    let quiet = vec![0; 30 * 16_000];
    for _ in 0..TURNS {
        // More than has been read by the time it is back, some of it still on the
        // device's side.
        let mut socket = client.socket("wearable").await;
        socket.session(&quiet, 0.0).await;
        drop(socket);
    }
    let seconds = |list: &[serde_json::Value]| -> f64 {
        list.iter().map(|c| c["duration_seconds"].as_f64().unwrap()).sum()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let list = client.conversations().await;
        let active = client.get("/api/clients/active").await["clients"].as_array().unwrap().len();
        if active == 0 && list.iter().all(|c| c["is_open"] == false) {
            let expected = (TURNS * 30) as f64;
            assert!((seconds(&list) - expected).abs() < 0.01, "{} s in {list:#?}", seconds(&list));
            return;
        }
        assert!(Instant::now() < deadline, "{active} devices, {} s of audio", seconds(&list));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
