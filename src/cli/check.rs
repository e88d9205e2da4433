//! `friend-lite check`: whether rows and files agree, in plain words.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::terminal;
use super::user::Elsewhere;
use crate::app;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::config::Config;
use crate::domain::finding::Finding;
use crate::jobs::Wake;
use crate::pipeline::reconcile::Sweep;
use crate::recording::Recordings;
use crate::store::Store;
use crate::upkeep::check::{Check, Report};

/// Something is wrong.
const FOUND: u8 = 1;
/// It could not be told.
const BLIND: u8 = 2;

/// Options of `friend-lite check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Mend what can be mended, with the daemon stopped. Deletes no audio
    #[arg(long)]
    repair: bool,
    /// Ask the bucket, too, whether it has what it should
    #[arg(long)]
    bucket: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether anything may be written.
    pub(super) fn repairs(&self) -> bool {
        self.repair
    }
}

/// Looks, and says what is wrong and what to do about it. The exit code is 0
/// when all is well, 1 when something is wrong, and 2 when that could not be
/// told.
pub(super) async fn run(args: Args, config: Config) -> ExitCode {
    match look(&args, &config).await {
        Ok(outcome) => outcome.tell(args.json),
        Err(error) => {
            eprintln!("friend-lite: cannot check: {}", error.report());
            ExitCode::from(BLIND)
        }
    }
}

/// What was found, and mended before that.
struct Outcome {
    mended: Vec<Finding>,
    report: Report,
}

async fn look(args: &Args, config: &Config) -> Result<Outcome> {
    let dir = config.state_dir();
    let clock = Clock::system();
    let damage = app::database_damage(config)?;
    if !damage.is_empty() && !args.repair {
        // Rows cannot be trusted, so nothing more is made of them.
        let report = Report { findings: damage, ..Report::default() };
        return Ok(Outcome { mended: Vec::new(), report });
    }
    let (store, running, _held) = match args.repair {
        true => {
            let (store, held) = app::open_store_alone(config, &clock).await?;
            (store, false, Some(held))
        }
        false => {
            let (store, running) = app::open_store_to_look(config).await?;
            (store, running, None)
        }
    };
    let recordings = Recordings::open(&dir, config.recording.sync_interval.get(), clock.clone())?;
    let bucket = if args.bucket { app::bucket(config, &clock)? } else { None };
    let check = Check::new(store.clone(), recordings.clone(), clock.clone(), running);
    let check = check.asking(bucket);
    let mut before = examine(&check).await?;
    before.findings.extend(damage);
    if !args.repair || before.findings.is_empty() {
        return Ok(Outcome { mended: Vec::new(), report: before });
    }
    check.repair(&sweep(config, &store, recordings, clock)).await?;
    let report = examine(&check).await?;
    let mut mended = before.findings;
    mended.retain(|finding| !report.findings.contains(finding));
    Ok(Outcome { mended, report })
}

async fn examine(check: &Check) -> Result<Report> {
    let bar = terminal::bar("checking", 0, "conversations");
    let report = check
        .run(|done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        })
        .await;
    bar.finish_and_clear();
    report
}

/// The daemon's sweep, without what it does beyond repairs.
fn sweep(config: &Config, store: &Arc<dyn Store>, recordings: Recordings, clock: Clock) -> Sweep {
    let mut config = config.clone();
    // Archiving is the daemon's own affair, and may delete audio.
    config.recording.archive = "wav".into();
    let elsewhere = Arc::new(Elsewhere);
    Sweep::new(store.clone(), recordings, elsewhere, &config, Wake::default(), clock)
}

impl Outcome {
    fn tell(&self, json: bool) -> ExitCode {
        let Report { conversations, recordings, findings } = &self.report;
        if json {
            let list = |findings: &[Finding]| -> Vec<serde_json::Value> {
                findings.iter().map(as_json).collect()
            };
            let object = json!({
                "conversations": conversations,
                "recordings": recordings,
                "mended": list(&self.mended),
                "findings": list(findings),
            });
            println!("{object}");
        } else {
            self.mended.iter().for_each(|finding| println!("mended: {}", finding.message));
            for finding in findings {
                println!("{}: {}", finding.fault.as_str(), finding.message);
                println!("  what to do: {}", finding.fault.advice());
            }
            let verdict = match findings.len() {
                0 => "all is well".to_owned(),
                1 => "1 thing is wrong".to_owned(),
                many => format!("{many} things are wrong"),
            };
            println!("{conversations} conversations, {recordings} recordings: {verdict}");
        }
        ExitCode::from(if findings.is_empty() { 0 } else { FOUND })
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let Finding { fault, subject, message } = finding;
    json!({
        "fault": fault,
        "subject": subject,
        "message": message,
        "advice": fault.advice(),
        "mendable": fault.is_mendable(),
    })
}
