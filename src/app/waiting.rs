//! A database outside that is away when the daemon starts: it is waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::store::Database;
use crate::base::clock::Clock;
use crate::base::error::{Context, Error, Kind, Result};
use crate::config::Config;
use crate::http::tls::Certificate;
use crate::http::{server, waiting};
use crate::pipeline::reconcile::Start;
use crate::supervisor::Supervisor;

/// Time that the last answers have before the daemon begins.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Opens the database; one outside that cannot be reached is waited for, while
/// whoever asks at `listener` is told so. Nothing is recorded before: each
/// recording has a row first.
///
/// # Errors
/// As of [`Database::open`], but for a database that is away.
pub(super) async fn open(
    config: &Arc<Config>,
    clock: &Clock,
    listener: TcpListener,
    certificate: Option<&Arc<Certificate>>,
    start: &Start,
) -> Result<(Database, TcpListener)> {
    let away = match Database::open(config, clock).await {
        Err(error) if is_away(config, &error) => error,
        opened => return Ok((opened?, listener)),
    };
    tracing::warn!("waits for the database, and records nothing meanwhile: {}", away.report());
    let (front, listener) = twice(listener).context(Kind::Internal, "cannot share a listener")?;
    let supervisor = Supervisor::new();
    let router = waiting::router(away.message(), clock);
    let tls = certificate.map(Certificate::acceptor);
    let (server, served, at) = (supervisor.clone(), config.clone(), clock.clone());
    supervisor.once(async move {
        if let Err(error) = server::serve(front, tls, router, &served, &at, &server).await {
            tracing::error!("nobody is told that the daemon waits: {}", error.report());
        }
    });
    let opened = loop {
        // However long it takes, the start is not stuck.
        start.progress.beat();
        tokio::time::sleep(config.remote.pause.get()).await;
        match Database::open(config, clock).await {
            Err(error) if is_away(config, &error) => tracing::debug!("{}", error.report()),
            opened => break opened,
        }
    };
    supervisor.stop();
    supervisor.drain(LAST_ANSWERS).await;
    let database = opened?;
    tracing::info!("the database is there");
    Ok((database, listener))
}

fn is_away(config: &Config, error: &Error) -> bool {
    let away = matches!(error.kind(), Kind::Unavailable | Kind::Timeout | Kind::Away);
    config.store.is_mongodb() && away
}

/// The same socket two times: connections are taken from either.
fn twice(listener: TcpListener) -> std::io::Result<(TcpListener, TcpListener)> {
    let one = listener.into_std()?;
    let other = one.try_clone()?;
    Ok((TcpListener::from_std(one)?, TcpListener::from_std(other)?))
}
