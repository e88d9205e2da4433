//! Speech to text by a Wyoming server, over TCP: a connection for each request,
//! as Home Assistant makes them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{LANGUAGES, Speech, SpeechToText};
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::SAMPLE_RATE;
use crate::domain::transcript::{Segment, Transcript};
use crate::remote::{Fault, Service};
use crate::wyoming::Connection;
use crate::wyoming::client::Heard;

/// A Wyoming server.
#[derive(Debug)]
pub struct WyomingSpeech {
    service: Arc<Service>,
    server: String,
    language: Option<String>,
    connect: Duration,
    deadline: Duration,
}

impl WyomingSpeech {
    /// The server at `server` (`host:port`), which is told that `language` is
    /// spoken unless a request names another.
    pub fn new(
        service: Arc<Service>,
        server: &str,
        language: Option<&str>,
        connect: Duration,
        deadline: Duration,
    ) -> Self {
        let (server, language) = (server.to_owned(), language.map(str::to_owned));
        Self { service, server, language, connect, deadline }
    }

    async fn once(&self, samples: &[i16], language: Option<&str>) -> Result<Heard, Fault> {
        let name = self.service.name();
        let unreachable = || format!("{name} cannot be reached");
        let stream = match timeout(self.connect, TcpStream::connect(&self.server)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let error = Error::new(Kind::Unavailable, unreachable()).with_source(error);
                return Err(Fault::Passing(error, None));
            }
            Err(_) => return Err(Fault::passing(unreachable())),
        };
        let mut connection = Connection::new(name, stream);
        match timeout(self.deadline, connection.transcribe(samples, language)).await {
            Ok(Ok(heard)) => Ok(heard),
            Ok(Err(error)) if error.kind() == Kind::BadInput => Err(Fault::Refused(error)),
            Ok(Err(error)) => Err(Fault::Passing(error, None)),
            Err(_) => {
                let message = format!("{name} does not answer in time");
                Err(Fault::Passing(Error::new(Kind::Timeout, message), None))
            }
        }
    }
}

#[async_trait]
impl SpeechToText for WyomingSpeech {
    fn name(&self) -> String {
        self.service.name().to_owned()
    }

    fn languages(&self) -> &[&str] {
        &LANGUAGES
    }

    fn is_ready(&self) -> bool {
        self.service.is_ready()
    }

    async fn transcribe(&self, speech: Speech) -> Result<Transcript> {
        let language = speech.language.as_deref().or(self.language.as_deref());
        let seconds = speech.samples.len() as f64 / f64::from(SAMPLE_RATE);
        let heard = self.service.call(|| self.once(&speech.samples, language)).await?;
        Ok(placed(heard, seconds))
    }
}

/// The text with its place in `end` seconds of audio. Most servers send text
/// alone: it then lies where they heard a voice, else anywhere.
fn placed(heard: Heard, end: f64) -> Transcript {
    let language = heard.transcript.language;
    let mut segments = heard.transcript.segments;
    let text = heard.transcript.text.trim();
    if segments.is_empty() && !text.is_empty() {
        let (from, to) = heard.voice.unwrap_or((0.0, end));
        segments.push(Segment {
            start: from.clamp(0.0, end),
            end: to.clamp(0.0, end),
            text: text.to_owned(),
            speaker: None,
            confidence: 1.0,
            words: Vec::new(),
        });
    }
    Transcript { segments, language, engine: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wyoming::event;

    #[test]
    fn bare_text_lies_where_a_voice_was_heard() {
        let heard = |text: &str, voice| {
            let transcript = event::Transcript { text: text.into(), ..Default::default() };
            placed(Heard { transcript, voice }, 10.0).segments
        };
        assert!(heard(" ", Some((1.0, 2.0))).is_empty());
        let place = |segments: Vec<Segment>| (segments[0].start, segments[0].end);
        assert_eq!(place(heard(" Hello. ", Some((1.5, 70.0)))), (1.5, 10.0));
        assert_eq!(place(heard("Hello.", None)), (0.0, 10.0));
    }
}
