//! Live streams, a hundred and more at once: what an hour of one costs, beside a
//! bare axum server that drops every frame, how late frames are handled on one
//! core, and how much memory a live stream takes.
//!
//! `cargo bench --bench live` prints one table. Nothing here passes or fails.
//! This process is the sender; daemon and bare server are processes of their own.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::Barrier;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::{Bytes, Message};

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::daemon::Daemon;
use harness::process::{cpu, resident};
use harness::services::{KEY, Server};
use harness::{opus, speech};

/// What a stream sends, one entry a frame, and the time between them.
#[derive(Clone)]
struct Feed {
    frames: Arc<Vec<Vec<Message>>>,
    every: Duration,
}

impl Feed {
    fn bare(milliseconds: usize) -> Self {
        let frames = pcm(milliseconds).into_iter().map(|bytes| vec![Message::binary(bytes)]);
        Self::new(frames.collect(), milliseconds)
    }

    fn wyoming(milliseconds: usize) -> Self {
        let frames = pcm(milliseconds).into_iter().map(|bytes| {
            let header = format!(
                "{{\"type\": \"audio-chunk\", \"data\": {{\"rate\": 16000, \"width\": 2, \"channels\": 1}}, \
                 \"version\": \"1.0.0\", \"payload_length\": {}}}\n",
                bytes.len()
            );
            vec![Message::text(header), Message::binary(bytes)]
        });
        Self::new(frames.collect(), milliseconds)
    }

    fn opus(milliseconds: usize) -> Self {
        let (reading, _) = speech::reading(1.0);
        let packets = opus::packets(&reading, 16 * milliseconds).into_iter();
        Self::new(packets.map(|packet| vec![Message::binary(packet)]).collect(), milliseconds)
    }

    fn new(frames: Vec<Vec<Message>>, milliseconds: usize) -> Self {
        Self { frames: Arc::new(frames), every: Duration::from_millis(milliseconds as u64) }
    }
}

/// Real speech with pauses, in frames.
fn pcm(milliseconds: usize) -> Vec<Bytes> {
    let (reading, _) = speech::reading(1.0);
    let bytes = |frame: &[i16]| frame.iter().flat_map(|s| s.to_le_bytes()).collect();
    reading.chunks_exact(16 * milliseconds).map(bytes).collect()
}

fn row(what: &str, value: String) {
    println!("{what:<66} {value:>14}");
}

/// A server on axum alone, in a process of its own, ended when dropped.
struct BareAxum(Child, String);

impl BareAxum {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("bare-axum")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().to_owned())
    }
}

impl Drop for BareAxum {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn bare_axum() {
    let upgrade = async |upgrade: WebSocketUpgrade| {
        upgrade.read_buffer_size(8 * 1024).on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                std::hint::black_box(message);
            }
        })
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("ws://{}/", listener.local_addr().unwrap());
    axum::serve(listener, Router::new().route("/", get(upgrade))).await.unwrap();
}

/// Streams that run until they are dropped.
struct Live {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    late: tokio::sync::mpsc::UnboundedReceiver<Duration>,
}

