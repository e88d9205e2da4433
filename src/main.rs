//! The `friend-lite` program: see [`friend_lite::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    friend_lite::cli::main()
}
