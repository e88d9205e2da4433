//! Runs the scripts of tests/python and the programs of its packages, in an
//! environment of their own that `./dev python` makes once.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::process::Command;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

/// The environment for the packages that are pinned now; `dev` finds the same
/// directory.
pub(super) fn environment() -> PathBuf {
    let pinned = std::fs::read(dir().join("requirements.txt")).expect("requirements.txt");
    let hash = hex::encode(Sha256::digest(pinned));
    let environment = directories::ProjectDirs::from("", "", "friend-lite")
        .expect("a home directory")
        .cache_dir()
        .join("test-python")
        .join(&hash[..16]);
    assert!(
        environment.join("complete").exists(),
        "the Python environment of the tests is missing: run `./dev python` once"
    );
    environment
}

/// Runs `tests/python/NAME ARGS…` and returns what it printed.
///
/// # Panics
/// With all of its output when it fails or takes longer than `limit`.
pub async fn script(name: &str, args: &[&str], limit: Duration) -> String {
    let mut command = Command::new(environment().join("bin/python"));
    command.arg("-B").arg(dir().join(name)).args(args);
    run(name, command, limit).await.unwrap_or_else(|failure| panic!("{failure}"))
}

/// Runs a program that one of the packages brings (`schemathesis`), likewise.
///
/// # Panics
/// As [`script`].
#[allow(dead_code, reason = "for the bench, which shares this harness")]
pub async fn tool(name: &str, args: &[&str], limit: Duration) -> String {
    let mut command = Command::new(environment().join("bin").join(name));
    command.args(args);
    run(name, command, limit).await.unwrap_or_else(|failure| panic!("{failure}"))
}

async fn run(name: &str, mut command: Command, limit: Duration) -> Result<String, String> {
    // Files rather than pipes: what was printed before a timeout is there too.
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (out, err) = (scratch.path().join("out"), scratch.path().join("err"));
    let file = |path: &Path| Stdio::from(std::fs::File::create(path).expect("a file"));
    command
        .current_dir(scratch.path())
        .env("PYTHONUNBUFFERED", "1")
        // The tests speak to loopback alone.
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot run {name}: {error}"))?;
    let outcome = match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => None,
        Ok(Ok(status)) => Some(format!("{name} ended with {status}")),
        Ok(Err(error)) => Some(format!("{name} cannot be waited for: {error}")),
        Err(_) => {
            let _ = child.kill().await;
            Some(format!("{name} took longer than {limit:?}"))
        }
    };
    let read = |path: &Path| {
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    };
    match outcome {
        None => Ok(read(&out)),
        Some(why) => Err(format!("{why}\n--- stdout\n{}\n--- stderr\n{}", read(&out), read(&err))),
    }
}

#[tokio::test]
async fn every_pinned_package_is_installed() {
    let pinned = dir().join("requirements.txt");
    let wrong =
        script("check_environment.py", &[pinned.to_str().unwrap()], Duration::from_secs(60)).await;
    assert_eq!(wrong, "", "remove {} and run `./dev python`", environment().display());
}

#[tokio::test]
async fn what_fails_or_hangs_shows_its_output() {
    let python = |code: &str| {
        let mut command = Command::new(environment().join("bin/python"));
        command.args(["-c", code]);
        command
    };
    let failure = run("failing", python("print('seen'); 1 / 0"), Duration::from_secs(60)).await;
    let failure = failure.unwrap_err();
    assert!(failure.contains("seen") && failure.contains("ZeroDivisionError"), "{failure}");
    let hanging = python("import time; print('begun'); time.sleep(60)");
    let failure = run("hanging", hanging, Duration::from_secs(5)).await.unwrap_err();
    assert!(failure.contains("took longer") && failure.contains("begun"), "{failure}");
}
