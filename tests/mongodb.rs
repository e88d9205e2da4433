//! The daemon on a MongoDB that freezes and dies: what is said meanwhile is
//! recorded, and caught up with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::harness::client::{Client, Socket, until};
use crate::harness::daemon::{Daemon, count, program};
use crate::harness::mongod::Mongod;
use crate::harness::speech;

/// Waits until there are so many conversations, all transcribed and learned from.
async fn settled(client: &Client, conversations: usize) {
    until("all is caught up with", async || {
        let (status, body) = client.call("GET", "/api/conversations?view=list").await;
        let all = body["conversations"].as_array().cloned().unwrap_or_default();
        let is = |key: &str, state: &str| all.iter().all(|one| one[key] == state);
        status == 200
            && all.len() == conversations
            && is("transcription_status", "COMPLETED")
            && all.iter().all(|one| one["memory_processing_status"] != "PENDING")
    })
    .await;
}

async fn transcripts(client: &Client) -> Vec<String> {
    let mut said = Vec::new();
    for one in client.conversations().await {
        let id = one["conversation_id"].as_str().unwrap();
        let one = client.get(&format!("/api/conversations/{id}")).await["conversation"].clone();
        said.push(one["transcript"].as_str().unwrap_or_default().to_owned());
    }
    said.sort();
    said
}

/// Says something over a connection that is open already.
async fn say(socket: &mut Socket, path: &Path) {
    socket.session(&speech::samples(path), 0.0).await;
}

fn is_away(health: &Value) -> bool {
    health["status"] == "critical" && health["services"]["mongodb"]["breaker"] != "closed"
}

/// Runs a command on the database of the daemon; its exit code and what it prints.
fn command(daemon: &Daemon, uri: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program("friend-lite"))
        .args(arguments)
        .args(["--config", "/dev/null", "--state-dir"])
        .arg(daemon.state_dir())
        .envs([("FRIEND_LITE__STORE__ENGINE", "mongodb"), ("MONGODB_URI", uri)])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn nothing_is_lost_while_mongodb_comes_and_goes() {
    let memory = Path::new("/dev/shm");
    let files = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let files = files.unwrap();
    let mut server = Mongod::launch(0, files.path(), false);
    let uri = server.uri();
    let mut daemon = Daemon::with(&[
        ("STORE__ENGINE", "mongodb"),
        ("MONGODB_URI", &uri),
        ("STT__MODEL", "whisper-tiny"),
        ("LLM__MODEL", "qwen2.5-coder-0.5b"),
        ("REMOTE__PAUSE", "500ms"),
        ("JOBS__RETRY_PAUSE", "100ms"),
        ("JOBS__SWEEP_INTERVAL", "5s"),
    ]);
    let client = daemon.admin().await;
    let mut socket = client.socket("one").await;
    say(&mut socket, &speech::jfk().path).await;
    settled(&client, 1).await;
    let known = client.memories().await;
    assert!(!known.is_empty());
    let text = known[0]["memory"].as_str().unwrap();
    let query = [("query", text)];
    let found = client.request("GET", "/api/memories/search").query(&query).send().await.unwrap();
    let found: Value = found.json().await.unwrap();
    assert_eq!(found["results"][0]["id"], known[0]["id"]);
    assert!(found["results"][0]["score"].as_f64().unwrap() > 0.9, "by its meaning: {found}");

    // A start later all of it is there.
    let said = transcripts(&client).await;
    daemon.kill_and_restart();
    let client = daemon.admin().await;
    assert_eq!((transcripts(&client).await, client.memories().await), (said, known));
    let health = async || client.get("/health").await;
    assert_eq!(health().await["services"]["mongodb"]["breaker"], "closed");

    let clips = speech::librivox();
    let mut socket = client.socket("two").await;
    server.signal(Signal::STOP);
    say(&mut socket, &clips[0].path).await;
    until("it is known to be away", async || is_away(&health().await)).await;
    server.signal(Signal::CONT);
    settled(&client, 2).await;

    server.signal(Signal::KILL);
    say(&mut socket, &clips[3].path).await;
    until("it is known to be away", async || is_away(&health().await)).await;
    // In the middle of it, the daemon goes on.
    sleep(Duration::from_secs(5)).await;
    let port = server.port;
    drop(server);
    server = Mongod::launch(port, files.path(), false);
    settled(&client, 3).await;
    socket.close().await;
    let said = transcripts(&client).await.join(" ");
    for clip in [&speech::jfk(), &clips[0], &clips[3]] {
        let word = clip.text.split_whitespace().max_by_key(|word| word.len()).unwrap();
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "{word}: {said}");
    }

    let log = daemon.log();
    let (warned, back) = ("WARN friend_lite::remote::breaker: MongoDB", "mongodb answers again");
    assert_eq!((count(&log, warned), count(&log, back)), (2, 2), "{log}");
    assert_eq!(count(&log, " ERROR "), 0, "{log}");

    let (code, said) = command(&daemon, &uri, &["backup", &files.path().display().to_string()]);
    assert!(code == Some(64) && said.contains("mongodump"), "{said}");
    assert!(daemon.stop().success());
    let (code, said) = command(&daemon, &uri, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    drop(server);
}
