//! `friend-lite doctor`: looks for what is wrong, and says what to do about it.

mod engines;
mod machine;
mod models;
mod network;

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::base::error::{Context, Error, Kind, Result};
use crate::config::Config;
use crate::http::local;
use crate::http::status::Status;

/// Options of `friend-lite doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    /// Leave out what takes long: reading models through, and running them
    #[arg(long)]
    quick: bool,
}

/// What came of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    /// It works, and may not for long.
    Warning,
    Bad,
    /// It could not be looked at, or there is nothing to look at.
    Skipped,
}

/// One check, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What was found.
    says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn good(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, says: says.into(), advice: None }
    }

    fn skipped(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Skipped, says: says.into(), advice: None }
    }

    fn warning(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { check, verdict: Verdict::Warning, says: says.into(), advice }
    }

    fn bad(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Bad, says: says.into(), advice: Some(advice.into()) }
    }
}

/// Everything that the checks look at.
struct Patient {
    config: Config,
    /// How the daemon is, while it runs on this state.
    running: Option<Status>,
    quick: bool,
}

/// Runs every check and prints what came of it; the exit code is 1 when
/// something is bad.
///
/// # Errors
/// `Internal` when nothing can be run or printed at all.
pub(super) fn run(args: Args, loaded: Result<(Config, Option<PathBuf>)>) -> Result<ExitCode> {
    let mut findings = Vec::new();
    match loaded {
        Ok((mut config, file)) => {
            let says = file.map_or("no file: defaults and environment".into(), |file| {
                file.display().to_string()
            });
            findings.push(Finding::good("config", says));
            // As the service, so that what it may not do is seen.
            super::as_owner(&mut config)?;
            super::block_on(async {
                findings.extend(examine(config, args.quick).await);
                Ok(())
            })?;
        }
        Err(error) => findings.push(Finding::bad(
            "config",
            error.report(),
            "correct it; config.example.toml has every key with its default",
        )),
    }
    match args.json {
        true => println!(
            "{}",
            serde_json::to_string_pretty(&findings)
                .context(Kind::Internal, "cannot write it as JSON")?
        ),
        false => print!("{}", render(&findings)),
    }
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(config: Config, quick: bool) -> Vec<Finding> {
    let (running, daemon) = match local::ask(&config.state_dir()).await {
        Ok(status) => {
            let finding = network::daemon(&status).await;
            (Some(status), finding)
        }
        Err(error) => (None, not_running(&error)),
    };
    let patient = Patient { config, running, quick };
    let mut findings = vec![daemon];
    findings.extend(machine::check(&patient).await);
    findings.extend(models::check(&patient).await);
    findings.extend(network::check(&patient).await);
    findings.extend(engines::check(&patient).await);
    findings
}

fn not_running(error: &Error) -> Finding {
    match error.kind() {
        Kind::Unavailable => Finding::skipped("daemon", error.message()),
        Kind::Forbidden => {
            Finding::warning("daemon", "cannot be asked", "run the doctor as root: sudo")
        }
        _ => Finding::bad(
            "daemon",
            error.report(),
            "look at its log (`journalctl -u friend-lite`), then start it again: \
             `systemctl restart friend-lite`",
        ),
    }
}

/// The findings, for people.
fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Warning => "warning",
            Verdict::Bad => "BAD",
            Verdict::Skipped => "-",
        };
        let says = finding.says.replace('\n', "\n                      ");
        text.push_str(&format!("{verdict:<8} {:<12} {says}\n", finding.check));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("{:21} → {advice}\n", ""));
        }
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    text.push_str(&match bad {
        0 => "Nothing is wrong.\n".to_owned(),
        1 => "One thing is wrong.\n".to_owned(),
        bad => format!("{bad} things are wrong.\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bad_stands_out_and_comes_with_advice() {
        let findings =
            [Finding::good("clock", "is kept right"), Finding::bad("disk", "is full", "make room")];
        let text = render(&findings);
        assert!(text.contains("BAD      disk         is full\n"), "{text}");
        assert!(text.contains("→ make room\n") && text.ends_with("One thing is wrong.\n"));
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json[0]["verdict"], "good");
        assert_eq!(json[1]["advice"], "make room");
    }
}
