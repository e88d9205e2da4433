//! A WebSocket session: whatever frames come, in whatever order, nothing may
//! panic or hang, every word back is a line of JSON, and at the end no device is
//! left connected. All of it is real but the network: the socket is a pipe in
//! memory, behind it the daemon's own ingest with its store and recordings.

#![no_main]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::routing::get;
use friend_lite::base::clock::{Clock, Timestamp};
use friend_lite::base::paced::Pace;
use friend_lite::config::{Config, Interval};
use friend_lite::domain::ids::UserId;
use friend_lite::domain::user::User;
use friend_lite::ingest::Ingest;
use friend_lite::ingest::ws::{self, Protocol};
use friend_lite::jobs::Wake;
use friend_lite::recording::Recordings;
use friend_lite::store::Users;
use friend_lite::store::sqlite::{Access, SqliteStore};
use friend_lite::supervisor::Supervisor;
use futures_util::{SinkExt, StreamExt};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

thread_local!(static WORLD: World = World::new());

fuzz_target!(|data: &[u8]| WORLD.with(|world| world.run(data)));

struct World {
    runtime: Runtime,
    ingest: Arc<Ingest>,
    user: User,
    audio: PathBuf,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // In memory where there is such a place: the disk is not what is tested.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let clock = Clock::system();
        let store = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
        let recordings =
            Recordings::open(dir.path(), Duration::from_secs(60), clock.clone()).unwrap();
        let audio = recordings.dir().to_owned();
        let user = User {
            id: UserId::generate(0),
            email: "fuzz@example.com".into(),
            password_hash: String::new(),
            display_name: None,
            is_active: true,
            is_superuser: false,
            is_verified: true,
            token_epoch: 0,
            created_at: Timestamp::default(),
        };
        runtime.block_on(store.add_user(&user)).unwrap();
        let mut config = Config::default();
        config.conversation.reconnect_grace = Interval::from_secs(0);
        let ingest = Ingest::new(
            Arc::new(store),
            recordings,
            Wake::default(),
            clock,
            Arc::new(config),
            Supervisor::new(),
        );
        Self { runtime, ingest, user, audio, _dir: dir }
    }

    fn run(&self, data: &[u8]) {
        let Some((protocol, frames)) = data.split_first() else { return };
        let protocol = match protocol % 3 {
            0 => Protocol::PCM,
            1 => Protocol::OMI,
            _ => Protocol::LEGACY,
        };
        self.runtime.block_on(async {
            let session = self.session(protocol, frames);
            tokio::time::timeout(Duration::from_secs(20), session).await.expect("it hangs");
        });
        assert_eq!(self.ingest.clients().list(None), [], "a device is left connected");
        for file in std::fs::read_dir(&self.audio).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }

    /// One socket, from its handshake to the end of its session.
    async fn session(&self, protocol: Protocol, frames: &[u8]) {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (ended, end) = oneshot::channel();
        let ended = std::sync::Mutex::new(Some(ended));
        let (ingest, user) = (self.ingest.clone(), self.user.clone());
        let state = Arc::new((ingest, user, ended));
        let open = move |upgrade: WebSocketUpgrade| async move {
            upgrade.on_upgrade(move |socket| async move {
                let (ingest, user, ended) = &*state;
                let device = Some("fuzz".to_owned());
                let pace = Pace::default();
                ws::serve(socket, protocol, pace, ingest.clone(), user.clone(), device).await;
                let ended = ended.lock().unwrap().take().expect("one session");
                let _ = ended.send(());
            })
        };
        let router: Router = Router::new().route("/", get(open));
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(router))
            .with_upgrades();
        let server = tokio::spawn(connection);
        let (socket, _) = client_async("ws://fuzz/", near).await.expect("a handshake");
        let (mut sink, mut stream) = socket.split();
        let send = async {
            for message in messages(frames) {
                // Closed by the server: what follows goes nowhere.
                if sink.send(message).await.is_err() {
                    break;
                }
            }
            let _ = sink.close().await;
        };
        let hear = async {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message {
                    let line = text.strip_suffix('\n').expect("a line");
                    serde_json::from_str::<serde_json::Value>(line).expect("JSON");
                }
            }
        };
        tokio::join!(send, hear);
        end.await.expect("the session has an end");
        let _ = server.await;
    }
}

/// Frames out of the fuzzer's bytes: what kind, how long, and the content.
fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let [kind, low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (content, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        let text = |text: String| Message::text(text);
        match kind % 9 {
            0 => messages.push(text(String::from_utf8_lossy(content).into_owned())),
            1 => messages.push(Message::binary(content.to_vec())),
            2 => messages.push(Message::Ping(content[..content.len().min(125)].to_vec().into())),
            3 => messages.push(text(format!(
                "{{\"type\":\"audio-start\",\"data\":{{\"rate\":{}}}}}\n",
                length * 4
            ))),
            4 => messages
                .push(text("{\"type\":\"audio-stop\",\"data\":{\"timestamp\":null}}\n".into())),
            5 => {
                messages.push(text(format!(
                    "{{\"type\":\"audio-chunk\",\"data\":{{\"rate\":16000,\"width\":2,\"channels\":1}},\"payload_length\":{}}}\n",
                    content.len()
                )));
                messages.push(Message::binary(content.to_vec()));
            }
            6 => {
                let mut frame =
                    format!("{{\"type\":\"audio-chunk\",\"payload_length\":{length}}}\n");
                frame.push_str(&String::from_utf8_lossy(content));
                messages.push(Message::binary(frame.into_bytes()));
            }
            // Sound loud enough to be speech, up to two seconds of it.
            7 => {
                let sample = |n: usize| ((n * n / 7) as i16).wrapping_mul(200).to_le_bytes();
                let samples = length % 32_000;
                messages.push(Message::binary((0..samples).flat_map(sample).collect::<Vec<u8>>()));
            }
            _ => {
                let payload = &content[..content.len().min(4)];
                messages.push(Message::binary([&[0x48], payload].concat()));
            }
        }
    }
    messages
}
