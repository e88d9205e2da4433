//! Friend-Lite's clients, each sending byte for byte what it sends. They share a
//! daemon and its engine, and have a user each.

mod pages;
mod wyoming;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::harness::daemon::Daemon;

/// Time a script has for all it does, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(240);
/// For whom the sources without a login record.
const SATELLITE: &str = "satellite@example.com";
#[allow(dead_code)]
const BOARD: &str = "board@example.com";

/// The daemon that the tests of this module share; ended with the last of them.
fn daemon() -> Arc<Daemon> {
    static SHARED: Mutex<Weak<Daemon>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(daemon) = shared.upgrade() {
        return daemon;
    }
    let daemon = Arc::new(Daemon::with(&[
        ("MEMORY__ENABLED", "false"),
        ("STT__MODEL", "whisper-tiny"),
        ("WYOMING__USER", SATELLITE),
        ("ESP32__USER", BOARD),
    ]));
    *shared = Arc::downgrade(&daemon);
    daemon
}
