//! Databases as the original Friend-Lite leaves them, of both its versions: the
//! daemon takes one over where it is, and the import brings one into SQLite.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use futures_util::TryStreamExt;
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{DateTime, Document, doc};
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{
    CountPointsBuilder, CreateCollectionBuilder, Distance, PointStruct, Struct,
    UpsertPointsBuilder, Value as QdrantValue, VectorParamsBuilder,
};
use qdrant_client::{Payload, Qdrant};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::client::{Client, until};
use crate::harness::daemon::{ADMIN_EMAIL, ADMIN_PASSWORD, Daemon, program};
use crate::harness::mongod::Mongod;
use crate::harness::services::{KEY, Server};
use crate::harness::speech;

const ANNA: &str = "687f8e700123456789abcdef";
const BEN: &str = "687f8e700123456789fedcba";
const ANNAS_PASSWORD: &str = "correct horse";
const BENS_PASSWORD: &str = "battery staple";
/// Of Anna's password, by the library of the original (`pwdlib` on `argon2-cffi`).
const ARGON2: &str = "$argon2id$v=19$m=65536,t=3,p=4$JaD1Y1D7i8ui2a4RKMCSDQ\
                      $UT//ZDFfcHXXHHKjRcIiwwl3TCwlPiaOfC/Vkds28DA";
const WIDTH: usize = 32;
/// Conversations with audio, so that an import takes its time.
const MANY: usize = 40;

/// A place where the original was at work.
struct Old {
    database: Database,
    name: &'static str,
    collection: &'static str,
    audio: TempDir,
    /// Memory ids by their texts.
    memories: HashMap<String, String>,
}

/// The audio of each conversation, with the header that the original writes.
fn sound() -> Vec<u8> {
    friend_lite::audio::wav::file(&speech::samples(&speech::jfk().path))
}

/// A value of JSON as one of Qdrant's.
fn value_of(value: &Value) -> QdrantValue {
    let kind = match value {
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, value)| (key.clone(), value_of(value))).collect(),
        }),
        _ => Kind::NullValue(0),
    };
    QdrantValue { kind: Some(kind) }
}

/// What `vector` a text has: one that texts of the same words share.
fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.01_f32; WIDTH];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
        let sum: usize = word.bytes().map(usize::from).sum();
        vector[sum % WIDTH] += 1.0;
    }
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.into_iter().map(|value| value / norm).collect()
}

