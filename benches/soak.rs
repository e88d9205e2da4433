//! A soak: streams in real time with the real speech engine, slowed down until
//! it cannot keep up. The daemon's memory must stay flat, no frame may be lost,
//! and the coverage must add up.
//!
//! `cargo bench --bench soak -- --streams 20 --minutes 30 --quota 25`

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[path = "../tests/harness/mod.rs"]
mod harness;

use futures_util::StreamExt;
use harness::client::Client;
use harness::daemon::Daemon;
use harness::speech;
use rustix::process::{Pid, Signal, kill_process};

/// How long the engine stops and runs in turn.
const CYCLE: Duration = Duration::from_millis(200);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(5);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str| {
        let at = args.iter().rposition(|arg| arg == name)?;
        args.get(at + 1)?.parse::<f64>().ok()
    };
    let Some(minutes) = number("--minutes") else {
        println!("soak: runs only when told how long: --minutes 30 [--streams 20] [--quota 25]");
        return;
    };
    let streams = number("--streams").unwrap_or(20.0) as usize;
    let quota = number("--quota").unwrap_or(25.0) / 100.0;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(soak(streams, Duration::from_secs_f64(minutes * 60.0), quota));
}

async fn soak(streams: usize, time: Duration, quota: f64) {
    let daemon = Daemon::with(&[
        ("MEMORY__ENABLED", "false"),
        ("LOG__LEVEL", "warn"),
        ("AUTH__TOKEN_LIFETIME", "24h"),
        ("SERVER__MAX_STREAMS_PER_USER", "1000"),
    ]);
    let client = daemon.admin().await;
    let (reading, _) = speech::reading(1.0);
    let end = Arc::new(AtomicBool::new(false));
    let mut devices = tokio::task::JoinSet::new();
    for number in 0..streams {
        let (client, reading) = (client.clone(), reading.clone());
        // Nobody says the same thing at the same time.
        devices.spawn(async move {
            let from = reading.len() * number / streams;
            let samples: Vec<i16> =
                reading.iter().copied().cycle().skip(from).take(16_000 * 60).collect();
            let mut socket = client.socket(&format!("soak{number}")).await;
            socket.event("audio-start", None).await;
            let (started, mut sent) = (Instant::now(), 0);
            while started.elapsed() < time {
                socket.stream(&samples, 1.0).await;
                sent += samples.len() as u64;
            }
            socket.event("audio-stop", None).await;
            // A socket that is dropped with pings unread takes with it what the
            // daemon has not read yet.
            let _ = socket.stream.close(None).await;
            while socket.stream.next().await.is_some_and(|message| message.is_ok()) {}
            sent
        });
    }
    let throttle = {
        let end = end.clone();
        let pid = daemon.pid();
        std::thread::spawn(move || throttle(pid, quota, &end))
    };

    let (started, mut memory) = (Instant::now(), Vec::new());
    let mut next_report = Duration::from_secs(60);
    while started.elapsed() < time {
        tokio::time::sleep(LOOK).await;
        memory.push((started.elapsed().as_secs_f64() / 60.0, resident(daemon.pid()) / 1024.0));
        if started.elapsed() >= next_report {
            next_report += Duration::from_secs(60);
            report(&client, started.elapsed(), memory.last().unwrap().1).await;
        }
    }
    let sent: u64 = devices.join_all().await.into_iter().sum();
    // The last closes are on their way.
    let conversations = loop {
        let all = client.conversations().await;
        if all.len() == streams && all.iter().all(|c| c["is_open"] == false) {
            break all;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let (mut recorded, mut parts) = (0.0, [0.0; 4]);
    for conversation in &conversations {
        let id = conversation["conversation_id"].as_str().unwrap();
        let one = client.get(&format!("/api/conversations/{id}")).await["conversation"].clone();
        let figure = |name: &str| one["coverage"][format!("{name}_seconds")].as_f64().unwrap();
        let figures = ["transcribed", "waiting", "failed", "silent"].map(figure);
        let accepted = figure("accepted");
        assert!((accepted - figures.iter().sum::<f64>()).abs() < 0.001, "{}", one["coverage"]);
        recorded += accepted;
        parts.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
    }
    report(&client, started.elapsed(), resident(daemon.pid()) / 1024.0).await;
    end.store(true, Ordering::Relaxed);
    throttle.join().unwrap();
    let lost = sent as f64 / 16_000.0 - recorded;
    // What grows once, while all begins, is no leak.
    let steady: Vec<_> = memory.iter().skip(memory.len() / 5).copied().collect();
    let [transcribed, waiting, failed, silent] = parts;
    println!(
        "soak: {streams} streams for {:.1} min: seconds sent {:.1}, recorded {recorded:.1}, lost \
         {lost:.1}; transcribed {transcribed:.1}, waiting {waiting:.1}, failed {failed:.1}, silent \
         {silent:.1}; resident {:.1} to {:.1} MiB, slope {:.1} KiB/min, of the last half \
         {:.1} KiB/min",
        time.as_secs_f64() / 60.0,
        sent as f64 / 16_000.0,
        steady.first().map_or(0.0, |m| m.1 / 1024.0),
        steady.last().map_or(0.0, |m| m.1 / 1024.0),
        slope(&steady),
        slope(memory.get(memory.len() / 2..).unwrap_or_default()),
    );
    assert!(lost.abs() < 0.001, "{lost} s were lost");
}

async fn report(client: &Client, after: Duration, resident: f64) {
    let backlog = client.get("/health").await["backlog"].clone();
    println!(
        "soak: {:4.1} min, resident {:.1} MiB, backlog {backlog}",
        after.as_secs_f64() / 60.0,
        resident / 1024.0
    );
}

/// Lets the engines of a daemon run for a share of the time, as a CPU quota does.
fn throttle(daemon: u32, quota: f64, end: &AtomicBool) {
    let all = |signal| {
        for pid in engines(daemon) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
        }
    };
    while !end.load(Ordering::Relaxed) {
        all(Signal::STOP);
        std::thread::sleep(CYCLE.mul_f64(1.0 - quota));
        all(Signal::CONT);
        std::thread::sleep(CYCLE.mul_f64(quota));
    }
}

/// The children of a process.
fn engines(daemon: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{daemon}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() * 1024.0
}

/// The slope of the straight line nearest to the points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}
