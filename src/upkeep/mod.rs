//! What keeps data safe beyond the running daemon.
//!
//! ```text
//! state ─► check (─► repair)
//! state ─► backup ─► DIR ─► restore ─► state
//! state ─► export ─► DIR
//! the original's databases ─► original ─► state
//! ```

pub mod backup;
pub mod check;
mod disk;
pub mod export;
pub mod original;
pub mod restore;

#[cfg(test)]
mod planned_tests;
