//! The routes over a real store, recordings and ingest.

mod audio;
mod chat;
mod conversations;
mod debug;
mod front;
mod graph;
mod login;
mod memories;
mod queue;
mod sockets;
mod system;
mod uploads;
mod users;
mod versions;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::{Config, Interval};
use crate::domain::transcript::Transcript;
use crate::domain::user::User;
use crate::embed::Embedder;
use crate::graph::sqlite::SqliteGraph;
use crate::http::api::Api;
use crate::http::auth::password::Passwords;
use crate::http::auth::{Auth, NewUser, add_user};
use crate::http::health::Health;
use crate::index::sqlite_vec::SqliteVecIndex;
use crate::ingest::Ingest;
use crate::jobs::Wake;
use crate::llm::{Generate, LanguageModel, Told};
use crate::models::{Catalog, Supply};
use crate::pipeline::chat::Assistant;
use crate::pipeline::deletion::Deletion;
use crate::pipeline::learn::Learner;
use crate::pipeline::recall::Recall;
use crate::recording::Recordings;
use crate::store::Store;
use crate::store::sqlite::testing::{Fixture, at, vector};
use crate::stt::{Speech, SpeechToText};
use crate::supervisor::Supervisor;

const PASSWORD: &str = "correct horse battery";

/// Everything behind the router, with a clock that stands still.
struct World {
    fixture: Fixture,
    api: Arc<Api>,
    router: Router,
    clock: Clock,
    llm: Arc<Parrot>,
}

/// A language model that says again what it hears, unless it is `away`. What it
/// is to pick out of a transcript is the first line.
#[derive(Default)]
struct Parrot {
    away: AtomicBool,
    /// Taken to answer: held by a test, nobody is answered.
    busy: tokio::sync::Mutex<()>,
}

#[async_trait]
impl LanguageModel for Parrot {
    fn name(&self) -> String {
        "test/parrot".into()
    }

    fn is_ready(&self) -> bool {
        !self.away.load(Ordering::Relaxed)
    }

    async fn generate(&self, request: Generate) -> Result<String> {
        let _busy = self.busy.lock().await;
        let heard = &request.messages.last().unwrap().content;
        if request.schema.is_none() {
            return Ok(format!(" You said: {heard}"));
        }
        let quote = heard.trim_start_matches("Transcript:").trim().lines().next();
        Ok(json!({ "points": [{ "quote": quote, "kind": "plan", "fact": quote }] }).to_string())
    }

    /// Word by word.
    async fn write(&self, request: Generate, told: &mut Told<'_>) -> Result<String> {
        let text = self.generate(request).await?;
        text.split_inclusive(' ').for_each(told);
        Ok(text)
    }
}

/// Places every text on the first axis, as a test's first memory is.
struct FirstAxis;

#[async_trait]
impl Embedder for FirstAxis {
    fn name(&self) -> String {
        "test-model".into()
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|_| vector(0)).collect())
    }
}

/// An engine whose model is not there.
struct Deaf;

#[async_trait]
impl SpeechToText for Deaf {
    fn name(&self) -> String {
        "whisper/ggml-test.bin".into()
    }

    fn languages(&self) -> &[&str] {
        &["en"]
    }

    fn is_ready(&self) -> bool {
        false
    }

    async fn transcribe(&self, _: Speech) -> Result<Transcript> {
        Err(Error::new(Kind::Unavailable, "no model"))
    }
}

/// A user with a token.
struct Person {
    user: User,
    token: String,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a configuration that `change` has changed.
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let fixture = Fixture::new();
        let clock = Clock::simulated(at(100));
        let mut config = Config::default();
        config.auth.bcrypt_cost = 4;
        config.auth.login_attempts = 3;
        config.recording.sync_interval = Interval::from_secs(60);
        change(&mut config);
        let config = Arc::new(config);
        let store: Arc<dyn Store> = Arc::new(fixture.store.clone());
        let index = Arc::new(SqliteVecIndex::new(&fixture.store));
        let recordings =
            Recordings::open(fixture.dir.path(), Duration::from_secs(60), clock.clone()).unwrap();
        let supervisor = Supervisor::new();
        let ingest = Ingest::new(
            store.clone(),
            recordings.clone(),
            Wake::default(),
            clock.clone(),
            config.clone(),
            supervisor.clone(),
            None,
        );
        let (llm, embedder) = (Arc::new(Parrot::default()), Arc::new(FirstAxis));
        let recall = Recall::new(store.clone(), index.clone(), embedder.clone());
        let learner = Learner::new(
            store.clone(),
            index,
            embedder,
            llm.clone(),
            config.memory.deadline.get(),
            clock.clone(),
        );
        let supply = Supply::new(Catalog::builtin().unwrap(), &config, clock.clone()).unwrap();
        let api = Arc::new(Api {
            speech: Arc::new(Deaf),
            assistant: Assistant::new(
                store.clone(),
                recall.clone(),
                learner,
                llm.clone(),
                clock.clone(),
            ),
            recall,
            graph: Arc::new(SqliteGraph::new(&fixture.store)),
            auth: Auth::new(store.clone(), clock.clone(), &config).await.unwrap(),
            deletion: Deletion::new(
                store.clone(),
                recordings.clone(),
                ingest.clone(),
                clock.clone(),
            ),
            store,
            ingest,
            recordings,
            wake: Wake::default(),
            clock: clock.clone(),
            config,
            supervisor,
            health: Health::default(),
            supply,
            name: tokio::sync::watch::Sender::new("Friend-Lite".into()),
            engines: Vec::new(),
            started: clock.monotonic(),
            listening: Vec::new(),
        });
        Self { fixture, router: super::router(api.clone()), api, clock, llm }
    }

    /// A user who has logged in, by the name of `name@example.com`.
    async fn person(&self, name: &str, admin: bool) -> Person {
        let hash = Passwords::new(4).hash(PASSWORD).await.unwrap();
        let email = format!("{name}@example.com");
        let store = &*self.api.store;
        let new = NewUser { is_superuser: admin, ..NewUser::new(&email, hash, Some(name)) };
        let user = add_user(store, &self.clock, None, new).await.unwrap();
        let peer = [192, 0, 2, 200].into();
        let token = self.api.auth.login(&email, PASSWORD, peer).await.unwrap();
        Person { user, token: token.expose().to_owned() }
    }

    async fn send(&self, mut request: Request<Body>) -> Answer {
        let peer = SocketAddr::from(([192, 0, 2, 1], 50_000));
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A request with `person`'s token, or none.
    async fn ask(&self, method: &str, path: &str, person: Option<&Person>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(person) = person {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", person.token));
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str, person: &Person) -> Answer {
        self.ask("GET", path, Some(person)).await
    }

    fn audio_dir(&self) -> &Path {
        self.api.recordings.dir()
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{} {error}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// The body, after checking the status.
    #[track_caller]
    fn is(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }
}
