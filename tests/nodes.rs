//! Three daemons on one MongoDB, one Qdrant and one bucket, behind nginx as it is
//! shipped, while one of them is killed and another is cut off from all services: what
//! was recorded is transcribed once, and learned once.

#[path = "oracle/device.rs"]
mod device;
#[path = "nodes/openai.rs"]
mod openai;
#[path = "oracle/tally.rs"]
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::device::{Device, Target};
use self::tally::{Disk, Tally, report};
use crate::harness::client::{Client, until};
use crate::harness::daemon::{Daemon, count};
use crate::harness::faulty::{Fault, Proxy};
use crate::harness::mongod::Mongod;
use crate::harness::nginx::Nginx;
use crate::harness::services::{BUCKET, KEY, KEY_ID, Server, free_port, in_memory};
use crate::harness::speech;
use crate::numbered;

/// A build that is not optimised does not keep up with as many.
const DEVICES: u16 = if cfg!(debug_assertions) { 12 } else { 60 };
const USERS: u16 = 6;
const PASSWORD: &str = "pass of this user";

/// The services of all nodes, and the ways of one node to them.
struct Services {
    mongod: Mongod,
    qdrant: Server,
    s3: Server,
    openai: String,
    files: tempfile::TempDir,
}

impl Services {
    async fn start() -> Self {
        let files = in_memory();
        Self {
            mongod: Mongod::launch(0, &files.path().join("mongod"), false),
            qdrant: Server::qdrant(),
            s3: Server::s3(),
            openai: openai::start().await,
            files,
        }
    }

    /// A node that comes to them through `ways` alone; what it has to be told.
    fn node(&self, name: &str, ways: &Ways) -> Daemon {
        let [mongod, qdrant, s3] = [&ways.0, &ways.1, &ways.2].map(|proxy| proxy.port);
        let models = self.files.path().join("models");
        std::fs::create_dir_all(&models).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        Daemon::without_models(
            &models,
            &[
                ("SERVER__LISTEN", &address),
                ("STORE__NODE_URL", &format!("http://{address}")),
                ("SERVER__TRUSTED_PROXIES", "127.0.0.1"),
                ("AUTH_SECRET_KEY", "the secret that all nodes share"),
                ("STORE__ENGINE", "mongodb"),
                ("STORE__NODE", name),
                ("STORE__NODE_SILENCE", "3s"),
                ("MONGODB_URI", &format!("mongodb://127.0.0.1:{mongod}/?directConnection=true")),
                ("VECTOR_STORE_PROVIDER", "qdrant"),
                ("QDRANT_BASE_URL", &format!("http://127.0.0.1:{qdrant}")),
                ("QDRANT_API_KEY", KEY),
                ("S3__BUCKET", BUCKET),
                ("S3__ENDPOINT", &format!("http://127.0.0.1:{s3}")),
                ("S3__INTERVAL", "1s"),
                ("AWS_ACCESS_KEY_ID", KEY_ID),
                ("AWS_SECRET_ACCESS_KEY", KEY),
                ("STT__ENGINES", "openai"),
                ("LLM_PROVIDER", "openai"),
                ("EMBED__ENGINE", "openai"),
                ("OPENAI_API_KEY", KEY),
                ("OPENAI_BASE_URL", &self.openai),
                ("GRAPH__ENABLED", "false"),
                // The numbers do not outlive the archive's compression.
                ("RECORDING__ARCHIVE", "wav"),
                ("CROPPING__ENABLED", "false"),
                ("REMOTE__PAUSE", "300ms"),
                ("JOBS__RETRY_PAUSE", "100ms"),
                ("JOBS__SWEEP_INTERVAL", "5s"),
            ],
        )
    }

    async fn ways(&self) -> Ways {
        let before = Proxy::before;
        let (qdrant, s3) = (self.qdrant.port, self.s3.port);
        Ways(before(self.mongod.port).await, before(qdrant).await, before(s3).await)
    }
}

/// To MongoDB, Qdrant and the bucket.
struct Ways(Proxy, Proxy, Proxy);

impl Ways {
    fn set(&self, fault: Fault) {
        for proxy in [&self.0, &self.1, &self.2] {
            proxy.set(fault);
        }
    }
}

/// The devices that a daemon lists.
async fn listed(client: &Client) -> BTreeSet<String> {
    let active = client.get("/api/clients/active").await;
    let clients = active["clients"].as_array().unwrap();
    clients.iter().map(|one| one["client_id"].as_str().unwrap().to_owned()).collect()
}

