//! Progress for people who wait: a bar on a terminal, nothing in a pipe.

use std::io::{IsTerminal, Write};

use crate::base::error::{Context, Kind, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `seconds` of audio, labelled `what`.
pub(super) fn audio_bar(what: &str, seconds: f64) -> ProgressBar {
    bar(what, seconds.ceil() as u64, "s")
}

/// A bar over `total` of `unit`, labelled `what`.
pub(super) fn bar(what: &str, total: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) =
        ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {prefix}, {eta} left")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(unit.to_owned());
    bar.set_message(what.to_owned());
    bar
}

/// A count of what is called by the bar's prefix, where nobody knows how many there
/// are.
pub(super) fn counter() -> ProgressBar {
    let bar = bar("importing", 0, "");
    if let Ok(style) = ProgressStyle::with_template("{msg}: {pos} {prefix}") {
        bar.set_style(style);
    }
    bar
}

/// A number of bytes, to be read: `12.3 MB`.
pub(super) fn size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// Prints `text`; whoever has stopped reading (`| head`) has had enough.
///
/// # Errors
/// `Storage` when it cannot be written.
pub(super) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context(Kind::Storage, "cannot write to the standard output")
        }
        _ => Ok(()),
    }
}
