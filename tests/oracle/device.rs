//! A device that talks in numbered audio, faster than real time, and comes back
//! whenever the daemon does. What was sent once is never sent again.

use std::time::Duration;

use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::numbered::{BLOCK, SECOND, Voice};

/// Samples of one message: whole blocks, and whole frames of the detector.
const CHUNK: usize = 9 * BLOCK;

/// Where the daemon is and what it is to be told.
#[derive(Clone)]
pub struct Target {
    pub url: watch::Receiver<String>,
    pub token: String,
    pub end: tokio_util::sync::CancellationToken,
}

pub struct Device {
    number: u16,
    target: Target,
    random: StdRng,
    voice: Voice,
    /// The next second to send.
    second: u32,
    speed: f64,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Device {
    pub fn new(number: u16, target: Target, seed: u64, speed: f64) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_add(u64::from(number)));
        Self { number, target, random, voice: Voice::new(), second: 0, speed }
    }

    /// Talks until told to end.
    pub async fn run(mut self) {
        while !self.target.end.is_cancelled() {
            let url = format!(
                "{}/ws_pcm?token={}&device_name=d{}",
                self.target.url.borrow().replace("http", "ws"),
                self.target.token,
                self.number,
            );
            if let Ok((socket, _)) = tokio_tungstenite::connect_async(url).await {
                // A killed daemon is what this is about.
                let _ = self.session(socket).await;
            }
            tokio::time::sleep(Duration::from_millis(self.random.random_range(10..120))).await;
        }
    }

    /// Some conversations over one connection, in the ways devices have.
    async fn session(&mut self, mut socket: Socket) -> Result<(), Error> {
        let bounded = self.random.random_bool(0.6);
        for _ in 0..self.random.random_range(1..4) {
            if bounded {
                event(&mut socket, "audio-start").await?;
            }
            for _ in 0..self.random.random_range(1..6) {
                self.utter(&mut socket, bounded).await?;
                if self.target.end.is_cancelled() {
                    break;
                }
            }
            if bounded {
                event(&mut socket, "audio-stop").await?;
            }
        }
        // Some say goodbye, some just vanish.
        if self.random.random_bool(0.7) {
            socket.close(None).await?;
        }
        Ok(())
    }

    /// A few seconds of talk and a pause after it, now and then a long one.
    async fn utter(&mut self, socket: &mut Socket, bounded: bool) -> Result<(), Error> {
        let mut samples = Vec::new();
        for _ in 0..self.random.random_range(1..12) {
            samples.extend(self.voice.second(self.number, self.second));
            self.second += 1;
        }
        let longest = if self.random.random_bool(0.1) { 7.0 } else { 1.5 };
        let pause = (self.random.random_range(0.0..longest) * SECOND as f64) as usize;
        samples.resize((samples.len() + pause).next_multiple_of(CHUNK), 0);
        let started = Instant::now();
        for (number, chunk) in (1..).zip(samples.chunks(CHUNK)) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|s| s.to_le_bytes()).collect();
            if bounded {
                let header = r#"{"type":"audio-chunk","data":{"rate":16000,"width":2,"channels":1},"payload_length":"#;
                socket.feed(Message::text(format!("{header}{}}}\n", bytes.len()))).await?;
            }
            socket.send(Message::binary(bytes)).await?;
            let sent = (number * CHUNK) as f64 / SECOND as f64;
            tokio::time::sleep_until(started + Duration::from_secs_f64(sent / self.speed)).await;
        }
        Ok(())
    }
}

async fn event(socket: &mut Socket, kind: &str) -> Result<(), Error> {
    let event =
        format!("{{\"type\":\"{kind}\",\"data\":{{\"rate\":16000,\"width\":2,\"channels\":1}}}}\n");
    socket.send(Message::text(event)).await
}
