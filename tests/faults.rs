//! The daemon and each service outside that works for it, which fails in every way
//! it can in the middle of that work: recording goes on, the work waits, the log
//! says each change once, and everything is caught up with, once.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::client::{Client, until};
use crate::harness::daemon::{Daemon, count};
use crate::harness::faulty::{self, Fault, Proxy};
use crate::harness::services::{KEY, Server};
use crate::harness::speech;

/// How long an outage lasts: long enough for many more attempts than a job has.
/// `OUTAGE` says it in seconds for a longer run.
fn outage() -> Duration {
    let seconds = std::env::var("OUTAGE").map_or(2, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

/// "And so my fellow Americans", so that those who transcribe are quick.
const BRIEF: usize = 40_000;
/// All of it, so that there is something to remember.
const WHOLE: usize = 11 * 16_000;

/// The conversation of a device, once there is one.
async fn of(client: &Client, device: &str) -> Option<Value> {
    let all = client.conversations().await;
    all.into_iter().find(|one| one["client_id"].as_str().unwrap().ends_with(device))
}

/// One service as a daemon sees it.
struct Outside {
    server: Server,
    proxy: Proxy,
    daemon: Daemon,
    client: Client,
    /// Its name in the health and the log.
    name: &'static str,
    /// Which status of a conversation waits for it.
    status: &'static str,
    /// What is said each time: the first `said` samples of Kennedy's address.
    said: usize,
    outages: usize,
}

impl Outside {
    async fn new(
        server: Server,
        name: &'static str,
        (status, said): (&'static str, usize),
        keys: &[(&str, &str)],
        url: impl Fn(u16) -> (&'static str, String),
    ) -> Self {
        let proxy = Proxy::before(server.port).await;
        let (key, url) = url(proxy.port);
        let mut all = vec![
            (key, url.as_str()),
            ("REMOTE__PAUSE", "100ms"),
            ("JOBS__RETRY_PAUSE", "100ms"),
            // An outage takes none of these but the first.
            ("JOBS__MAX_ATTEMPTS", "2"),
        ];
        all.extend_from_slice(keys);
        let daemon = Daemon::with(&all);
        let client = daemon.admin().await;
        Self { server, proxy, daemon, client, name, status, said, outages: 0 }
    }

    /// Somebody speaks while the service fails as `fail` has it, until it has been
    /// away for a while and `mend` brings it back.
    async fn outlives(
        &mut self,
        what: &str,
        fail: impl FnOnce(&mut Server, &Proxy),
        mend: impl FnOnce(&mut Server, &Proxy),
    ) {
        self.outages += 1;
        let device = format!("d{}", self.outages);
        let well = async |client: &Client| {
            client.get("/health").await["services"][self.name]["breaker"] == "closed"
        };
        assert!(well(&self.client).await, "before {what}");
        fail(&mut self.server, &self.proxy);
        let samples = speech::samples(&speech::jfk().path);
        self.client.say(&device, &samples[..self.said.min(samples.len())]).await;
        until(&format!("{what} is noticed"), async || !well(&self.client).await).await;
        sleep(outage()).await;
        let waiting = of(&self.client, &device).await.unwrap();
        assert_eq!(waiting[self.status], "PENDING", "{what}: {waiting}");
        mend(&mut self.server, &self.proxy);
        until(&format!("{what} is made up for"), async || {
            let one = of(&self.client, &device).await.unwrap();
            assert_ne!(one[self.status], "FAILED", "{what}: {one}\n{}", self.daemon.log());
            // What is known already is not remembered again.
            one[self.status] == "COMPLETED" || one[self.status] == "EMPTY"
        })
        .await;
        until(&format!("{what} is over"), async || well(&self.client).await).await;
    }

    async fn outlives_all(mut self) {
        for fault in faulty::ALL {
            let what = format!("{fault:?}");
            self.outlives(&what, |_, proxy| proxy.set(fault), |_, proxy| proxy.set(Fault::None))
                .await;
        }
        self.outlives("frozen until the timeout", |it, _| it.freeze(), |it, _| it.thaw()).await;
        self.outlives("killed and started again", |it, _| it.kill(), |it, _| it.restart()).await;
        self.assert_all_once().await;
    }

    /// Every word of every conversation is there once, and the log has told each
    /// outage once.
    async fn assert_all_once(&self) {
        let all = self.client.conversations().await;
        assert_eq!(all.len(), self.outages);
        for one in all {
            let path = format!("/api/conversations/{}", one["conversation_id"].as_str().unwrap());
            let one = self.client.get(&path).await["conversation"].clone();
            let heard = one["transcript"].as_str().unwrap().to_lowercase();
            for phrase in ["fellow americans", "can do for your country"] {
                let times = usize::from(phrase == "fellow americans" || self.said == WHOLE);
                assert_eq!(heard.matches(phrase).count(), times, "{phrase}: {one}");
            }
        }
        let log = self.daemon.log();
        let warned = format!("WARN friend_lite::remote::breaker: {} ", self.name);
        assert_eq!(count(&log, &warned), self.outages, "{log}");
        assert_eq!(count(&log, &format!("{} answers again", self.name)), self.outages, "{log}");
        assert!(!log.contains(KEY));
    }
}

#[tokio::test]
async fn deepgram_fails_in_every_way() {
    let keys = [
        ("DEEPGRAM_API_KEY", KEY),
        ("STT__ENGINES", "deepgram"),
        ("STT__DEADLINE", "12s"),
        ("MEMORY__ENABLED", "false"),
    ];
    let url = |port| ("DEEPGRAM__URL", format!("http://127.0.0.1:{port}"));
    let server = Server::deepgram();
    let waits = ("transcription_status", BRIEF);
    Outside::new(server, "deepgram", waits, &keys, url).await.outlives_all().await;
}

#[tokio::test]
async fn a_wyoming_server_fails_in_every_way() {
    let keys =
        [("STT__ENGINES", "wyoming"), ("STT__DEADLINE", "12s"), ("MEMORY__ENABLED", "false")];
    let url = |port| ("OFFLINE_ASR_TCP_URI", format!("tcp://127.0.0.1:{port}"));
    let server = Server::wyoming();
    let waits = ("transcription_status", BRIEF);
    Outside::new(server, "wyoming", waits, &keys, url).await.outlives_all().await;
}

#[tokio::test]
async fn a_server_that_speaks_openais_api_fails_in_every_way() {
    let keys = [
        ("LLM_PROVIDER", "openai"),
        ("OPENAI_API_KEY", KEY),
        ("OPENAI_MODEL", "qwen"),
        ("STT__MODEL", "whisper-tiny"),
        ("LLM__DEADLINE", "30s"),
    ];
    let url = |port| ("OPENAI_BASE_URL", format!("http://127.0.0.1:{port}/v1"));
    let server = Server::openai_chat();
    let waits = ("memory_processing_status", WHOLE);
    Outside::new(server, "openai", waits, &keys, url).await.outlives_all().await;
}

#[tokio::test]
async fn ollama_fails_in_every_way() {
    let server = Server::ollama();
    let pull = format!("http://{}/api/pull", server.address());
    let model = json!({"model": "some-chat", "stream": false});
    friend_lite::base::tls::install();
    let pulled = reqwest::Client::new().post(pull).json(&model).send().await.unwrap();
    assert!(pulled.status().is_success());
    let keys = [
        ("LLM_PROVIDER", "ollama"),
        ("OLLAMA_MODEL", "some-chat"),
        ("STT__MODEL", "whisper-tiny"),
        ("LLM__DEADLINE", "30s"),
    ];
    let url = |port| ("OLLAMA_BASE_URL", format!("http://127.0.0.1:{port}"));
    let waits = ("memory_processing_status", WHOLE);
    Outside::new(server, "ollama", waits, &keys, url).await.outlives_all().await;
}
