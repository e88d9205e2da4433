//! The daemon with its memories in a Qdrant that comes and goes: they are found by
//! their words meanwhile, and everything arrives when it is back.

use std::time::Duration;

use qdrant_client::Qdrant;
use qdrant_client::qdrant::CountPointsBuilder;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::harness::client::{Client, until};
use crate::harness::daemon::{Daemon, count, program};
use crate::harness::services::{KEY, Server};
use crate::harness::speech;

async fn statuses(client: &Client, key: &str) -> Vec<String> {
    let all = client.conversations().await;
    all.iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

/// The best hit for `query`, and its score.
async fn search(client: &Client, query: &str) -> (String, f64) {
    let response = client.request("GET", "/api/memories/search").query(&[("query", query)]);
    let response = timeout(Duration::from_secs(8), response.send()).await.expect("in time");
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    let found: Value = response.json().await.unwrap();
    let best = &found["results"][0];
    (best["id"].as_str().unwrap_or_default().into(), best["score"].as_f64().unwrap_or_default())
}

async fn points(server: &Server) -> u64 {
    let url = format!("http://{}", server.address());
    let client = Qdrant::from_url(&url).api_key(KEY).skip_compatibility_check().build().unwrap();
    match client.count(CountPointsBuilder::new("omi_memories").exact(true)).await {
        Ok(counted) => counted.result.unwrap().count,
        Err(_) => 0,
    }
}

#[tokio::test]
async fn memories_reach_a_qdrant_that_comes_and_goes() {
    let mut server = Server::qdrant();
    let url = format!("http://{}", server.address());
    let mut daemon = Daemon::with(&[
        ("VECTOR_STORE_PROVIDER", "qdrant"),
        ("QDRANT_BASE_URL", &url),
        ("QDRANT_API_KEY", KEY),
        ("QDRANT__DEADLINE", "2s"),
        ("STT__MODEL", "whisper-tiny"),
        ("LLM__MODEL", "qwen2.5-coder-0.5b"),
        ("REMOTE__PAUSE", "200ms"),
        ("JOBS__RETRY_PAUSE", "100ms"),
        // An outage takes none of these but the first.
        ("JOBS__MAX_ATTEMPTS", "2"),
    ]);
    let client = daemon.admin().await;
    let qdrant = async || client.get("/health").await["services"]["qdrant"].clone();
    client.say("one", &speech::samples(&speech::jfk().path)).await;
    assert_eq!(client.settled().await["memory_processing_status"], "COMPLETED");
    let known = client.memories().await;
    let text = known[0]["memory"].as_str().unwrap().to_owned();
    let (id, score) = search(&client, &text).await;
    assert_eq!(id, known[0]["id"].as_str().unwrap());
    assert!(score > 0.9, "{score}");
    assert_eq!(points(&server).await, known.len() as u64);
    assert_eq!(qdrant().await["breaker"], "closed");

    server.kill();
    let (found, score) = search(&client, &text).await;
    assert_eq!((found.as_str(), score), (id.as_str(), 0.0), "by its words");
    assert_eq!(qdrant().await["healthy"], false);
    assert_eq!(client.get("/health").await["status"], "degraded");
    assert_eq!(client.call("DELETE", &format!("/api/memories/{id}")).await.0, 200);
    let read = &speech::librivox()[3];
    client.say("two", &speech::samples(&read.path)).await;
    until("both are transcribed", async || {
        statuses(&client, "transcription_status").await == ["COMPLETED"; 2]
    })
    .await;
    // Long enough for many more attempts than a job has.
    sleep(Duration::from_secs(5)).await;
    assert!(statuses(&client, "memory_processing_status").await.contains(&"PENDING".into()));

    server.restart();
    until("the second is learned from", async || {
        let statuses = statuses(&client, "memory_processing_status").await;
        assert!(!statuses.contains(&"FAILED".into()), "{statuses:?}\n{}", daemon.log());
        !statuses.contains(&"PENDING".into())
    })
    .await;
    let known = client.memories().await;
    assert!(known.iter().all(|memory| memory["id"] != id.as_str()));
    until("all is there, and nothing else", async || points(&server).await == known.len() as u64)
        .await;

    server.freeze();
    search(&client, "anything").await;
    until("it is known to be away", async || qdrant().await["healthy"] == false).await;
    server.thaw();
    until("it is back", async || qdrant().await["healthy"] == true).await;
    let log = daemon.log();
    let warned = "WARN friend_lite::remote::breaker: qdrant ";
    assert_eq!((count(&log, warned), count(&log, "qdrant answers again")), (2, 2), "{log}");
    assert!(!log.contains(KEY));

    daemon.stop_clean();
    let reindexed = tokio::process::Command::new(program("friend-lite"))
        .args(["reindex", "--config", "/dev/null", "--state-dir"])
        .arg(daemon.state_dir())
        .envs([("FRIEND_LITE__INDEX__ENGINE", "qdrant"), ("QDRANT_BASE_URL", &url)])
        .env("QDRANT_API_KEY", KEY)
        .output()
        .await
        .unwrap();
    assert!(reindexed.status.success(), "{}", String::from_utf8_lossy(&reindexed.stderr));
    assert_eq!(points(&server).await, known.len() as u64);
}
