//! Audio over a WebSocket: Wyoming events whose payload is PCM or an Opus
//! packet, or either of them bare.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::SinkExt;
use tokio::time::{Sleep, sleep, timeout};

use super::Ingest;
use super::frame::{self, Event, Format, Payload};
use super::session::{Session, Successor};
use crate::audio::pcm::PcmFormat;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::CloseReason;
use crate::domain::user::User;

/// The longest time between pings of ours.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Time a client has to take a message from us, or to answer a close.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time a connection has to prove that it is alive when its device seems to have
/// made another one, and how long what was under way before may still come in. It
/// is asked after that: a client that has gone answers with a reset, and drops
/// what it had yet to send.
const PROBE: Duration = Duration::from_secs(2);
const PROBE_SETTLE: Duration = Duration::from_millis(500);
/// An Opus packet of so few bytes holds nothing: existing clients send such, and
/// existing servers skip them.
const EMPTY_PACKET: usize = 3;
/// What Bluetooth puts before a packet: its number, and an index.
const BLE_HEADER: usize = 3;
/// Complaints one connection gets; a client that reads none of them gets no more.
const MAX_COMPLAINTS: u32 = 100;

/// Close codes of RFC 6455.
const GOING_AWAY: u16 = 1001;
const INTERNAL_ERROR: u16 = 1011;
const TRY_AGAIN_LATER: u16 = 1013;

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// What audio is in: payloads and bare frames alike.
    pub codec: Codec,
    /// Whether a `ready` message is sent at the start. Some clients wait for it.
    pub greets: bool,
    /// Whether audio-start and audio-stop count.
    pub boundaries: bool,
}

/// What audio is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// PCM, of the format that events tell, else [`PcmFormat::SPEECH`].
    Pcm,
    /// One bare Opus packet a frame; formats that events tell mean nothing.
    Opus,
}

impl Protocol {
    /// `/ws_pcm`.
    pub const PCM: Self = Self { codec: Codec::Pcm, greets: true, boundaries: true };
    /// `/ws_omi`.
    pub const OMI: Self = Self { codec: Codec::Opus, greets: false, boundaries: true };
    /// `/ws` of old devices.
    pub const LEGACY: Self = Self { codec: Codec::Opus, greets: false, boundaries: false };
}

/// Why a connection ended.
enum Ending {
    /// Its device is on another one.
    Replaced(Successor),
    /// The client left, or was cut off.
    Disconnect,
    /// Nothing came for too long.
    Silent,
    /// The daemon stops.
    Shutdown,
    /// The audio cannot be taken.
    Failed(Error),
}

/// Serves one socket until it ends. Its conversation is closed by then, or waits
/// for the device to come back.
pub async fn serve(
    mut socket: WebSocket,
    protocol: Protocol,
    ingest: Arc<Ingest>,
    user: User,
    device: Option<String>,
) {
    let session = match ingest.connect(&user, device.as_deref()).await {
        Ok(session) => session,
        Err(error) => {
            tracing::warn!("stream refused: {}", error.report());
            return refuse(&mut socket, &error).await;
        }
    };
    let mut connection = Connection {
        last_heard: ingest.clock.monotonic(),
        last_audio: None,
        socket,
        protocol,
        ble_header: ingest.config.server.opus_ble_header,
        session,
        expected: None,
        challenge: None,
        complaints: 0,
    };
    let ending = connection.run(&ingest).await;
    let Connection { mut socket, session, challenge, .. } = connection;
    let ending = match (ending, challenge) {
        // That it has ended is an answer too.
        (Ending::Disconnect | Ending::Silent, Some(challenge)) => {
            Ending::Replaced(challenge.successor)
        }
        (ending, _) => ending,
    };
    let client = session.client_id().clone();
    match ending {
        Ending::Disconnect => session.lost().await,
        Ending::Replaced(successor) => {
            tracing::info!(%client, "the device is back on another connection");
            if let Some(session) = session.hand_over(successor).await {
                session.lost().await;
            }
            close(&mut socket, GOING_AWAY, "this device has connected again").await;
        }
        Ending::Silent => {
            tracing::warn!(%client, "no sign of life, connection ended");
            session.end(CloseReason::Disconnect).await;
            close(&mut socket, GOING_AWAY, "nothing was heard for too long").await;
        }
        Ending::Shutdown => {
            session.end(CloseReason::Shutdown).await;
            close(&mut socket, GOING_AWAY, "the server is stopping").await;
        }
        Ending::Failed(error) => {
            tracing::error!(%client, "audio cannot be taken: {}", error.report());
            session.end(CloseReason::Disconnect).await;
            refuse(&mut socket, &error).await;
        }
    }
}

