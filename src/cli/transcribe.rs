//! `friend-lite transcribe`: text out of audio files, without the daemon.

use std::path::PathBuf;

use serde_json::json;

use super::terminal;
use crate::app;
use crate::audio::decode::AudioFile;
use crate::base::error::Result;
use crate::config::Config;
use crate::domain::conversation::SAMPLE_RATE;
use crate::pipeline::file::transcribe_file;
use crate::supervisor::Supervisor;

/// Options of `friend-lite transcribe`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Audio files: WAV, FLAC, MP3, Ogg, M4A, AAC or WebM
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// One JSON object a file: text, segments and words with times in seconds
    #[arg(long)]
    json: bool,
}

/// Transcribes each file in turn.
///
/// # Errors
/// `BadInput` naming a file that is not audio, `Unavailable` when the model is
/// not there or the engine fails.
pub(super) async fn run(args: Args, config: Config) -> Result<()> {
    let supervisor = Supervisor::new();
    let engine = app::speech_engine(&config, &supervisor)?;
    for path in &args.files {
        let file = AudioFile::open(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let expected = file.shape().samples.unwrap_or(0);
        let bar = terminal::audio_bar(&name, expected as f64 / f64::from(SAMPLE_RATE));
        let progress = |seconds| bar.set_position(seconds);
        let heard =
            transcribe_file(engine.as_ref(), &config.transcribe, file, None, progress).await?;
        bar.finish_and_clear();
        if let Some(note) = &heard.note {
            eprintln!("friend-lite: {note}");
        }
        let transcript = heard.transcript;
        if args.json {
            let body = json!({
                "file": path,
                "engine": transcript.engine.clone().unwrap_or_else(|| engine.name()),
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
