//! Speech to text by Deepgram while it is being said:
//! <https://developers.deepgram.com/reference/speech-to-text/listen-streaming>.
//!
//! A task for each conversation follows its recording on disk, so that recording
//! knows nothing of it, and what was said while the connection was away can be
//! sent again from where the last final result ended.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::sync::{broadcast, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::heard::{Conversation, Heard};
use super::{Deepgram, HeardWord};
use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::conversation::{SAMPLE_RATE, Span, seconds};
use crate::domain::ids::ConversationId;
use crate::recording::Recordings;
use crate::remote::http::Socket;
use crate::stt::live::{Listener, Listening, Partial};
use crate::supervisor::Supervisor;

/// How often a recording is looked at for more.
const LOOK: Duration = Duration::from_millis(250);
/// The pause before a lost connection is made again.
const RECONNECT: Duration = Duration::from_secs(2);
/// A connection on which nothing is sent for 10 s is ended by the service.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Time that the service has to take a message, and to answer the last one.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// The most that is sent again after a loss: what is older is transcribed from the
/// recording by then.
const LONGEST_GAP: u64 = 30 * SAMPLE_RATE as u64;
/// Samples of one message.
const MESSAGE: u64 = SAMPLE_RATE as u64;
/// Time that words are kept after the end, for the last windows.
const KEEP: Duration = Duration::from_secs(10 * 60);

/// What is needed to follow recordings.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) heard: Heard,
    recordings: Recordings,
    supervisor: Supervisor,
}

impl Live {
    pub(super) fn new(recordings: Recordings, supervisor: Supervisor) -> Self {
        Self { heard: Heard::default(), recordings, supervisor }
    }
}

/// A message of the service; others say nothing that is needed.
#[derive(Debug, Deserialize)]
struct Results {
    #[serde(default)]
    start: f64,
    #[serde(default)]
    duration: f64,
    #[serde(default)]
    is_final: bool,
    channel: Option<Channel>,
}

#[derive(Debug, Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
}

#[derive(Debug, Deserialize)]
struct Alternative {
    #[serde(default)]
    transcript: String,
    #[serde(default)]
    words: Vec<HeardWord>,
}

/// One conversation, and how far it is.
struct Following<'a> {
    live: &'a Live,
    conversation: &'a Conversation,
    file: &'a str,
    closed: watch::Receiver<Option<u64>>,
    /// Samples up to which all is heard for good.
    heard: u64,
}

impl Listener for Deepgram {
    fn listen(&self, conversation: &ConversationId, file: &str) -> Listening {
        let (listening, closed) = Listening::new();
        let Some(live) = self.live.clone() else { return listening };
        let (deepgram, id, file) = (self.clone(), conversation.clone(), file.to_owned());
        let conversation = live.heard.begin(&id);
        let supervisor = live.supervisor.clone();
        supervisor.once(async move {
            let stop = live.supervisor.stop_token();
            let following = Following {
                live: &live,
                conversation: &conversation,
                file: &file,
                closed,
                heard: 0,
            };
            tokio::select! {
                () = deepgram.follow(following) => {}
                () = stop.cancelled() => {}
            }
            conversation.end();
            tokio::select! {
                () = sleep(KEEP) => {}
                () = stop.cancelled() => {}
            }
            live.heard.forget(&id);
        });
        listening
    }

    fn subscribe(&self, conversation: &ConversationId) -> Option<broadcast::Receiver<Partial>> {
        self.live.as_ref()?.heard.subscribe(conversation)
    }
}

impl Deepgram {
    /// Follows a recording to its end. What cannot be heard in time is left to
    /// those who read the recording.
    async fn follow(&self, mut following: Following<'_>) {
        loop {
            let outcome = match self.connect().await {
                Ok(socket) => following.converse(socket).await,
                Err(error) => Err(error),
            };
            let Err(error) = outcome else { return };
            tracing::debug!("deepgram does not listen: {}", error.report());
            if following.is_over() {
                return;
            }
            tokio::select! {
                () = sleep(RECONNECT) => {}
                _ = following.closed.changed() => return,
            }
        }
    }

    async fn connect(&self) -> Result<Socket> {
        let rate = SAMPLE_RATE.to_string();
        let mut asked = self.asked(None).to_vec();
        asked.extend([
            ("encoding", "linear16"),
            ("sample_rate", &rate),
            ("channels", "1"),
            ("interim_results", "true"),
        ]);
        self.service.call(|| self.http.web_socket("/v1/listen", &asked)).await
    }
}

