//! The daemon with its graph in a server that speaks Neo4j's protocol, and comes and
//! goes: everything else goes on meanwhile, and what was learned arrives when it is
//! back.

use neo4rs::{Graph, query};

use crate::harness::client::until;
use crate::harness::daemon::{Daemon, count};
use crate::harness::services::{KEY, Server};
use crate::harness::speech;

/// How many memories the server has, and how many of them are still to be read.
async fn told(server: &Server) -> (i64, i64) {
    let graph = Graph::new(server.address(), "root", KEY).unwrap();
    let cypher = "MATCH (m:FriendLiteMemory)
                  RETURN count(m) AS all, count(CASE WHEN m.unread THEN 1 END) AS unread";
    let row = graph.execute(query(cypher)).await.unwrap().next().await.unwrap().unwrap();
    (row.get("all").unwrap(), row.get("unread").unwrap())
}

#[tokio::test]
async fn the_graph_reaches_a_server_that_comes_and_goes() {
    let mut server = Server::arcadedb();
    let daemon = Daemon::with(&[
        ("GRAPH__ENABLED", "true"),
        ("GRAPH__ENGINE", "neo4j"),
        ("NEO4J_HOST", &server.address()),
        ("NEO4J_USER", "root"),
        ("NEO4J_PASSWORD", KEY),
        ("NEO4J__DEADLINE", "8s"),
        ("STT__MODEL", "whisper-tiny"),
        ("LLM__MODEL", "qwen2.5-coder-0.5b"),
        ("REMOTE__PAUSE", "200ms"),
        ("JOBS__RETRY_PAUSE", "100ms"),
    ]);
    let client = daemon.admin().await;
    let neo4j = async || client.get("/health").await["services"]["neo4j"].clone();
    client.say("one", &speech::samples(&speech::jfk().path)).await;
    client.settled().await;
    let known = client.memories().await;
    assert!(!known.is_empty());
    let all = known.len() as i64;
    until("what was learned is read", async || told(&server).await == (all, 0)).await;
    assert_eq!(client.call("GET", "/api/graph/entities").await.0, 200);
    assert_eq!(neo4j().await["breaker"], "closed");

    server.kill();
    let id = known[0]["id"].as_str().unwrap();
    assert_eq!(client.call("DELETE", &format!("/api/memories/{id}")).await.0, 200);
    let (status, body) = client.call("GET", "/api/graph/entities").await;
    assert_eq!(status, 503, "{body}");
    until("it is known to be away", async || neo4j().await["healthy"] == false).await;
    let found = client.get("/api/memories/search?query=country").await;
    assert!(found["results"].is_array(), "a search does without it");
    client.say("two", &speech::samples(&speech::librivox()[3].path)).await;
    until("the second conversation is learned from without it", async || {
        let all = client.conversations().await;
        all.len() == 2 && all.iter().all(|one| one["memory_processing_status"] == "COMPLETED")
    })
    .await;

    server.restart();
    let known = client.memories().await.len() as i64;
    until("all is there, and nothing else", async || told(&server).await == (known, 0)).await;
    until("it is back", async || neo4j().await["healthy"] == true).await;

    server.freeze();
    let (status, body) = client.call("GET", "/api/graph/entities").await;
    assert_eq!(status, 503, "{body}");
    server.thaw();
    until("it is back again", async || client.call("GET", "/api/graph/entities").await.0 == 200)
        .await;
    let log = daemon.log();
    assert_eq!(count(&log, "WARN friend_lite::remote::breaker: neo4j "), 2, "{log}");
    assert_eq!(count(&log, "neo4j answers again"), 2, "{log}");
    assert!(!log.contains(KEY));
}
