//! What clients send that they should not, or that only some do: what comes back
//! over the socket, and what is stored. Prints the table with `--nocapture`.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::harness::opus::packets;
use crate::harness::speech;

/// What is to be in the store in the end.
enum Stored {
    /// These very samples.
    Exactly(Vec<i16>),
    /// So many samples, changed by a codec or a filter.
    About(usize),
}

struct Case {
    what: &'static str,
    path: &'static str,
    send: Vec<Message>,
    /// Whether audio-stop ends it; else the connection is cut.
    stops: bool,
    /// A part of each error that comes back, in order.
    errors: &'static [&'static str],
    stored: Stored,
}

/// Three seconds of speech.
fn sound() -> Vec<i16> {
    speech::samples(&speech::jfk().path)[..48_000].to_vec()
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

fn bare(samples: &[i16]) -> Vec<Message> {
    samples.chunks(512).map(|chunk| Message::binary(bytes(chunk))).collect()
}

fn line(event: &Value) -> Message {
    Message::text(format!("{event}\n"))
}

const SPEECH: fn() -> Value = || json!({"rate": 16000, "width": 2, "channels": 1});

fn start() -> Vec<Message> {
    vec![line(&json!({
        "type": "audio-start", "data": SPEECH(), "version": "1.0.0", "payload_length": null,
    }))]
}

/// Chunks whose events say `data` and whose payloads are of `size` bytes.
fn chunks(payload: &[u8], size: usize, mut data: impl FnMut(usize) -> Value) -> Vec<Message> {
    let event = |(turn, part): (usize, &[u8])| {
        let header = json!({
            "type": "audio-chunk", "data": data(turn), "version": "1.0.0",
            "payload_length": part.len(),
        });
        [line(&header), Message::binary(part.to_vec())]
    };
    payload.chunks(size).enumerate().flat_map(event).collect()
}

fn usual(samples: &[i16]) -> Vec<Message> {
    chunks(&bytes(samples), 1_024, |_| SPEECH())
}

/// Header, data and payload in one binary frame.
fn whole(samples: &[i16], data_apart: bool) -> Vec<Message> {
    let frame = |chunk: &[i16]| {
        let payload = bytes(chunk);
        let data = SPEECH().to_string();
        let mut header = json!({"type": "audio-chunk", "payload_length": payload.len()});
        if data_apart {
            header["data_length"] = data.len().into();
        } else {
            header["data"] = SPEECH();
        }
        let data = if data_apart { data.as_bytes() } else { b"" };
        Message::binary([format!("{header}\n").as_bytes(), data, &payload].concat())
    };
    samples.chunks(512).map(frame).collect()
}

fn texts(frames: &[&str]) -> Vec<Message> {
    frames.iter().map(|frame| Message::text(*frame)).collect()
}

fn pcm(
    what: &'static str,
    send: Vec<Vec<Message>>,
    errors: &'static [&'static str],
    stored: Vec<i16>,
) -> Case {
    let (send, stored) = (send.concat(), Stored::Exactly(stored));
    Case { what, path: "ws_pcm", send, stops: true, errors, stored }
}

fn omi(
    what: &'static str,
    send: Vec<Vec<Message>>,
    errors: &'static [&'static str],
    samples: usize,
) -> Case {
    let (send, stored) = (send.concat(), Stored::About(samples));
    Case { what, path: "ws_omi", send, stops: true, errors, stored }
}

