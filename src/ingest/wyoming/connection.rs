//! One peer: its events, and what they lead to.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::codec::Framed;

use super::Service;
use crate::audio::pcm::PcmFormat;
use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::conversation::CloseReason;
use crate::ingest::asr::Request;
use crate::ingest::frame::Format;
use crate::ingest::session::{self, Session, next_request};
use crate::wyoming::event::{
    AudioChunk, AudioStart, AudioStop, Body, Describe, Event, Failure, Ping, Pong, Transcribe,
    Transcript, TranscriptChunk, TranscriptStart, TranscriptStop,
};
use crate::wyoming::{Codec, FrameError, Limits};

/// The longest parts of an event: 30 s of audio as one chunk.
const LIMITS: Limits = Limits { header: 64 << 10, data: 1 << 20, payload: 1 << 20 };
/// The first version of the protocol with transcripts in pieces.
const STREAMING_SINCE: (u32, u32) = (1, 7);
/// Time a peer has to take an event from us, or to answer a close.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Events one connection may have refused before it is ended.
pub(super) const MAX_COMPLAINTS: u32 = 100;
/// A peer that was quiet for so long, and whose device seems to be back on
/// another connection, is taken for lost: satellites ping more often.
const LOST: Duration = Duration::from_secs(3);

/// Why a connection ended.
pub(super) enum Ending {
    /// The peer left, or was cut off.
    Disconnect,
    /// All was said: a failed request is over.
    Done,
    /// Nothing came for too long.
    Silent,
    /// The daemon stops.
    Shutdown,
    /// What it sent, or asked for, cannot be taken.
    Refused(Error),
}

/// One peer.
pub(super) struct Connection<'a> {
    service: &'a Service,
    peer: SocketAddr,
    framed: Framed<TcpStream, Codec>,
    request: Option<Request>,
    /// Pieces of its transcript that were sent.
    told: usize,
    /// The request under way was answered with an error; its audio is dropped.
    failed: bool,
    /// The first event of the next request: it waits for the answer to this one.
    held: Option<Event>,
    /// Made with the first audio to record.
    session: Option<Session>,
    complaints: u32,
    last_heard: Duration,
    /// When audio to record last came.
    last_audio: Option<Duration>,
}

type Outcome = std::result::Result<(), Ending>;

impl<'a> Connection<'a> {
    pub(super) fn new(service: &'a Service, stream: TcpStream, peer: SocketAddr) -> Self {
        Self {
            service,
            peer,
            framed: Framed::new(stream, Codec::new(LIMITS)),
            request: None,
            told: 0,
            failed: false,
            held: None,
            session: None,
            complaints: 0,
            last_heard: service.ingest.clock.monotonic(),
            last_audio: None,
        }
    }

    /// Serves the peer until there is a reason to end.
    pub(super) async fn run(&mut self) -> Ending {
        let clock = self.service.ingest.clock.clone();
        let stop = self.service.ingest.supervisor.stop_token();
        loop {
            let due_in = self.due_in(clock.monotonic());
            let outcome = tokio::select! {
                event = self.framed.next(), if self.held.is_none() => {
                    let outcome = match event {
                        Some(Ok(event)) => self.on_event(event).await,
                        Some(Err(FrameError::Io(_) | FrameError::Incomplete)) | None => {
                            Err(Ending::Disconnect)
                        }
                        Some(Err(error)) => Err(Ending::Refused(error.into())),
                    };
                    // After it is dealt with: our own slowness is not the peer's silence.
                    self.last_heard = clock.monotonic();
                    outcome
                }
                part = next_part(&mut self.request) => self.on_part(part).await,
                request = next_request(&mut self.session) => {
                    self.on_request(request, clock.monotonic()).await;
                    Ok(())
                }
                () = sleep(due_in) => self.on_time(clock.monotonic()).await,
                () = stop.cancelled() => Err(Ending::Shutdown),
            };
            if let Err(ending) = outcome {
                return ending;
            }
        }
    }

