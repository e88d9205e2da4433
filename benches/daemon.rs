//! The whole daemon, measured from outside: memory, start, and the time from
//! `audio-stop` to the transcript.
//!
//! `cargo bench --bench daemon` prints one table. Nothing here passes or fails.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::time::{Duration, Instant};

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::client::Client;
use harness::daemon::Daemon;
use harness::process::resident;
use harness::speech;

const MIB: f64 = 1024.0 * 1024.0;

fn row(what: &str, value: String) {
    println!("{what:<62} {value:>12}");
}

async fn idle_and_connections() {
    let mut daemon = Daemon::with(&[
        ("SERVER__MAX_STREAMS_PER_USER", "2000"),
        ("SERVER__MAX_CONNECTIONS", "2000"),
    ]);
    // The first start makes the database and the administrator; measure the second.
    daemon.stop();
    let started = Instant::now();
    daemon.kill_and_restart();
    let listening = started.elapsed();
    let client = daemon.admin().await;
    let socket = client.socket("first").await;
    row("cold start to listening, ms", format!("{:.0}", listening.as_secs_f64() * 1e3));
    socket.close().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = resident(daemon.pid());
    row("resident memory of the idle daemon, MiB", format!("{:.1}", idle / MIB));

    // Half the connections first, so that what grows once is not counted.
    let mut sockets = Vec::new();
    for number in 0..300 {
        sockets.push(client.socket(&format!("w{number}")).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let half = resident(daemon.pid());
    for number in 300..600 {
        sockets.push(client.socket(&format!("w{number}")).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let whole = resident(daemon.pid());
    row(
        "resident memory for each idle connection, KiB",
        format!("{:.1}", (whole - half) / 300.0 / 1024.0),
    );
}

async fn stop_to_transcript() {
    let daemon = Daemon::with(&[("MEMORY__ENABLED", "false")]);
    let client = daemon.admin().await;
    let (reading, _) = speech::reading(0.4);
    let minute: Vec<i16> = reading.iter().copied().cycle().take(60 * 16_000).collect();
    let mut socket = client.socket("minute").await;
    socket.session(&minute, 1.0).await;
    let stopped = Instant::now();
    settled(&client).await;
    row(
        "audio-stop to final transcript, a minute in real time, s",
        format!("{:.1}", stopped.elapsed().as_secs_f64()),
    );

    // The same engine, warm, on one full window: what it is compared with.
    let window: Vec<i16> = reading.iter().copied().cycle().take(27 * 16_000).collect();
    let mut socket = client.socket("window").await;
    socket.session(&window, 0.0).await;
    let stopped = Instant::now();
    settled(&client).await;
    row("the time of one full window, s", format!("{:.1}", stopped.elapsed().as_secs_f64()));
}

/// Waits until no conversation is pending.
async fn settled(client: &Client) {
    loop {
        let all = client.conversations().await;
        if !all.is_empty() && all.iter().all(|c| c["transcription_status"] != "PENDING") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        idle_and_connections().await;
        stop_to_transcript().await;
    });
}
