//! The daemon on a MongoDB that freezes and dies: what is said meanwhile is
//! recorded, and caught up with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::harness::client::{Client, Socket, until};
use crate::harness::daemon::{ADMIN_EMAIL, ADMIN_PASSWORD, Daemon, count, program};
use crate::harness::mongod::Mongod;
use crate::harness::services::{free_port, in_memory};
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
    let files = in_memory();
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

#[tokio::test]
async fn a_daemon_whose_mongodb_is_away_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (port, database) = (free_port(), free_port());
    let url = format!("http://127.0.0.1:{port}");
    let uri = format!("mongodb://127.0.0.1:{database}/?directConnection=true");
    let log = dir.path().join("log");
    let start = || {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(program("friend-lite"));
        command
            .args(["run", "--config", "/dev/null", "--listen", &format!("127.0.0.1:{port}")])
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .envs([
                ("FRIEND_LITE__STORE__ENGINE", "mongodb"),
                ("MONGODB_URI", &uri),
                ("FRIEND_LITE__REMOTE__PAUSE", "200ms"),
                ("FRIEND_LITE__WYOMING__LISTEN", ""),
                ("FRIEND_LITE__MODELS__FETCH", "false"),
                ("FRIEND_LITE__AUTH__BCRYPT_COST", "4"),
                ("ADMIN_PASSWORD", ADMIN_PASSWORD),
            ])
            .stderr(log);
        Process(command.stdout(std::process::Stdio::null()).spawn().unwrap())
    };
    friend_lite::base::tls::install();
    let http = reqwest::Client::new();
    let get = async |path: &str| http.get(format!("{url}{path}")).send().await.ok();
    let health = async || match get("/health").await {
        Some(answer) => answer.json().await.unwrap_or_default(),
        None => Value::Null,
    };

    let mut daemon = start();
    until("it says that it waits", async || health().await["status"] == "critical").await;
    let told = health().await;
    assert_eq!(told["services"]["mongodb"]["healthy"], false, "{told}");
    let status = told["services"]["mongodb"]["status"].as_str().unwrap();
    assert!(status.contains("MongoDB cannot be reached"), "{status}");
    for path in ["/readiness", "/api/conversations", "/ws_pcm?token=x"] {
        let answer = get(path).await.unwrap();
        assert_eq!(answer.status(), 503, "{path}");
        assert_eq!(answer.headers()["retry-after"], "5");
    }
    // Asked to stop, it stops.
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());

    let mut daemon = start();
    until("it says that it waits", async || health().await["status"] == "critical").await;
    let files = in_memory();
    let server = Mongod::launch(database, files.path(), false);
    until("it begins", async || health().await["jobs"]["ready"] == 0).await;
    let client = Client::login(&url, ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let mut socket = client.socket("phone").await;
    say(&mut socket, &speech::jfk().path).await;
    until("it records", async || client.conversations().await.len() == 1).await;
    socket.close().await;
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(count(&log, "waits for the database"), 2, "{log}");
    assert_eq!(count(&log, "the database is there"), 1, "{log}");
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    drop(server);
}

/// A daemon that is not waited for, ended with the test.
struct Process(std::process::Child);

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        for _ in 0..400 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("the daemon does not stop");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
