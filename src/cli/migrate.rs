//! `friend-lite migrate`: everything but the audio from one database to the other.

use super::terminal;
use crate::app;
use crate::base::error::Result;
use crate::config::Config;

/// Options of `friend-lite migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which database to move to
    #[arg(long, value_enum)]
    to: Engine,
    /// Put what that one holds already aside, under a dated name
    #[arg(long)]
    force: bool,
}

/// The databases there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    /// The file in the state directory
    Sqlite,
    /// The server of `mongodb.uri`
    Mongodb,
}

/// Copies all that the other database holds, with the daemon stopped, and compares
/// it row by row. One that is cut short is begun again.
///
/// # Errors
/// Those of [`app::migrate`].
pub(super) async fn run(args: Args, config: Config) -> Result<()> {
    let to_mongodb = args.to == Engine::Mongodb;
    let bar = terminal::bar("migrating", 0, "rows");
    let progress = |total, of: crate::store::transfer::RowKind, some| {
        bar.set_length(total);
        bar.set_message(of.as_str());
        bar.inc(some);
    };
    let moved = app::migrate(&config, to_mongodb, args.force, progress).await;
    bar.finish_and_clear();
    let moved = moved?;

    let (engine, place) = match args.to {
        Engine::Sqlite => ("sqlite", format!("SQLite in {}", config.state_dir().display())),
        Engine::Mongodb => ("mongodb", format!("the MongoDB database {}", config.mongodb.database)),
    };
    let mut said = format!("copied to {place}, and compared row by row:\n");
    for (of, rows) in moved.rows.iter().filter(|(_, rows)| *rows > 0) {
        said += &format!("{rows:>10}  {}\n", of.as_str());
    }
    if let Some(aside) = &moved.aside {
        said += &format!("what was there before is kept as {aside}\n");
    }
    for (node, recordings) in &moved.elsewhere {
        said += &format!(
            "{recordings} recordings are on the disk of {node} only: copy them to {} as well\n",
            config.state_dir().join("audio").display()
        );
    }
    if config.store.engine != engine {
        said += &format!("set store.engine = \"{engine}\" before you start the daemon\n");
    }
    terminal::print(&said)
}
