//! The command line: one file for each subcommand.

pub mod models;
pub mod user;
