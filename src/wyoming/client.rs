//! The asking side of a connection: requests to one of our engines over a pipe,
//! or to a speech-to-text server over TCP.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;

use super::codec::Codec;
use super::event::{
    AudioChunk, AudioStart, AudioStop, Body, Describe, Event, Failure, Info, Transcribe,
    Transcript, VoiceStarted, VoiceStopped,
};
use crate::base::error::{Context, Error, Kind, Result};

/// Samples in one chunk: half a second at 16 kHz.
const CHUNK: usize = 8_000;
const SAMPLES_PER_MS: usize = 16;

/// What a speech-to-text service says of a piece of audio.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// The text.
    pub transcript: Transcript,
    /// From when to when somebody speaks, in seconds, where the service says so.
    pub voice: Option<(f64, f64)>,
}

/// One peer, asked one thing at a time.
#[derive(Debug)]
pub struct Connection<S> {
    /// Who it is, for messages.
    peer: String,
    framed: Framed<S, Codec>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection to `peer` over `stream`.
    pub fn new(peer: impl Into<String>, stream: S) -> Self {
        Self { peer: peer.into(), framed: Framed::new(stream, Codec::default()) }
    }

    /// Sends one event.
    ///
    /// # Errors
    /// `Unavailable` when the peer is gone.
    pub async fn send(&mut self, event: Event) -> Result<()> {
        let sent = self.framed.send(event).await;
        sent.with_context(Kind::Unavailable, || format!("{} is gone", self.peer))
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// `Unavailable` when the peer is gone or does not speak the protocol; the
    /// connection is of no use then.
    pub async fn receive(&mut self) -> Result<Event> {
        match self.framed.next().await {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                Err(Error::new(Kind::Unavailable, format!("{} sent nonsense", self.peer))
                    .with_source(error))
            }
            None => {
                Err(Error::new(Kind::Unavailable, format!("{} closed the connection", self.peer)))
            }
        }
    }

    /// Waits for an answer of type `B`, passing over events of other kinds.
    ///
    /// # Errors
    /// As [`Connection::receive`]; `BadInput` or `Unavailable` when the peer
    /// answers with an error of its own.
    pub async fn answer<B: Body>(&mut self) -> Result<(B, Bytes)> {
        self.answer_telling(|_: Failure| ()).await
    }

    /// As [`Connection::answer`]; `told` hears of every `P` that comes before it.
    ///
    /// # Errors
    /// As [`Connection::answer`].
    pub async fn answer_telling<B: Body, P: Body>(
        &mut self,
        mut told: impl FnMut(P),
    ) -> Result<(B, Bytes)> {
        loop {
            let event = self.receive().await?;
            if event.is::<B>() {
                let body = event
                    .body()
                    .context(Kind::Unavailable, format!("{} answered something else", self.peer))?;
                return Ok((body, event.payload));
            }
            if event.is::<Failure>() {
                return Err(event.body::<Failure>().unwrap_or_default().into_error(&self.peer));
            }
            if event.is::<P>()
                && let Ok(piece) = event.body()
            {
                told(piece);
            }
        }
    }

    /// Asks what the peer can do.
    ///
    /// # Errors
    /// As [`Connection::answer`].
    pub async fn describe(&mut self) -> Result<Info> {
        self.send(Event::of(&Describe {})).await?;
        Ok(self.answer().await?.0)
    }

