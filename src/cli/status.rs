//! `friend-lite status` and `friend-lite top`: how the running daemon is.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{SignalKind, signal};

use crate::base::error::{Context, Error, Kind, Result};
use crate::config::Config;
use crate::engine::process::Activity;
use crate::http::local;
use crate::http::status::{EngineView, Status, StreamView};
use crate::models::{ModelView, Stage};

/// Options of `friend-lite status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Options of `friend-lite top`.
#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    every: f64,
}

/// Says once how the daemon is.
///
/// # Errors
/// When it cannot be asked, or is in a critical state.
pub(super) async fn run(args: Args, config: Config) -> Result<()> {
    let status = local::ask(&config.state_dir()).await?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&status)
            .context(Kind::Internal, "cannot write it as JSON")?,
        false => render(&status),
    };
    println!("{}", text.trim_end());
    match status.health.as_str() {
        "critical" => Err(Error::new(Kind::Unavailable, "the daemon cannot do its work")),
        _ => Ok(()),
    }
}

/// Shows how the daemon is again and again, until it is interrupted.
///
/// # Errors
/// `Config` for a pause that is none; when the terminal cannot be written.
pub(super) async fn top(args: TopArgs, config: Config) -> Result<()> {
    let every = Duration::try_from_secs_f64(args.every).ok().filter(|every| !every.is_zero());
    let every =
        every.ok_or_else(|| Error::new(Kind::Config, "--every must be longer than zero"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).context(Kind::Internal, "cannot hear signals")?;
    let screen = Screen::open();
    let dir = config.state_dir();
    loop {
        let text = match local::ask(&dir).await {
            Ok(status) => render(&status),
            // It may be starting again.
            Err(error) => format!("{}\n", error.message()),
        };
        screen.show(&text).context(Kind::Internal, "cannot write to the terminal")?;
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// A terminal that is drawn again and again; into a pipe, one text after the
/// other.
struct Screen(bool);

impl Screen {
    fn open() -> Self {
        let terminal = std::io::stdout().is_terminal();
        if terminal {
            // The other screen, without a cursor.
            print!("\x1b[?1049h\x1b[?25l");
        }
        Self(terminal)
    }

    fn show(&self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if !self.0 {
            writeln!(out, "{text}")?;
            return out.flush();
        }
        let size = tcgetwinsize(std::io::stdout()).map_or((24, 80), |s| (s.ws_row, s.ws_col));
        let (rows, columns) = (usize::from(size.0).max(1), usize::from(size.1).max(1));
        // From the top, each line cleared behind its end: no flicker.
        let mut drawn = String::from("\x1b[H");
        for (number, line) in text.lines().take(rows).enumerate() {
            let cut: String = line.chars().take(columns).collect();
            let _ = write!(drawn, "{}{cut}\x1b[K", if number > 0 { "\r\n" } else { "" });
        }
        drawn.push_str("\x1b[J");
        out.write_all(drawn.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.0 {
            print!("\x1b[?25h\x1b[?1049l");
            let _ = std::io::stdout().flush();
        }
    }
}

/// The whole of it, for people.
fn render(status: &Status) -> String {
    let mut text = String::new();
    let up = span(status.uptime_seconds);
    let _ = writeln!(
        text,
        "{} is {} (version {}, process {}, up {up})",
        status.name, status.health, status.version, status.pid
    );
    if let Some(message) = &status.message {
        let _ = writeln!(text, "  {message}");
    }
    for one in &status.listening {
        let _ = writeln!(text, "  {} on {}", one.what, one.address);
    }

    let _ = writeln!(text, "\nSTREAMS  {}", count(status.streams.len(), "none"));
    status.streams.iter().for_each(|one| stream(&mut text, one));
    let backlog = &status.backlog;
    let done = backlog.eta_seconds.filter(|eta| *eta >= 1.0);
    let done = done.map_or(String::new(), |eta| format!(", done in {}", span(eta as u64)));
    let jobs = &status.jobs;
    let _ = writeln!(
        text,
        "BACKLOG  {} of audio in {} windows{done}; jobs: {} waiting, {} at work, {} given up",
        span(backlog.audio_seconds as u64),
        backlog.windows,
        jobs.ready,
        jobs.leased,
        jobs.dead
    );

    let _ = writeln!(text, "\nENGINES");
    status.engines.iter().for_each(|one| engine(&mut text, one));
    let _ = writeln!(text, "MODELS");
    status.models.iter().for_each(|one| model(&mut text, one, status.timestamp));

    let memory = &status.memory;
    let daemon = memory.daemon_bytes.map_or("unknown".into(), size);
    let engines: u64 = status.engines.iter().filter_map(|one| one.memory_bytes).sum();
    let _ = writeln!(
        text,
        "\nMEMORY   {} free of {}; daemon {daemon}, engines {}",
        size(memory.free_bytes),
        size(memory.total_bytes),
        size(engines)
    );
    match &status.disk {
        Some(disk) => {
            let left = disk.headroom_hours.map_or(String::new(), |hours| {
                format!("; lasts for {} at this rate", span((hours * 3600.0) as u64))
            });
            let _ = writeln!(
                text,
                "DISK     {} free of {}, of which {} stay free{left}",
                size(disk.free_bytes),
                size(disk.total_bytes),
                size(disk.reserve_bytes)
            );
        }
        None => text.push_str("DISK     not looked at yet\n"),
    }
    let processor = &status.processor;
    let heat = processor.temperature.map_or("unknown".into(), |degrees| format!("{degrees:.0} °C"));
    let throttling = match processor.throttling.as_deref() {
        None => String::new(),
        Some([]) => ", not throttled".into(),
        Some(reasons) => format!(", slowed down: {}", reasons.join(", ")),
    };
    let _ = writeln!(
        text,
        "CPU      {} cores, runs {}; temperature {heat}{throttling}",
        processor.cores,
        processor.builds.join(" and ")
    );
    text
}

fn stream(text: &mut String, one: &StreamView) {
    let what = match (one.connected, one.recording_seconds) {
        (false, _) => "waited for".into(),
        (true, Some(seconds)) => format!("recording for {}", span(seconds)),
        (true, None) => "connected, nothing to record".into(),
    };
    let quiet =
        one.quiet_seconds.map_or(String::new(), |quiet| format!(", audio {} ago", span(quiet)));
    let user = one.user.as_deref().unwrap_or("nobody");
    let _ = writeln!(text, "  {:<24} {user:<28} {what}{quiet}", one.client_id);
}

fn engine(text: &mut String, one: &EngineView) {
    let activity = match one.activity {
        Activity::Off => "off",
        Activity::Idle => "idle",
        Activity::Busy => "busy",
    };
    let memory = one.memory_bytes.map_or(String::new(), |bytes| format!(", {}", size(bytes)));
    let crashes = match one.crashes {
        0 => String::new(),
        crashes => format!(", died {crashes} times"),
    };
    let _ = writeln!(text, "  {:<48} {activity}{memory}{crashes}", one.name);
}

fn model(text: &mut String, one: &ModelView, now: i64) {
    let how = match one.stage {
        Stage::Present => "here".to_owned(),
        Stage::Missing => "missing".to_owned(),
        Stage::Fetching => match (one.step_done, one.step_bytes) {
            (Some(done), Some(bytes)) => {
                let percent = done.saturating_mul(100).checked_div(bytes).unwrap_or(0);
                format!("{}: {percent} %", one.step.as_deref().unwrap_or_default())
            }
            _ => one.step.clone().unwrap_or_default(),
        },
        Stage::Failed => {
            let wait = one.retry_at.and_then(|at| u64::try_from(at - now).ok()).unwrap_or(0);
            let problem = one.problem.as_deref().unwrap_or_default().replace('\n', "\n    ");
            format!("not fetched, tried again in {}\n    {problem}", span(wait))
        }
    };
    let _ = writeln!(text, "  {:<24} {:<6} {:>9}  {how}", one.name, one.kind, size(one.bytes));
}

fn count(number: usize, none: &str) -> String {
    if number == 0 { none.to_owned() } else { number.to_string() }
}

/// Bytes as people read them.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..=999_999 => format!("{} kB", bytes / 1000),
        1_000_000..=999_999_999 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Seconds as people read them.
fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(size(77_691_713), "77 MB");
        assert_eq!(size(1_117_320_768), "1.1 GB");
        assert_eq!((span(90), span(600), span(90_000)).1, "10 min");
        assert_eq!(span(200_000), "2 days");
    }

    #[test]
    fn a_failed_fetch_says_why_and_when_again() {
        let view = ModelView {
            name: "whisper-base".into(),
            kind: "stt".into(),
            bytes: 147_951_465,
            stage: Stage::Failed,
            step: None,
            step_done: None,
            step_bytes: None,
            problem: Some("cannot get it; tried\n  here: no such file".into()),
            retry_at: Some(1_060),
        };
        let mut text = String::new();
        model(&mut text, &view, 1_000);
        assert!(text.contains("again in 60 s\n    cannot get it; tried\n      here"), "{text}");
        let running = ModelView {
            stage: Stage::Fetching,
            step: Some("ggml-base.bin from example.com".into()),
            step_done: Some(50),
            step_bytes: Some(200),
            ..view
        };
        text.clear();
        model(&mut text, &running, 1_000);
        assert!(text.contains("example.com: 25 %"), "{text}");
    }
}
