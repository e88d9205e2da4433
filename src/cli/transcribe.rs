//! `friend-lite transcribe`: text out of WAV files, without the daemon.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::terminal;
use crate::app;
use crate::audio::wav::WavSource;
use crate::audio::windows::{Window, Windows};
use crate::base::error::Result;
use crate::config::Config;
use crate::domain::conversation::SAMPLE_RATE;
use crate::domain::job::Lane;
use crate::domain::transcript::Transcript;
use crate::pipeline::transcribe::on_timeline;
use crate::stt::{Speech, SpeechToText};
use crate::supervisor::Supervisor;

/// Options of `friend-lite transcribe`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// WAV files, of any rate and channel count
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// One JSON object a file: text, segments and words with times in seconds
    #[arg(long)]
    json: bool,
}

/// Transcribes each file in turn.
///
/// # Errors
/// `BadInput` naming a file that is not a WAV, `Unavailable` when the model is
/// not there or the engine fails.
pub(super) async fn run(args: Args, config: Config) -> Result<()> {
    let supervisor = Supervisor::new();
    let engine = app::speech_engine(&config, &supervisor)?;
    for file in &args.files {
        let transcript = transcribe(engine.as_ref(), &config, file).await?;
        if args.json {
            let body = json!({
                "file": file,
                "engine": engine.name(),
                "language": transcript.language,
                "text": transcript.text(),
                "segments": transcript.segments,
            });
            println!("{body}");
        } else {
            println!("{}", transcript.text());
        }
    }
    Ok(())
}

/// Reads the file a piece at a time, so that hours of audio take little memory.
async fn transcribe(engine: &dyn SpeechToText, config: &Config, file: &Path) -> Result<Transcript> {
    let mut source = WavSource::open(file)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let rate = u64::from(SAMPLE_RATE);
    let bar = terminal::audio_bar(&name, source.total_samples() as f64 / rate as f64);
    let mut cut = Windows::new(&config.transcribe);
    let mut whole = Transcript::default();
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let more = source.read(&mut piece)?;
        let mut windows = Vec::new();
        cut.push(&piece, &mut windows);
        if !more {
            windows.extend(cut.finish());
        }
        for Window { spans, samples } in windows {
            let speech = Speech { samples, lane: Lane::Interactive, language: None };
            let part = engine.transcribe(speech).await?;
            whole.language = whole.language.or(part.language);
            whole.segments.extend(on_timeline(part.segments, &spans));
            if let Some(last) = spans.last() {
                bar.set_position(last.end / rate);
            }
        }
        if !more {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(whole)
}