/// One client.
struct Connection {
    socket: WebSocket,
    protocol: Protocol,
    /// Whether Opus packets come behind a [`BLE_HEADER`].
    ble_header: bool,
    session: Session,
    /// What the next binary frame is, when an event announced it: audio of that
    /// format, or something to skip.
    expected: Option<Expected>,
    challenge: Option<Challenge>,
    last_heard: Duration,
    /// When audio came last, unless what it was part of is over.
    last_audio: Option<Duration>,
    complaints: u32,
}

/// Somebody who says to be this device. A pong that answers `nonce`, or audio
/// that goes on, shows that it is still here, and the other one is another.
struct Challenge {
    successor: Successor,
    since: Duration,
    /// What it was asked, once it was.
    nonce: Option<[u8; 8]>,
}

impl Challenge {
    /// When the client is to be asked, or to have answered.
    fn due(&self) -> Duration {
        self.since + if self.nonce.is_none() { PROBE_SETTLE } else { PROBE }
    }
}

enum Expected {
    Audio(Option<PcmFormat>),
    Nothing,
}

/// Wakes the connection at the earliest of its times.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at: Duration,
}

impl Alarm {
    fn set(&mut self, now: Duration, at: Duration) {
        self.at = at;
        self.sleep.set(sleep(at.saturating_sub(now)));
    }
}

impl Connection {
    async fn run(&mut self, ingest: &Ingest) -> Ending {
        let ready = r#"{"type":"ready","message":"WebSocket connection established"}"#;
        if self.protocol.greets
            && !send(&mut self.socket, Message::Text(format!("{ready}\n").into())).await
        {
            return Ending::Disconnect;
        }
        let clock = &ingest.clock;
        let limit = ingest.config.server.stream_timeout.get();
        let lull = ingest.config.conversation.silence_timeout.get();
        let interval = PING_INTERVAL.min(limit / 3);
        let token = ingest.supervisor.stop_token();
        let mut stopped = std::pin::pin!(token.cancelled());
        let mut next_ping = self.last_heard + interval;
        let mut alarm = Alarm { sleep: Box::pin(sleep(interval)), at: next_ping };
        loop {
            let outcome = tokio::select! {
                message = self.socket.recv() => {
                    let mut audio = false;
                    let outcome = match message {
                        Some(Ok(Message::Text(text))) => self.on_text(&text).await,
                        Some(Ok(Message::Binary(bytes))) => {
                            audio = true;
                            self.on_binary(&bytes).await
                        }
                        Some(Ok(Message::Ping(_))) => Ok(()),
                        Some(Ok(Message::Pong(nonce))) => {
                            self.challenge.take_if(|challenge| {
                                challenge.nonce.is_some_and(|asked| nonce[..] == asked)
                            });
                            Ok(())
                        }
                        Some(Ok(Message::Close(_))) => {
                            // The library's answer waits to be sent: without it the
                            // phone app takes the end for a loss, and connects again.
                            let _ = timeout(SEND_TIMEOUT, self.socket.flush()).await;
                            return Ending::Disconnect;
                        }
                        Some(Err(_)) | None => return Ending::Disconnect,
                    };
                    // After it is dealt with: our own slowness is not the client's silence.
                    self.last_heard = clock.monotonic();
                    if audio {
                        self.last_audio = Some(self.last_heard);
                    }
                    outcome
                }
                request = self.session.next_request() => {
                    match request.into_successor() {
                        Ok(successor) => {
                            let now = clock.monotonic();
                            self.challenge = Some(Challenge { successor, since: now, nonce: None });
                            alarm.set(now, alarm.at.min(now + PROBE_SETTLE));
                        }
                        Err(request) => self.session.fulfil(request).await,
                    }
                    Ok(())
                }
                () = alarm.sleep.as_mut() => {
                    let now = clock.monotonic();
                    if let Some(successor) = self.unanswered(now) {
                        return Ending::Replaced(successor);
                    }
                    if !self.probe(now).await {
                        return Ending::Disconnect;
                    }
                    if now.saturating_sub(self.last_heard) >= limit {
                        return Ending::Silent;
                    }
                    if now >= next_ping {
                        next_ping = now + interval;
                        if !send(&mut self.socket, Message::Ping(Default::default())).await {
                            return Ending::Disconnect;
                        }
                    }
                    if self.last_audio.is_some_and(|last| now >= last + lull) {
                        // It answers, and sends nothing to be kept.
                        self.last_audio = None;
                        self.session.lull().await;
                    }
                    let probed = self.challenge.as_ref().map(Challenge::due);
                    let over = self.last_audio.map(|last| last + lull);
                    let next = [probed, over].into_iter().flatten();
                    alarm.set(now, next.fold(next_ping.min(self.last_heard + limit), Duration::min));
                    self.session.poll()
                }
                () = &mut stopped => return Ending::Shutdown,
            };
            if let Err(error) = outcome {
                return Ending::Failed(error);
            }
            if let Some(due) = self.session.due_in() {
                let now = clock.monotonic();
                if now + due < alarm.at {
                    alarm.set(now, now + due);
                }
            }
        }
    }

