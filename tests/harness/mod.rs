//! Starts the real daemon and speaks to it as its clients do.

pub mod client;
pub mod daemon;
pub mod opus;
pub mod process;
pub mod python;
pub mod speech;
pub mod wer;
