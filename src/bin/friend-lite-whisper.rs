//! The speech engine: whisper.cpp as a Wyoming service on standard input and
//! output, started and fed by the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use friend_lite::base::error::Result;
use friend_lite::engine::asr::Session;
use friend_lite::engine::serve::{self, Options, Pipe};

#[path = "../engine/whisper/mod.rs"]
mod whisper;

/// Speech to text: Wyoming events on standard input, answers on standard output
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// A whisper model in ggml's format
    #[arg(long)]
    model: PathBuf,
    /// Language spoken, as an ISO 639-1 code, or `auto`
    #[arg(long, default_value = "auto")]
    language: String,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    serve::run(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let pipe = Pipe::take_over(&args.options)?;
    let whisper = whisper::Whisper::load(&args.model, args.options.threads, &args.language)?;
    pipe.serve(&mut Session::new(whisper))
}
