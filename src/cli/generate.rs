//! `friend-lite generate`: the man page and the shell completions of a package.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

use crate::base::error::{Context, Kind, Result};

/// Options of `friend-lite generate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory to write to; made where it is missing
    dir: PathBuf,
}

/// Writes `friend-lite.1`, a page for each subcommand, and completions for bash,
/// zsh and fish.
///
/// # Errors
/// `Storage` when a file cannot be written.
pub(super) fn run(args: &Args) -> Result<()> {
    let cannot = || format!("cannot write to {}", args.dir.display());
    write(&args.dir).with_context(Kind::Storage, cannot)
}

fn write(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(super::Cli::command(), dir)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut super::Cli::command(), "friend-lite", dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_package_has_all_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        super::write(dir.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(read("friend-lite.1").contains("check\\-config"));
        assert!(read("friend-lite.bash").contains("complete -F"));
        for name in ["friend-lite-run.1", "_friend-lite", "friend-lite.fish"] {
            assert!(dir.path().join(name).is_file(), "{name}");
        }
    }
}
