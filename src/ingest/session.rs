//! The state machine that every source shares.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Ingest;
use super::clients::{Client, Command};
use super::stream::Stream;
use crate::audio::pcm::PcmFormat;
use crate::base::error::Result;
use crate::base::metrics;
use crate::domain::conversation::CloseReason;
use crate::domain::ids::ClientId;

/// A device that sends audio, connected or expected back.
///
/// Between [`Session::audio_start`] and [`Session::audio_stop`] everything is
/// kept. Without them, audio is kept from a little before speech until nobody
/// has spoken for a while.
///
/// [`Session::audio_stop`] closes the conversation at once. A connection that
/// ends in any other way is [`Session::lost`]: the conversation stays open for
/// `conversation.reconnect_grace`, and the device that connects again meanwhile
/// is given this very session. A session that is dropped closes its conversation.
pub struct Session {
    ingest: Arc<Ingest>,
    client: Arc<Client>,
    commands: mpsc::Receiver<Command>,
    /// The format that audio-start announced.
    format: Option<PcmFormat>,
    /// Made with the first audio: a device that only stays connected costs little.
    stream: Option<Box<Stream>>,
}

/// Somebody who says to be this device, on another connection. Dropped, it is
/// refused: this connection is alive.
pub struct Successor(oneshot::Sender<Session>);

/// Something that was asked of a session from outside.
pub struct Request(Command);

impl Session {
    pub(super) fn new(
        ingest: Arc<Ingest>,
        client: Arc<Client>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        metrics::STREAMS_OPENED.add(&[], 1.0);
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
        self.ingest.recordings.accepting()?;
        let format = format.or(self.format).unwrap_or(PcmFormat::SPEECH);
        let bounded = self.format.is_some();
        self.stream().pcm(bytes, format, bounded).await
    }

    /// Takes one bare Opus packet.
    ///
    /// # Errors
    /// As [`Session::audio`]; `BadInput` when it is no packet, which costs
    /// nothing but itself.
    pub async fn opus(&mut self, packet: &[u8]) -> Result<()> {
        self.ingest.recordings.accepting()?;
        let bounded = self.format.is_some();
        self.stream().opus(packet, bounded).await
    }

    fn stream(&mut self) -> &mut Stream {
        let Self { ingest, client, stream, .. } = self;
        stream.get_or_insert_with(|| Box::new(Stream::new(ingest, client)))
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

    /// Does what was asked. A [`Successor`] is refused.
    pub async fn fulfil(&mut self, request: Request) {
        let Command::CloseConversation(done) = request.0 else { return };
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

    /// The connection has ended without [`Session::audio_stop`]: an open
    /// conversation waits for the device to come back.
    pub async fn lost(mut self) {
        let grace = self.ingest.config.conversation.reconnect_grace.get();
        // One that never gave its name cannot be known again.
        let waits = !grace.is_zero() && self.client.has_name();
        let open = self.stream.as_ref().is_some_and(|stream| stream.is_open());
        if !waits || !open || self.flush().await.is_err() {
            return self.end(CloseReason::Disconnect).await;
        }
        self.client.set_away(true);
        tracing::info!(client = %self.client.id(), "connection lost, waiting for the device");
        let supervisor = self.ingest.supervisor.clone();
        supervisor.once(self.wait(grace));
    }

    /// Keeps the session for a device that is away, at most for `grace`.
    async fn wait(mut self, grace: Duration) {
        let stop = self.ingest.supervisor.stop_token();
        let mut end = std::pin::pin!(tokio::time::sleep(grace));
        let reason = loop {
            let due = self.due_in();
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            let request = tokio::select! {
                request = self.next_request() => request,
                () = &mut end => break CloseReason::Disconnect,
                () = stop.cancelled() => break CloseReason::Shutdown,
                () = due => match self.poll() {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::error!(
                            client = %self.client.id(),
                            "audio cannot be written: {}", error.report()
                        );
                        break CloseReason::Disconnect;
                    }
                },
            };
            match request.into_successor() {
                Ok(successor) => match self.hand_over(successor).await {
                    None => return,
                    Some(session) => self = session,
                },
                Err(request) => {
                    self.fulfil(request).await;
                    break CloseReason::Disconnect;
                }
            }
        };
        self.end(reason).await;
    }

    /// Takes what a filter still holds: half a sample, say, must not shift what
    /// comes after a break.
    async fn flush(&mut self) -> Result<()> {
        let bounded = self.format.is_some();
        match &mut self.stream {
            Some(stream) => Box::pin(stream.flush(bounded)).await,
            None => Ok(()),
        }
    }

    /// Gives the session to the connection on which the device is now; it comes
    /// back when that one has gone meanwhile.
    pub async fn hand_over(mut self, successor: Successor) -> Option<Self> {
        // What fails here is met again by the next audio, which reports it.
        let _ = self.flush().await;
        let client = self.client.clone();
        let was_away = client.is_away();
        client.set_away(false);
        let back = successor.0.send(self).err();
        if back.is_some() {
            client.set_away(was_away);
        }
        back
    }
}

impl Request {
    /// The successor, when that is what the request is about.
    ///
    /// # Errors
    /// The request itself, when it is another.
    pub fn into_successor(self) -> std::result::Result<Successor, Self> {
        match self.0 {
            Command::Resume(successor) => Ok(Successor(successor)),
            other => Err(Self(other)),
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

#[cfg(test)]
#[path = "reconnect_tests.rs"]
mod reconnect_tests;
