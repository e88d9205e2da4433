use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::config::Interval;

/// A server with two places; `/slow` takes half a second, `/stuck` does not end,
/// `/peer` tells who asks.
async fn start(change: impl FnOnce(&mut Config)) -> (SocketAddr, Supervisor) {
    let mut config = Config::default();
    config.server.max_connections = 2;
    config.server.drain_timeout = Interval::from_secs(5);
    change(&mut config);
    let router = Router::new()
        .route("/peer", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string()))
        .route(
            "/slow",
            get(async || {
                tokio::time::sleep(Duration::from_millis(500)).await;
                "done"
            }),
        )
        .route("/stuck", get(std::future::pending::<()>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let supervisor = Supervisor::new();
    let inner = supervisor.clone();
    supervisor.once(async move {
        serve(listener, None, router, &config, &Clock::system(), &inner).await.unwrap()
    });
    (address, supervisor)
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// What comes until the body ends with `end`, or within `limit`.
async fn read_until(stream: &mut TcpStream, end: &str, limit: Duration) -> Option<String> {
    let mut text = String::new();
    let reading = async {
        let mut buffer = [0; 1024];
        while !text.ends_with(end) {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
    };
    tokio::time::timeout(limit, reading).await.ok().map(|()| text)
}

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_request_knows_its_peer() {
    let (address, _supervisor) = start(|_| ()).await;
    let mut stream = connect(address).await;
    let local = stream.local_addr().unwrap().to_string();
    ask(&mut stream, "/peer").await;
    let answer = read_until(&mut stream, &local, LONG).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let (address, _supervisor) = start(|_| ()).await;
    let first = connect(address).await;
    let _second = connect(address).await;
    tokio::time::sleep(SHORT).await;
    let mut third = connect(address).await;
    let local = third.local_addr().unwrap().to_string();
    ask(&mut third, "/peer").await;
    assert_eq!(read_until(&mut third, &local, SHORT).await, None);
    drop(first);
    assert!(read_until(&mut third, &local, LONG).await.is_some_and(|a| a.contains("200 OK")));
}

#[tokio::test]
async fn who_sends_no_header_is_cut_off() {
    let timeout = |config: &mut Config| config.server.header_timeout = SHORT.into();
    let (address, _supervisor) = start(timeout).await;
    let mut silent = connect(address).await;
    let mut halting = connect(address).await;
    halting.write_all(b"GET /peer HTTP/1.1\r\nho").await.unwrap();
    for stream in [&mut silent, &mut halting] {
        assert!(read_until(stream, "never", LONG).await.is_some(), "still open");
    }
    // The same between two requests of one connection.
    let mut idle = connect(address).await;
    let local = idle.local_addr().unwrap().to_string();
    ask(&mut idle, "/peer").await;
    assert!(read_until(&mut idle, &local, LONG).await.is_some());
    assert!(read_until(&mut idle, "never", LONG).await.is_some(), "still open");
}

#[tokio::test]
async fn a_header_larger_than_the_buffer_is_refused() {
    let (address, _supervisor) = start(|_| ()).await;
    let mut stream = connect(address).await;
    ask(&mut stream, &format!("/{}", "x".repeat(2 * MAX_BUFFER))).await;
    let answer = read_until(&mut stream, "never", LONG).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_refuses_new_ones() {
    let (address, supervisor) = start(|_| ()).await;
    let mut busy = connect(address).await;
    let _idle = connect(address).await;
    ask(&mut busy, "/slow").await;
    tokio::time::sleep(SHORT).await;
    supervisor.stop();
    let answer = read_until(&mut busy, "done", LONG).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    assert!(supervisor.drain(LONG).await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shutdown_does_not_wait_longer_than_it_may() {
    let (address, supervisor) = start(|config| config.server.drain_timeout = SHORT.into()).await;
    let mut busy = connect(address).await;
    ask(&mut busy, "/stuck").await;
    tokio::time::sleep(SHORT).await;
    supervisor.stop();
    assert!(supervisor.drain(LONG).await);
}
