//! The things the daemon speaks of, as plain data: no I/O, no clock.

pub mod chat;
pub mod client;
pub mod conversation;
pub mod coverage;
pub mod finding;
pub mod graph;
pub mod ids;
pub mod job;
pub mod memory;
pub mod object;
pub mod past;
pub mod transcript;
pub mod upload;
pub mod user;
pub mod version;