impl Live {
    /// Connects `count` streams to `url` (`{}` in it is the number of the stream)
    /// and feeds them, spread over the time of a frame. `pings`: each frame is
    /// followed by a ping, whose answer tells when the frame had been handled.
    async fn start(url: &str, first: usize, count: usize, feed: &Feed, pings: bool) -> Self {
        let (tell, late) = tokio::sync::mpsc::unbounded_channel();
        let ready = Arc::new(Barrier::new(count + 1));
        let mut tasks = Vec::new();
        for number in 0..count {
            let url = url.replace("{}", &(first + number).to_string());
            let (feed, ready, tell) = (feed.clone(), ready.clone(), tell.clone());
            tasks.push(tokio::spawn(async move {
                // Without Nagle's algorithm, as asyncio, OkHttp and browsers send.
                let connected = connect_async_with_config(url, None, true).await;
                let (stream, _) = connected.unwrap();
                let (mut sink, mut source) = stream.split();
                ready.wait().await;
                let epoch = Instant::now();
                let reader = tokio::spawn(async move {
                    while let Some(Ok(message)) = source.next().await {
                        if let Message::Pong(sent) = message {
                            let sent = u64::from_le_bytes(sent[..].try_into().unwrap());
                            let _ = tell.send(epoch.elapsed() - Duration::from_micros(sent));
                        }
                    }
                });
                let offset = feed.every * number as u32 / count as u32;
                let begin = tokio::time::Instant::now() + offset;
                for (turn, frame) in feed.frames.iter().cycle().enumerate() {
                    tokio::time::sleep_until(begin + feed.every * turn as u32).await;
                    for message in frame {
                        sink.feed(message.clone()).await.unwrap();
                    }
                    if pings {
                        let now = epoch.elapsed().as_micros() as u64;
                        let ping = Message::Ping(Bytes::from(now.to_le_bytes().to_vec()));
                        sink.feed(ping).await.unwrap();
                    }
                    if sink.flush().await.is_err() {
                        break;
                    }
                }
                reader.abort();
            }));
        }
        ready.wait().await;
        Self { tasks, late }
    }

    async fn stop(mut self) -> Vec<Duration> {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            let _ = task.await;
        }
        let mut all = Vec::new();
        while let Ok(late) = self.late.try_recv() {
            all.push(late);
        }
        all.sort();
        all
    }
}

/// CPU-seconds that an hour of one stream costs the process `pid`.
async fn hourly_cost(pid: u32, url: &str, feed: &Feed) -> f64 {
    const STREAMS: usize = 100;
    const MEASURED: Duration = Duration::from_secs(20);
    let live = Live::start(url, 0, STREAMS, feed, false).await;
    // Everything is under way, and what a stream does once is done.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (before, began) = (cpu(pid), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let spent = cpu(pid) - before;
    let hours = STREAMS as f64 * began.elapsed().as_secs_f64() / 3600.0;
    live.stop().await;
    spent / hours
}

async fn costs() {
    for (what, feed) in [
        ("bare PCM frames of 20 ms", Feed::bare(20)),
        ("bare PCM frames of 32 ms", Feed::bare(32)),
        ("Wyoming events, two frames every 32 ms", Feed::wyoming(32)),
    ] {
        let bare = BareAxum::start();
        let floor = hourly_cost(bare.0.id(), &bare.1, &feed).await;
        drop(bare);
        let empty = tempfile::tempdir().unwrap();
        let daemon =
            Daemon::without_models(empty.path(), &[("SERVER__MAX_STREAMS_PER_USER", "200")]);
        let cost = hourly_cost(daemon.pid(), &url(&daemon, "ws_pcm").await, &feed).await;
        row(&format!("CPU-s an hour of stream, 100 live, {what}"), format!("{cost:.2}"));
        row("  bare axum, frames dropped", format!("{floor:.2}"));
        row("  ratio", format!("{:.2}", cost / floor));
    }
}

/// A hundred streams whose transcripts Deepgram's stand-in makes at once, from the
/// first frame until the last of them is there.
async fn transcribed_outside() {
    const STREAMS: usize = 100;
    const TIME: Duration = Duration::from_secs(120);
    let server = Server::deepgram_at_once();
    let url_of_server = format!("http://{}", server.address());
    let daemon = Daemon::with(&[
        ("SERVER__MAX_STREAMS_PER_USER", "200"),
        ("STT__ENGINES", "deepgram"),
        ("DEEPGRAM_API_KEY", KEY),
        ("DEEPGRAM__URL", &url_of_server),
        ("MEMORY__ENABLED", "false"),
        ("LOG__LEVEL", "warn"),
    ]);
    let client = daemon.admin().await;
    let (before, began) = (cpu(daemon.pid()), Instant::now());
    let url = url(&daemon, "ws_pcm").await;
    let live = Live::start(&url, 0, STREAMS, &Feed::bare(32), false).await;
    tokio::time::sleep(TIME).await;
    let hours = STREAMS as f64 * TIME.as_secs_f64() / 3600.0;
    live.stop().await;
    let done = |one: &serde_json::Value| one["transcription_status"] == "COMPLETED";
    let mut asked = 0.0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let at = cpu(daemon.pid());
        let all = client.get("/api/conversations?view=list&limit=1000").await;
        asked += cpu(daemon.pid()) - at;
        let all = all["conversations"].as_array().unwrap().clone();
        if all.len() == STREAMS && all.iter().all(done) {
            break;
        }
        assert!(began.elapsed() < 5 * TIME, "{all:?}");
    }
    let cost = (cpu(daemon.pid()) - before - asked) / hours;
    let status = client.get("/health").await["backlog"].clone();
    row("CPU-s an hour of stream, 100 live, Deepgram at once", format!("{cost:.2}"));
    row("  backlog after it", status["windows"].to_string());
}

