//! (see the code map in lib.rs)
pub mod user;
