//! The state machine that every source shares.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Ingest;
use super::clients::{Client, Command};
use super::stream::Stream;
use crate::audio::pcm::PcmFormat;
use crate::base::error::Result;
use crate::domain::conversation::CloseReason;
use crate::domain::ids::ClientId;

/// A connected device that sends audio.
///
/// Between [`Session::audio_start`] and [`Session::audio_stop`] everything is
/// kept. Without them, audio is kept from a little before speech until nobody
/// has spoken for a while. A session that is dropped closes its conversation.
pub struct Session {
    ingest: Arc<Ingest>,
    client: Arc<Client>,
    commands: mpsc::Receiver<Command>,
    /// The format that audio-start announced.
    format: Option<PcmFormat>,
    /// Made with the first audio: a device that only stays connected costs little.
    stream: Option<Box<Stream>>,
}

/// Something that was asked of a session from outside.
pub struct Request(Command);

impl Session {
    pub(super) fn new(
        ingest: Arc<Ingest>,
        client: Arc<Client>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self { ingest, client, commands, format: None, stream: None }
    }

    /// The id it is known by while connected.
    pub fn client_id(&self) -> &ClientId {
        self.client.id()
    }

    /// From here on everything is kept, until [`Session::audio_stop`]. Said
    /// twice, it only changes the format.
    pub fn audio_start(&mut self, format: PcmFormat) {
        self.format = Some(format);
    }

    /// Takes audio. `format` is its own; without one, that of audio-start, and
    /// without that, [`PcmFormat::SPEECH`].
    ///
    /// # Errors
    /// `NoSpace`, `Storage` or `Busy` when it cannot be recorded, or not be
    /// recorded now; end the session then. `BadInput` when its rate cannot be
    /// resampled.
    pub async fn audio(&mut self, bytes: &[u8], format: Option<PcmFormat>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let format = format.or(self.format).unwrap_or(PcmFormat::SPEECH);
        let bounded = self.format.is_some();
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Box::new(Stream::new(&self.ingest, &self.client, format)?)),
        };
        stream.push(bytes, format, bounded).await
    }

    /// Ends what [`Session::audio_start`] began: the conversation is closed.
    pub async fn audio_stop(&mut self) {
        let bounded = self.format.take().is_some();
        if let Some(stream) = self.stream.take() {
            Box::pin(stream.end(bounded, CloseReason::AudioStop)).await;
        }
    }

    /// No audio has come for so long that the conversation is over.
    pub async fn lull(&mut self) {
        let bounded = self.format.is_some();
        if let Some(stream) = self.stream.take() {
            Box::pin(stream.end(bounded, CloseReason::Silence)).await;
        }
    }

    /// Waits for the next request from outside. Cancel safe.
    pub async fn next_request(&mut self) -> Request {
        match self.commands.recv().await {
            Some(command) => Request(command),
            // The client that this session holds keeps the channel open.
            None => std::future::pending().await,
        }
    }

    /// Does what was asked.
    pub async fn fulfil(&mut self, request: Request) {
        let Command::CloseConversation(done) = request.0;
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.is_open()) {
            Box::pin(stream.close(CloseReason::Request)).await;
        }
        // Nobody may be waiting any more.
        let _ = done.send(());
    }

    /// Time left until [`Session::poll`] is to be called; none while nothing waits.
    pub fn due_in(&self) -> Option<Duration> {
        self.stream.as_ref().and_then(|stream| stream.due_in())
    }

    /// Sends audio to disk that has waited its time, though no more has come.
    ///
    /// # Errors
    /// As [`Session::audio`].
    pub fn poll(&mut self) -> Result<()> {
        self.stream.as_mut().map_or(Ok(()), |stream| stream.poll())
    }

    /// Ends the session; its conversation is closed when this returns.
    pub async fn end(mut self, reason: CloseReason) {
        let bounded = self.format.is_some();
        if let Some(stream) = self.stream.take() {
            Box::pin(stream.end(bounded, reason)).await;
        }
    }
}

/// Waits for the next request to a session that may not have begun. Cancel safe.
pub(super) async fn next_request(session: &mut Option<Session>) -> Request {
    match session {
        Some(session) => session.next_request().await,
        None => std::future::pending().await,
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ingest.clients.remove(self.client.id());
        tracing::info!(client = %self.client.id(), "disconnected");
        let Some(stream) = self.stream.take().filter(|stream| stream.is_open()) else { return };
        // Without a runtime there is nothing to close it with; its audio is
        // handed to the system, and the sweep closes it at the next start.
        if tokio::runtime::Handle::try_current().is_ok() {
            let bounded = self.format.is_some();
            self.ingest.supervisor.once(stream.end(bounded, CloseReason::Disconnect));
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
pub(super) mod tests;