    /// Time until something is to be done though nothing comes.
    fn due_in(&self, now: Duration) -> Duration {
        let session = self.session.as_ref();
        let sync = session.and_then(Session::due_in).unwrap_or(Duration::MAX);
        let lull = self.lull_at().map_or(Duration::MAX, |at| at.saturating_sub(now));
        let silent = self.silent_at().map_or(Duration::MAX, |at| at.saturating_sub(now));
        sync.min(lull).min(silent)
    }

    /// When a peer that sends nothing more is given up: soon in the middle of
    /// audio or of an event; not while it waits for us.
    fn silent_at(&self) -> Option<Duration> {
        let config = &self.service.ingest.config;
        let listening = self.request.as_ref().is_some_and(Request::is_listening);
        let limit = if listening || self.failed || !self.framed.codec().is_between_events() {
            config.server.stream_timeout
        } else if self.request.is_some() {
            return None;
        } else {
            config.wyoming.idle_timeout
        };
        Some(self.last_heard + limit.get())
    }

    /// When recorded audio has been away for so long that its conversation is over.
    fn lull_at(&self) -> Option<Duration> {
        let limit = self.service.ingest.config.conversation.silence_timeout;
        self.last_audio.map(|last| last + limit.get())
    }

    async fn on_time(&mut self, now: Duration) -> Outcome {
        if self.silent_at().is_some_and(|at| now >= at) {
            return Err(Ending::Silent);
        }
        let over = self.lull_at().is_some_and(|at| now >= at);
        let Some(session) = &mut self.session else { return Ok(()) };
        if over {
            self.last_audio = None;
            session.lull().await;
        }
        session.poll().map_err(Ending::Refused)
    }

    /// Something was asked of the session from outside.
    async fn on_request(&mut self, request: session::Request, now: Duration) {
        let Some(mut session) = self.session.take() else { return };
        self.session = match request.into_successor() {
            Ok(successor) if now >= self.last_heard + LOST => session.hand_over(successor).await,
            // This peer is alive; the other one is another.
            Ok(_) => Some(session),
            Err(request) => {
                session.fulfil(request).await;
                Some(session)
            }
        };
    }

    async fn on_event(&mut self, event: Event) -> Outcome {
        let begins = matches!(event.kind.as_str(), Transcribe::KIND | AudioStart::KIND)
            || event.kind == AudioChunk::KIND;
        if begins && self.request.as_ref().is_some_and(|request| !request.is_listening()) {
            self.held = Some(event);
            return Ok(());
        }
        match event.kind.as_str() {
            Describe::KIND => self.send(&self.service.info()).await,
            Ping::KIND => {
                let text = event.body::<Ping>().unwrap_or_default().text;
                self.send(&Pong { text }).await
            }
            Transcribe::KIND => match event.body::<Transcribe>() {
                Ok(asked) => self.ask(asked).await,
                Err(error) => self.complain(&error).await,
            },
            AudioStart::KIND => match format(&event) {
                Ok(format) => self.start(format.unwrap_or(PcmFormat::SPEECH)).await,
                Err(error) => self.refuse(&error).await,
            },
            AudioChunk::KIND => match format(&event) {
                Ok(format) => self.audio(&event.payload, format).await,
                Err(error) => self.refuse(&error).await,
            },
            AudioStop::KIND => self.stop().await,
            // Other peers say more: satellites, voice pipelines.
            _ => Ok(()),
        }
    }

    /// Whether audio that comes now is a request's.
    fn is_request(&self) -> bool {
        let nobody = self.service.ingest.config.wyoming.user.is_empty();
        self.request.is_some() || self.failed || nobody
    }

    /// A request was announced: what stands in its way is said at once.
    async fn ask(&mut self, asked: Transcribe) -> Outcome {
        // One that had begun and was not ended is given up.
        self.request = None;
        self.failed = false;
        self.begin(asked.language.as_deref()).await
    }