/// All conversations of a user, once nothing is left to be done for them.
async fn settled(user: &Client) -> Vec<Value> {
    let mut all = Vec::new();
    until("everything is transcribed and learned from", async || {
        let path = "/api/conversations?view=list&limit=1000";
        all = user.get(path).await["conversations"].as_array().unwrap().clone();
        let waits = |one: &Value| {
            one["is_open"] == true
                || one["transcription_status"] == "PENDING"
                || one["memory_processing_status"] == "PENDING"
        };
        !all.iter().any(waits)
    })
    .await;
    all
}

/// How often each block is told in those conversations.
fn told(conversations: &[Value], told: &mut BTreeMap<numbered::Block, u32>) {
    for conversation in conversations {
        assert_ne!(conversation["transcription_status"], "FAILED", "{conversation}");
        for segment in conversation["transcript"].as_array().unwrap() {
            let text = segment["text"].as_str().unwrap().replace(openai::SENTENCE, "");
            numbered::count(&text, told);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_where_one_node_dies_and_another_is_cut_off() {
    let services = Services::start().await;
    let ways = [services.ways().await, services.ways().await, services.ways().await];
    let [mut one, two, three] =
        [("one", 0), ("two", 1), ("three", 2)].map(|(name, way)| services.node(name, &ways[way]));
    let address = |daemon: &Daemon| daemon.url.strip_prefix("http://").unwrap().to_owned();
    let nginx = Nginx::before(&[&address(&one), &address(&two), &address(&three)]);
    let admin = Client { url: nginx.url.clone(), ..one.admin().await };
    let mut users = Vec::new();
    for number in 0..USERS {
        let email = format!("user{number}@example.com");
        let user = json!({ "email": email, "password": PASSWORD });
        let made = admin.request("POST", "/api/users").json(&user).send().await.unwrap();
        assert_eq!(made.status(), 201);
        users.push(Client::login(&nginx.url, &email, PASSWORD).await);
    }

    let (_, url) = watch::channel(nginx.url.clone());
    let end = CancellationToken::new();
    let mut devices = tokio::task::JoinSet::new();
    for number in 0..DEVICES {
        let token = users[usize::from(number % USERS)].token.clone();
        let target = Target { url: url.clone(), token, end: end.clone() };
        devices.spawn(Device::new(number, target, 7, 1.0).run());
    }
    let at = |daemon: &Daemon| Client { url: daemon.url.clone(), ..admin.clone() };
    let most = usize::from(DEVICES) * 5 / 6;
    for daemon in [&one, &two, &three] {
        until("each node lists the devices of all", async || {
            listed(&at(daemon)).await.len() >= most
        })
        .await;
    }
    sleep(Duration::from_secs(5)).await;

    let mut disk = Disk::default();
    one.kill();
    disk.read(&one.state_dir().join("audio"));
    until("the devices go on elsewhere", async || listed(&at(&two)).await.len() >= most).await;
    ways[2].set(Fault::Closed);
    // Longer than a node may be silent.
    sleep(Duration::from_secs(6)).await;
    ways[2].set(Fault::None);
    sleep(Duration::from_secs(3)).await;
    one.restart_as_a_service();
    sleep(Duration::from_secs(4)).await;
    end.cancel();
    devices.join_all().await;

    let mut told_blocks = BTreeMap::new();
    let mut played = 0;
    for user in &users {
        let all = settled(user).await;
        told(&all, &mut told_blocks);
        let memories = user.memories().await;
        assert_eq!(memories.len(), 1, "learned once: {memories:?}");
        for conversation in all.iter().filter(|one| one["duration_seconds"] != 0.0) {
            // From whichever node: it is in the bucket by then.
            let path = format!("/audio/{}", conversation["audio_path"].as_str().unwrap());
            until("it can be played", async || user.call("GET", &path).await.0 == 200).await;
            played += 1;
        }
    }
    for daemon in [&one, &two, &three] {
        disk.read(&daemon.state_dir().join("audio"));
    }
    let tally = Tally::of(&disk.blocks, &told_blocks);
    println!("{tally}; {played} recordings");
    if !tally.is_perfect() {
        report(&disk.blocks, &told_blocks);
    }
    assert!(tally.is_perfect(), "{tally}");

    let jobs = admin.get("/api/queue/stats").await;
    let left = ["queued_jobs", "processing_jobs", "failed_jobs"].map(|key| jobs[key].clone());
    assert_eq!(left, [0, 0, 0].map(|none| json!(none)), "{jobs}");
    let logs = [&one, &two, &three].map(Daemon::log).concat();
    let took_over = "took over what a node held that is not heard of";
    println!("taken over: {}", count(&logs, took_over));
    for mut daemon in [one, two, three] {
        assert!(daemon.stop().success());
    }
}

/// Closed conversations, newest first.
async fn closed(client: &Client) -> Vec<Value> {
    let all = client.conversations().await;
    all.into_iter().filter(|one| one["is_open"] == false).collect()
}

#[tokio::test]
async fn a_device_goes_on_with_its_conversation_at_whichever_node_it_comes_to() {
    let files = in_memory();
    let mongod = Mongod::launch(0, &files.path().join("mongod"), false);
    let models = files.path().join("models");
    std::fs::create_dir(&models).unwrap();
    let node = |name: &str| {
        let address = format!("127.0.0.1:{}", free_port());
        let keys = [
            ("SERVER__LISTEN", address.as_str()),
            ("STORE__NODE_URL", &format!("http://{address}")),
            ("STORE__NODE", name),
            ("STORE__NODE_SILENCE", "3s"),
            ("STORE__ENGINE", "mongodb"),
            ("MONGODB_URI", &mongod.uri()),
            ("AUTH_SECRET_KEY", "the secret that all nodes share"),
            ("CONVERSATION__RECONNECT_GRACE", "60s"),
        ];
        Daemon::without_models(&models, &keys)
    };
    let (mut one, two) = (node("one"), node("two"));
    let here = one.admin().await;
    let there = Client { url: two.url.clone(), ..here.clone() };
    let clip = speech::samples(&speech::jfk().path);
    let seconds = clip.len() as f64 / 16_000.0;

    let mut socket = here.socket("phone").await;
    socket.event("audio-start", None).await;
    socket.stream(&clip, 0.0).await;
    until("both nodes list it", async || {
        let active = there.get("/api/clients/active").await;
        active["clients"][0]["has_active_conversation"] == true
    })
    .await;
    drop(socket);
    let mut socket = there.socket("phone").await;
    socket.stream(&clip, 0.0).await;
    assert_eq!((listed(&here).await.len(), listed(&there).await.len()), (1, 1));
    socket.event("audio-stop", None).await;
    until("it is closed", async || closed(&there).await.len() == 1).await;
    let first = closed(&there).await.remove(0);
    let duration = first["duration_seconds"].as_f64().unwrap();
    assert!((duration - 2.0 * seconds).abs() < 0.1, "{first}");

    // Closed by way of the node that it is not recorded at.
    socket.event("audio-start", None).await;
    socket.stream(&clip, 0.0).await;
    let device = listed(&there).await.pop_first().unwrap();
    let close = format!("/api/conversations/{device}/close");
    until("it is open", async || there.conversations().await.len() == 2).await;
    until("it is closed", async || there.call("POST", &close).await.0 == 200).await;
    assert_eq!(closed(&there).await.len(), 2);
    socket.close().await;
    assert_eq!(there.call("POST", "/api/conversations/nobody/close").await.0, 404);

    // There is no bucket: the recording is at one node alone, and nginx finds it.
    let audio = format!("/audio/{}", first["audio_path"].as_str().unwrap());
    assert_eq!(here.call("GET", &audio).await.0, 200);
    let (status, refusal) = there.call("GET", &audio).await;
    assert!(status == 404 && refusal.to_string().contains("the daemon one alone"), "{refusal}");
    let address = |daemon: &Daemon| daemon.url.strip_prefix("http://").unwrap().to_owned();
    let nginx = Nginx::before(&[&address(&one), &address(&two)]);
    let outside = Client { url: nginx.url.clone(), ..here.clone() };
    assert_eq!(outside.call("GET", &audio).await.0, 200);

    // What needs that audio waits for the node that has it, and says so.
    one.kill();
    until("its jobs wait for it", async || {
        let jobs = there.get("/api/queue/jobs?limit=100").await;
        let jobs = jobs["jobs"].as_array().unwrap();
        let waits = |job: &Value| job["error_message"].to_string().contains("for the daemon one");
        !jobs.is_empty() && jobs.iter().all(|job| job["status"] == "deferred" && waits(job))
    })
    .await;
    assert!(listed(&there).await.is_empty());
    one.restart();
    until("its jobs are its own again", async || {
        let jobs = there.get("/api/queue/jobs?limit=100").await;
        jobs["jobs"].as_array().unwrap().iter().all(|job| job["status"] == "queued")
    })
    .await;
}
