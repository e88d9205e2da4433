//! The oracle: devices stream numbered audio at the real daemon, which is killed
//! again and again, and its speech engine too; at the end every second that was
//! on disk when a kill came must be in the transcripts, once.
//!
//! A program of its own, because it is also the stand-in for the speech engine:
//! under that name it reads the numbers out of the audio. `./dev oracle` runs it
//! whole; among the other tests it runs in a short form.

#![allow(missing_docs, unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod device;
mod engine;
mod run;
mod tally;

#[allow(dead_code, reason = "shared with the library's own tests")]
#[path = "../../src/audio/numbered.rs"]
mod numbered;
#[allow(dead_code, reason = "shared with the library's own tests")]
#[path = "../../src/audio/synthetic.rs"]
mod synthetic;

#[allow(dead_code, reason = "shared with the black-box tests")]
#[path = "../harness/mod.rs"]
mod harness;

use std::process::ExitCode;

use friend_lite::engine::WHISPER;
use run::Victim;
use tally::Tally;

/// Kills of each kind in the short form.
const SHORT: u32 = 6;

fn main() -> ExitCode {
    let mut args = std::env::args();
    if args.next().is_some_and(|name| name.ends_with(WHISPER)) {
        return engine::main();
    }
    let (mut kills, mut seed) = (SHORT, rand::random::<u32>().into());
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).expect("a number");
        match arg.as_str() {
            "--kills" => kills = number(),
            "--seed" => seed = number().into(),
            // What `cargo test` passes on: other options, and the name of a test.
            "--list" => return ExitCode::SUCCESS,
            option if option.starts_with('-') => {}
            name if "oracle".contains(name) => {}
            _ => return ExitCode::SUCCESS,
        }
    }
    println!("oracle: {kills} kills of each kind, seed {seed}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut total = Tally::default();
    for victim in [Victim::Daemon, Victim::Engine, Victim::Both] {
        let tally = runtime.block_on(run::run(victim, kills, seed));
        println!("oracle: {kills} kills of {victim}: {tally}");
        total += tally;
    }
    println!("{total}");
    if total.is_perfect() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