    /// Asks a client whether it is there, when it is time. False when it is gone.
    async fn probe(&mut self, now: Duration) -> bool {
        match &mut self.challenge {
            Some(challenge) if challenge.nonce.is_none() && now >= challenge.due() => {
                let nonce: [u8; 8] = rand::random();
                challenge.nonce = Some(nonce);
                send(&mut self.socket, Message::Ping(nonce.to_vec().into())).await
            }
            _ => true,
        }
    }

    /// The successor, when the client has had its time and shown no life.
    fn unanswered(&mut self, now: Duration) -> Option<Successor> {
        let challenge = self.challenge.take_if(|challenge| now >= challenge.since + PROBE)?;
        (self.last_heard < challenge.since + PROBE_SETTLE).then_some(challenge.successor)
    }

    /// Takes audio in whatever it is in. What cannot be audio is told, and costs
    /// nothing but itself.
    async fn audio(&mut self, bytes: &[u8], format: Option<PcmFormat>) -> Result<()> {
        let taken = match self.protocol.codec {
            Codec::Pcm => self.session.audio(bytes, format).await,
            Codec::Opus if bytes.len() <= EMPTY_PACKET => Ok(()),
            Codec::Opus => {
                let header = if self.ble_header { BLE_HEADER } else { 0 };
                self.session.opus(bytes.get(header..).unwrap_or_default()).await
            }
        };
        match taken {
            Err(error) if error.kind() == Kind::BadInput => {
                self.complain(&error).await;
                Ok(())
            }
            other => other,
        }
    }

    async fn on_text(&mut self, mut text: &str) -> Result<()> {
        loop {
            match frame::text(text) {
                Ok((event, payload, rest)) => {
                    self.on_event(event, payload).await?;
                    text = rest;
                }
                Err(error) => {
                    self.complain(&error).await;
                    return Ok(());
                }
            }
            if text.is_empty() {
                return Ok(());
            }
        }
    }

    async fn on_binary(&mut self, mut bytes: &[u8]) -> Result<()> {
        match self.expected.take() {
            Some(Expected::Audio(format)) => return self.audio(bytes, format).await,
            Some(Expected::Nothing) => return Ok(()),
            None => {}
        }
        let Ok(mut found) = frame::binary(bytes) else {
            return self.audio(bytes, None).await;
        };
        loop {
            let (event, payload, rest) = found;
            self.on_event(event, payload).await?;
            bytes = rest;
            if bytes.is_empty() {
                return Ok(());
            }
            found = match frame::binary(bytes) {
                Ok(found) => found,
                Err(error) => {
                    self.complain(&error).await;
                    return Ok(());
                }
            };
        }
    }