async fn url(daemon: &Daemon, path: &str) -> String {
    let client = daemon.admin().await;
    let server = daemon.url.replace("http", "ws");
    format!("{server}/{path}?token={}&device_name=d{{}}", client.token)
}

/// Keeps all threads of a process on one core.
fn pin(pid: u32, core: &str) {
    let status = Command::new("taskset")
        .args(["-acp", core, &pid.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "taskset");
}

/// Resident memory in bytes, over two seconds: what waits for the disk comes and goes.
async fn steady_resident(pid: u32) -> f64 {
    const SAMPLES: u32 = 40;
    let mut sum = 0.0;
    for _ in 0..SAMPLES {
        tokio::time::sleep(Duration::from_millis(50)).await;
        sum += resident(pid);
    }
    sum / f64::from(SAMPLES)
}

async fn lateness(what: &str, path: &str, sessions: usize, feed: &Feed) {
    let empty = tempfile::tempdir().unwrap();
    let daemon = Daemon::without_models(empty.path(), &[("SERVER__MAX_STREAMS_PER_USER", "400")]);
    pin(daemon.pid(), "0");
    let url = url(&daemon, path).await;
    let half = sessions / 2;
    let first = Live::start(&url, 0, half, feed, true).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = steady_resident(daemon.pid()).await;
    let second = Live::start(&url, half, half, feed, true).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (busy, began) = (cpu(daemon.pid()), Instant::now());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let share = (cpu(daemon.pid()) - busy) / began.elapsed().as_secs_f64();
    let grown = (steady_resident(daemon.pid()).await - before) / half as f64;
    let mut late = first.stop().await;
    late.append(&mut second.stop().await);
    late.sort();
    let at = |share: f64| {
        let index = ((late.len() - 1) as f64 * share) as usize;
        format!("{:.1} ms", late[index].as_secs_f64() * 1e3)
    };
    let too_late = late.iter().filter(|late| **late > Duration::from_millis(100)).count();
    row(&format!("{sessions} sessions, {what}, on one core: frames seen"), late.len().to_string());
    row("  handled more than 100 ms late", too_late.to_string());
    row("  half are handled within", at(0.5));
    row("  99 of 100", at(0.99));
    row("  the latest", at(1.0));
    row("  share of the core", format!("{:.0} %", share * 100.0));
    row("  resident memory for each more, KiB", format!("{:.1}", grown / 1024.0));
}

fn main() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    let wanted = |name: &str| {
        let named: Vec<_> = arguments.iter().skip(1).filter(|a| !a.starts_with('-')).collect();
        named.is_empty() || named.iter().any(|a| *a == name)
    };
    if arguments.iter().any(|argument| argument == "bare-axum") {
        return runtime.block_on(bare_axum());
    }
    runtime.block_on(async {
        if wanted("cost") {
            costs().await;
        }
        if wanted("outside") {
            transcribed_outside().await;
        }
        if wanted("late") {
            pin(std::process::id(), "1");
            lateness("PCM frames of 20 ms", "ws_pcm", 200, &Feed::bare(20)).await;
            lateness("Opus packets of 20 ms", "ws_omi", 100, &Feed::opus(20)).await;
        }
    });
}
