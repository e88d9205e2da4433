use std::net::SocketAddr;

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message as Client;

use super::super::session::tests::{Bench, bench, bytes, user};
use super::*;
use crate::audio::synthetic::speech;
use crate::base::clock::Clock;
use crate::config::{Config, Interval};

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A real socket on loopback.
async fn start(change: impl FnOnce(&mut Config)) -> (Bench, SocketAddr) {
    let bench = bench(Clock::system(), change);
    let ingest = bench.ingest.clone();
    let upgrade = move |upgrade: WebSocketUpgrade| async move {
        upgrade.read_buffer_size(8 << 10).on_upgrade(move |socket| async move {
            let task = serve(socket, ingest, user('1'), Some("laptop".into()));
            // Every connection holds one of these for as long as it lasts.
            println!("{} bytes of task", size_of_val(&task));
            assert!(size_of_val(&task) < 4_096);
            task.await;
        })
    };
    let app = Router::new().route("/ws_pcm", get(upgrade));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (bench, address)
}

async fn connect(address: SocketAddr) -> Socket {
    let (socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{address}/ws_pcm")).await.unwrap();
    socket
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

#[tokio::test]
async fn a_silent_socket_is_ended_and_a_live_one_is_not() {
    let limit = Duration::from_millis(900);
    let (bench, address) = start(|c| c.server.stream_timeout = Interval::from(limit)).await;
    let (mut silent, mut live) = (connect(address).await, connect(address).await);
    silent.send(Client::binary(bytes(&speech(1.0)))).await.unwrap();
    // Reading answers pings; the silent one does not read.
    let reader = tokio::spawn(async move {
        let _ =
            tokio::time::timeout(limit * 3, async { while live.next().await.is_some() {} }).await;
        live
    });
    assert_eq!(closed(&bench, 1).await[0].1, CloseReason::Disconnect);
    let live = reader.await.unwrap();
    assert_eq!(bench.ingest.clients().count(), 1);
    drop((silent, live));
}

#[tokio::test]
async fn one_stream_too_many_is_told() {
    let (bench, address) = start(|c| c.server.max_streams_per_user = 1).await;
    let mut first = connect(address).await;
    text(&mut first).await;
    let mut second = connect(address).await;
    let refusal = text(&mut second).await;
    assert!(refusal.contains("too_many_streams") && refusal.contains("1013"), "{refusal}");
    assert_eq!(close_code(&mut second).await, TRY_AGAIN_LATER);
    assert_eq!(bench.ingest.clients().count(), 1);
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
