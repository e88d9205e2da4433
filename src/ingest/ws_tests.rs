use std::net::SocketAddr;

use axum::Router;
use axum::extract::{OriginalUri, WebSocketUpgrade};
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message as Client;

use super::super::session::tests::{Bench, bench, bytes, user};
use super::*;
use crate::audio::synthetic::speech;
use crate::base::clock::{Clock, Timestamp};
use crate::config::{Config, Interval};

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A real socket on loopback.
async fn start(change: impl FnOnce(&mut Config)) -> (Bench, SocketAddr) {
    start_at(Clock::system(), change).await
}

async fn start_at(clock: Clock, change: impl FnOnce(&mut Config)) -> (Bench, SocketAddr) {
    let bench = bench(clock, change);
    let ingest = bench.ingest.clone();
    let upgrade = move |path: OriginalUri, upgrade: WebSocketUpgrade| async move {
        upgrade.read_buffer_size(8 << 10).on_upgrade(move |socket| async move {
            let protocol = match path.path() {
                "/ws_omi" => Protocol::OMI,
                "/ws" => Protocol::LEGACY,
                _ => Protocol::PCM,
            };
            let task = serve(socket, protocol, ingest, user('1'), Some("laptop".into()));
            // Every connection holds one of these for as long as it lasts.
            println!("{} bytes of task", size_of_val(&task));
            assert!(size_of_val(&task) < 4_096);
            task.await;
        })
    };
    let app = Router::new().route("/{path}", get(upgrade));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (bench, address)
}

async fn connect(address: SocketAddr) -> Socket {
    connect_to(address, "ws_pcm").await
}

async fn connect_to(address: SocketAddr, path: &str) -> Socket {
    let url = format!("ws://{address}/{path}");
    tokio_tungstenite::connect_async(url).await.unwrap().0
}

async fn text(socket: &mut Socket) -> String {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Client::Text(text) => return text.to_string(),
            Client::Ping(_) | Client::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code of the server's close.
async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        if let Client::Close(frame) = socket.next().await.unwrap().unwrap() {
            return frame.unwrap().code.into();
        }
    }
}

/// A second of audio as chunks with headers.
async fn chunks(socket: &mut Socket, samples: &[i16]) {
    for chunk in bytes(samples).chunks(1_024) {
        let header = format!(
            "{{\"type\":\"audio-chunk\",\"data\":{{\"rate\":16000,\"width\":2,\"channels\":1}},\"version\":\"1.0.0\",\"payload_length\":{}}}\n",
            chunk.len()
        );
        socket.send(Client::text(header)).await.unwrap();
        socket.send(Client::binary(chunk.to_vec())).await.unwrap();
    }
}

