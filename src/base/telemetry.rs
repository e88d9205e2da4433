//! Logging: human lines on a terminal, one line an event without colour for the
//! journal, JSON where asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error at `level` (an `EnvFilter` directive such as
/// `info` or `friend_lite=debug`); `RUST_LOG` wins over it.
pub fn init(level: &str, json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    // What the decoder says of a damaged file is told to whoever sent it.
    let filter = match "symphonia=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in the same process (tests) keeps the first subscriber.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}
