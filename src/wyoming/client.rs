//! The asking side of a connection: requests to one of our engines over a pipe,
//! or to a speech-to-text server over TCP.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;

use super::codec::Codec;
use super::event::{
    AudioChunk, AudioStart, AudioStop, Body, Describe, Event, Failure, Info, Transcribe, Transcript,
};
use crate::base::error::{Context, Error, Kind, Result};

/// Samples in one chunk: half a second at 16 kHz.
const CHUNK: usize = 8_000;

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
    pub async fn transcribe(
        &mut self,
        samples: &[i16],
        language: Option<&str>,
    ) -> Result<Transcript> {
        let language = language.map(str::to_owned);
        self.send(Event::of(&Transcribe { name: None, language })).await?;
        self.send(Event::of(&AudioStart::default())).await?;
        for chunk in samples.chunks(CHUNK) {
            let mut payload = BytesMut::with_capacity(chunk.len() * 2);
            chunk.iter().for_each(|sample| payload.put_i16_le(*sample));
            self.send(Event::of(&AudioChunk::default()).with_payload(payload)).await?;
        }
        self.send(Event::of(&AudioStop::default())).await?;
        loop {
            let (transcript, _) = self.answer::<Transcript>().await?;
            if transcript.is_final != Some(false) {
                return Ok(transcript);
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

    #[tokio::test]
    async fn a_transcript_is_what_comes_last() {
        let (near, far) = tokio::io::duplex(4096);
        let answers = vec![
            Event::bare("transcript-start"),
            transcript("hel", Some(false)),
            transcript("hello", None),
        ];
        let mut client = Connection::new("server", near);
        let samples = vec![7; 20_001];
        let (heard, said) =
            tokio::join!(client.transcribe(&samples, Some("en")), serve(far, answers));
        assert_eq!(heard.unwrap().text, "hello");
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
