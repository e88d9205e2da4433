//! `friend-lite models`: which models there are, getting them, checking them.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::terminal::print;
use crate::app::{self, Pulled};
use crate::base::error::{Error, Kind, Result};
use crate::base::system::total_memory;
use crate::config::Config;
use crate::models::{
    Catalog, Entry, MARGIN, Place, Progress, fetch, is_present, models_dir, verify,
};
use crate::supervisor::blocking;

/// List, fetch and check the model files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every model: its size, whether it is here, whether it suits this machine
    List,
    /// Get models; without names, those this machine uses by default
    Fetch {
        /// Names from `friend-lite models list`
        names: Vec<String>,
        /// Get every model
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Take the files from this directory and from nowhere else
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
    /// Have Ollama get the models that the configuration asks it for
    Pull,
    /// Read model files through and compare their SHA-256; without names, all that are here
    Verify {
        /// Names from `friend-lite models list`
        names: Vec<String>,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// [`Kind::Config`] for an unknown name; otherwise what went wrong with the
/// files, naming each of them.
pub async fn run(args: Args, config: &Config) -> Result<()> {
    let catalog = Catalog::builtin()?;
    match args.command {
        Command::List => print(&list(&catalog, config)),
        Command::Fetch { names, all, from } => {
            let entries = match (all, names.is_empty()) {
                (true, _) => catalog.entries().iter().collect(),
                (false, true) => catalog.defaults(config, total_memory()),
                (false, false) => named(&catalog, &names)?,
            };
            let order = match from {
                Some(dir) => vec![Place::Directory(dir)],
                None => config.models.sources.iter().map(|s| s.parse()).collect::<Result<_>>()?,
            };
            fetch_all(&catalog, &entries, config, &order).await
        }
        Command::Pull => pull(config).await,
        Command::Verify { names } => {
            let dir = models_dir(config);
            let entries = match names.is_empty() {
                true => catalog.entries().iter().filter(|e| dir.join(&e.file).exists()).collect(),
                false => named(&catalog, &names)?,
            };
            verify_all(&entries, config).await
        }
    }
}

fn named<'a>(catalog: &'a Catalog, names: &[String]) -> Result<Vec<&'a Entry>> {
    let find = |name: &String| {
        catalog.get(name).ok_or_else(|| Error::new(Kind::Config, catalog.unknown(name, None)))
    };
    names.iter().map(find).collect()
}

/// Steps of fewer bytes are over before a line about them is read.
const LONG_STEP: u64 = 50_000_000;

/// Bytes as people read them.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn list(catalog: &Catalog, config: &Config) -> String {
    let (dir, memory) = (models_dir(config), total_memory());
    let chosen: Vec<_> = catalog.defaults(config, memory).iter().map(|entry| &entry.name).collect();
    let yes = |is: bool| if is { "yes" } else { "no" };
    let row = |cells: [&str; 7]| {
        let [name, kind, size, licence, present, fits, default] = cells;
        format!("{name:<22} {kind:<6} {size:>10}  {licence:<11} {present:<8} {fits:<5} {default}")
            .trim_end()
            .to_owned()
    };
    let mut text = row(["NAME", "KIND", "SIZE", "LICENCE", "PRESENT", "FITS", "DEFAULT"]);
    for entry in catalog.entries() {
        let cells = [
            entry.name.as_str(),
            entry.kind.name(),
            &megabytes(entry.bytes),
            &entry.licence,
            yes(is_present(entry, &dir)),
            yes(entry.fits(memory)),
            if chosen.contains(&&entry.name) { "yes" } else { "" },
        ];
        let _ = write!(text, "\n{}", row(cells));
    }
    let _ = writeln!(
        text,
        "\n\nThis machine has {} MiB of memory; models are in {}",
        memory >> 20,
        dir.display()
    );
    text
}

async fn fetch_all(
    catalog: &Catalog,
    entries: &[&Entry],
    config: &Config,
    order: &[Place],
) -> Result<()> {
    let dir = models_dir(config);
    let progress: Arc<dyn Progress> = match std::io::stderr().is_terminal() {
        true => Arc::new(Bar::new()),
        false => Arc::new(Lines::default()),
    };
    let (mut done, mut failures) = (String::new(), Vec::new());
    for entry in entries {
        match fetch(catalog, entry, &dir, order, MARGIN, &progress).await {
            Ok(path) => {
                let _ = writeln!(done, "{}: {}", entry.name, path.display());
            }
            Err(error) => failures.push(error),
        }
    }
    // Clears the bar off the terminal.
    drop(progress);
    print(&done)?;
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => {
            let message = failures.fold(first.report(), |text, next| text + "\n" + &next.report());
            Err(Error::new(first.kind(), message))
        }
    }
}