fn cases() -> Vec<Case> {
    let sound = sound();
    let (first, second) = sound.split_at(24_064);
    let opus = packets(&sound, 320);
    let opus_bare: Vec<Message> = opus.iter().map(|p| Message::binary(p.clone())).collect();
    let opus_events: Vec<Message> =
        opus.iter().flat_map(|packet| chunks(packet, 4_000, |_| SPEECH())).collect();
    let stereo: Vec<u8> = sound.iter().flat_map(|s| [*s; 6]).flat_map(i16::to_le_bytes).collect();
    let wide: Vec<u8> = sound.iter().flat_map(|s| (i32::from(*s) << 16).to_le_bytes()).collect();
    let timestamp = |value: Value| {
        let mut data = SPEECH();
        data["timestamp"] = value;
        data
    };
    let odd = bytes(&sound);

    let mut cases = vec![
        pcm("audio-chunk before audio-start", vec![usual(&sound)], &[], sound.clone()),
        pcm("bare frames before audio-start", vec![bare(&sound)], &[], sound.clone()),
        pcm("bare frames after audio-start", vec![start(), bare(&sound)], &[], sound.clone()),
        pcm(
            "bare frames, then audio-start and events",
            vec![bare(first), start(), usual(second)],
            &[],
            sound.clone(),
        ),
        pcm(
            "text that is no JSON, and JSON that is no event",
            vec![
                start(),
                usual(first),
                texts(&["not json", "[1]", "{}", "{\"type\":7}"]),
                usual(second),
            ],
            &["not a Wyoming event"; 4],
            sound.clone(),
        ),
        pcm(
            "header and payload in one binary frame",
            vec![start(), whole(&sound, false)],
            &[],
            sound.clone(),
        ),
        pcm("the same with data_length", vec![start(), whole(&sound, true)], &[], sound.clone()),
        pcm(
            "audio-start twice",
            vec![start(), usual(first), start(), usual(second)],
            &[],
            sound.clone(),
        ),
        pcm(
            "timestamp null, and no payload_length on start",
            vec![
                texts(&[
                    r#"{"type":"audio-start","data":{"rate":16000,"width":2,"channels":1,"timestamp":null}}"#,
                ]),
                chunks(&bytes(&sound), 1_024, |_| timestamp(Value::Null)),
            ],
            &[],
            sound.clone(),
        ),
        pcm(
            "timestamps in ms, twice the same, and backwards",
            vec![
                start(),
                chunks(&bytes(&sound), 1_024, |turn| {
                    timestamp(json!(1_753_190_000_000_i64 - (turn as i64 / 2) * 1_000))
                }),
            ],
            &[],
            sound.clone(),
        ),
        pcm(
            "no version, a mode, no line break, pings with and without one",
            vec![
                texts(&[
                    r#"{"type":"audio-start","data":{"rate":16000,"width":2,"channels":1,"mode":"batch"}}"#,
                    r#"{"type":"ping","t":1753190000000}"#,
                ]),
                usual(first),
                texts(&["{\"type\":\"ping\",\"payload_length\":null}\n"]),
                usual(second),
            ],
            &[],
            sound.clone(),
        ),
        pcm(
            "audio-chunk without payload_length",
            vec![
                start(),
                bare(&sound)
                    .into_iter()
                    .flat_map(|frame| {
                        [line(&json!({"type": "audio-chunk", "data": SPEECH()})), frame]
                    })
                    .collect(),
            ],
            &[],
            sound.clone(),
        ),
        pcm(
            "payloads longer and shorter than they say",
            vec![
                start(),
                bare(&sound)
                    .into_iter()
                    .enumerate()
                    .flat_map(|(turn, frame)| {
                        let length = if turn % 2 == 0 { 1 } else { 9_999 };
                        let header = json!({
                            "type": "audio-chunk", "data": SPEECH(), "payload_length": length,
                        });
                        [line(&header), frame]
                    })
                    .collect(),
            ],
            &[],
            sound.clone(),
        ),
        pcm(
            "payloads that end within a sample",
            vec![start(), chunks(&odd, 1_001, |_| SPEECH())],
            &[],
            sound.clone(),
        ),
        pcm(
            "empty frames, and an event of another kind with a payload",
            vec![
                start(),
                usual(first),
                vec![
                    Message::binary(Vec::new()),
                    line(&json!({"type": "button-event", "payload_length": 4})),
                    Message::binary(vec![1, 2, 3, 4]),
                ],
                usual(second),
            ],
            &[],
            sound.clone(),
        ),
        pcm(
            "formats that cannot be",
            vec![
                texts(&[r#"{"type":"audio-start","data":{"rate":3}}"#]),
                start(),
                usual(first),
                chunks(&[1; 64], 64, |_| json!({"rate": 16000, "width": 9, "channels": 1})),
                chunks(&[1; 64], 64, |_| json!({"rate": 16000, "width": 2, "channels": 0})),
                usual(second),
            ],
            &["3 Hz", "9 bytes", "0 channels"],
            sound.clone(),
        ),
        pcm(
            "32 bits wide, as one event among 16-bit ones",
            vec![
                start(),
                chunks(&wide, 4_096, |_| json!({"rate": 16000, "width": 4, "channels": 1})),
                usual(&sound),
            ],
            &[],
            [&sound[..], &sound].concat(),
        ),
        Case {
            what: "48 kHz stereo",
            path: "ws_pcm",
            send: [
                start(),
                chunks(&stereo, 7_680, |_| json!({"rate": 48000, "width": 2, "channels": 2})),
            ]
            .concat(),
            stops: true,
            errors: &[],
            stored: Stored::About(sound.len()),
        },
        pcm(
            "audio-stop twice, and before audio-start",
            vec![
                texts(&[r#"{"type":"audio-stop"}"#]),
                start(),
                usual(&sound),
                texts(&[r#"{"type":"audio-stop","data":{"timestamp":1753190000000}}"#]),
            ],
            &[],
            sound.clone(),
        ),
        omi("Opus events before audio-start", vec![opus_events.clone()], &[], sound.len()),
        omi("bare Opus before audio-start", vec![opus_bare.clone()], &[], sound.len()),
        omi("bare Opus after audio-start", vec![start(), opus_bare.clone()], &[], sound.len()),
        omi(
            "frames of at most three bytes, and one that is no packet",
            vec![
                start(),
                opus_events.clone(),
                vec![
                    Message::binary(Vec::new()),
                    Message::binary(vec![0xB8]),
                    Message::binary(vec![0xB8, 0, 0]),
                    Message::binary(vec![0xFF; 12]),
                ],
                opus_bare.clone(),
            ],
            &["not an Opus packet"],
            2 * sound.len(),
        ),
    ];
    for (what, path, send, stored) in [
        ("connection cut, /ws_pcm", "ws_pcm", [start(), usual(&sound)].concat(), sound.len()),
        ("connection cut, no audio-start", "ws_pcm", bare(&sound), sound.len()),
        ("connection cut, /ws_omi", "ws_omi", [start(), opus_events].concat(), sound.len()),
    ] {
        let stored = Stored::About(stored);
        cases.push(Case { what, path, send, stops: false, errors: &[], stored });
    }
    cases
}

/// Sends a case under a device name of its own; the errors that came back.
async fn play(client: &Client, device: &str, case: &Case) -> Vec<String> {
    let server = client.url.replace("http", "ws");
    let url = format!("{server}/{}?token={}&device_name={device}", case.path, client.token);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    for message in &case.send {
        socket.send(message.clone()).await.unwrap();
    }
    if case.stops {
        socket
            .send(Message::text(r#"{"type":"audio-stop","data":{"timestamp":null}}"#))
            .await
            .unwrap();
    }
    // Answered once all before it has been dealt with.
    socket.send(Message::Ping(Bytes::from_static(b"done"))).await.unwrap();
    let mut errors = Vec::new();
    loop {
        let message = timeout(Duration::from_secs(20), socket.next()).await.expect("in time");
        match message.expect("open").expect("a frame") {
            Message::Pong(bytes) if bytes == "done" => break,
            Message::Text(text) => {
                let message: Value = serde_json::from_str(text.trim()).unwrap();
                match message["type"].as_str().unwrap() {
                    "ready" => assert_eq!(case.path, "ws_pcm", "only there"),
                    "error" => errors.push(message["message"].as_str().unwrap().to_owned()),
                    other => panic!("{other}: {message}"),
                }
            }
            Message::Close(close) => panic!("{}: closed, {close:?}", case.what),
            _ => {}
        }
    }
    if case.stops {
        socket.close(None).await.unwrap();
    }
    errors
}

/// The closed conversations of a device.
async fn stored(client: &Client, device: &str) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut all = client.conversations().await;
        all.retain(|c| c["client_id"].as_str().unwrap().ends_with(&format!("-{device}")));
        if !all.is_empty() && all.iter().all(|c| !c["close_reason"].is_null()) {
            return all;
        }
        assert!(Instant::now() < deadline, "{device}: {all:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn samples(client: &Client, conversation: &Value) -> Vec<i16> {
    let path = format!("/audio/{}", conversation["audio_path"].as_str().unwrap());
    let file = client.request("GET", &path).send().await.unwrap().bytes().await.unwrap();
    // WAV for PCM, Ogg Opus for Opus.
    let source = Box::new(std::io::Cursor::new(file.to_vec()));
    let mut audio = friend_lite::audio::decode::AudioFile::new(source, path).unwrap();
    let mut samples = Vec::new();
    while audio.read(&mut samples).unwrap() {}
    samples
}

#[tokio::test]
async fn nothing_that_was_received_is_lost_and_the_session_goes_on() {
    let empty = tempfile::tempdir().unwrap();
    let daemon = Daemon::without_models(empty.path(), &[]);
    let client = daemon.admin().await;
    println!("{:<62} {:<34} stored", "sent", "came back");
    for (number, case) in cases().iter().enumerate() {
        let device = format!("case{number}");
        let errors = play(&client, &device, case).await;
        let rows = stored(&client, &device).await;
        assert_eq!(rows.len(), 1, "{}: {rows:?}", case.what);
        let (reason, heard) =
            (rows[0]["close_reason"].as_str().unwrap(), samples(&client, &rows[0]).await);
        println!(
            "/{:<7} {:<53} {:<34} {:.2} s, {reason}",
            case.path,
            case.what,
            match errors.len() {
                0 => "nothing".to_owned(),
                count => format!("{count} errors: {}, …", case.errors[0]),
            },
            heard.len() as f64 / 16_000.0,
        );
        assert_eq!(errors.len(), case.errors.len(), "{}: {errors:?}", case.what);
        for (error, part) in errors.iter().zip(case.errors) {
            assert!(error.contains(part), "{}: {error}", case.what);
        }
        assert_eq!(reason, if case.stops { "audio-stop" } else { "disconnect" }, "{}", case.what);
        match &case.stored {
            Stored::Exactly(samples) => assert!(heard == *samples, "{}", case.what),
            Stored::About(samples) => assert_eq!(heard.len(), *samples, "{}", case.what),
        }
    }
}