impl Following<'_> {
    /// Whether nothing more is recorded.
    fn is_over(&self) -> bool {
        self.closed.borrow().is_some() || self.closed.has_changed().is_err()
    }

    /// Samples that are recorded by now.
    async fn recorded(&self) -> Result<u64> {
        let total = *self.closed.borrow();
        match total {
            Some(total) => Ok(total),
            None => self.live.recordings.samples(self.file).await,
        }
    }

    /// Sends what is recorded over one connection, and takes what is heard.
    async fn converse(&mut self, mut socket: Socket) -> Result<()> {
        let recorded = self.recorded().await.unwrap_or(self.heard);
        let base = self.heard.max(recorded.saturating_sub(LONGEST_GAP));
        self.heard = base;
        self.conversation.begin_at(seconds(base));
        let (mut sent, mut quiet) = (base, Duration::ZERO);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.take(&text, base),
                    Some(Ok(Message::Close(frame))) => {
                        let why = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                        let message = format!("deepgram ended the stream: {why}");
                        return Err(Error::new(Kind::Unavailable, message));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error).context(Kind::Unavailable, LOST),
                    None => return Err(Error::new(Kind::Unavailable, LOST)),
                },
                _ = look.tick() => {
                    // In this order: what is recorded when it is over is all of it.
                    let over = self.is_over();
                    let before = sent;
                    sent = self.send_new(&mut socket, sent).await?;
                    quiet = if sent > before { Duration::ZERO } else { quiet + LOOK };
                    if over {
                        let last = timeout(LAST_ANSWER, self.finish(&mut socket, base)).await;
                        last.context(Kind::Timeout, "deepgram does not end the stream")??;
                        self.conversation.hear(Vec::new(), seconds(sent));
                        return Ok(());
                    }
                    if quiet >= KEEP_ALIVE {
                        send(&mut socket, Message::text(r#"{"type":"KeepAlive"}"#)).await?;
                        quiet = Duration::ZERO;
                    }
                }
            }
        }
    }

    /// Ends the stream, and takes what the service has yet to say.
    async fn finish(&mut self, socket: &mut Socket, base: u64) -> Result<()> {
        send(socket, Message::text(r#"{"type":"CloseStream"}"#)).await?;
        while let Some(message) = socket.next().await {
            match message.context(Kind::Unavailable, LOST)? {
                Message::Text(text) => self.take(&text, base),
                Message::Close(_) => return Ok(()),
                _ => {}
            }
        }
        Err(Error::new(Kind::Unavailable, LOST))
    }

    /// Sends what has been recorded since `sent`; where that ends now.
    async fn send_new(&self, socket: &mut Socket, mut sent: u64) -> Result<u64> {
        let recorded = self.recorded().await.unwrap_or(sent);
        while sent < recorded {
            let end = recorded.min(sent + MESSAGE);
            let span = Span { start: sent, end };
            let samples = self.live.recordings.read(self.file, &[span]).await?;
            let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            send(socket, Message::binary(bytes)).await?;
            sent = end;
        }
        Ok(sent)
    }

    /// Takes what was heard of a stream that began at the sample `base`.
    fn take(&mut self, text: &str, base: u64) {
        // Metadata and the like have another form, and are not needed.
        let Ok(results) = serde_json::from_str::<Results>(text) else { return };
        let Some(best) = results.channel.and_then(|c| c.alternatives.into_iter().next()) else {
            return;
        };
        let from = seconds(base);
        let (start, end) = (from + results.start, from + results.start + results.duration);
        if best.transcript.is_empty() && !results.is_final {
            // Nobody speaks since the last final result: that is heard, too.
            self.conversation.hear(Vec::new(), end);
        }
        if !best.transcript.is_empty() {
            let (text, is_final) = (best.transcript, results.is_final);
            self.conversation.tell(Partial { text, start, end, is_final });
        }
        if results.is_final {
            let moved = |word: HeardWord| HeardWord {
                start: word.start + from,
                end: word.end + from,
                ..word
            };
            self.conversation.hear(best.words.into_iter().map(moved).collect(), end);
            self.heard = self.heard.max((end * f64::from(SAMPLE_RATE)) as u64);
        }
    }
}

const LOST: &str = "the connection to deepgram was lost";

async fn send(socket: &mut Socket, message: Message) -> Result<()> {
    let sent = timeout(SEND_TIMEOUT, socket.send(message)).await;
    sent.context(Kind::Timeout, LOST)?.context(Kind::Unavailable, LOST)
}
