use std::sync::Arc;

use friend_lite::base::error::Kind;
use friend_lite::domain::job::Lane;
use friend_lite::domain::transcript::Transcript;
use friend_lite::engine::WHISPER;
use friend_lite::engine::gate::Gate;
use friend_lite::stt::whisper::WhisperEngine;
use friend_lite::stt::{Speech, SpeechToText};
use friend_lite::supervisor::Supervisor;

use super::{settings, speech};

fn whisper(model: &str, language: &str) -> (WhisperEngine, Supervisor) {
    let (gate, supervisor) = (Gate::new(false), Supervisor::new());
    (WhisperEngine::new(&settings(WHISPER, model), language, &gate, &supervisor), supervisor)
}

async fn heard(engine: &WhisperEngine, samples: Vec<i16>) -> Transcript {
    engine
        .transcribe(Speech { samples, lane: Lane::Live, language: None, place: None })
        .await
        .expect("a transcript")
}

/// Lower-case words without punctuation.
fn plain(text: &str) -> String {
    let kept = text.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != ' ', " ");
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

const JFK: &str = "and so my fellow americans ask not what your country can do for you \
                   ask what you can do for your country";

#[tokio::test]
async fn speech_becomes_words_with_times() {
    let (engine, _supervisor) = whisper("ggml-tiny.bin", "auto");
    let transcript = heard(&engine, speech("jfk.wav")).await;
    assert_eq!(plain(&transcript.text()), JFK);
    assert_eq!(transcript.language.as_deref(), Some("en"));
    let mut now = 0.0;
    for segment in &transcript.segments {
        assert!(segment.start >= 0.0 && segment.end <= 11.0 && segment.confidence > 0.5);
        let words: Vec<_> = segment.words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(words.join(" "), segment.text);
        for word in &segment.words {
            assert!(now <= word.start && word.start <= word.end && word.end <= segment.end);
            now = word.end;
        }
    }
    // "country" is said near the end, "fellow" near the beginning.
    let words: Vec<_> = transcript.segments.iter().flat_map(|segment| &segment.words).collect();
    let at = |text: &str| words.iter().find(|word| word.text.contains(text)).expect("it is said");
    assert!((0.3..2.5).contains(&at("fellow").start), "{:?}", at("fellow"));
    assert!((9.0..11.0).contains(&words.last().expect("words").start));
}

#[tokio::test]
async fn the_languages_it_claims_are_those_of_the_model() {
    let (engine, _supervisor) = whisper("ggml-tiny.bin", "auto");
    let deadline = std::time::Duration::from_secs(120);
    let info = engine.engine().call(deadline, async |link| link.describe().await).await.unwrap();
    let mut known = info.asr[0].models[0].languages.clone();
    known.sort_unstable();
    assert_eq!(known, engine.languages());
    let speech = Speech {
        samples: speech("jfk.wav"),
        lane: Lane::Live,
        language: Some("en".into()),
        place: None,
    };
    assert_eq!(plain(&engine.transcribe(speech).await.expect("a transcript").text()), JFK);
}

#[tokio::test]
async fn a_request_never_hears_the_one_before() {
    let (engine, _supervisor) = whisper("ggml-tiny.bin", "en");
    assert_eq!(plain(&heard(&engine, speech("jfk.wav")).await.text()), JFK);
    for samples in [vec![0; 16_000 * 11], vec![0; 16_000], vec![0; 100], Vec::new()] {
        assert_eq!(heard(&engine, samples).await.text(), "");
    }
    assert_eq!(plain(&heard(&engine, speech("jfk.wav")).await.text()), JFK);
    assert_eq!(engine.engine().starts(), 1);
}

/// A reproducible stream of numbers between -1 and 1.
fn white(seed: u32) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    })
}

fn noise(kind: &str, seconds: usize, level: f32) -> Vec<i16> {
    let count = seconds * 16_000;
    let raw: Vec<f32> = match kind {
        "white" => white(1).take(count).collect(),
        "brown" => {
            let leak = |sum: &mut f32, x: f32| {
                *sum = *sum * 0.99 + x;
                Some(*sum)
            };
            white(2).take(count).scan(0.0, leak).collect()
        }
        "hum" => {
            let wave = |t: f32| (1..6).map(|h| (t * 314.16 * h as f32).sin() / h as f32).sum();
            (0..count).map(|n| wave(n as f32 / 16_000.0)).collect()
        }
        "clicks" => {
            let gap = |n: usize| if n % 9_001 < 40 { 1.0 } else { 0.0 };
            white(3).take(count).enumerate().map(|(n, x)| x * gap(n)).collect()
        }
        other => panic!("no noise called {other}"),
    };
    let peak = raw.iter().fold(f32::MIN_POSITIVE, |peak, x| peak.max(x.abs()));
    raw.iter().map(|x| (x / peak * level * 32_767.0) as i16).collect()
}

#[tokio::test]
async fn noise_is_not_speech() {
    let (engine, _supervisor) = whisper("ggml-tiny.bin", "en");
    for kind in ["white", "brown", "hum", "clicks"] {
        for level in [0.02, 0.5] {
            for seconds in [2, 9] {
                let text = heard(&engine, noise(kind, seconds, level)).await.text();
                assert_eq!(text, "", "{kind} at {level} for {seconds} s");
            }
        }
    }
}

#[tokio::test]
async fn speech_in_noise_is_speech() {
    let (engine, _supervisor) = whisper("ggml-tiny.bin", "en");
    let samples = speech("jfk.wav");
    let loud = noise("brown", 11, 0.1);
    let mixed = samples.iter().zip(&loud).map(|(a, b)| a.saturating_add(*b)).collect();
    assert_eq!(plain(&heard(&engine, mixed).await.text()), JFK);
    let quiet = samples.iter().map(|sample| sample / 30).collect();
    assert_eq!(plain(&heard(&engine, quiet).await.text()), JFK);
}

#[tokio::test]
async fn what_cannot_be_transcribed_is_refused() {
    let (engine, _supervisor) = whisper("ggml-tiny.bin", "en");
    let speech =
        Speech { samples: vec![0; 16_000 * 61], lane: Lane::Live, language: None, place: None };
    assert_eq!(engine.transcribe(speech).await.expect_err("too long").kind(), Kind::BadInput);
    let (engine, _supervisor) = whisper("ggml-tiny.bin", "klingon");
    let speech = Speech { samples: vec![0; 16_000], lane: Lane::Live, language: None, place: None };
    let error = engine.transcribe(speech).await.expect_err("no such language");
    assert!(error.message().contains("unknown language `klingon`"), "{}", error.message());
}

#[tokio::test]
async fn a_killed_engine_costs_one_request() {
    let (engine, _supervisor) = whisper("ggml-tiny.bin", "en");
    let engine = Arc::new(engine);
    heard(&engine, vec![0; 16_000]).await;
    let pid = engine.engine().pid().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
    let kill = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    };
    let samples = speech("jfk.wav");
    let request = engine.transcribe(Speech {
        samples: samples.clone(),
        lane: Lane::Live,
        language: None,
        place: None,
    });
    let (outcome, ()) = tokio::join!(request, kill);
    let error = outcome.expect_err("it was killed");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("SIGKILL"), "{}", error.message());
    assert_eq!(plain(&heard(&engine, samples).await.text()), JFK);
    assert_eq!((engine.engine().starts(), engine.engine().crashes()), (2, 1));
}
