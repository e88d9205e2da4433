//! What the OpenAPI document says is so: Schemathesis sends what it allows and
//! what it forbids, and compares the answers with it.

use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::harness::{python, speech};

/// The longest that one run may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(240);

/// Sends generated requests to every operation that `filter` leaves.
async fn check(client: &Client, cases: &str, filter: &[&str]) {
    let document = format!("{}/openapi.json", client.url);
    let bearer = format!("Authorization: Bearer {}", client.token);
    let mut args = vec![
        "run",
        document.as_str(),
        "--header",
        bearer.as_str(),
        "--checks",
        "all",
        // What a handler takes it may still refuse for reasons that a schema has
        // no words for: an address without a domain, an empty edit.
        "--exclude-checks",
        "positive_data_acceptance",
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        cases,
        "--workers",
        "2",
        "--continue-on-failure",
        // The same requests each time: a failure can be looked at again.
        "--generation-deterministic",
        "--suppress-health-check",
        "all",
        "--request-timeout",
        "60",
        "--no-color",
    ];
    args.extend(filter);
    let said = python::tool("schemathesis", &args, LIMIT).await;
    // It fails by itself; but it must have had something to do.
    assert!(said.contains(" generated"), "{said}");
}

/// Requests after which the token may be good for nothing more: logouts, and
/// changes of a user, who may be the one that asks.
const FINAL: [&str; 4] =
    [r"^/auth/(jwt|cookie)/logout$", r"^/users/me$", r"^/users/\{id\}$", r"^/api/users/\{id\}$"];

/// Sends generated requests to all but the final ones, or to those alone.
async fn check_part(client: &Client, cases: &str, part: &str) {
    let filter: Vec<&str> = FINAL.iter().flat_map(|pattern| [part, *pattern]).collect();
    check(client, cases, &filter).await;
}

/// A daemon, and two users who have said something and are remembered for it.
async fn inhabited() -> (Daemon, Client, Client) {
    let daemon = Daemon::with(&[
        ("LLM__MODEL", "qwen2.5-coder-0.5b"),
        // Wrong logins are part of it.
        ("AUTH__LOGIN_ATTEMPTS", "1000000"),
    ]);
    let (admin, user) = (daemon.admin().await, daemon.user("anna@example.com").await);
    let samples = speech::samples(&speech::jfk().path);
    let mut socket = user.socket("phone").await;
    socket.session(&samples, 0.0).await;
    user.settled().await;
    (daemon, admin, user)
}

#[tokio::test]
async fn every_answer_is_what_the_document_says() {
    let (daemon, admin, user) = inhabited().await;
    check_part(&admin, "3", "--exclude-path-regex").await;
    check_part(&user, "1", "--exclude-path-regex").await;
    check_part(&daemon.user("ben@example.com").await, "3", "--include-path-regex").await;
    check_part(&admin, "3", "--include-path-regex").await;
}
