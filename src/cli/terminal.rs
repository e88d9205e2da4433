//! Progress for people who wait: a bar on a terminal, nothing in a pipe.

use std::io::IsTerminal;

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

/// A number of bytes, to be read: `12.3 MB`.
pub(super) fn size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}