/// A server that makes vectors; its address.
async fn embeddings() -> String {
    async fn embed(Json(body): Json<Value>) -> Json<Value> {
        let texts = body["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        let data: Vec<Value> = texts
            .enumerate()
            .map(|(index, text)| json!({ "index": index, "embedding": vector(text) }))
            .collect();
        Json(json!({ "data": data }))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/embeddings", post(embed));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/v1")
}

fn users() -> [Document; 2] {
    let client = |id: &str, name: &str| {
        doc! { "client_id": id, "device_name": name, "is_active": true,
        "first_seen": DateTime::from_millis(1_753_000_000_000),
        "last_seen": DateTime::from_millis(1_753_190_000_000) }
    };
    let ben = bcrypt::hash(BENS_PASSWORD, 4).unwrap();
    [
        doc! { "_id": ObjectId::parse_str(ANNA).unwrap(), "email": "anna@example.com",
        "hashed_password": ARGON2, "is_active": true, "is_superuser": true,
        "is_verified": true, "display_name": "Anna", "primary_speakers": [],
        "registered_clients": { "abcdef-phone": client("abcdef-phone", "phone") } },
        doc! { "_id": ObjectId::parse_str(BEN).unwrap(), "email": "Ben@example.com",
        "hashed_password": ben, "is_active": true, "is_superuser": false,
        "is_verified": false, "display_name": null,
        "registered_clients": { "fedcba-pin": client("fedcba-pin", "pin") } },
    ]
}

impl Old {
    async fn insert(&self, collection: &str, documents: Vec<Document>) {
        self.database.collection(collection).insert_many(documents).await.unwrap();
    }

    fn sound(&self, name: &str) {
        std::fs::write(self.audio.path().join(name), sound()).unwrap();
    }

    /// The version of July 2025: one document a conversation, and mem0's memories.
    async fn of_july(server: &Mongod, qdrant: &Qdrant) -> Self {
        let mut old = Self::empty(server, "july", "omi_memories").await;
        old.insert("users", users().into()).await;
        let mut chunks = Vec::new();
        for number in 0..MANY {
            let (id, time) = (format!("{number:032x}"), 1_753_190_000 + number as i64 * 60);
            let client = if number % 2 == 0 { "fedcba-pin" } else { "abcdef-phone" };
            let name = format!("{time}_{client}_{id}.wav");
            old.sound(&name);
            chunks.push(doc! {
                "audio_uuid": &id, "audio_path": name, "client_id": client, "timestamp": time,
                "transcript": [
                    { "speaker": "Speaker 0", "text": format!("Talk number {number}."), "start": 0.0, "end": 0.0 },
                    { "speaker": "Speaker 1", "text": "Indeed.", "start": 0.0, "end": 0.0 },
                ],
                "speakers_identified": [], "memories": [], "cropped_audio_path": null,
                "speech_segments": [], "transcription_status": "COMPLETED",
                "memory_processing_status": "SKIPPED", "transcription_provider": "deepgram",
            });
        }
        chunks[0].insert("memories", vec![doc! { "memory_id": "x", "status": "created" }]);
        chunks[0].insert("memory_processing_status", "COMPLETED");
        let (mut pending, id) = (chunks[1].clone(), "e".repeat(32));
        let name = format!("1753200000_abcdef-phone_{id}.wav");
        old.sound(&name);
        for (key, value) in [("audio_uuid", &id), ("audio_path", &name)] {
            pending.insert(key, value);
        }
        pending.insert("transcript", Vec::<Document>::new());
        pending.insert("timestamp", 1_753_200_000);
        pending.insert("transcription_status", "PENDING");
        chunks.push(pending);
        old.insert("audio_chunks", chunks).await;
        let payload = |user: &str, text: &str, origin: usize| {
            json!({ "user_id": user, "data": text, "hash": "5d41402abc4b2a76b9719d911017c592",
                    "created_at": "2025-07-22T06:13:20.250000-07:00", "updated_at": null,
                    "source": "offline_streaming", "audio_uuid": format!("{origin:032x}") })
        };
        old.remember(
            qdrant,
            vec![
                payload(BEN, "Ben drinks green tea in the morning", 0),
                payload(ANNA, "Anna has a meeting on Friday", 1),
            ],
        )
        .await;
        old
    }

    /// The version of November 2025: conversations apart from their audio.
    async fn of_november(server: &Mongod, qdrant: &Qdrant) -> Self {
        let mut old = Self::empty(server, "november", "memories_of_november").await;
        old.insert("users", users().into()).await;
        let (mut chunks, mut conversations) = (Vec::new(), Vec::new());
        for number in 0..MANY {
            let time = 1_760_000_000_000 + number as i64 * 60_000;
            let (audio, id) = (format!("{number:032x}"), id_of(number));
            let (user, client) =
                if number % 2 == 0 { (BEN, "fedcba-pin") } else { (ANNA, "abcdef-phone") };
            let name = format!("{time}_{client}_{audio}.wav");
            old.sound(&name);
            chunks.push(doc! {
                "audio_uuid": &audio, "audio_path": &name, "client_id": client, "timestamp": time,
                "user_id": user, "user_email": "x@example.com", "conversation_id": &id,
                "has_speech": true, "speech_analysis": { "word_count": 9 }, "cropped_audio_path": null,
            });
            let said = |text: String| {
                doc! { "start": 0.5, "end": 9.0, "text": text, "speaker": "Speaker 0", "confidence": 0.9 }
            };
            let version = |version: &str, text: String| {
                doc! { "version_id": version, "transcript": &text, "segments": [said(text.clone())],
                "provider": "deepgram", "model": "nova-3",
                "created_at": DateTime::from_millis(time + 20_000), "metadata": {} }
            };
            conversations.push(doc! {
                "conversation_id": &id, "audio_uuid": &audio, "user_id": user, "client_id": client,
                "audio_path": format!("/app/audio_chunks/{name}"),
                "created_at": DateTime::from_millis(time), "title": format!("Talk {number}"),
                "summary": "They talk.", "memories": [], "memory_count": 0,
                "transcript_versions": [
                    version("a", "Wrong.".into()),
                    version("b", format!("Talk number {number}.")),
                ],
                "active_transcript_version": "b", "memory_versions": [],
            });
        }
        let set = doc! { "version_id": "m", "memory_count": 1, "provider": "friend_lite",
        "model": "gpt-4o", "transcript_version_id": "b" };
        conversations[0].insert("memory_versions", vec![set]);
        conversations[0].insert("active_memory_version", "m");
        old.insert("audio_chunks", chunks).await;
        old.insert("conversations", conversations).await;
        let time = DateTime::from_millis(1_760_000_000_000);
        let session = doc! { "session_id": "talk-1", "user_id": ANNA, "title": "Friday",
        "created_at": time, "updated_at": time, "metadata": {} };
        old.insert("chat_sessions", vec![session]).await;
        let message = |id: &str, role: &str, content: &str| {
            doc! { "message_id": id, "session_id": "talk-1", "user_id": ANNA, "role": role,
            "content": content, "timestamp": time, "memories_used": [], "metadata": {} }
        };
        let said = vec![
            message("m1", "user", "What is on Friday?"),
            message("m2", "assistant", "A meeting."),
        ];
        old.insert("chat_messages", said).await;
        let payload = |user: &str, text: &str, origin: usize| {
            json!({ "content": text, "created_at": "1760000000", "updated_at": "1760000100",
                    "metadata": { "user_id": user, "source": "offline_streaming",
                                  "source_id": id_of(origin), "client_id": "fedcba-pin" } })
        };
        old.remember(
            qdrant,
            vec![
                payload(BEN, "Ben drinks green tea in the morning", 0),
                payload(ANNA, "Anna has a meeting on Friday", 1),
            ],
        )
        .await;
        old
    }

    async fn empty(server: &Mongod, name: &'static str, collection: &'static str) -> Self {
        let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
        let (database, audio) = (client.database(name), tempfile::tempdir().unwrap());
        Self { database, name, collection, audio, memories: HashMap::new() }
    }

    async fn remember(&mut self, qdrant: &Qdrant, payloads: Vec<Value>) {
        let vectors = VectorParamsBuilder::new(WIDTH as u64, Distance::Cosine);
        let collection = CreateCollectionBuilder::new(self.collection).vectors_config(vectors);
        qdrant.create_collection(collection).await.unwrap();
        let mut points = Vec::new();
        for payload in payloads {
            let text = payload["data"].as_str().or(payload["content"].as_str()).unwrap().to_owned();
            let id = uuid::Uuid::new_v4().to_string();
            let fields = payload.as_object().unwrap().iter();
            let payload: HashMap<String, QdrantValue> =
                fields.map(|(key, value)| (key.clone(), value_of(value))).collect();
            let payload = Payload::from(payload);
            points.push(PointStruct::new(id.clone(), vector(&text), payload));
            self.memories.insert(text, id);
        }
        let upsert = UpsertPointsBuilder::new(self.collection, points).wait(true);
        qdrant.upsert_points(upsert).await.unwrap();
    }

    /// Every document that the original has.
    async fn documents(&self) -> Vec<Document> {
        let mut all = Vec::new();
        for name in ["users", "audio_chunks", "conversations", "chat_sessions", "chat_messages"] {
            let collection = self.database.collection::<Document>(name);
            let found = collection.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
            all.extend(found.try_collect::<Vec<Document>>().await.unwrap());
        }
        all
    }

    fn is_of_july(&self) -> bool {
        self.name == "july"
    }

    /// Conversations of which the audio is there.
    fn conversations(&self) -> usize {
        MANY + usize::from(self.is_of_july())
    }

    fn id(&self, number: usize) -> String {
        if self.is_of_july() { format!("{number:032x}") } else { id_of(number) }
    }
}

/// The conversation id of November.
fn id_of(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// Has everybody log in with the old password and find what was theirs.
async fn all_is_there(url: &str, old: &Old) {
    let anna = Client::login(url, "anna@example.com", ANNAS_PASSWORD).await;
    let ben = Client::login(url, "ben@example.com", BENS_PASSWORD).await;
    let all = anna.get("/api/conversations?view=list&limit=1000").await;
    assert_eq!(all["conversations"].as_array().unwrap().len(), old.conversations());
    let theirs = ben.get("/api/conversations?view=list&limit=1000").await;
    let theirs = theirs["conversations"].as_array().unwrap();
    assert_eq!(theirs.len(), MANY / 2);
    assert!(theirs.iter().all(|one| one["user_id"] == BEN && one["client_id"] == "fedcba-pin"));

    let sound = sound();
    for number in [0, 7, MANY - 1] {
        let path = format!("/api/conversations/{}", old.id(number));
        let one = anna.get(&path).await["conversation"].clone();
        let text = one["transcript"].as_str().unwrap();
        assert!(text.starts_with(&format!("Talk number {number}.")), "{text}");
        assert_eq!(one["transcription_status"], "COMPLETED");
        assert_eq!(one["segments"].as_array().unwrap().len(), 1 + usize::from(old.is_of_july()));
        assert_eq!(one["duration_seconds"], 11.0);
        let audio = one["audio_path"].as_str().unwrap();
        let request =
            anna.request("GET", &format!("/audio/{audio}")).header("range", "bytes=1000-1999");
        let part = request.send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert!(part.bytes().await.unwrap() == sound[1000..2000]);
        if !old.is_of_july() {
            assert_eq!(one["title"], format!("Talk {number}"));
            assert_eq!(one["transcript_versions"].as_array().unwrap().len(), 2);
        }
    }
    let first = ben.get(&format!("/api/conversations/{}", old.id(0))).await["conversation"].clone();
    assert_eq!(first["memory_processing_status"], "COMPLETED");
    until("memories are there", async || !ben.memories().await.is_empty()).await;
    let known = ben.memories().await;
    assert_eq!(known.len(), 1, "{known:?}");
    let text = known[0]["memory"].as_str().unwrap();
    assert_eq!(known[0]["id"], *old.memories[text]);
    assert_eq!(known[0]["metadata"]["audio_uuid"], old.id(0), "it knows where it came from");
    let found = ben.get("/api/memories/search?query=green+tea+in+the+morning").await;
    assert_eq!(found["results"][0]["id"], known[0]["id"]);
    assert!(found["results"][0]["score"].as_f64().unwrap() > 0.5, "by its meaning: {found}");
    if !old.is_of_july() {
        let said = anna.get("/api/chat/sessions/talk-1/messages").await;
        assert_eq!(said.as_array().unwrap().len(), 2);
        assert_eq!(said[1]["content"], "A meeting.");
    }
    let (status, _) = ben.call("GET", "/api/chat/sessions/talk-1/messages").await;
    assert_eq!(status, 404);
}

/// The import of `old` into the state directory `state`.
fn import(
    old: &Old,
    mongod: &Mongod,
    qdrant: &Server,
    embed: &str,
    state: &Path,
) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program("friend-lite"));
    command
        .args(["import", "friend-lite", "--config", "/dev/null", "--state-dir"])
        .arg(state)
        .args(["--mongodb", &mongod.uri(), "--database", old.name])
        .args(["--qdrant", &format!("http://{}", qdrant.address()), "--collection", old.collection])
        .arg("--audio")
        .arg(old.audio.path())
        .envs([("QDRANT_API_KEY", KEY), ("FRIEND_LITE__EMBED__ENGINE", "openai")])
        .env("FRIEND_LITE__OPENAI__EMBED_URL", embed)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs it to its end: the columns of each row.
async fn imported(mut command: tokio::process::Command) -> HashMap<String, Vec<u64>> {
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{errors}");
    let row = |line: &str| {
        let at = line.find(|c: char| c.is_ascii_digit())?;
        let figures: Vec<u64> =
            line[at..].split_whitespace().map_while(|word| word.parse().ok()).collect();
        (figures.len() == 5).then(|| (line[..at].trim().to_owned(), figures))
    };
    said.lines().filter_map(row).collect()
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, |files| files.flatten().count())
}