/// Waits for `count` closed conversations; their audio and reasons.
async fn closed(bench: &Bench, count: usize) -> Vec<(Vec<i16>, CloseReason)> {
    for _ in 0..1_000 {
        let rows = bench.store.rows();
        if rows.len() == count && rows.iter().all(|row| !row.conversation.is_open()) {
            return rows
                .iter()
                .map(|row| (bench.recorded(row), row.conversation.close_reason.unwrap()))
                .collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", bench.store.rows());
}

#[tokio::test]
async fn the_usual_client() {
    let (bench, address) = start(|_| {}).await;
    let mut socket = connect(address).await;
    let ready = text(&mut socket).await;
    assert_eq!(ready, "{\"type\":\"ready\",\"message\":\"WebSocket connection established\"}\n");
    let start = "{\"type\":\"audio-start\",\"data\":{\"rate\":16000,\"width\":2,\"channels\":1},\"version\":\"1.0.0\",\"payload_length\":null}\n";
    socket.send(Client::text(start)).await.unwrap();
    let sound = speech(1.0);
    chunks(&mut socket, &sound).await;
    socket.send(Client::text("{\"type\":\"ping\",\"t\":1753190000000}")).await.unwrap();
    let stop = "{\"type\":\"audio-stop\",\"data\":{\"timestamp\":null}}";
    socket.send(Client::text(stop)).await.unwrap();
    assert_eq!(closed(&bench, 1).await, [(sound.clone(), CloseReason::AudioStop)]);
    // The same socket records again; this time it just goes away.
    socket.send(Client::text(start)).await.unwrap();
    chunks(&mut socket, &sound).await;
    drop(socket);
    assert_eq!(closed(&bench, 2).await[1], (sound, CloseReason::Disconnect));
}

#[tokio::test]
async fn odd_clients_lose_nothing() {
    let (bench, address) = start(|_| {}).await;
    let mut socket = connect(address).await;
    let sound = speech(1.0);
    // Bare audio, before audio-start.
    socket.send(Client::binary(bytes(&sound))).await.unwrap();
    // A chunk before audio-start, in one frame with its header, its data apart.
    let data = "{\"rate\":16000}";
    let payload = bytes(&sound);
    let header = format!(
        "{{\"type\":\"audio-chunk\",\"data_length\":{},\"payload_length\":{}}}\n{data}",
        data.len(),
        payload.len()
    );
    let frame = [header.as_bytes(), &payload].concat();
    socket.send(Client::binary(frame)).await.unwrap();
    socket.send(Client::text("no json")).await.unwrap();
    socket.send(Client::text(r#"{"type":"audio-start","data":{"rate":16000}}"#)).await.unwrap();
    socket.send(Client::text(r#"{"type":"audio-start","data":{"rate":16000}}"#)).await.unwrap();
    // Bare audio after it; an unknown event with a payload; a nonsense format.
    socket.send(Client::binary(bytes(&sound))).await.unwrap();
    socket.send(Client::text(r#"{"type":"button","payload_length":3}"#)).await.unwrap();
    socket.send(Client::binary(vec![1, 2, 3])).await.unwrap();
    socket
        .send(Client::text(r#"{"type":"audio-chunk","data":{"rate":3},"payload_length":4}"#))
        .await
        .unwrap();
    socket.send(Client::binary(vec![1, 2, 3, 4])).await.unwrap();
    chunks(&mut socket, &sound).await;
    socket.send(Client::text(r#"{"type":"audio-stop"}"#)).await.unwrap();
    let want = [&sound[..], &sound, &sound, &sound].concat();
    assert_eq!(closed(&bench, 1).await, [(want, CloseReason::AudioStop)]);
    assert!(text(&mut socket).await.contains("ready"));
    let complaint = text(&mut socket).await;
    assert!(complaint.contains("\"error\":\"invalid_frame\""), "{complaint}");
    assert!(text(&mut socket).await.contains("3 Hz"));
}

#[tokio::test]
async fn shutdown_closes_the_conversation_and_says_so() {
    let (bench, address) = start(|_| {}).await;
    let mut socket = connect(address).await;
    text(&mut socket).await;
    socket.send(Client::text(r#"{"type":"audio-start"}"#)).await.unwrap();
    let sound = speech(1.0);
    socket.send(Client::binary(bytes(&sound))).await.unwrap();
    while bench.ingest.clients().list(None)[0].conversation.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.supervisor.stop();
    assert_eq!(close_code(&mut socket).await, GOING_AWAY);
    assert_eq!(closed(&bench, 1).await, [(sound, CloseReason::Shutdown)]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_socket_is_ended_after_the_stream_timeout() {
    let clock = Clock::of_timers(Timestamp::from_millis(1_753_190_000_000));
    let (bench, address) = start_at(clock, |_| {}).await;
    let mut silent = connect(address).await;
    silent.send(Client::binary(bytes(&speech(1.0)))).await.unwrap();
    while bench.ingest.clients().list(None)[0].conversation.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let heard = tokio::time::Instant::now();
    // It does not read, and so answers no ping.
    while bench.ingest.clients().count() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seconds = heard.elapsed().as_secs_f64();
    assert!((29.5..31.0).contains(&seconds), "{seconds}");
    assert_eq!(closed(&bench, 1).await[0].1, CloseReason::Disconnect);
}

#[tokio::test]
async fn a_socket_that_answers_pings_stays() {
    let limit = Duration::from_millis(900);
    let (bench, address) = start(|c| c.server.stream_timeout = Interval::from(limit)).await;
    let mut live = connect(address).await;
    let _ = tokio::time::timeout(limit * 3, async { while live.next().await.is_some() {} }).await;
    assert_eq!(bench.ingest.clients().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stays_and_sends_no_more_audio_has_its_conversation_closed() {
    let clock = Clock::of_timers(Timestamp::from_millis(1_753_190_000_000));
    let (bench, address) = start_at(clock, |_| {}).await;
    let (mut sink, mut source) = connect(address).await.split();
    // Reading, it answers pings.
    let reader = tokio::spawn(async move { while let Some(Ok(_)) = source.next().await {} });
    let sound = speech(1.0);
    let open = || bench.ingest.clients().list(None)[0].conversation.is_some();
    for _ in 0..2 {
        sink.send(Client::text(r#"{"type":"audio-start"}"#)).await.unwrap();
        sink.send(Client::binary(bytes(&sound))).await.unwrap();
        while !open() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let heard = tokio::time::Instant::now();
        while open() {
            sink.send(Client::text(r#"{"type":"ping","t":1}"#)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let seconds = heard.elapsed().as_secs_f64();
        assert!((89.0..91.0).contains(&seconds), "{seconds}");
    }
    let silence = (sound, CloseReason::Silence);
    assert_eq!(closed(&bench, 2).await, [silence.clone(), silence]);
    assert_eq!(bench.ingest.clients().count(), 1);
    reader.abort();
}

/// Bare packets of `frame` samples.
fn packets(samples: &[i16], frame: usize) -> Vec<Vec<u8>> {
    let mut encoder =
        opus::Encoder::new(16_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    samples.chunks_exact(frame).map(|chunk| encoder.encode_vec(chunk, 1_000).unwrap()).collect()
}

#[tokio::test]
async fn opus_comes_bare_or_in_events_in_packets_of_any_length() {
    let (bench, address) = start(|_| {}).await;
    let mut socket = connect_to(address, "ws_omi").await;
    let sound = speech(2.4);
    let header = |length: usize| {
        // What the phone app says of Opus.
        let format = r#"{"rate":16000,"width":2,"channels":1}"#;
        format!("{{\"type\":\"audio-chunk\",\"data\":{format},\"payload_length\":{length}}}\n")
    };
    let mut sent = 0;
    for frame in [160, 320, 640, 960] {
        for packet in packets(&sound, frame) {
            if sent % 2 == 0 {
                socket.send(Client::text(header(packet.len()))).await.unwrap();
            }
            socket.send(Client::binary(packet)).await.unwrap();
            sent += 1;
        }
        // Nothing is in so little, and nothing can be made of that.
        socket.send(Client::binary(vec![0xB8, 1, 2])).await.unwrap();
        socket.send(Client::binary(vec![0xFF; 9])).await.unwrap();
    }
    socket.send(Client::text(r#"{"type":"audio-stop"}"#)).await.unwrap();
    let recorded = closed(&bench, 1).await.remove(0);
    assert_eq!((recorded.0.len(), recorded.1), (4 * sound.len(), CloseReason::AudioStop));
    // No greeting here: what comes first is about the first bad packet.
    let complaint = text(&mut socket).await;
    assert!(complaint.contains("not an Opus packet"), "{complaint}");
}

#[tokio::test]
async fn the_header_of_bluetooth_is_taken_off_when_told() {
    let (bench, address) = start(|c| c.server.opus_ble_header = true).await;
    let mut socket = connect_to(address, "ws_omi").await;
    let sound = speech(2.0);
    for (number, packet) in (0u16..).zip(packets(&sound, 160)) {
        let frame = [&number.to_le_bytes()[..], &[0], &packet].concat();
        socket.send(Client::binary(frame)).await.unwrap();
    }
    socket.send(Client::text(r#"{"type":"audio-stop"}"#)).await.unwrap();
    assert_eq!(closed(&bench, 1).await[0].0.len(), sound.len());
}

#[tokio::test]
async fn old_devices_have_no_boundaries() {
    let (bench, address) = start(|_| {}).await;
    let mut socket = connect_to(address, "ws").await;
    let sound = speech(2.0);
    socket.send(Client::text(r#"{"type":"audio-start"}"#)).await.unwrap();
    for _ in 0..2 {
        for packet in packets(&sound, 320) {
            socket.send(Client::binary(packet)).await.unwrap();
        }
        socket.send(Client::text(r#"{"type":"audio-stop"}"#)).await.unwrap();
    }
    drop(socket);
    let recorded = closed(&bench, 1).await.remove(0);
    assert_eq!((recorded.0.len(), recorded.1), (2 * sound.len(), CloseReason::Disconnect));
}

/// The ids that are known, in order of connection.
fn ids(bench: &Bench) -> Vec<String> {
    bench.ingest.clients().list(None).iter().map(|c| c.client_id.to_string()).collect()
}

#[tokio::test]
async fn a_dead_connection_gives_way_to_the_next_of_its_device() {
    let (bench, address) =
        start(|c| c.conversation.reconnect_grace = Interval::from_secs(30)).await;
    let sound = speech(2.0);
    let mut dead = connect(address).await;
    dead.send(Client::binary(bytes(&sound))).await.unwrap();
    while bench.ingest.clients().list(None)[0].conversation.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nobody reads it any more, so that it answers nothing; it is not closed.
    let mut next = connect(address).await;
    text(&mut next).await;
    assert_eq!(ids(&bench), ["439011-laptop"]);
    next.send(Client::binary(bytes(&sound))).await.unwrap();
    next.send(Client::text(r#"{"type":"audio-stop"}"#)).await.unwrap();
    assert_eq!(closed(&bench, 1).await, [(sound.repeat(2), CloseReason::AudioStop)]);
    assert_eq!(close_code(&mut dead).await, GOING_AWAY);
    assert_eq!(ids(&bench), ["439011-laptop"]);
}

#[tokio::test]
async fn a_connection_that_breaks_while_it_is_asked_gives_way_at_once() {
    let (bench, address) =
        start(|c| c.conversation.reconnect_grace = Interval::from_secs(30)).await;
    let sound = speech(2.0);
    let mut first = connect(address).await;
    first.send(Client::binary(bytes(&sound))).await.unwrap();
    while bench.ingest.clients().list(None)[0].conversation.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let next = tokio::spawn(async move {
        let mut next = connect(address).await;
        text(&mut next).await;
        next
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The last it sends is torn in the middle of a sample.
    first.send(Client::binary(vec![7])).await.unwrap();
    drop(first);
    let mut next = next.await.unwrap();
    assert_eq!(ids(&bench), ["439011-laptop"]);
    next.send(Client::binary(bytes(&sound))).await.unwrap();
    next.send(Client::text(r#"{"type":"audio-stop"}"#)).await.unwrap();
    assert_eq!(closed(&bench, 1).await, [(sound.repeat(2), CloseReason::AudioStop)]);
}

#[tokio::test]
async fn a_living_connection_keeps_its_id() {
    let (bench, address) =
        start(|c| c.conversation.reconnect_grace = Interval::from_secs(30)).await;
    let mut readers = Vec::new();
    for known in [&["439011-laptop"][..], &["439011-laptop", "439011-laptop-2"]] {
        let mut living = connect(address).await;
        text(&mut living).await;
        assert_eq!(ids(&bench), known);
        // Reading is what answers pings.
        readers.push(tokio::spawn(async move { while living.next().await.is_some() {} }));
    }
    let mut third = connect(address).await;
    text(&mut third).await;
    assert_eq!(ids(&bench), ["439011-laptop", "439011-laptop-2", "439011-laptop-3"]);
    readers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_stream_too_many_is_told() {
    let (bench, address) = start(|c| c.server.max_streams_per_user = 1).await;
    let mut first = connect(address).await;
    text(&mut first).await;
    // Reading is what answers pings: without it, the second would be its successor.
    let reader = tokio::spawn(async move { while first.next().await.is_some() {} });
    let mut second = connect(address).await;
    let refusal = text(&mut second).await;
    assert!(refusal.contains("too_many_streams") && refusal.contains("1013"), "{refusal}");
    assert_eq!(close_code(&mut second).await, TRY_AGAIN_LATER);
    assert_eq!(bench.ingest.clients().count(), 1);
    reader.abort();
}

#[tokio::test]
async fn a_full_disk_is_told() {
    let (bench, address) = start(|_| {}).await;
    let mut socket = connect(address).await;
    text(&mut socket).await;
    bench.store.state().failures = vec![Kind::NoSpace];
    socket.send(Client::binary(bytes(&speech(1.0)))).await.unwrap();
    assert!(text(&mut socket).await.contains("disk is full"));
    assert_eq!(close_code(&mut socket).await, TRY_AGAIN_LATER);
}
