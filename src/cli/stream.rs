//! `friend-lite stream`: sends a recording to a daemon over the WebSocket that a
//! wearable uses, and shows the transcript, the memories and a search.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::terminal;
use crate::audio::decode::AudioFile;
use crate::base::error::{Context, Error, Kind, Result};

/// Samples in one frame: what the laptop client sends.
const CHUNK: usize = 512;
/// How often the daemon is asked for news.
const POLL: Duration = Duration::from_millis(400);

/// Options of `friend-lite stream`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Audio file to send
    file: PathBuf,
    /// Address of the daemon
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    url: String,
    /// E-mail address to log in with
    #[arg(long, env = "ADMIN_EMAIL", default_value = "admin@example.com", value_name = "EMAIL")]
    email: String,
    /// Password to log in with
    #[arg(long, env = "ADMIN_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    password: String,
    /// Name of the device to appear as
    #[arg(long, default_value = "stream", value_name = "NAME")]
    device_name: String,
    /// Times real time; 0 sends as fast as the daemon takes it
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    speed: f64,
    /// Search for this once the memories are there
    #[arg(long, value_name = "QUERY")]
    search: Option<String>,
    /// Longest wait for the transcript and the memories, in seconds
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    wait: u64,
}

/// Streams the file, and prints what the daemon makes of it.
///
/// # Errors
/// `BadInput` for a file that is not audio, `Unauthorized` for a wrong password,
/// `Unavailable` when no daemon answers, `Timeout` when it takes too long.
pub(super) async fn run(args: Args) -> Result<()> {
    let mut source = AudioFile::open(&args.file)?;
    let mut samples = Vec::new();
    while source.read(&mut samples)? {}
    let seconds = samples.len() as f64 / f64::from(crate::domain::conversation::SAMPLE_RATE);
    let daemon = Daemon::login(&args).await?;

    let (socket, _) = tokio_tungstenite::connect_async(daemon.socket_url(&args.device_name)?)
        .await
        .with_context(Kind::Unavailable, || format!("cannot open a stream to {}", args.url))?;
    let (mut sink, mut replies) = socket.split();
    let bar = terminal::audio_bar("streaming", seconds);
    let mut shown = Shown::default();

    let format = json!({"rate": 16_000, "width": 2, "channels": 1});
    send(&mut sink, header("audio-start", &format, 0)).await?;
    let started = tokio::time::Instant::now();
    let mut asked = started;
    for (number, chunk) in samples.chunks(CHUNK).enumerate() {
        let bytes: Vec<u8> = chunk.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        send(&mut sink, header("audio-chunk", &format, bytes.len())).await?;
        send(&mut sink, Message::binary(bytes)).await?;
        let sent = (number * CHUNK + chunk.len()) as f64 / 16_000.0;
        bar.set_position(sent as u64);
        if args.speed > 0.0 {
            tokio::time::sleep_until(started + Duration::from_secs_f64(sent / args.speed)).await;
        }
        if asked.elapsed() >= POLL {
            asked = tokio::time::Instant::now();
            daemon.show_news(&mut shown, &args.device_name, &bar).await?;
        }
    }
    // The id is known only while the conversation is open: ask once before.
    while shown.conversation.is_none() && started.elapsed() < Duration::from_secs(args.wait) {
        daemon.show_news(&mut shown, &args.device_name, &bar).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if samples.is_empty() {
            break;
        }
    }
    send(&mut sink, header("audio-stop", &json!({"timestamp": null}), 0)).await?;
    // The daemon closes in answer once it has read everything before.
    let _ = sink.close().await;
    let drained = async { while replies.next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(10), drained).await;
    bar.finish_and_clear();
    let stopped = tokio::time::Instant::now();

    let limit = Duration::from_secs(args.wait);
    let spinner = waiting("transcribing");
    let outcome = daemon.wait_for(&mut shown, "transcription_status", limit, &spinner).await?;
    spinner.finish_and_clear();
    println!(
        "transcript {} {:.1} s after the end of {seconds:.1} s of audio",
        outcome.to_lowercase(),
        stopped.elapsed().as_secs_f64()
    );
    let spinner = waiting("remembering");
    let outcome = daemon.wait_for(&mut shown, "memory_processing_status", limit, &spinner).await?;
    spinner.finish_and_clear();
    println!("memory {} {:.1} s after it", outcome.to_lowercase(), stopped.elapsed().as_secs_f64());
    daemon.print_memories(&shown).await?;
    if let Some(query) = &args.search {
        daemon.print_search(query).await?;
    }
    Ok(())
}

fn header(kind: &str, data: &Value, payload: usize) -> Message {
    let payload = (payload > 0).then_some(payload);
    let header = json!({"type": kind, "data": data, "version": "1.0.0", "payload_length": payload});
    Message::text(format!("{header}\n"))
}

async fn send<S>(sink: &mut S, message: Message) -> Result<()>
where
    S: SinkExt<Message, Error = tokio_tungstenite::tungstenite::Error> + Unpin,
{
    sink.send(message).await.context(Kind::Unavailable, "the daemon ended the stream")
}

