//! Friend-Lite: private, offline memory for spoken conversations.
//!
//! One daemon takes audio in, records it durably, has it transcribed and turned
//! into memories by models that run in processes of their own, and answers
//! searches. Data flows one way:
//!
//! ```text
//! ingest ─► recording + store (conversation, window, job) ─► jobs ─► pipeline ─► store, index ─► http
//! ```
//!
//! # The code map
//!
//! | layer | modules | may import |
//! |---|---|---|
//! | top | `cli`, `app` | everything |
//! | edges | `ingest`, `http`, `discovery`, `systemd` | core and below |
//! | core | `upkeep`, `pipeline`, `jobs` | ports and below |
//! | ports | `stt`, `llm`, `embed`, `store`, `index`, `graph` | foundation |
//! | foundation | `models`, `engine`, `recording`, `remote`, `wyoming`, `audio`, `supervisor`, `domain`, `config`, `base` | those to their right |
//!
//! # Invariants
//!
//! - Only `app` names a concrete adapter.
//! - Only `base::clock` reads a clock; time is a parameter everywhere else.
//! - Only `recording` and `store` write under the state directory, and
//!   `upkeep::restore` while nothing else does (a service keeps its model files
//!   there too, and `http::local` its socket).
//! - No task or thread is started outside `supervisor`.
//! - Ingest never waits for a model.
//! - No lock is held across an await.
//! - No `unwrap`, `expect`, `panic!` or unchecked index on data from outside.
//! - No model runtime is linked into this library: whisper.cpp and llama.cpp
//!   carry incompatible copies of ggml, so each lives in an executable of its own.
//!
//! `tests/layers.rs` and the lints in `Cargo.toml` keep these.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod app;
pub mod audio;
pub mod base;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod domain;
pub mod embed;
pub mod engine;
pub mod graph;
pub mod http;
pub mod index;
pub mod ingest;
pub mod jobs;
pub mod llm;
pub mod models;
pub mod pipeline;
#[cfg(test)]
mod planned_tests;
pub mod recording;
pub mod remote;
pub mod store;
pub mod stt;
pub mod supervisor;
pub mod systemd;
pub mod upkeep;
pub mod wyoming;
