//! Black-box tests: they start the real daemon, with real models, in a
//! directory and on a port of its own. One binary, so that it links once.

#![allow(missing_docs, unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod appliance;
mod backup;
mod bucket;
mod check;
mod clients;
mod clock;
mod conformance;
mod deletion;
mod disk;
mod end_to_end;
mod engines;
mod faults;
mod full_deployment;
mod harness;
mod isolation;
mod layers;
mod memory;
mod metrics;
mod migrate;
mod mongodb;
mod neo4j;
mod nodes;
mod odd_input;
mod openapi;
mod original;
mod outside;
mod qdrant;
mod quality;
mod service;
mod uploads;
mod wearable;

#[allow(dead_code, reason = "shared with the library's own tests")]
#[path = "../src/audio/numbered.rs"]
mod numbered;
#[allow(dead_code, reason = "shared with the library's own tests")]
#[path = "../src/audio/synthetic.rs"]
mod synthetic;
