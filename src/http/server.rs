//! The server: accepts connections, keeps them within limits, and lets them
//! end in peace at shutdown.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::base::clock::Clock;
use crate::base::error::{Context, Kind, Result};
use crate::base::paced::{Pace, Paced};
use crate::config::Config;
use crate::supervisor::Supervisor;

/// The most a connection buffers, in bytes; a request's header must fit in it.
const MAX_BUFFER: usize = 16 * 1024;

/// The name of the loop's pulse.
pub const ACCEPT_LOOP: &str = "the accept loop";

/// The pause after accepting failed: long enough for descriptors to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// A connection's place among those allowed, in the extensions of each of its
/// requests. A WebSocket keeps a clone, since it outlives the HTTP connection.
#[derive(Clone, Debug)]
pub struct Place(#[allow(dead_code, reason = "held, never read")] Arc<OwnedSemaphorePermit>);

/// Serves `router` on `listener` until the supervisor stops, then waits for
/// open requests, at most `config.server.drain_timeout`. Each request carries
/// its [`ConnectInfo`], its [`Place`] and its [`Pace`].
///
/// # Errors
/// None at present: what goes wrong with one connection ends that one.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    config: &Config,
    clock: &Clock,
    supervisor: &Supervisor,
) -> Result<()> {
    let stop = supervisor.stop_token();
    let limit = config.server.max_connections.clamp(1, Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(limit));
    let connection = Connection {
        tls,
        router,
        header_timeout: config.server.header_timeout.get(),
        drain_timeout: config.server.drain_timeout.get(),
        clock: clock.clone(),
        stop: stop.clone(),
    };
    let mut failing = false;
    let pulse = supervisor.heart().part(ACCEPT_LOOP);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            // A place first: what is over the limit waits in the kernel's queue
            // instead of taking a descriptor.
            accepted = pulse.during(accept(&listener, &places)) => accepted?,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                failing = false;
                supervisor.once(connection.clone().run(stream, peer, Place(Arc::new(place))));
            }
            Err(error) if concerns_one_peer(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!("cannot accept connections, trying again: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(limit).unwrap_or(u32::MAX);
    let drained = places.acquire_many(all);
    if tokio::time::timeout(config.server.drain_timeout.get(), drained).await.is_err() {
        tracing::warn!("some connections were still open after the drain time");
    }
    Ok(())
}

type Accepted = io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)>;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Result<Accepted> {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .context(Kind::Internal, "the connection limit has been closed")?;
    Ok(listener.accept().await.map(|(stream, peer)| (stream, peer, place)))
}

/// Whether accepting failed because that peer went away: the next may do fine.
fn concerns_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[derive(Clone)]
struct Connection {
    tls: Option<TlsAcceptor>,
    router: Router,
    header_timeout: Duration,
    drain_timeout: Duration,
    clock: Clock,
    stop: CancellationToken,
}

impl Connection {
    /// Serves one connection to its end, TLS first where it is configured.
    async fn run(self, stream: TcpStream, peer: SocketAddr, place: Place) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, "cannot set TCP_NODELAY: {error}");
        }
        let pace = Pace::default();
        let stream = Paced::new(stream, pace.clone(), self.clock.clone());
        let Some(tls) = self.tls.clone() else { return self.http(stream, pace, peer, place).await };
        // Boxed: a plain connection does not carry the space of a handshake.
        match Box::pin(tokio::time::timeout(self.header_timeout, tls.accept(stream))).await {
            Ok(Ok(stream)) => Box::pin(self.http(stream, pace, peer, place)).await,
            Ok(Err(error)) => tracing::debug!(%peer, "no TLS connection: {error}"),
            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
        }
    }

    /// Serves one connection to its end. An upgrade takes the stream with it.
    async fn http<S>(self, stream: S, pace: Pace, peer: SocketAddr, place: Place)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let router = self.router;
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(place.clone());
            request.extensions_mut().insert(pace.clone());
            router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(self.drain_timeout, connection).await {
                    Ok(outcome) => outcome,
                    Err(_) => return,
                }
            }
        };
        // Peers that vanish are daily business.
        if let Err(error) = outcome {
            tracing::debug!(%peer, "connection ended: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