    /// Begins a request, unless one is under way.
    async fn begin(&mut self, language: Option<&str>) -> Outcome {
        if self.request.is_some() || self.failed {
            return Ok(());
        }
        let Service { ingest, stt, .. } = self.service;
        let config = &ingest.config;
        let request = Request::new(
            stt,
            language,
            &config.transcribe,
            config.wyoming.max_length,
            &ingest.supervisor,
        );
        self.told = 0;
        match request {
            Ok(request) => {
                self.request = Some(request);
                Ok(())
            }
            Err(error) => self.fail(&error).await,
        }
    }

    async fn start(&mut self, format: PcmFormat) -> Outcome {
        if self.is_request() {
            self.begin(None).await?;
            if let Some(request) = &mut self.request {
                request.start(format);
            }
            return Ok(());
        }
        self.session().await?.audio_start(format);
        Ok(())
    }

    async fn audio(&mut self, bytes: &[u8], format: Option<PcmFormat>) -> Outcome {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.is_request() {
            self.begin(None).await?;
            let Some(request) = &mut self.request else { return Ok(()) };
            let stop = self.service.ingest.supervisor.stop_token();
            // While the request waits for the engine, so does the peer.
            let taken = tokio::select! {
                taken = request.audio(bytes, format) => taken,
                () = stop.cancelled() => return Err(Ending::Shutdown),
            };
            return match taken {
                Ok(()) => Ok(()),
                Err(error) => self.fail(&error).await,
            };
        }
        let recorded = self.session().await?.audio(bytes, format).await;
        self.last_audio = Some(self.service.ingest.clock.monotonic());
        match recorded {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == Kind::BadInput => self.complain(&error).await,
            Err(error) => Err(Ending::Refused(error)),
        }
    }

    async fn stop(&mut self) -> Outcome {
        if self.failed {
            return Err(Ending::Done);
        }
        if let Some(request) = &mut self.request {
            let stop = self.service.ingest.supervisor.stop_token();
            let finished = tokio::select! {
                finished = request.finish() => finished,
                () = stop.cancelled() => return Err(Ending::Shutdown),
            };
            if let Err(error) = finished {
                self.fail(&error).await?;
                return Err(Ending::Done);
            }
        } else if let Some(session) = &mut self.session {
            self.last_audio = None;
            session.audio_stop().await;
        }
        Ok(())
    }

