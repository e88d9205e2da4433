//! The language engine: llama.cpp on standard input and output, started and fed
//! by the daemon. It writes text or makes embeddings, as its model is meant to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use friend_lite::base::error::Result;
use friend_lite::engine::serve::{self, Options, Pipe};

#[path = "../engine/llama/mod.rs"]
mod llama;

/// Text and embeddings: requests on standard input, answers on standard output
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// A model in GGUF format
    #[arg(long)]
    model: PathBuf,
    /// What the model is for
    #[arg(long, value_enum)]
    role: Role,
    /// Tokens of context
    #[arg(long, default_value_t = 2048)]
    context: u32,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Write text
    Generate,
    /// Make embeddings
    Embed,
}

fn main() -> ExitCode {
    serve::run(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let pipe = Pipe::take_over(&args.options)?;
    let loaded = llama::Loaded::open(&args.model)?;
    let threads = i32::from(args.options.threads.max(1));
    match args.role {
        Role::Generate => {
            pipe.serve(&mut llama::generate::Generator::new(&loaded, args.context, threads)?)
        }
        Role::Embed => {
            pipe.serve(&mut llama::embed::Embedder::new(&loaded, args.context, threads)?)
        }
    }
}
