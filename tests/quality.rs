//! How well speech is heard, on every sample with a reference text.

use std::process::Command;

use serde_json::Value;

use crate::harness::daemon::{models_dir, program};
use crate::harness::{speech, wer};

#[test]
fn the_transcribe_command_hears_the_samples() {
    let samples: Vec<_> = std::iter::once(speech::jfk()).chain(speech::librivox()).collect();
    assert_eq!(samples.len(), 6);
    let output = Command::new(program("friend-lite"))
        .args(["transcribe", "--json", "--config", "/dev/null"])
        .args(samples.iter().map(|sample| &sample.path))
        .env("FRIEND_LITE__MODELS__DIR", models_dir())
        .env("FRIEND_LITE__STT__LANGUAGE", "en")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let (mut errors, mut words) = (0, 0);
    for (line, sample) in stdout.lines().zip(&samples) {
        let heard: Value = serde_json::from_str(line).unwrap();
        let text = heard["text"].as_str().unwrap();
        let (e, w) = wer::errors(&sample.text, text);
        println!("{:5.1} %  {text}", 100.0 * e as f64 / w as f64);
        errors += e;
        words += w;
    }
    assert_eq!(stdout.lines().count(), samples.len());
    let rate = errors as f64 / words as f64;
    println!("word error rate {:.1} % ({errors} of {words} words)", 100.0 * rate);
    assert!(rate <= 0.05, "word error rate {rate}");
}

#[test]
fn the_transcribe_command_hears_every_format() {
    let dir = speech::jfk().path.with_file_name("formats");
    let mut files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 12);
    let output = Command::new(program("friend-lite"))
        .args(["transcribe", "--config", "/dev/null"])
        .args(&files)
        .env("FRIEND_LITE__MODELS__DIR", models_dir())
        .env("FRIEND_LITE__STT__LANGUAGE", "en")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let mut sum = 0.0;
    for (text, file) in stdout.lines().zip(&files) {
        println!("{}: {text}", file.display());
        let rate = wer::rate("he was not an ill disposed young man", text);
        // On so short a clip the model slips now and then.
        assert!(rate <= 0.25, "{}: {rate}: {text}", file.display());
        sum += rate;
    }
    assert_eq!(stdout.lines().count(), files.len());
    assert!(sum / files.len() as f64 <= 0.13, "{sum}");
}

#[test]
fn what_is_not_audio_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.wav");
    std::fs::write(&path, "these are notes").unwrap();
    let output = Command::new(program("friend-lite"))
        .args(["transcribe", "--config", "/dev/null"])
        .arg(&path)
        .env("FRIEND_LITE__MODELS__DIR", models_dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("notes.wav"), "{error}");
}
