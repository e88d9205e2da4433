//! WebSockets and connected devices, over the server and loopback.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, http::Request};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Person, World};
use crate::base::clock::Clock;
use crate::base::system;
use crate::http::server;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl World {
    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, config) = (self.router.clone(), self.api.config.clone());
        let clock = Clock::system();
        let supervisor = self.api.supervisor.clone();
        self.api.supervisor.once(async move {
            server::serve(listener, None, router, &config, &clock, &supervisor).await.unwrap();
        });
        address
    }
}

fn request(address: SocketAddr, path: &str, headers: &[(&'static str, String)]) -> Request<()> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

async fn next_json(socket: &mut Socket) -> Value {
    let message = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap();
    let text = message.unwrap().unwrap().into_text().unwrap();
    assert!(text.ends_with('\n'), "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn is_refused(socket: &mut Socket) {
    is_refused_for(socket, "authentication_failed", "Authentication failed").await;
}

async fn is_refused_for(socket: &mut Socket, error: &str, why: &str) {
    let frame = next_json(socket).await;
    assert_eq!(frame["type"], "error");
    assert_eq!(frame["error"], error);
    assert_eq!(frame["code"], 1008);
    match socket.next().await {
        Some(Ok(Message::Close(Some(close)))) => {
            assert_eq!(close.code, CloseCode::Policy);
            assert_eq!(close.reason.as_str(), why);
        }
        other => panic!("{other:?}"),
    }
}

/// Opens a stream and starts talking, until there is a conversation.
async fn talk(
    world: &World,
    address: SocketAddr,
    person: &Person,
    device: &str,
) -> (Socket, String) {
    let path = format!("/ws_pcm?token={}&device_name={device}", person.token);
    let (mut socket, _) = connect_async(request(address, &path, &[])).await.unwrap();
    assert_eq!(next_json(&mut socket).await["type"], "ready");
    let start = json!({
        "type": "audio-start", "data": { "rate": 16000, "width": 2, "channels": 1 },
        "version": "1.0.0", "payload_length": null,
    });
    socket.send(Message::text(format!("{start}\n"))).await.unwrap();
    socket.send(Message::binary(vec![0; 3200])).await.unwrap();
    let client = format!("{}-{device}", person.user.id.suffix());
    for _ in 0..500 {
        let body = world.get("/api/clients/active", person).await.is(200);
        let found = body["clients"].as_array().unwrap().iter().any(|entry| {
            entry["client_id"] == client.as_str() && entry["has_active_conversation"] == true
        });
        if found {
            return (socket, client);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no conversation of {client}");
}

#[tokio::test]
async fn a_token_is_taken_from_query_header_or_our_own_pages_cookie() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let address = world.serve().await;
    let bearer = ("authorization", format!("Bearer {}", ann.token));
    let cookie = ("cookie", format!("fastapiusersauth={}", ann.token));
    let ours = ("origin", format!("http://{address}"));
    let theirs = ("origin", "http://evil.example".to_owned());
    let query = format!("?token={}", ann.token);
    for (path, headers) in [
        (format!("/ws_pcm{query}"), vec![]),
        (format!("/ws_omi/ws_pcm{query}"), vec![]),
        ("/ws_pcm".into(), vec![bearer]),
        ("/ws_pcm".into(), vec![cookie.clone(), ours]),
        // A page elsewhere may hold a token of its own and use it.
        (format!("/ws_pcm{query}"), vec![theirs.clone()]),
    ] {
        let (mut socket, _) = connect_async(request(address, &path, &headers)).await.unwrap();
        assert_eq!(next_json(&mut socket).await["type"], "ready", "{path}");
    }
    for (path, headers) in [
        ("/ws_pcm", vec![]),
        ("/ws_omi", vec![]),
        ("/ws", vec![]),
        ("/ws?codec=opus", vec![]),
        ("/ws_omi", vec![cookie.clone()]),
        ("/ws_pcm?token=", vec![]),
        ("/ws_pcm?token=nonsense", vec![]),
        ("/ws_pcm", vec![cookie.clone()]),
        ("/ws_pcm", vec![cookie, theirs]),
    ] {
        let (mut socket, _) = connect_async(request(address, path, &headers)).await.unwrap();
        is_refused(&mut socket).await;
    }
}

#[tokio::test]
async fn only_where_clients_wait_for_it_is_there_a_greeting() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let address = world.serve().await;
    for (path, greets) in [
        ("/ws_pcm?", true),
        ("/ws_omi/ws_pcm?", true),
        ("/ws_omi?", false),
        ("/ws?codec=pcm&", true),
        ("/ws?codec=opus&", true),
    ] {
        let path = format!("{path}device_name=a&token={}", ann.token);
        let (mut socket, _) = connect_async(request(address, &path, &[])).await.unwrap();
        socket.send(Message::Ping(vec![1].into())).await.unwrap();
        let first = socket.next().await.unwrap().unwrap();
        assert_eq!(first.is_text(), greets, "{path}: {first:?}");
    }
    let path = format!("/ws?codec=mp3&token={}", ann.token);
    let (mut socket, _) = connect_async(request(address, &path, &[])).await.unwrap();
    is_refused_for(&mut socket, "unsupported", "Unsupported codec").await;
}

#[tokio::test]
async fn old_devices_stream_to_the_one_user_who_is_named() {
    let world = World::with(|c| c.server.legacy_user = "Ann@Example.com".into()).await;
    let address = world.serve().await;
    // Nobody of that name yet.
    let (mut socket, _) = connect_async(request(address, "/ws", &[])).await.unwrap();
    is_refused(&mut socket).await;
    let ann = world.person("ann", false).await;
    let (mut socket, _) = connect_async(request(address, "/ws", &[])).await.unwrap();
    socket.send(Message::Ping(vec![1].into())).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_pong());
    let body = world.get("/api/clients/active", &ann).await.is(200);
    let client = format!("{}-legacy", ann.user.id.suffix());
    assert_eq!(body["clients"][0]["client_id"], client.as_str());
}

#[tokio::test]
async fn connected_devices_are_shown_to_their_owner_and_to_administrators() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let admin = world.person("root", true).await;
    let address = world.serve().await;
    let (_socket, client) = talk(&world, address, &ann, "laptop").await;

    for (person, count) in [(&ann, 1), (&ben, 0), (&admin, 1)] {
        for path in ["/api/clients/active", "/api/active_clients"] {
            let body = world.get(path, person).await.is(200);
            assert_eq!(body["total_count"], count);
            assert_eq!(body["active_clients_count"], count);
            assert_eq!(body["clients"], body["active_clients"]);
        }
    }
    let body = world.get("/api/active_clients", &ann).await.is(200);
    let entry = &body["active_clients"][0];
    assert_eq!(entry["client_id"], client.as_str());
    assert_eq!(entry["user_id"], json!(ann.user.id));
    assert_eq!(entry["connected"], true);
    assert_eq!(entry["connected_at"], "2025-07-22T13:15:00.000Z");
    assert_eq!(entry["conversation_count"], 1);
    assert_eq!(entry["conversation_transcripts_count"], 0);
    assert_eq!(entry["last_transcript_time"], Value::Null);
    assert!(entry["conversation_start_time"].is_f64());
    let me = world.get("/users/me", &ann).await.is(200);
    assert_eq!(me["registered_clients"][&client]["is_active"], true);
    assert_eq!(me["registered_clients"][&client]["device_name"], "laptop");
}

#[tokio::test]
async fn a_conversation_is_closed_for_its_owner_and_for_nobody_else() {
    let world = World::new().await;
    let (ann, ben) = (world.person("ann", false).await, world.person("ben", false).await);
    let address = world.serve().await;
    let (_socket, client) = talk(&world, address, &ann, "laptop").await;
    let close = format!("/api/conversations/{client}/close");

    let body = world.ask("POST", &close, Some(&ben)).await.is(403);
    assert!(body["error"].is_string() && body["details"].is_string());
    let body = world.ask("POST", &close, Some(&ann)).await.is(200);
    assert_eq!(body["client_id"], client.as_str());
    assert_eq!(body["timestamp"], 1_753_190_100);
    let id = body["conversation_id"].as_str().unwrap();
    let closed = world.get(&format!("/api/conversations/{id}"), &ann).await.is(200);
    assert_eq!(closed["conversation"]["close_reason"], "request");

    let body = world.ask("POST", &close, Some(&ann)).await.is(400);
    assert_eq!(body["error"], format!("Client '{client}' has no open conversation"));
    let body = world.ask("POST", "/api/conversations/x-y/close", Some(&ann)).await.is(404);
    assert_eq!(body, json!({ "error": "Client 'x-y' not found or not connected" }));
}

/// Resident memory of one idle stream, all of it: the task, the session, the
/// buffers. Measures the whole process, so it runs alone:
/// `cargo test --release --lib -- --ignored --nocapture idle_streams`.
#[tokio::test]
#[ignore = "measures the whole process"]
async fn idle_streams_are_small() {
    const STREAMS: usize = 512;
    let world = World::new().await;
    let mut people = Vec::new();
    for n in 0..STREAMS.div_ceil(world.api.config.server.max_streams_per_user) {
        people.push(world.person(&format!("user{n}"), false).await);
    }
    let address = world.serve().await;
    let open = async |n: usize| {
        let token = &people[n % people.len()].token;
        let request = format!(
            "GET /ws_pcm?token={token}&device_name=d{n} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut buffer = [0; 512];
        let mut answer = Vec::new();
        while !answer.ends_with(b"established\"}\n") {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..count]);
        }
        stream
    };
    let mut streams = Vec::with_capacity(STREAMS);
    for n in 0..32 {
        streams.push(open(n).await);
    }
    let before = system::resident_memory().unwrap();
    for n in 32..STREAMS {
        streams.push(open(n).await);
    }
    let each = (system::resident_memory().unwrap() - before) / (STREAMS as u64 - 32);
    println!("{each} bytes an idle stream");
    assert!(each <= 16 * 1024, "{each}");
}

#[tokio::test]
async fn shutdown_waits_for_streams_to_save_what_they_have() {
    let world = World::new().await;
    let ann = world.person("ann", false).await;
    let address = world.serve().await;
    let (mut socket, _) = talk(&world, address, &ann, "laptop").await;
    world.api.supervisor.stop();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
    }
    drop(socket);
    assert!(world.api.supervisor.drain(Duration::from_secs(5)).await);
    assert!(world.api.store.open_conversations().await.unwrap().is_empty());
}
