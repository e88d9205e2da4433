//! A client: REST with a bearer token, and the socket a wearable uses.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Longest wait for a model's result on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Waits until `holds`.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[derive(Clone)]
pub struct Client {
    pub url: String,
    pub token: String,
    pub http: reqwest::Client,
}

impl Client {
    pub async fn login(url: &str, email: &str, password: &str) -> Self {
        friend_lite::base::tls::install();
        let http = reqwest::Client::new();
        let response = http
            .post(format!("{url}/auth/jwt/login"))
            .form(&[("username", email), ("password", password)])
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "login as {email}");
        let body: Value = response.json().await.unwrap();
        let token = body["access_token"].as_str().unwrap().to_owned();
        Self { url: url.to_owned(), token, http }
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Status and JSON body (null where there is none).
    pub async fn call(&self, method: &str, path: &str) -> (u16, Value) {
        let response = self.request(method, path).send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// All conversations this client may see, newest first.
    pub async fn conversations(&self) -> Vec<Value> {
        self.get("/api/conversations?view=list").await["conversations"].as_array().unwrap().clone()
    }

    /// All memories this client may see.
    pub async fn memories(&self) -> Vec<Value> {
        self.get("/api/memories?limit=1000").await["memories"].as_array().unwrap().clone()
    }

    /// Records a conversation of `device`.
    pub async fn say(&self, device: &str, samples: &[i16]) {
        let mut socket = self.socket(device).await;
        socket.session(samples, 0.0).await;
        socket.close().await;
    }

    /// Waits until the only conversation is transcribed and remembered.
    pub async fn settled(&self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = self.conversations().await;
            assert!(all.len() <= 1, "one conversation expected: {all:?}");
            if let Some(id) = all.first().and_then(|c| c["conversation_id"].as_str()) {
                let one =
                    self.get(&format!("/api/conversations/{id}")).await["conversation"].clone();
                if one["transcription_status"] != "PENDING"
                    && one["memory_processing_status"] != "PENDING"
                {
                    return one;
                }
            }
            assert!(Instant::now() < deadline, "not settled in time: {all:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn socket(&self, device: &str) -> Socket {
        let url = format!(
            "{}/ws_pcm?token={}&device_name={device}",
            self.url.replace("http", "ws"),
            self.token
        );
        let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut socket = Socket { stream };
        let ready = socket.next_text().await;
        assert_eq!(ready["type"], "ready", "{ready}");
        socket
    }
}

/// An open `/ws_pcm`.
pub struct Socket {
    pub stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    pub async fn next_text(&mut self) -> Value {
        loop {
            match self.stream.next().await.expect("a message").expect("a frame") {
                Message::Text(text) => return serde_json::from_str(text.trim()).unwrap(),
                Message::Close(close) => panic!("closed: {close:?}"),
                _ => {}
            }
        }
    }

    pub async fn event(&mut self, kind: &str, payload: Option<&[u8]>) {
        let header = json!({
            "type": kind,
            "data": {"rate": 16000, "width": 2, "channels": 1},
            "version": "1.0.0",
            "payload_length": payload.map(<[u8]>::len),
        });
        self.stream.send(Message::text(format!("{header}\n"))).await.unwrap();
        if let Some(bytes) = payload {
            self.stream.send(Message::binary(bytes.to_vec())).await.unwrap();
        }
    }

    /// Sends samples as the laptop client does, `speed` times real time; 0 is
    /// as fast as it goes.
    pub async fn stream(&mut self, samples: &[i16], speed: f64) {
        let started = Instant::now();
        for (number, chunk) in samples.chunks(512).enumerate() {
            let bytes: Vec<u8> = chunk.iter().flat_map(|s| s.to_le_bytes()).collect();
            self.event("audio-chunk", Some(&bytes)).await;
            if speed > 0.0 {
                let sent = ((number + 1) * 512) as f64 / 16_000.0;
                tokio::time::sleep_until(started + Duration::from_secs_f64(sent / speed)).await;
            }
        }
    }

    /// Sends samples as the HAVPE relay does: bare binary frames.
    #[allow(dead_code, reason = "for the bench, which shares this harness")]
    pub async fn stream_bare(&mut self, samples: &[i16], speed: f64) {
        let started = Instant::now();
        for (number, chunk) in samples.chunks(512).enumerate() {
            let bytes: Vec<u8> = chunk.iter().flat_map(|s| s.to_le_bytes()).collect();
            self.stream.send(Message::binary(bytes)).await.unwrap();
            let sent = ((number + 1) * 512) as f64 / 16_000.0;
            tokio::time::sleep_until(started + Duration::from_secs_f64(sent / speed)).await;
        }
    }

    /// A whole session: start, audio, stop.
    pub async fn session(&mut self, samples: &[i16], speed: f64) {
        self.event("audio-start", None).await;
        self.stream(samples, speed).await;
        self.event("audio-stop", None).await;
    }

    /// Closes, and waits for the answer as clients do: what is still on its way
    /// when a socket is dropped need not arrive.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
        let rest = async { while let Some(Ok(_)) = self.stream.next().await {} };
        tokio::time::timeout(Duration::from_secs(10), rest).await.expect("an answer to the close");
    }
}
