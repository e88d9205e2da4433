//! `friend-lite check-config`: what is in force, and where it came from.

use std::path::Path;

use crate::base::error::Result;
use crate::config::{Config, load};

/// Options of `friend-lite check-config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print nothing but what is wrong
    #[arg(long)]
    quiet: bool,
}

/// Prints the effective configuration as TOML. It has been validated by now.
pub(super) fn run(args: &Args, config: &Config, file: Option<&Path>) -> Result<()> {
    if args.quiet {
        return Ok(());
    }
    match file {
        Some(path) => println!("# from {}", path.display()),
        None => println!("# no configuration file; defaults and environment"),
    }
    print!("{}", load::to_toml(config)?);
    Ok(())
}
