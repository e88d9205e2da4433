//! Model runtimes as child processes.
//!
//! whisper.cpp and llama.cpp each live in a program of their own, fed over a
//! pipe in the Wyoming framing. This side starts one on demand, gives it one
//! request at a time, ends it when it hangs or idles, and starts it again after
//! a crash ([`process`]); [`gate`] decides whose turn it is. The programs' side
//! of the pipe is [`serve`]; what they share without a model is [`guard`] and
//! [`words`].
//!
//! The runtimes themselves (`whisper/` and `llama/` in this directory) are
//! compiled into those two programs only and must never be a module of this
//! library: their copies of ggml do not mix.

pub mod asr;
pub mod gate;
pub mod guard;
pub mod messages;
pub mod place;
pub mod process;
pub mod serve;
mod stderr;
pub mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use place::program;

/// The program that runs whisper.cpp.
pub const WHISPER: &str = "friend-lite-whisper";
/// The program that runs llama.cpp.
pub const LLAMA: &str = "friend-lite-llama";

/// What every adapter of a local engine is given.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine program; see [`place::program`].
    pub program: PathBuf,
    /// The model file.
    pub model: PathBuf,
    /// Threads of one inference.
    pub threads: usize,
    /// Niceness, 0 to 19.
    pub nice: i32,
    /// Time it has to load its model.
    pub start_timeout: Duration,
    /// The engine is ended after this long without a request.
    pub idle_timeout: Duration,
    /// Time for one request, from when its turn comes.
    pub deadline: Duration,
}

impl Settings {
    /// How to run the program, called `family` in names, with `more` arguments.
    pub fn spec(&self, family: &str, more: &[&str]) -> process::Spec {
        let mut args: Vec<OsString> = vec!["--model".into(), self.model.clone().into()];
        for (name, value) in
            [("--threads", self.threads.to_string()), ("--nice", self.nice.to_string())]
        {
            args.extend([name.into(), value.into()]);
        }
        args.extend(more.iter().map(OsString::from));
        process::Spec {
            name: format!("{family}/{}", model_name(&self.model)),
            program: self.program.clone(),
            model: self.model.clone(),
            args,
            start_timeout: self.start_timeout,
            idle_timeout: self.idle_timeout,
        }
    }
}

/// The file name of a model, as engines and records call it.
pub fn model_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
