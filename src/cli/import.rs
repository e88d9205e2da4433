//! `friend-lite import`: what other programs have, taken over.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use super::terminal;
use crate::app;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::{Config, Secret};
use crate::recording::Recordings;
use crate::supervisor::Supervisor;
use crate::upkeep::original::{Takeover, Tally};

/// How often progress is told where nobody watches a bar.
const TOLD: Duration = Duration::from_secs(5);
/// The most lines about what did not come; the rest is counted.
const SHOWN: usize = 200;

/// Options of `friend-lite import`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    /// From the databases of the original Friend-Lite
    ///
    /// Users log in with the passwords that they have there. Conversations, chats,
    /// memories and recordings are copied; the source is only read. What came before
    /// is skipped, so that a run that was cut off goes on and another one brings what
    /// is new. The exit code is 1 when something was left out: each is named with the
    /// reason.
    FriendLite(FriendLite),
}

#[derive(Debug, clap::Args)]
struct FriendLite {
    /// Its MongoDB: `mongodb://user:password@host:27017` [default: mongodb.uri]
    #[arg(long, value_name = "URI")]
    mongodb: Option<String>,
    /// Its database there
    #[arg(long, value_name = "NAME", default_value = "friend-lite")]
    database: String,
    /// The gRPC interface of its Qdrant, `http://host:6334`; without it memories are
    /// left. The key is qdrant.api_key
    #[arg(long, value_name = "URL")]
    qdrant: Option<String>,
    /// Its collection of memories there
    #[arg(long, value_name = "NAME", default_value = "omi_memories")]
    collection: String,
    /// The directory of its recordings; without it conversations come with their
    /// transcripts alone, and another run may bring the recordings
    #[arg(long, value_name = "DIR")]
    audio: Option<PathBuf>,
    /// Count, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    /// Whether something is written.
    pub(super) fn writes(&self) -> bool {
        let From::FriendLite(args) = &self.from;
        !args.dry_run
    }
}

/// Imports, beside a running daemon too. The exit code is 1 when something was left
/// out or does not add up.
///
/// # Errors
/// Those of the source and of the store: what has come by then is kept.
pub(super) async fn run(args: Args, config: Config) -> Result<ExitCode> {
    let From::FriendLite(args) = args.from;
    let clock = Clock::system();
    let store = app::open_store_beside_daemon(&config).await?;
    let recordings =
        Recordings::open(&config.state_dir(), config.recording.sync_interval.get(), clock.clone())?
            .with_reserve(config.disk.upload_reserve())
            .with_bucket(app::bucket(&config, &clock)?);
    let embedder = match args.qdrant {
        Some(_) => Some(app::embedder(&config, &Supervisor::new())?),
        None => None,
    };
    let source = source(&args, &config)?;
    let original = app::original(&source, embedder).await?;
    let takeover = Takeover::new(store, recordings, config.transcribe.clone(), clock.clone());
    let teller = Teller::new(clock);
    let tally =
        takeover.dry(args.dry_run).run(original, &|what, done| teller.tell(what, done)).await;
    teller.bar.finish_and_clear();
    let tally = tally?;
    print!("{}", table(&tally, args.dry_run));
    for line in notes(&tally) {
        eprintln!("friend-lite: {line}");
    }
    if args.qdrant.is_none() {
        println!("memories were left: --qdrant says where they are");
    }
    if args.audio.is_none() && tally.recordings.source > 0 {
        println!("recordings were left: --audio says where they are");
    }
    Ok(ExitCode::from(u8::from(!tally.is_complete())))
}

