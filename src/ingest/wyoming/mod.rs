//! Wyoming over TCP: speech to text for whoever asks, such as Home Assistant,
//! and audio to remember, such as a satellite sends.
//!
//! `transcribe` makes what follows, to the next `audio-stop`, a request: it is
//! answered with its `transcript` and kept nowhere. Audio that no `transcribe`
//! announced is recorded when a user is configured. Without one it is a request
//! too, since the protocol lets `transcribe` out.
//!
//! A request that fails is answered with an `error`, and the connection is
//! closed at its `audio-stop`: clients such as Home Assistant pass over `error`
//! and would wait for a `transcript`.

mod connection;

use std::sync::Arc;

use tokio::net::TcpListener;

use self::connection::{Connection, Ending};
use super::Ingest;
use super::tcp::{self, Accepted, Names};
use crate::base::error::Result;
use crate::stt::SpeechToText;
use crate::wyoming::event::{Attribution, Info, Model, Program};

/// What connections share.
struct Service {
    ingest: Arc<Ingest>,
    stt: Arc<dyn SpeechToText>,
    names: Names,
}

/// Serves `listener` until shutdown.
///
/// # Errors
/// None at present: what goes wrong with one connection ends that one.
pub async fn serve(
    listener: &TcpListener,
    ingest: Arc<Ingest>,
    stt: Arc<dyn SpeechToText>,
) -> Result<()> {
    let supervisor = ingest.supervisor.clone();
    let service = Arc::new(Service { ingest, stt, names: Names::default() });
    tcp::accept(listener, &supervisor, move |accepted| {
        let service = service.clone();
        async move { service.connection(accepted).await }
    })
    .await
}

impl Service {
    async fn connection(&self, accepted: Accepted) {
        let Accepted { stream, peer, place, refused } = accepted;
        // An answer is a few small packets; each goes out at once.
        let _ = stream.set_nodelay(true);
        let mut connection = Connection::new(self, stream, peer);
        let ending = match refused {
            Some(error) => Ending::Refused(error),
            None => connection.run().await,
        };
        connection.end(ending).await;
        drop(place);
    }

    fn info(&self) -> Info {
        let by = Attribution { name: "Friend-Lite".into(), url: String::new() };
        let languages = self.stt.languages().iter().map(|&code| code.to_owned()).collect();
        let model = Model {
            name: self.stt.name(),
            description: format!("Speech to text by {}", self.stt.name()),
            attribution: by.clone(),
            installed: self.stt.is_ready(),
            version: None,
            languages,
        };
        let program = Program {
            name: "friend-lite".into(),
            description: "Private, offline speech to text".into(),
            attribution: by,
            installed: true,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            models: vec![model],
            supports_transcript_streaming: true,
        };
        Info { asr: vec![program] }
    }
}

#[cfg(test)]
mod tests;
