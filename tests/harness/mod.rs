//! Starts the real daemon and speaks to it as its clients do.

#[allow(dead_code, reason = "for the tests, which share this harness with the benches")]
pub mod authority;
pub mod client;
pub mod daemon;
#[allow(dead_code, reason = "for the tests, which share this harness with the benches")]
pub mod faulty;
#[allow(dead_code, reason = "for the tests, which share this harness with the benches")]
pub mod mongod;
#[allow(dead_code, reason = "for the tests, which share this harness with the benches")]
pub mod nginx;
pub mod opus;
pub mod process;
pub mod python;
#[allow(dead_code, reason = "for the tests, which share this harness with the benches")]
pub mod services;
pub mod speech;
pub mod wer;
