//! `friend-lite export`: everything in forms that need no friend-lite.

use std::path::PathBuf;

use super::terminal;
use crate::app;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::http::auth::normal_email;
use crate::upkeep::export::Export;

/// Options of `friend-lite export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A directory that is made for it
    dir: PathBuf,
    /// The e-mail address of the one user to export [default: everybody]
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
}

/// Exports, beside a running daemon too.
///
/// # Errors
/// `NotFound` without that user; `Conflict` when the directory is there.
pub(super) async fn run(args: Args, config: Config) -> Result<()> {
    let (store, _) = app::open_store_to_look(&config).await?;
    let users = match &args.user {
        None => store.users().await?,
        Some(email) => {
            let user = store.user_by_email(&normal_email(email)).await?;
            let none = || Error::new(Kind::NotFound, format!("there is no user {email}"));
            vec![user.ok_or_else(none)?]
        }
    };
    let bar = terminal::bar("exporting", 0, "conversations");
    let progress = |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let clock = Clock::system();
    let bucket = app::bucket(&config, &clock)?;
    let export = Export::new(store, config.state_dir(), clock).with_bucket(bucket);
    let done = export.run(&args.dir, &users, progress).await;
    bar.finish_and_clear();
    let done = done?;
    println!(
        "exported {} users with {} conversations, {} recordings and {} memories to {}",
        done.users,
        done.conversations,
        done.recordings,
        done.memories,
        args.dir.display()
    );
    Ok(())
}
