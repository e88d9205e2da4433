//! Moving to the other database and back: the daemon answers as before.

use std::process::{Command, Stdio};
use std::time::Duration;

use friend_lite::base::clock::Timestamp;
use friend_lite::domain::chat::{Chat, ChatRole};
use friend_lite::domain::conversation::{CloseReason, Conversation, NewWindow, Progress, Span};
use friend_lite::domain::ids::{ChatId, ClientId, ConversationId, UserId};
use friend_lite::domain::job::{Job, JobKind, Lane, NewJob, Payload};
use friend_lite::domain::memory::{Learned, MemoryChange};
use friend_lite::domain::transcript::Segment;
use friend_lite::domain::version::{Settled, Transcribed};
use friend_lite::store::sqlite::{Access, SqliteStore};
use friend_lite::store::{Chats, Conversations, Deletions, Jobs, Memories};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::client::{Client, until};
use crate::harness::daemon::{Daemon, program};
use crate::harness::mongod::{self, Mongod};
use crate::harness::speech;

/// How wide the vectors are.
const WIDTH: usize = 384;
/// As many as are looked at one by one.
const LOOKED_AT: usize = 200;

/// How many conversations there are; `CONVERSATIONS` says it for a longer run.
fn conversations() -> usize {
    std::env::var("CONVERSATIONS").map_or(300, |many| many.parse().unwrap())
}

fn at(seconds: usize) -> Timestamp {
    Timestamp::from_millis(1_753_190_000_000).plus(Duration::from_secs(seconds as u64))
}

/// Conversations of a user as years of use leave them, added behind the daemon's
/// back: each transcribed, learned from, and without its audio by now.
struct Filler {
    store: SqliteStore,
    user: UserId,
}

impl Filler {
    async fn fill(&self, many: usize) -> Vec<ConversationId> {
        self.store.bind_embedding("test-model", WIDTH).await.unwrap();
        let mut ids = Vec::new();
        for number in 0..many {
            ids.push(self.conversation(number).await);
        }
        let chat = Chat {
            id: ChatId::generate(),
            user_id: self.user.clone(),
            title: "Tea".into(),
            created_at: at(1),
            updated_at: at(1),
            messages: 0,
        };
        self.store.add_chat(&chat).await.unwrap();
        for (role, text) in [(ChatRole::User, "What do I like?"), (ChatRole::Assistant, "Tea.")] {
            self.store.add_chat_message(&chat.id, role, text, &[], at(2)).await.unwrap();
        }
        ids
    }

    async fn claim(&self, kind: JobKind) -> Job {
        let due = Timestamp::from_millis(i64::MAX / 2);
        self.store.claim_job(&[kind], Lane::Backlog, "test", due).await.unwrap().unwrap()
    }

    async fn conversation(&self, number: usize) -> ConversationId {
        let (store, id) = (&self.store, ConversationId::generate());
        // Some begin at the same moment.
        let (begun, ended) = (at(number / 3 * 60), at(number / 3 * 60 + 30));
        let client = ClientId::for_device(&self.user, Some("phone"), 1);
        let name = format!("{id}.wav");
        let new = Conversation::begin(id.clone(), self.user.clone(), client, name, begun);
        store.open_conversation(&new).await.unwrap();
        let window = NewWindow { seq: 0, spans: vec![Span { start: 0, end: 160_000 }] };
        store
            .close_conversation(&id, 480_000, &[window], CloseReason::AudioStop, ended)
            .await
            .unwrap();

        let job = self.claim(JobKind::Transcribe).await;
        let Payload::Window(window) = job.payload else { panic!("{job:?}") };
        let segment = Segment {
            start: 0.1,
            end: 9.9,
            text: format!("Number {number} is a cup of tea, {}.", number as f32 / 7.0),
            speaker: number.is_multiple_of(2).then(|| "Anna".to_owned()),
            confidence: number as f32 / (number + 1) as f32,
            words: vec![],
        };
        let done = Transcribed {
            lease: job.lease(),
            window,
            segments: vec![segment],
            engine: "test".into(),
        };
        store.complete_windows(&[done], ended).await.unwrap();

        let job = self.claim(JobKind::Finish).await;
        let settled = Settled {
            version: 1,
            transcription: Progress::Completed,
            memory: Progress::Pending,
            next: vec![NewJob {
                kind: JobKind::Remember,
                payload: Payload::Conversation(id.clone()),
                lane: Lane::Live,
            }],
        };
        store.finish_conversation(job.lease(), &id, &settled, ended).await.unwrap();

        let job = self.claim(JobKind::Remember).await;
        let text = format!("The user likes tea of sort {number}.");
        let learned = Learned {
            changes: vec![MemoryChange::Add { text, vector: vector(number) }],
            title: Some(format!("Tea {number}")),
            summary: Some("About \"tea\" — ü.".into()),
            model: "test-llm".into(),
            prompt_version: "v1".into(),
        };
        store.complete_memories(job.lease(), &id, &learned, ended).await.unwrap();
        let files = store.delete_audio(&id, ended).await.unwrap();
        store.strike_deletions(&files).await.unwrap();
        id
    }
}

/// A unit vector of its own for each number.
fn vector(number: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 7919 + number * 104_729) % 1000) as f32 / 1000.0 - 0.5;
    let raw: Vec<f32> = (0..WIDTH).map(value).collect();
    let norm = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
    raw.iter().map(|value| value / norm).collect()
}