    /// The session that records, begun with its first audio.
    async fn session(&mut self) -> std::result::Result<&mut Session, Ending> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let Service { ingest, names, .. } = self.service;
                let config = &ingest.config.wyoming;
                let device = names.of(&config.device, self.peer);
                let session = ingest.connect_configured(&config.user, "wyoming.user", &device);
                session.await.map_err(Ending::Refused)?
            }
        };
        Ok(self.session.insert(session))
    }

    /// Some of the transcript is there, or all of it.
    async fn on_part(&mut self, part: Result<Option<String>>) -> Outcome {
        let Some(request) = &self.request else { return Ok(()) };
        let listening = request.is_listening();
        let pieces = self.framed.codec().peer_version().is_some_and(|v| v >= STREAMING_SINCE);
        let heard = request.heard();
        let start = TranscriptStart { language: heard.language.clone() };
        match part {
            Ok(Some(text)) => {
                if !pieces || text.is_empty() {
                    return Ok(());
                }
                self.told += 1;
                if self.told == 1 {
                    self.send(&start).await?;
                    return self.send(&TranscriptChunk { text }).await;
                }
                self.send(&TranscriptChunk { text: format!(" {text}") }).await
            }
            Ok(None) => {
                let transcript = Transcript {
                    text: heard.text(),
                    language: heard.language.clone(),
                    segments: heard.segments.clone(),
                    is_final: None,
                };
                self.request = None;
                if pieces && self.told == 0 {
                    self.send(&start).await?;
                }
                self.send(&transcript).await?;
                if pieces {
                    self.send(&TranscriptStop {}).await?;
                }
                match self.held.take() {
                    Some(event) => Box::pin(self.on_event(event)).await,
                    None => Ok(()),
                }
            }
            Err(error) => {
                self.fail(&error).await?;
                // Its audio is over; there is nothing to wait for.
                if listening { Ok(()) } else { Err(Ending::Done) }
            }
        }
    }

    /// Audio makes no sense: a request can come to nothing any more, what is
    /// recorded goes on without it.
    async fn refuse(&mut self, error: &Error) -> Outcome {
        if !self.is_request() {
            return self.complain(error).await;
        }
        if self.failed { Ok(()) } else { self.fail(error).await }
    }

    /// Answers the request with an error. Its audio, up to its end, is dropped.
    async fn fail(&mut self, error: &Error) -> Outcome {
        tracing::warn!(peer = %self.peer, "no transcript: {}", error.report());
        self.request = None;
        self.failed = true;
        self.send(&failure(error)).await
    }

    /// Tells the peer that an event was ignored.
    async fn complain(&mut self, error: &Error) -> Outcome {
        self.complaints += 1;
        if self.complaints > MAX_COMPLAINTS {
            return Err(Ending::Refused(Error::new(
                Kind::BadInput,
                "too many events make no sense",
            )));
        }
        tracing::debug!(peer = %self.peer, "event ignored: {}", error.report());
        self.send(&failure(error)).await
    }

    /// Sends, unless the peer does not take it in time. That one is not there to
    /// hear it ends nothing: it may have sent more than has been read yet.
    async fn send<B: Body>(&mut self, body: &B) -> Outcome {
        match timeout(SEND_TIMEOUT, self.framed.send(Event::of(body))).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Ending::Disconnect),
        }
    }

    /// Ends the session, says why, and closes.
    pub(super) async fn end(mut self, ending: Ending) {
        if let Some(session) = self.session.take() {
            match &ending {
                Ending::Disconnect => session.lost().await,
                Ending::Shutdown => session.end(CloseReason::Shutdown).await,
                _ => session.end(CloseReason::Disconnect).await,
            }
        }
        let error = match ending {
            Ending::Disconnect => return,
            Ending::Done => None,
            Ending::Silent => {
                tracing::debug!(peer = %self.peer, "nothing came for too long, connection ended");
                Some(Error::new(Kind::Timeout, "nothing was heard for too long"))
            }
            Ending::Shutdown => Some(Error::new(Kind::Unavailable, "the server is stopping")),
            Ending::Refused(error) => {
                tracing::warn!(peer = %self.peer, "refused: {}", error.report());
                Some(error)
            }
        };
        if let Some(error) = error
            && self.send(&failure(&error)).await.is_err()
        {
            return;
        }
        // A moment for the peer to have read it: a socket that is dropped with
        // unread data is reset, and what was said would not arrive.
        let mut stream = self.framed.into_inner();
        let farewell = async {
            stream.shutdown().await?;
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            Ok::<(), std::io::Error>(())
        };
        let _ = timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

/// The format that an event names, if it does.
fn format(event: &Event) -> Result<Option<PcmFormat>> {
    let format = Format::deserialize(&event.data).with_context(Kind::BadInput, || {
        format!("`rate`, `width` and `channels` of `{}` must be whole numbers", event.kind)
    })?;
    format.pcm()
}

/// What a peer is told of an error; paths and other internals stay in the log.
fn failure(error: &Error) -> Failure {
    let (text, code) = match error.kind() {
        Kind::BadInput | Kind::TooLarge => (error.message(), Failure::BAD_INPUT),
        Kind::NoSpace => {
            ("the disk is full: audio is not accepted until there is room", "disk-full")
        }
        Kind::Busy => (error.message(), "busy"),
        Kind::Unavailable | Kind::Away | Kind::NotFound => (error.message(), "unavailable"),
        Kind::Timeout => (error.message(), "timeout"),
        _ => ("the request failed; the log says why", "internal"),
    };
    Failure { text: text.to_owned(), code: Some(code.to_owned()) }
}

async fn next_part(request: &mut Option<Request>) -> Result<Option<String>> {
    match request {
        Some(request) => request.next().await,
        None => std::future::pending().await,
    }
}
