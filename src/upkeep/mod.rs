//! What keeps data safe beyond the running daemon.
//!
//! ```text
//! state ─► check (─► repair)
//! state ─► backup ─► DIR ─► restore ─► state
//! state ─► export ─► DIR
//! ```

pub mod backup;
pub mod check;
mod disk;
pub mod export;
pub mod restore;

#[cfg(test)]
mod planned_tests;
