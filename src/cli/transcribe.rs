//! `friend-lite transcribe`: text out of WAV files, without the daemon.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::terminal;
use crate::app;
use crate::audio::segmenter::Segmenter;
use crate::audio::wav::WavSource;
use crate::base::error::Result;
use crate::config::Config;
use crate::domain::conversation::{NewWindow, SAMPLE_RATE};
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
    let mut segmenter = Segmenter::new(&config.transcribe);
    let mut whole = Transcript::default();
    // Audio that no window has taken yet, and where in the file it begins.
    let (mut kept, mut origin) = (Vec::new(), 0_u64);
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let more = source.read(&mut piece)?;
        let mut windows = Vec::new();
        segmenter.push(&piece, &mut windows);
        kept.extend_from_slice(&piece);
        if !more {
            windows.extend(segmenter.finish());
        }
        for window in windows {
            let part = engine.transcribe(speech(&window, &kept, origin)).await?;
            whole.language = whole.language.or(part.language);
            whole.segments.extend(on_timeline(part.segments, &window.spans));
            let end = window.spans.last().map_or(origin, |span| span.end);
            bar.set_position(end / rate);
            let taken = usize::try_from(end - origin).unwrap_or(usize::MAX).min(kept.len());
            kept.drain(..taken);
            origin += taken as u64;
        }
        if !more {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(whole)
}

/// The samples of `window` out of `kept`, which begins at sample `origin`.
fn speech(window: &NewWindow, kept: &[i16], origin: u64) -> Speech {
    let at = |sample: u64| usize::try_from(sample.saturating_sub(origin)).unwrap_or(usize::MAX);
    let spans = window.spans.iter().filter_map(|span| kept.get(at(span.start)..at(span.end)));
    Speech { samples: spans.flatten().copied().collect(), lane: Lane::Interactive }
}