/// The configuration with the source in the place of this daemon's own services.
fn source(args: &FriendLite, config: &Config) -> Result<Config> {
    let mut source = config.clone();
    if let Some(uri) = &args.mongodb {
        source.mongodb.uri = Secret::new(uri.clone());
    }
    if source.mongodb.uri.expose().is_empty() {
        let message = "say where the MongoDB of the original is: --mongodb mongodb://host:27017";
        return Err(Error::new(Kind::Config, message));
    }
    source.mongodb.database.clone_from(&args.database);
    if let Some(url) = &args.qdrant {
        source.qdrant.url.clone_from(url);
    }
    source.qdrant.collection.clone_from(&args.collection);
    source.import.audio = match &args.audio {
        Some(dir) if !dir.is_dir() => {
            let message = format!("--audio: {} is not a directory", dir.display());
            return Err(Error::new(Kind::Config, message));
        }
        Some(dir) => dir.display().to_string(),
        None => String::new(),
    };
    Ok(source)
}

/// Tells how far it is: a bar on a terminal, a line now and then elsewhere.
struct Teller {
    bar: indicatif::ProgressBar,
    clock: Clock,
    last: Mutex<Duration>,
}

impl Teller {
    fn new(clock: Clock) -> Self {
        let last = Mutex::new(clock.monotonic());
        Self { bar: terminal::counter(), clock, last }
    }

    fn tell(&self, what: &'static str, done: u64) {
        self.bar.set_prefix(what);
        self.bar.set_position(done);
        if std::io::stderr().is_terminal() {
            return;
        }
        let now = self.clock.monotonic();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*last) >= TOLD {
            *last = now;
            eprintln!("importing: {done} {what}");
        }
    }
}

/// The figures, one kind a line.
fn table(tally: &Tally, dry: bool) -> String {
    let taken = if dry { "to come" } else { "taken over" };
    let mut table = format!(
        "{:<18}{:>10}{taken:>12}{:>14}{:>14}{:>10}\n",
        "", "source", "there before", "deleted here", "left out"
    );
    for (name, row) in tally.rows() {
        table += &format!(
            "{name:<18}{:>10}{:>12}{:>14}{:>14}{:>10}\n",
            row.source, row.taken, row.before, row.gone, row.left
        );
    }
    table
}

/// What did not come, and what else to know.
fn notes(tally: &Tally) -> Vec<String> {
    let mut notes: Vec<String> = tally
        .problems
        .iter()
        .take(SHOWN)
        .map(|problem| format!("{} {}: {}", problem.what, problem.id, problem.why))
        .collect();
    if tally.problems.len() > SHOWN {
        notes.push(format!("and {} more", tally.problems.len() - SHOWN));
    }
    if tally.guessed > 0 {
        notes.push(format!(
            "{} conversations of devices that nobody has were given to an administrator",
            tally.guessed
        ));
    }
    if tally.deleted > 0 {
        notes
            .push(format!("{} conversations had been deleted there, and were left", tally.deleted));
    }
    for name in tally.missing() {
        notes.push(format!("the {name} do not add up: run it again, and report it if that stays"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::original::Fate;

    #[test]
    fn the_table_has_every_figure() {
        let mut tally = Tally::default();
        tally.conversations.source = 3;
        tally.conversations.add(Fate::Taken, 2);
        let table = table(&tally, false);
        let line = table.lines().find(|line| line.starts_with("conversations")).unwrap();
        let figures: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(figures, ["conversations", "3", "2", "0", "0", "0"]);
        assert!(!table.contains("memories"), "they were not asked for");
        assert!(notes(&tally)[0].contains("conversations do not add up"));
    }

    #[test]
    fn a_source_has_to_be_named() {
        let args = FriendLite {
            mongodb: None,
            database: "old".into(),
            qdrant: Some("http://there:6334".into()),
            collection: "omi".into(),
            audio: Some("/there/is/no/such".into()),
            dry_run: true,
        };
        let error = source(&args, &Config::default()).unwrap_err();
        assert!(error.message().contains("--mongodb"), "{error}");
        let args = FriendLite { mongodb: Some("mongodb://there".into()), ..args };
        let error = source(&args, &Config::default()).unwrap_err();
        assert!(error.message().contains("--audio"), "{error}");
        let source = source(&FriendLite { audio: None, ..args }, &Config::default()).unwrap();
        assert_eq!(
            (source.mongodb.database.as_str(), source.qdrant.url.as_str()),
            ("old", "http://there:6334")
        );
    }
}