async fn pull(config: &Config) -> Result<()> {
    let progress: Box<dyn Progress> = match std::io::stderr().is_terminal() {
        true => Box::new(Bar::new()),
        false => Box::new(Lines::default()),
    };
    let mut step = (String::new(), String::new(), 0);
    let told = |model: &str, pulled: &Pulled| {
        let now = (model.to_owned(), pulled.status.clone(), pulled.total);
        if now != step {
            progress.step(model, &pulled.status, pulled.total);
            step = now;
        }
        progress.at(pulled.completed);
    };
    app::pull_models(config, told).await?;
    drop(progress);
    print("Ollama has the models\n")
}

async fn verify_all(entries: &[&Entry], config: &Config) -> Result<()> {
    let dir = models_dir(config);
    let mut bad = Vec::new();
    for entry in entries {
        let (one, at) = ((*entry).clone(), dir.clone());
        match blocking(move || verify(&one, &at)).await {
            Ok(()) => print(&format!("{}: good\n", entry.name))?,
            Err(error) => bad.push(format!("{}: {}", entry.name, error.report())),
        }
    }
    if bad.is_empty() {
        return Ok(());
    }
    bad.push("remove each such file and run `friend-lite models fetch NAME`".into());
    Err(Error::new(Kind::Storage, bad.join("\n")))
}

/// Progress on a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        Self(ProgressBar::no_length())
    }
}

impl Progress for Bar {
    fn step(&self, model: &str, what: &str, bytes: u64) {
        let template = match bytes {
            0 => "{prefix}: {msg}",
            _ => "{prefix}: {msg}\n{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_prefix(model.to_owned());
        self.0.set_message(what.to_owned());
        self.0.set_position(0);
        self.0.set_length(bytes);
        self.0.reset_eta();
    }

    fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Progress in a log: a line for each step, and at every tenth of a long one.
#[derive(Default)]
struct Lines(Mutex<Step>);

#[derive(Default)]
struct Step {
    model: String,
    bytes: u64,
    tenths: u64,
}

impl Step {
    /// The line to print when `at` bytes are done, if it is time for one.
    fn line(&mut self, at: u64) -> Option<String> {
        let tenths = at.saturating_mul(10).checked_div(self.bytes)?;
        if tenths == self.tenths || self.bytes < LONG_STEP {
            return None;
        }
        self.tenths = tenths;
        Some(format!("{}: {} % of {}", self.model, tenths * 10, megabytes(self.bytes)))
    }
}

impl Progress for Lines {
    fn step(&self, model: &str, what: &str, bytes: u64) {
        let mut step = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Packages of one file go on with the same count.
        let tenths = if step.bytes == bytes && step.model == model { step.tenths } else { 0 };
        *step = Step { model: model.to_owned(), bytes, tenths };
        let _ = writeln!(std::io::stderr(), "{model}: {what}");
    }

    fn at(&self, bytes: u64) {
        let mut step = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = step.line(bytes) {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_what_is_here_and_what_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.models.dir = dir.path().display().to_string();
        config.stt.model = "whisper-tiny".into();
        let catalog = Catalog::builtin().unwrap();
        let tiny = catalog.get("whisper-tiny").unwrap();
        std::fs::File::create(dir.path().join(&tiny.file)).unwrap().set_len(tiny.bytes).unwrap();
        let text = list(&catalog, &config);
        let line = |name: &str| text.lines().find(|l| l.starts_with(name)).unwrap();
        assert!(line("whisper-tiny").contains("77.7 MB"));
        assert!(line("whisper-tiny").ends_with("yes"), "{text}");
        assert!(line("whisper-base").contains("no"), "{text}");
        assert_eq!(text.lines().count(), 1 + catalog.entries().len() + 2);
    }

    #[tokio::test]
    async fn verify_fails_for_a_damaged_or_missing_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.models.dir = dir.path().display().to_string();
        let verify = |names: &[&str]| {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            Args { command: Command::Verify { names } }
        };
        run(verify(&[]), &config).await.unwrap();
        assert_eq!(run(verify(&["whisper-tiny"]), &config).await.unwrap_err().exit_code(), 1);
        std::fs::write(dir.path().join("ggml-tiny.bin"), "half").unwrap();
        let error = run(verify(&[]), &config).await.unwrap_err();
        assert!(error.message().contains("4 bytes instead of 77691713"));
        assert_eq!(run(verify(&["nonsense"]), &config).await.unwrap_err().exit_code(), 64);
    }

    #[test]
    fn a_log_gets_a_line_for_every_tenth() {
        let mut step = Step { model: "m".into(), bytes: LONG_STEP, tenths: 0 };
        let lines: Vec<_> = (0..=1000).filter_map(|at| step.line(at * LONG_STEP / 1000)).collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[9], "m: 100 % of 50.0 MB");
        assert_eq!(Step { bytes: LONG_STEP - 1, ..Step::default() }.line(5_000_000), None);
        assert_eq!(Step::default().line(5), None);
    }
}