    /// Has 16 kHz mono `samples` transcribed in `language` (an ISO 639-1 code;
    /// none: detect it).
    ///
    /// # Errors
    /// As [`Connection::answer`].
    pub async fn transcribe(&mut self, samples: &[i16], language: Option<&str>) -> Result<Heard> {
        let language = language.map(str::to_owned);
        self.send(Event::of(&Transcribe { name: None, language })).await?;
        self.send(Event::of(&AudioStart::default())).await?;
        for (n, chunk) in samples.chunks(CHUNK).enumerate() {
            let mut payload = BytesMut::with_capacity(chunk.len() * 2);
            chunk.iter().for_each(|sample| payload.put_i16_le(*sample));
            let timestamp = Some((n * CHUNK / SAMPLES_PER_MS) as f64);
            let chunk = AudioChunk { timestamp, ..AudioChunk::default() };
            self.send(Event::of(&chunk).with_payload(payload)).await?;
        }
        self.send(Event::of(&AudioStop::default())).await?;
        let (mut from, mut to) = (None, None);
        loop {
            let event = self.receive().await?;
            let odd = || format!("{} answered something else", self.peer);
            if event.is::<Transcript>() {
                let transcript: Transcript = event.body().context(Kind::Unavailable, odd())?;
                if transcript.is_final != Some(false) {
                    let voice = from.zip(to).filter(|(from, to)| from < to);
                    return Ok(Heard { transcript, voice });
                }
            } else if event.is::<VoiceStarted>() {
                let at = event.body::<VoiceStarted>().ok().and_then(|event| event.timestamp);
                from = from.or(at.map(|ms| ms / 1000.0));
            } else if event.is::<VoiceStopped>() {
                let at = event.body::<VoiceStopped>().ok().and_then(|event| event.timestamp);
                to = at.map(|ms| ms / 1000.0).or(to);
            } else if event.is::<Failure>() {
                return Err(event.body::<Failure>().unwrap_or_default().into_error(&self.peer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn serve(
        stream: tokio::io::DuplexStream,
        answers: Vec<Event>,
    ) -> (Option<String>, usize) {
        let mut server = Connection::new("client", stream);
        let (mut language, mut bytes) = (None, 0);
        while let Ok(event) = server.receive().await {
            match event.kind.as_str() {
                "transcribe" => language = event.body::<Transcribe>().unwrap().language,
                "audio-chunk" => bytes += event.payload.len(),
                "audio-stop" => break,
                _ => {}
            }
        }
        for answer in answers {
            server.send(answer).await.unwrap();
        }
        (language, bytes)
    }

    fn transcript(text: &str, is_final: Option<bool>) -> Event {
        Event::of(&Transcript { text: text.into(), is_final, ..Transcript::default() })
    }

    fn voice(kind: &str, ms: u32) -> Event {
        let mut event = Event::bare(kind);
        event.data.insert("timestamp".into(), ms.into());
        event
    }

    #[tokio::test]
    async fn a_transcript_is_what_comes_last() {
        let (near, far) = tokio::io::duplex(4096);
        let answers = vec![
            Event::bare("transcript-start"),
            transcript("hel", Some(false)),
            voice("voice-started", 200),
            voice("voice-stopped", 700),
            voice("voice-started", 900),
            voice("voice-stopped", 1_100),
            transcript("hello", None),
        ];
        let mut client = Connection::new("server", near);
        let samples = vec![7; 20_001];
        let (heard, said) =
            tokio::join!(client.transcribe(&samples, Some("en")), serve(far, answers));
        let heard = heard.unwrap();
        assert_eq!((heard.transcript.text.as_str(), heard.voice), ("hello", Some((0.2, 1.1))));
        assert_eq!(said, (Some("en".to_owned()), 40_002));
    }

    #[tokio::test]
    async fn an_error_event_is_an_error() {
        let (near, far) = tokio::io::duplex(4096);
        let failure = Failure { text: "too long".into(), code: Some(Failure::BAD_INPUT.into()) };
        let mut client = Connection::new("server", near);
        let (heard, _) =
            tokio::join!(client.transcribe(&[0; 10], None), serve(far, vec![Event::of(&failure)]));
        let error = heard.unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::BadInput, "server: too long"));
    }

    #[tokio::test]
    async fn a_peer_that_goes_away_is_unavailable() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut client = Connection::new("server", near);
        let (heard, _) = tokio::join!(client.transcribe(&[0; 10], None), serve(far, vec![]));
        assert_eq!(heard.unwrap_err().kind(), Kind::Unavailable);
    }
}
