//! What an hour of stream costs a memory card: bytes that reach the block device,
//! by how often recordings are synced.
//!
//! `cargo bench --bench wear` prints one table (as root: it mounts a file system
//! of its own, ext4 in a file, and reads what the kernel wrote to its device).
//! Nothing here passes or fails.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

#[path = "../tests/harness/mod.rs"]
mod harness;

use futures_util::SinkExt;
use harness::daemon::Daemon;
use harness::{opus, speech};
use tokio_tungstenite::tungstenite::Message;

/// Real time that is streamed for each figure.
const MEASURED: Duration = Duration::from_secs(60);

/// An ext4 file system in a file, mounted; unmounted when dropped.
struct Card {
    at: PathBuf,
    device: String,
}

impl Card {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let image = at.with_extension("img");
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(at.to_str().unwrap())).unwrap();
        let device = line.split(' ').next().unwrap().trim_start_matches("/dev/").to_owned();
        Self { at, device }
    }

    /// Bytes written to the device so far, with all that was waiting.
    fn written(&self) -> u64 {
        run(Command::new("sync").arg("-f").arg(&self.at));
        let stat = std::fs::read_to_string(format!("/sys/block/{}/stat", self.device)).unwrap();
        stat.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
}

/// Real speech with pauses, in frames of 20 ms.
fn frames(opus: bool) -> Vec<Vec<u8>> {
    let (reading, _) = speech::reading(1.0);
    let bytes = |frame: &[i16]| frame.iter().flat_map(|s| s.to_le_bytes()).collect();
    match opus {
        true => opus::packets(&reading, 320),
        false => reading.chunks_exact(320).map(bytes).collect(),
    }
}

/// Streams in real time for good.
async fn device(url: String, frames: Arc<Vec<Vec<u8>>>) {
    let (mut stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut beat = tokio::time::interval(Duration::from_millis(20));
    for frame in frames.iter().cycle() {
        beat.tick().await;
        stream.send(Message::binary(frame.clone())).await.unwrap();
    }
}

/// MiB an hour of one stream, of `streams` at once; bare Opus packets, or PCM.
async fn hourly(sync_interval: &str, streams: usize, opus: bool) -> f64 {
    let empty = tempfile::tempdir().unwrap();
    let mut card = None;
    let keys = [("RECORDING__SYNC_INTERVAL", sync_interval), ("DISK__RESERVE_MIB", "16")];
    let mut daemon = Daemon::prepared(&keys, empty.path(), |dir: &Path| {
        card = Some(Card::mount(dir.join("state")));
    });
    let card = card.unwrap();
    let token = daemon.admin().await.token;
    let server = daemon.url.replace("http", "ws");
    let path = if opus { "ws_omi" } else { "ws_pcm" };
    let frames = Arc::new(frames(opus));
    let mut devices = tokio::task::JoinSet::new();
    for number in 0..streams {
        let url = format!("{server}/{path}?token={token}&device_name=d{number}");
        devices.spawn(device(url, frames.clone()));
    }
    // What is written once is written: the schema, the user, the first rows.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = card.written();
    tokio::time::sleep(MEASURED).await;
    let bytes = card.written() - before;
    devices.shutdown().await;
    daemon.stop();
    let hours = streams as f64 * MEASURED.as_secs_f64() / 3600.0;
    bytes as f64 / (1 << 20) as f64 / hours
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("MiB written to the device for an hour of stream");
        println!("{:<44}{:>9}{:>9}{:>9}", "recording.sync_interval", "0.2 s", "1 s", "5 s");
        for (what, streams, opus) in [
            ("one stream of PCM", 1, false),
            ("ten streams of PCM", 10, false),
            ("one stream of Opus", 1, true),
        ] {
            print!("{what:<44}");
            for interval in ["200ms", "1s", "5s"] {
                print!("{:>9.0}", hourly(interval, streams, opus).await);
                let _ = std::io::Write::flush(&mut std::io::stdout());
            }
            println!();
        }
    });
}
