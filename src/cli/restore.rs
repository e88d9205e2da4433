//! `friend-lite restore`: a backup in the place of what is there.

use std::path::PathBuf;
use std::process::ExitCode;

use super::terminal;
use crate::app;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::config::Config;
use crate::supervisor::blocking;
use crate::upkeep::{backup, restore};

/// Options of `friend-lite restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the backups
    dir: PathBuf,
    /// Put what is there already aside, under a dated name
    #[arg(long)]
    force: bool,
    /// Which backup [default: the newest]
    #[arg(long)]
    number: Option<u32>,
}

/// Restores, with the daemon stopped. The exit code is 1 when files of the backup
/// were damaged; all others are restored.
///
/// # Errors
/// Those of [`restore::restore`]; `Conflict` while a daemon runs.
pub(super) async fn run(args: Args, config: Config) -> Result<ExitCode> {
    let _held = app::hold_state(&config)?;
    let bar = terminal::bar("restoring", 0, "files");
    let progress = {
        let bar = bar.clone();
        move |done: usize, of: usize| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }
    };
    let state = config.state_dir();
    let restored = blocking(move || {
        let backup = backup::find(&args.dir, args.number)?;
        restore::restore(&args.dir, &backup, &state, args.force, &Clock::system(), progress)
    })
    .await;
    bar.finish_and_clear();
    let restored = restored?;
    println!(
        "restored backup {} of {}: {} files",
        restored.number, restored.made_at, restored.files
    );
    if let Some(before) = &restored.before {
        println!("what was there before is kept in {}", before.display());
    }
    for name in &restored.damaged {
        eprintln!("friend-lite: {name} is damaged or missing in the backup and was left out");
    }
    Ok(ExitCode::from(u8::from(!restored.damaged.is_empty())))
}