async fn into_sqlite(old: &Old, mongod: &Mongod, qdrant: &Server, embed: &str) {
    let before = old.documents().await;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let run = || import(old, mongod, qdrant, embed, &state);
    let mut dry = run();
    dry.arg("--dry-run");
    let counted = imported(dry).await;
    assert_eq!(counted["conversations"][..2], [old.conversations() as u64; 2]);
    assert_eq!(files(&state.join("audio")), 0);

    let mut child = run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while files(&state.join("audio")) < 5 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too soon to be killed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().await.unwrap();
    assert!(files(&state.join("audio")) < old.conversations());

    let rest = imported(run()).await;
    for (name, figures) in &rest {
        assert_eq!(figures[0], counted[name][0], "{name}");
        assert_eq!((figures[1] + figures[2], figures[4]), (figures[0], 0), "{name}: {figures:?}");
    }
    assert!(rest["conversations"][1] > 0 && rest["conversations"][2] > 0, "{rest:?}");
    assert_eq!(rest["seconds of audio"][0], 11 * old.conversations() as u64);
    let third = imported(run()).await;
    assert!(third.values().all(|figures| figures[1] == 0 && figures[2] == figures[0]), "{third:?}");
    assert_eq!(old.documents().await, before);

    let empty = tempfile::tempdir().unwrap();
    let keys =
        [("EMBED__ENGINE", "openai"), ("OPENAI__EMBED_URL", embed), ("RECORDING__ARCHIVE", "wav")];
    let mut daemon = Daemon::prepared(&keys, empty.path(), |place| {
        std::fs::rename(&state, place.join("state")).unwrap();
    });
    all_is_there(&daemon.url, old).await;
    if old.is_of_july() {
        let anna = Client::login(&daemon.url, "anna@example.com", ANNAS_PASSWORD).await;
        let waiting = format!("/api/conversations/{}", "e".repeat(32));
        assert_eq!(anna.get(&waiting).await["conversation"]["transcription_status"], "PENDING");
        let stats = anna.get("/api/queue/stats").await;
        assert!(stats["queued_jobs"].as_u64().unwrap() > 0, "it is to be transcribed: {stats}");
    }
    daemon.stop_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_the_original_come_into_sqlite() {
    let files = tempfile::tempdir().unwrap();
    let mongod = Mongod::launch(0, files.path(), false);
    let (qdrant, embed) = (Server::qdrant(), embeddings().await);
    let url = format!("http://{}", qdrant.address());
    let client = Qdrant::from_url(&url).api_key(KEY).skip_compatibility_check().build().unwrap();
    let july = Old::of_july(&mongod, &client).await;
    into_sqlite(&july, &mongod, &qdrant, &embed).await;
    let november = Old::of_november(&mongod, &client).await;
    into_sqlite(&november, &mongod, &qdrant, &embed).await;
    for old in [&july, &november] {
        let points = client.count(CountPointsBuilder::new(old.collection).exact(true)).await;
        assert_eq!(points.unwrap().result.unwrap().count, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_goes_on_with_the_database_of_the_original() {
    let files = tempfile::tempdir().unwrap();
    let mongod = Mongod::launch(0, files.path(), false);
    let (qdrant, embed) = (Server::qdrant(), embeddings().await);
    let url = format!("http://{}", qdrant.address());
    let client = Qdrant::from_url(&url).api_key(KEY).skip_compatibility_check().build().unwrap();
    for july in [true, false] {
        let old = match july {
            true => Old::of_july(&mongod, &client).await,
            false => Old::of_november(&mongod, &client).await,
        };
        let before = old.documents().await;
        let (empty, uri) = (tempfile::tempdir().unwrap(), mongod.uri());
        let keys = [
            ("STORE__ENGINE", "mongodb"),
            ("MONGODB_URI", uri.as_str()),
            ("MONGODB__DATABASE", old.name),
            ("VECTOR_STORE_PROVIDER", "qdrant"),
            ("QDRANT_BASE_URL", &url),
            ("QDRANT_API_KEY", KEY),
            ("QDRANT__COLLECTION", old.collection),
            ("EMBED__ENGINE", "openai"),
            ("OPENAI__EMBED_URL", &embed),
            ("IMPORT__AUDIO", old.audio.path().to_str().unwrap()),
            ("RECORDING__ARCHIVE", "wav"),
        ];
        let mut daemon = Daemon::without_models(empty.path(), &keys);
        all_is_there(&daemon.url, &old).await;
        assert_eq!(old.documents().await, before, "the original's collections stay as they are");
        // What was done here since stays, and nothing comes twice.
        let anna = Client::login(&daemon.url, "anna@example.com", ANNAS_PASSWORD).await;
        let gone = format!("/api/conversations/{}", old.id(2));
        assert_eq!(anna.call("DELETE", &gone).await.0, 200);
        assert!(daemon.stop().success());
        daemon.restart();
        let anna = Client::login(&daemon.url, "anna@example.com", ANNAS_PASSWORD).await;
        assert_eq!(anna.call("GET", &gone).await.0, 404);
        assert_eq!(anna.conversations().await.len(), old.conversations() - 1);
        assert_eq!(anna.memories().await.len(), 1);
        let log = daemon.log();
        assert_eq!(log.matches("took over what the original has").count(), 1, "{log}");
        // It has an administrator, so none is made.
        let login = anna
            .http
            .post(format!("{}/auth/jwt/login", daemon.url))
            .form(&[("username", ADMIN_EMAIL), ("password", ADMIN_PASSWORD)])
            .send();
        assert_eq!(login.await.unwrap().status(), 400);
        assert!(daemon.stop().success());
    }
}
