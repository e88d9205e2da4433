//! ESP32 boards: raw audio over TCP with no framing at all. 16 kHz, 32 bits,
//! stereo, of which the left channel is the microphone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::Ingest;
use super::session::{Session, Successor, next_request};
use super::tcp::{self, Accepted, Names};
use crate::base::error::Result;
use crate::domain::conversation::CloseReason;

/// Bytes read at a time: 32 ms, as the board sends them.
const READ: usize = 4096;
/// Bytes of one sample of both channels.
const FRAME: usize = 8;
/// A board never stops sending: one that was quiet for so long, and seems to be
/// back on another connection, has lost this one.
const LOST: Duration = Duration::from_secs(1);

/// Serves `listener` until shutdown.
///
/// # Errors
/// None at present: what goes wrong with one connection ends that one.
pub async fn serve(listener: &TcpListener, ingest: Arc<Ingest>) -> Result<()> {
    let supervisor = ingest.supervisor.clone();
    let names = Arc::new(Names::default());
    tcp::accept(listener, &supervisor, move |accepted| {
        let (ingest, names) = (ingest.clone(), names.clone());
        async move {
            let Accepted { stream, peer, place, refused } = accepted;
            let outcome = match refused {
                Some(error) => Err(error),
                None => record(stream, peer, &ingest, &names).await,
            };
            if let Err(error) = outcome {
                tracing::warn!(%peer, "board refused: {}", error.report());
            }
            drop(place);
        }
    })
    .await
}

/// Records one board until it leaves.
async fn record(
    mut stream: TcpStream,
    peer: SocketAddr,
    ingest: &Arc<Ingest>,
    names: &Names,
) -> Result<()> {
    let mut buffer = Box::new([0; READ]);
    let mut held = 0;
    // A board that only knocks is not connected: its first bytes make a session.
    let mut session: Option<Session> = None;
    let clock = &ingest.clock;
    let limit = ingest.config.server.stream_timeout.get();
    let stop = ingest.supervisor.stop_token();
    let mut last_heard = clock.monotonic();
    let mut left = Vec::with_capacity(READ / FRAME * 2);
    let ending = loop {
        let silent_in = (last_heard + limit).saturating_sub(clock.monotonic());
        let sync_in = session.as_ref().and_then(Session::due_in).unwrap_or(Duration::MAX);
        let free = buffer.get_mut(held..).unwrap_or_default();
        tokio::select! {
            read = stream.read(free) => {
                let read = match read {
                    Ok(read) if read > 0 => read,
                    _ => break Ending::Disconnect,
                };
                held += read;
                let whole = held - held % FRAME;
                left.clear();
                left_channel(buffer.get(..whole).unwrap_or_default(), &mut left);
                // A frame that is cut in two waits for its rest.
                buffer.copy_within(whole..held, 0);
                held -= whole;
                let session = match &mut session {
                    Some(session) => session,
                    none => {
                        let config = &ingest.config.esp32;
                        let device = names.of(&config.device, peer);
                        let session = ingest.connect_configured(&config.user, "esp32.user", &device);
                        none.insert(session.await?)
                    }
                };
                session.audio(&left, None).await?;
                // After it is dealt with: our own slowness is not the board's silence.
                last_heard = clock.monotonic();
            }
            request = next_request(&mut session) => match request.into_successor() {
                Ok(successor) if clock.monotonic() >= last_heard + LOST => {
                    break Ending::Replaced(successor);
                }
                // This board is alive; the other one is another.
                Ok(_) => {}
                Err(request) => {
                    if let Some(session) = &mut session {
                        session.fulfil(request).await;
                    }
                }
            },
            () = sleep(silent_in.min(sync_in)) => {
                if clock.monotonic().saturating_sub(last_heard) >= limit {
                    tracing::warn!(%peer, "no sign of life, connection ended");
                    break Ending::Silent;
                }
                if let Some(session) = &mut session {
                    session.poll()?;
                }
            }
            () = stop.cancelled() => break Ending::Shutdown,
        }
    };
    let Some(session) = session else { return Ok(()) };
    match ending {
        Ending::Disconnect => session.lost().await,
        Ending::Replaced(successor) => {
            if let Some(session) = session.hand_over(successor).await {
                session.lost().await;
            }
        }
        Ending::Silent => session.end(CloseReason::Disconnect).await,
        Ending::Shutdown => session.end(CloseReason::Shutdown).await,
    }
    Ok(())
}

/// Why a connection ended.
enum Ending {
    /// The board left, or was cut off.
    Disconnect,
    /// It is on another connection.
    Replaced(Successor),
    /// Nothing came for too long.
    Silent,
    /// The daemon stops.
    Shutdown,
}

/// Appends the left channel of whole frames as 16-bit samples: the upper half of
/// each, as the microphone has no more.
fn left_channel(frames: &[u8], out: &mut Vec<u8>) {
    for [_, _, low, high, ..] in frames.as_chunks::<FRAME>().0 {
        out.extend([*low, *high]);
    }
}

#[cfg(test)]
#[path = "esp32_tests.rs"]
mod tests;
