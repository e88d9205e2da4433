//! `friend-lite run`: the daemon.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::first_run;
use crate::app::App;
use crate::base::error::{Context, Kind, Result};
use crate::config::Config;
use crate::config::load::Sources;

/// Options of `friend-lite run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
}

impl Args {
    /// Lays the options over the rest of the configuration.
    pub(super) fn apply(&self, sources: &mut Sources) {
        if let Some(listen) = &self.listen {
            sources.overrides.push(("server", "listen", listen.clone()));
        }
    }
}

/// Runs until a signal. The first one stops in order; the second ends the
/// program at once, with 128 and the signal's number as its exit code.
///
/// # Errors
/// When the daemon cannot start.
pub(super) async fn run(config: Config, file: Option<PathBuf>) -> Result<()> {
    let mut interrupt =
        signal(SignalKind::interrupt()).context(Kind::Internal, "cannot hear signals")?;
    let mut terminate =
        signal(SignalKind::terminate()).context(Kind::Internal, "cannot hear signals")?;
    match &file {
        Some(path) => tracing::info!("configuration from {}", path.display()),
        None => tracing::info!("no configuration file: defaults and environment"),
    }
    // It may wait for a database.
    let app = tokio::select! {
        app = App::start(config) => app?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    tracing::info!("state in {}", app.state_dir.display());
    for (what, address) in [(app.scheme, app.address)].iter().chain(&app.sources) {
        let places = first_run::addresses(what, *address);
        tracing::info!("listening on {address} ({what}): {}", places.join(", "));
    }
    if app.to_set_up && app.first_admin.is_none() {
        tracing::info!("nobody has chosen the password yet: `friend-lite first-run` shows it");
    }
    if let Some(admin) = &app.first_admin {
        println!("administrator: {}", admin.email);
        // Shown here and nowhere else: it is kept only as a hash.
        if let Some(password) = &admin.password {
            println!("password: {password}");
        }
    }
    for (source, address) in &app.sources {
        println!("{source} on tcp://{address}");
    }
    println!("listening on {}://{}", app.scheme, app.address);

    let stopped = app.stopped();
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = stopped.cancelled() => {}
    }
    tracing::info!("stopping; a second signal ends at once");
    let signal = tokio::select! {
        () = app.stop() => {
            tracing::info!("stopped");
            return Ok(());
        }
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
    };
    tracing::warn!("ended at once; the next start picks up what was left");
    // Not by returning: that would wait for a disk that may never answer.
    std::process::exit(128 + signal.as_raw_value())
}