fn waiting(what: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

/// What has been printed so far.
#[derive(Default)]
struct Shown {
    conversation: Option<String>,
    segments: usize,
}

/// A daemon, logged in to.
struct Daemon {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Daemon {
    async fn login(args: &Args) -> Result<Self> {
        crate::base::tls::install();
        let url = args.url.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .context(Kind::Internal, "cannot start an HTTP client")?;
        let response = http
            .post(format!("{url}/auth/jwt/login"))
            .form(&[("username", &args.email), ("password", &args.password)])
            .send()
            .await
            .with_context(Kind::Unavailable, || {
                format!("no daemon answers at {url}; start one with `friend-lite run`")
            })?;
        if !response.status().is_success() {
            return Err(Error::new(
                Kind::Unauthorized,
                format!(
                    "cannot log in as {}: {}",
                    args.email,
                    response.text().await.unwrap_or_default()
                ),
            ));
        }
        let body: Value =
            response.json().await.context(Kind::Unavailable, "the login answer cannot be read")?;
        let token = text(&body, "/access_token").to_owned();
        Ok(Self { http, url, token })
    }

    fn socket_url(&self, device: &str) -> Result<String> {
        let mut url = reqwest::Url::parse(&format!("{}/ws_pcm", self.url))
            .with_context(Kind::BadInput, || format!("`{}` is not an address", self.url))?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.query_pairs_mut().append_pair("token", &self.token).append_pair("device_name", device);
        url.set_scheme(scheme).map_err(|()| {
            Error::new(Kind::BadInput, format!("`{}` is not an http address", self.url))
        })?;
        Ok(url.into())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), query)
            .with_context(Kind::BadInput, || format!("`{}` is not an address", self.url))?;
        let response = self
            .http
            .get(url)
            .bearer_auth(&self.token)
            .send()
            .await
            .context(Kind::Unavailable, "the daemon does not answer")?;
        let status = response.status();
        if !status.is_success() {
            let body = response.text().await.unwrap_or_default();
            return Err(Error::new(Kind::Unavailable, format!("{path} answered {status}: {body}")));
        }
        response
            .json()
            .await
            .with_context(Kind::Unavailable, || format!("{path}: the answer is not JSON"))
    }

    /// Prints the segments that have come since the last call.
    async fn show_news(&self, shown: &mut Shown, device: &str, bar: &ProgressBar) -> Result<()> {
        if shown.conversation.is_none() {
            let active = self.get("/api/clients/active", &[]).await?;
            let clients = active.get("active_clients").and_then(Value::as_array);
            shown.conversation = clients
                .into_iter()
                .flatten()
                .filter(|client| text(client, "/client_id").contains(device))
                .find_map(|client| client.get("current_audio_uuid")?.as_str().map(str::to_owned));
        }
        if shown.conversation.is_some() {
            self.show_segments(shown, bar).await?;
        }
        Ok(())
    }

    async fn show_segments(&self, shown: &mut Shown, bar: &ProgressBar) -> Result<Value> {
        let id = shown.conversation.as_deref().unwrap_or_default();
        let body = self.get(&format!("/api/conversations/{id}"), &[]).await?;
        let segments = body.pointer("/conversation/segments").and_then(Value::as_array);
        for segment in segments.into_iter().flatten().skip(shown.segments) {
            let at = segment.get("start").and_then(Value::as_f64).unwrap_or_default();
            let line = format!("{at:8.2}  {}", text(segment, "/text"));
            bar.suspend(|| println!("{line}"));
            shown.segments += 1;
        }
        Ok(body)
    }

    /// Waits until a status of the conversation is a final one.
    async fn wait_for(
        &self,
        shown: &mut Shown,
        field: &str,
        limit: Duration,
        bar: &ProgressBar,
    ) -> Result<String> {
        let started = tokio::time::Instant::now();
        loop {
            let body = self.show_segments(shown, bar).await?;
            let status = text(&body, &format!("/conversation/{field}"));
            if status != "PENDING" && !status.is_empty() {
                return Ok(status.to_owned());
            }
            if started.elapsed() > limit {
                return Err(Error::new(
                    Kind::Timeout,
                    format!(
                        "still waiting after {} s; the daemon goes on working",
                        limit.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn print_memories(&self, shown: &Shown) -> Result<()> {
        let body = self.get("/api/memories", &[("limit", "100")]).await?;
        let all = body.get("memories").and_then(Value::as_array);
        let id = shown.conversation.as_deref().unwrap_or_default();
        println!("\nmemories:");
        let mut none = true;
        for memory in all.into_iter().flatten().filter(|m| text(m, "/metadata/audio_uuid") == id) {
            println!("  - {}", text(memory, "/memory"));
            none = false;
        }
        if none {
            println!("  (nothing new)");
        }
        Ok(())
    }

    async fn print_search(&self, query: &str) -> Result<()> {
        let body = self.get("/api/memories/search", &[("query", query), ("limit", "3")]).await?;
        println!("\nsearch for \"{query}\":");
        for hit in body.get("results").and_then(Value::as_array).into_iter().flatten() {
            let score = hit.get("score").and_then(Value::as_f64).unwrap_or_default();
            println!("  {score:.2}  {}", text(hit, "/memory"));
        }
        Ok(())
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
