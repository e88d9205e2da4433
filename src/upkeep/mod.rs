//! What keeps data safe beyond the running daemon.

pub mod check;
