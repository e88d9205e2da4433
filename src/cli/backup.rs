//! `friend-lite backup`: a copy of everything, beside a running daemon.

use std::path::PathBuf;

use super::terminal;
use crate::app;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::upkeep::backup::{self, Options};

/// Options of `friend-lite backup`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the backups; on another disk, it outlives this one [default: backup.dir]
    dir: Option<PathBuf>,
    /// Read what has not changed again too, and copy anew what has gone bad
    #[arg(long)]
    verify: bool,
}

impl Args {
    /// Where to, if that is known.
    pub(super) fn target(&self, config: &Config) -> Option<PathBuf> {
        self.dir.clone().or_else(|| config.backup_dir())
    }
}

/// Backs up.
///
/// # Errors
/// `Config` with nowhere to put it, `NotFound` with nothing to back up, and
/// those of [`backup::back_up`].
pub(super) async fn run(args: Args, config: Config) -> Result<()> {
    let dir = args.target(&config).ok_or_else(|| {
        let message = "say where to: friend-lite backup DIR, or backup.dir in the configuration";
        Error::new(Kind::Config, message)
    })?;
    let (store, _) = app::open_store_to_look(&config).await?;
    let keep = config.backup.keep;
    let options = Options { keep, verify: args.verify };
    let bar = terminal::bar("backing up", 0, "files");
    let progress = |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let state = config.state_dir();
    let done = backup::back_up(store, &state, &dir, options, &Clock::system(), progress).await;
    bar.finish_and_clear();
    let done = done?;
    println!(
        "backup {} in {}: {} files, {} of them new; {} written",
        done.number,
        dir.display(),
        done.files,
        done.copied,
        terminal::size(done.bytes)
    );
    Ok(())
}
