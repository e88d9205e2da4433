//! The command line: one file a subcommand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::{owner, telemetry};
use crate::config::Config;
use crate::config::load::{self, Sources};
use crate::pipeline::deletion::Deletion;
use crate::recording::Recordings;
use crate::supervisor::Supervisor;

mod backup;
mod check;
mod check_config;
mod doctor;
mod export;
mod first_run;
mod generate;
mod import;
mod migrate;
pub mod models;
mod reindex;
mod restore;
mod run;
mod status;
mod stream;
mod terminal;
mod transcribe;
pub mod user;

/// Private, offline memory for spoken conversations.
///
/// Records what wearables, phones and satellites send, transcribes it with a
/// local model, remembers what mattered, and finds it again. With nothing
/// configured, `friend-lite run` starts it all.
#[derive(Debug, Parser)]
#[command(name = "friend-lite", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Debug, clap::Args)]
struct Common {
    /// Configuration file [default: the user's, then /etc/friend-lite/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the database and the audio
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Log level or filter: error, warn, info, debug, trace
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the daemon
    Run(run::Args),
    /// Show where the daemon is, and how to log in for the first time
    FirstRun,
    /// Show how the running daemon is
    Status(status::Args),
    /// Show how the running daemon is, again and again
    Top(status::TopArgs),
    /// Look for what is wrong, and say what to do
    Doctor(doctor::Args),
    /// Copy everything to another place, beside the running daemon
    Backup(backup::Args),
    /// Put a backup in the place of what is there
    Restore(restore::Args),
    /// Write conversations and memories in forms that need no friend-lite
    Export(export::Args),
    /// Move everything but the audio to the other database: to MongoDB, or back
    Migrate(migrate::Args),
    /// Take over what another program has
    Import(import::Args),
    /// Prove that rows and files agree, and say what is wrong
    Check(check::Args),
    /// Print the configuration in force, secrets hidden
    CheckConfig(check_config::Args),
    /// List, fetch and verify model files
    Models(models::Args),
    /// Manage who can log in
    User(user::UserArgs),
    /// Transcribe audio files without the daemon
    Transcribe(transcribe::Args),
    /// Move all memories to the configured embedding model
    Reindex,
    /// Send an audio file to a daemon the way a wearable does, and show what comes of it
    Stream(stream::Args),
    /// Write the man page and shell completions
    #[command(hide = true)]
    Generate(generate::Args),
}

impl Command {
    /// Whether the files that it makes belong to the owner of the state, and not
    /// to root.
    fn is_for_the_owner(&self, config: &Config) -> bool {
        match self {
            Self::Run(_)
            | Self::Models(_)
            | Self::User(_)
            | Self::Migrate(_)
            | Self::Reindex
            | Self::FirstRun => true,
            // Not on a disk of somebody else's.
            Self::Backup(args) => args
                .target(config)
                .is_some_and(|dir| owner::have_one_owner(&dir, &config.state_dir())),
            Self::Check(args) => args.repairs(),
            Self::Import(args) => args.writes(),
            // A restore gives what it writes to the owner itself: the backup may be
            // root's alone to read.
            Self::Restore(_)
            | Self::Export(_)
            | Self::Status(_)
            | Self::Top(_)
            | Self::Doctor(_)
            | Self::CheckConfig(_)
            | Self::Transcribe(_)
            | Self::Stream(_)
            | Self::Generate(_) => false,
        }
    }
}

/// Runs the command line and says how it went: 64 for wrong usage or
/// configuration, 1 when the command failed.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors.
            let code = if error.use_stderr() { 64 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("friend-lite: {}", error.report());
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    let mut sources = Sources::from_process(cli.common.config);
    if let Some(dir) = &cli.common.state_dir {
        sources.overrides.push(("state", "dir", dir.display().to_string()));
    }
    if let Some(level) = &cli.common.log {
        sources.overrides.push(("log", "level", level.clone()));
    }
    if let Command::Run(args) = &cli.command {
        args.apply(&mut sources);
    }
    let loaded = load::load(&sources);
    if let Command::Doctor(args) = cli.command {
        telemetry::init(cli.common.log.as_deref().unwrap_or("off"), false);
        return doctor::run(args, loaded);
    }
    let (mut config, file) = loaded?;
    // Commands other than the daemon speak to a person: only what is wrong.
    let quiet = !matches!(cli.command, Command::Run(_)) && cli.common.log.is_none();
    telemetry::init(if quiet { "warn" } else { &config.log.level }, config.log.json);
    if cli.command.is_for_the_owner(&config) {
        as_owner(&mut config)?;
    }

    match cli.command {
        Command::Check(args) => return block_on(async { Ok(check::run(args, config).await) }),
        Command::Restore(args) => return block_on(restore::run(args, config)),
        Command::Import(args) => return block_on(import::run(args, config)),
        Command::Run(_) => block_on(run::run(config, file)),
        Command::Backup(args) => block_on(backup::run(args, config)),
        Command::Export(args) => block_on(export::run(args, config)),
        Command::Migrate(args) => block_on(migrate::run(args, config)),
        Command::CheckConfig(args) => check_config::run(&args, &config, file.as_deref()),
        Command::Models(args) => block_on(models::run(args, &config)),
        Command::User(args) => block_on(open_users(args, config)),
        Command::Transcribe(args) => block_on(transcribe::run(args, config)),
        Command::Reindex => block_on(open_index(config)),
        Command::Stream(args) => block_on(stream::run(args)),
        Command::FirstRun => block_on(first_run::run(config)),
        Command::Status(args) => block_on(status::run(args, config)),
        Command::Top(args) => block_on(status::top(args, config)),
        // Above: it looks at a configuration that cannot be loaded, too.
        Command::Doctor(_) => Ok(()),
        Command::Generate(args) => generate::run(&args),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Goes on as the owner of the state, where root works on a service's. What root
/// finds by being root is noted before.
fn as_owner(config: &mut Config) -> Result<()> {
    let dir = config.state_dir();
    config.state.dir = dir.display().to_string();
    if let Some(backups) = config.backup_dir() {
        config.backup.dir = backups.display().to_string();
    }
    config.models.dir = crate::models::models_dir(config).display().to_string();
    owner::become_owner_of(&dir)
}

async fn open_users(args: user::UserArgs, config: Config) -> Result<()> {
    let clock = Clock::system();
    let store = crate::app::open_store_beside_daemon(&config).await?;
    let recordings =
        Recordings::open(&config.state_dir(), config.recording.sync_interval.get(), clock.clone())?;
    let elsewhere = Arc::new(user::Elsewhere);
    let deletion = Deletion::new(store.clone(), recordings, elsewhere, clock.clone());
    user::run(args, store.as_ref(), &deletion, &clock, &config).await
}

async fn open_index(config: Config) -> Result<()> {
    let store = crate::app::open_store_beside_daemon(&config).await?;
    let embedder = crate::app::embedder(&config, &Supervisor::new())?;
    let outside = crate::app::index_outside(&config, store.clone(), embedder.name())?;
    reindex::run(store, embedder, outside).await
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    use crate::base::error::{Context, Kind};
    crate::base::system::share_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One is enough for hundreds of streams, and spares waking a second for
        // each frame; disk and database have threads of their own.
        .worker_threads(1)
        // Each costs memory for as long as it is used. Their work is to wait for
        // the disk, which takes as many syncs at once as help it.
        .max_blocking_threads(16)
        .thread_name("friend-lite")
        .enable_all()
        .build()
        .context(Kind::Internal, "cannot start the async runtime")?;
    let outcome = runtime.block_on(work);
    // A large file that is still being read through is left to the next start.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}