/// What the API says of everything that moves.
async fn answers(client: &Client, ids: &[ConversationId]) -> Vec<(String, Value)> {
    let mut paths: Vec<String> = [
        "/users/me",
        "/api/users",
        "/api/conversations?view=list&limit=1000",
        "/api/coverage?from=2025-07-22&to=2026-12-31",
        "/api/memories?limit=1000",
        "/api/memories/search?query=tea",
        "/api/memories/search?query=tea+of+sort+7",
        "/api/memories/with-transcripts",
        "/api/queue/jobs?limit=100",
        "/api/queue/stats",
        "/api/chat/sessions",
        "/api/chat/statistics",
        "/api/process-audio-files/jobs",
        "/api/debug/memory/stats",
    ]
    .map(str::to_owned)
    .to_vec();
    for id in ids.iter().step_by(ids.len().div_ceil(LOOKED_AT)) {
        paths.push(format!("/api/conversations/{id}"));
        paths.push(format!("/api/debug/memory/session/{id}"));
    }
    let mut said = Vec::new();
    for path in paths {
        let answer = client.get(&path).await;
        said.push((path, answer));
    }
    for one in client.conversations().await.iter().take(LOOKED_AT) {
        let name = one["audio_path"].as_str().unwrap_or_default().to_owned();
        let response = client.request("GET", &format!("/audio/{name}")).send().await.unwrap();
        let status = response.status().as_u16();
        let digest = hex::encode(Sha256::digest(response.bytes().await.unwrap()));
        said.push((name, serde_json::json!([status, digest])));
    }
    said
}

fn assert_same(before: &[(String, Value)], after: &[(String, Value)]) {
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
}

fn migrate(daemon: &Daemon, uri: &str, to: &str, force: bool) -> Command {
    let mut command = Command::new(program("friend-lite"));
    command
        .args(["migrate", "--to", to, "--config", "/dev/null", "--state-dir"])
        .arg(daemon.state_dir())
        .args(force.then_some("--force"))
        .env("MONGODB_URI", uri)
        .env("FRIEND_LITE__STORE__NODE", "here");
    command
}

fn run(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Ends it as a power cut would, once it has begun.
async fn cut_short(mut command: Command, has_begun: impl AsyncFn() -> bool) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !has_begun().await {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was cut short");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was done before it was cut short");
}

#[tokio::test]
async fn the_daemon_answers_the_same_from_mongodb_and_back_from_sqlite() {
    let models = tempfile::tempdir().unwrap();
    let files = mongod::directory();
    let server = Mongod::start(0, &files);
    let uri = server.uri();
    let mut daemon =
        Daemon::without_models(models.path(), &[("MONGODB_URI", &uri), ("STORE__NODE", "here")]);
    let admin = daemon.admin().await;
    daemon.user("ben@example.com").await;
    let me = admin.get("/users/me").await["id"].as_str().unwrap().to_owned();
    daemon.stop_clean();

    let many = conversations();
    let store = SqliteStore::open(&daemon.state_dir(), Access::Exclusive).unwrap();
    let filler = Filler { store, user: UserId::from_text(me) };
    let ids = filler.fill(many).await;
    drop(filler);
    daemon.restart();
    let admin = daemon.admin().await;
    admin.say("recorder", &speech::samples(&speech::jfk().path)).await;
    until("it is closed", async || {
        admin.conversations().await.iter().all(|one| one["is_open"] == false)
    })
    .await;
    let before = answers(&admin, &ids).await;
    assert!(before.iter().any(|(_, answer)| answer.to_string().contains("sort 7")));

    // Not beside a daemon.
    let (code, said) = run(migrate(&daemon, &uri, "mongodb", false));
    assert_eq!((code, said.contains("stop it first")), (Some(1), true), "{said}");
    daemon.stop_clean();

    // Cut short, no daemon takes it for whole; and the next attempt begins anew.
    let client = mongodb::Client::with_uri_str(&uri).await.unwrap();
    let windows =
        client.database("friend-lite").collection::<mongodb::bson::Document>("fl_windows");
    let has_begun = async || windows.estimated_document_count().await.unwrap() > 0;
    cut_short(migrate(&daemon, &uri, "mongodb", false), has_begun).await;
    daemon.set("FRIEND_LITE__STORE__ENGINE", "mongodb");
    let (code, said) = daemon.refused();
    assert!(code == Some(1) && said.contains("in part only"), "{code:?} {said}");
    let began = std::time::Instant::now();
    let (code, said) = run(migrate(&daemon, &uri, "mongodb", false));
    println!("to MongoDB in {:?}\n{said}", began.elapsed());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{}  conversations", many + 1)), "{said}");
    assert!(said.contains("store.engine = \"mongodb\""), "{said}");
    let (code, said) = run(migrate(&daemon, &uri, "mongodb", false));
    assert_eq!((code, said.contains("in use already")), (Some(1), true), "{said}");

    daemon.restart();
    assert_same(&before, &answers(&daemon.admin().await, &ids).await);
    assert!(daemon.stop().success());

    let (code, said) = run(migrate(&daemon, &uri, "sqlite", false));
    assert_eq!((code, said.contains("--force")), (Some(1), true), "{said}");
    let part = daemon.state_dir().join("migrating/friend-lite.db-wal");
    cut_short(migrate(&daemon, &uri, "sqlite", true), async || part.exists()).await;
    let began = std::time::Instant::now();
    let (code, said) = run(migrate(&daemon, &uri, "sqlite", true));
    println!("to SQLite in {:?}\n{said}", began.elapsed());
    assert_eq!((code, said.contains("before-migration-")), (Some(0), true), "{said}");
    daemon.set("FRIEND_LITE__STORE__ENGINE", "sqlite");
    daemon.restart();
    assert_same(&before, &answers(&daemon.admin().await, &ids).await);
    daemon.stop_clean();
    assert!(!daemon.state_dir().join("migrating").exists());
}
