//! What happens to audio after it is recorded: each step is a job, done by the
//! handler of that name.
//!
//! ```text
//! upload ─► import ─► windows
//! window ─► transcribe ─┐
//! window ─► transcribe ─┴─(closed, none waiting)─► finish ─► remember, crop
//! ```
//!
//! Recordings that have come to rest are copied to the bucket, if there is one
//! ([`upload`]). Memories, whoever made them, are read into the graph in the background
//! ([`relate`]).

pub mod archive;
pub mod chat;
pub mod crop;
pub mod deletion;
pub mod disk;
pub mod extract;
pub mod file;
pub mod finish;
pub mod grounding;
pub mod import;
pub mod learn;
pub mod prompts;
pub mod recall;
pub mod reconcile;
pub mod relate;
pub mod remember;
pub mod retention;
pub mod schedule;
pub mod timekeeper;
pub mod transcribe;
pub mod upload;
