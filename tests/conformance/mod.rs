//! One suite a port: the same tests against every adapter of it. What passed is
//! written down, for the table that `./dev test` prints.

mod bucket;
mod embedding;
mod faults;
mod graph;
mod index;
mod language;
mod speech;
mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use friend_lite::base::clock::Clock;
use friend_lite::config::{self, Secret};
use friend_lite::remote::Service;
use friend_lite::remote::http::Http;

use crate::harness::services::KEY;
use crate::harness::{python, services};

/// What an adapter has passed of the suite of its port.
struct Report {
    port: &'static str,
    adapter: &'static str,
    passed: Vec<String>,
}

impl Report {
    fn of(port: &'static str, adapter: &'static str) -> Self {
        Self { port, adapter, passed: Vec::new() }
    }

    fn passed(&mut self, what: impl Into<String>) {
        self.passed.push(what.into());
    }
}

impl Drop for Report {
    /// One file each: the tests run side by side.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
        std::fs::create_dir_all(&dir).unwrap();
        let lines = self.passed.join("\n") + "\n";
        std::fs::write(dir.join(format!("{}: {}", self.port, self.adapter)), lines).unwrap();
    }
}

/// As the daemon is configured, with a breaker that tries again soon.
fn remote() -> config::Remote {
    config::Remote { pause: config::Interval::from_millis(100), ..config::Remote::default() }
}

fn service(name: &'static str) -> Arc<Service> {
    Arc::new(Service::new(name, remote().pause.get(), Clock::system()))
}

fn http(name: &'static str, url: &str, scheme: &str, key: &str, total: Duration) -> Http {
    Http::new(name, url, (scheme, &Secret::new(key)), total, &remote()).unwrap()
}

#[tokio::test]
async fn the_stand_in_for_deepgram_serves_its_own_client() {
    let server = services::Server::deepgram();
    let audio = crate::harness::speech::jfk();
    let (port, path) = (server.port.to_string(), audio.path.display().to_string());
    let other = crate::harness::speech::librivox().remove(0).path.display().to_string();
    let args = [port.as_str(), KEY, path.as_str(), other.as_str()];
    let heard = python::script("deepgram_client.py", &args, Duration::from_secs(120)).await;
    // Of the file, and of the stream.
    let lines: Vec<&str> = heard.trim().lines().collect();
    assert_eq!(lines.len(), 2, "{heard}");
    for line in lines {
        assert!(crate::harness::wer::rate(&audio.text, line) < 0.1, "{heard}");
    }
}

#[tokio::test]
async fn the_stand_in_for_ollama_serves_its_own_client() {
    let server = services::Server::ollama();
    let port = server.port.to_string();
    python::script("ollama_client.py", &[&port], Duration::from_secs(240)).await;
}