    async fn on_event(&mut self, event: Event, payload: Payload<'_>) -> Result<()> {
        match event {
            Event::AudioStart(format) if self.protocol.boundaries => {
                if let Ok(format) = self.checked(format).await {
                    self.session.audio_start(format.unwrap_or(PcmFormat::SPEECH));
                }
            }
            Event::AudioChunk(format) => {
                if payload == Payload::None {
                    return Ok(());
                }
                match (self.checked(format).await, payload) {
                    (Ok(format), Payload::Here(bytes)) => {
                        return self.audio(bytes, format).await;
                    }
                    (Ok(format), _) => {
                        self.expected = Some(Expected::Audio(format));
                        return Ok(());
                    }
                    // Told already; its payload is skipped below.
                    (Err(()), _) => {}
                }
            }
            Event::AudioStop if self.protocol.boundaries => self.session.audio_stop().await,
            Event::AudioStart(_) | Event::AudioStop | Event::Other => {}
        }
        if payload == Payload::Next {
            self.expected = Some(Expected::Nothing);
        }
        Ok(())
    }

    /// The format, unless it is nonsense; the client is told then.
    async fn checked(&mut self, format: Format) -> std::result::Result<Option<PcmFormat>, ()> {
        if self.protocol.codec == Codec::Opus {
            return Ok(None);
        }
        match format.pcm() {
            Ok(format) => Ok(format),
            Err(error) => {
                self.complain(&error).await;
                Err(())
            }
        }
    }

    /// Tells the client that a frame was ignored.
    async fn complain(&mut self, error: &Error) {
        self.complaints += 1;
        if self.complaints <= MAX_COMPLAINTS {
            tracing::debug!(client = %self.session.client_id(), "frame ignored: {}", error.report());
            // One that cannot be sent shows at the next receive.
            send(&mut self.socket, error_message("invalid_frame", error.message(), None)).await;
        }
    }
}

/// Says why audio is not taken, and closes.
async fn refuse(socket: &mut WebSocket, error: &Error) {
    let (name, code) = match error.kind() {
        Kind::NoSpace => ("disk_full", TRY_AGAIN_LATER),
        Kind::Busy => ("too_many_streams", TRY_AGAIN_LATER),
        _ if error.is_transient() => ("unavailable", TRY_AGAIN_LATER),
        _ => ("internal_error", INTERNAL_ERROR),
    };
    // Paths and other internals stay in the log.
    let reason = match error.kind() {
        Kind::NoSpace => "the disk is full: audio is not accepted until there is room",
        Kind::Busy | Kind::Unavailable | Kind::Away => error.message(),
        _ if error.is_transient() => "audio cannot be recorded now; try again",
        _ => "audio cannot be recorded",
    };
    send(socket, error_message(name, reason, Some(code))).await;
    close(socket, code, reason).await;
}

fn error_message(name: &str, message: &str, code: Option<u16>) -> Message {
    let mut body = serde_json::json!({"type": "error", "error": name, "message": message});
    if let (Some(code), Some(body)) = (code, body.as_object_mut()) {
        body.insert("code".into(), code.into());
    }
    Message::Text(format!("{body}\n").into())
}

/// Sends, unless the client does not take it in time. False when it is gone.
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(SEND_TIMEOUT, socket.send(message)).await, Ok(Ok(())))
}

/// Closes from our side, and gives the client a moment to answer: dropping a
/// socket with unread data resets it, and the reason would not arrive.
async fn close(socket: &mut WebSocket, code: u16, reason: &str) {
    // A close frame holds at most 123 bytes of reason.
    let reason: String = reason.chars().filter(char::is_ascii).take(120).collect();
    let frame = CloseFrame { code, reason: Utf8Bytes::from(reason) };
    if send(socket, Message::Close(Some(frame))).await {
        let _ =
            timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = socket.recv().await {} }).await;
    }
}

#[cfg(test)]
#[path = "ws_tests.rs"]
mod tests;
