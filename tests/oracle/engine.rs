//! A stand-in for the speech engine: the daemon starts it as it starts
//! whisper.cpp, and it speaks the same framing over the same pipe, by the same
//! code. It hears no words; it reads the numbers out of the audio.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use friend_lite::base::error::Result;
use friend_lite::domain::transcript::{Segment, Transcript};
use friend_lite::engine::asr::{Recognizer, Session};
use friend_lite::engine::serve::{self, Options, Pipe};
use friend_lite::wyoming::event::Info;

use crate::numbered;

/// Work for a second of audio: long enough for a kill to come in the middle.
const PER_SECOND: Duration = Duration::from_millis(8);

/// A stand-in for the speech engine, for tests: it reads numbers out of audio.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    language: String,
    #[command(flatten)]
    options: Options,
}

pub fn main() -> ExitCode {
    serve::run(|| {
        let args = Args::parse();
        let pipe = Pipe::take_over(&args.options)?;
        std::fs::metadata(&args.model).expect("the model that the configuration names");
        pipe.serve(&mut Session::new(NumberReader))
    })
}

struct NumberReader;

impl Recognizer for NumberReader {
    fn info(&self) -> Info {
        Info::default()
    }

    fn recognize(&mut self, samples: &[f32], language: Option<&str>) -> Result<Transcript> {
        let seconds = samples.len() as f64 / numbered::SECOND as f64;
        std::thread::sleep(PER_SECOND.mul_f64(seconds));
        let samples: Vec<i16> = samples.iter().map(|s| (s * 32_768.0).round() as i16).collect();
        let text = numbered::to_text(&numbered::blocks(&samples));
        let segment = Segment {
            start: 0.0,
            end: seconds,
            text,
            speaker: None,
            confidence: 1.0,
            words: Vec::new(),
        };
        let segments = if segment.text.is_empty() { Vec::new() } else { vec![segment] };
        let language = language.map(str::to_owned);
        Ok(Transcript { segments, language, ..Transcript::default() })
    }
}
