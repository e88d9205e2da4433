//! The real engines with real models.

mod llama;
mod whisper;

use std::path::{Path, PathBuf};
use std::time::Duration;

use friend_lite::engine::{self, Settings};

/// The file of a model: in `FRIEND_LITE_TEST_MODELS`, else in the user's cache.
fn model(name: &str) -> PathBuf {
    let dir = std::env::var_os("FRIEND_LITE_TEST_MODELS").map(PathBuf::from).unwrap_or_else(|| {
        let dirs = directories::ProjectDirs::from("", "", "friend-lite").expect("a home directory");
        dirs.cache_dir().join("models")
    });
    let path = dir.join(name);
    assert!(path.is_file(), "no {}: run `friend-lite models fetch`", path.display());
    path
}

pub(crate) fn settings(program: &str, model_name: &str) -> Settings {
    Settings {
        program: engine::program(program, "").expect("the engine program is built"),
        model: model(model_name),
        threads: 1,
        nice: 0,
        start_timeout: Duration::from_secs(180),
        idle_timeout: Duration::from_secs(300),
        deadline: Duration::from_secs(300),
    }
}

/// The samples of a WAV file below `tests/speech`.
fn speech(name: &str) -> Vec<i16> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/speech").join(name);
    let mut reader = hound::WavReader::open(&path).expect("a WAV file");
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (16_000, 1));
    reader.samples().collect::<Result<_, _>>().expect("samples")
}

/// A field of `/proc/PID/status` in MiB.
fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib / 1024
}
