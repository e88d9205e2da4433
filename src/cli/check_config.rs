//! `friend-lite check-config`: what is in force, and where it came from.

use std::path::Path;

use crate::base::error::Result;
use crate::config::{Config, load};

/// Prints the effective configuration as TOML. It has been validated by now.
pub(super) fn run(config: &Config, file: Option<&Path>) -> Result<()> {
    match file {
        Some(path) => println!("# from {}", path.display()),
        None => println!("# no configuration file; defaults and environment"),
    }
    print!("{}", load::to_toml(config)?);
    Ok(())
}
