//! Speech to text.

use std::time::Duration;

use friend_lite::base::error::Kind;
use friend_lite::domain::job::Lane;
use friend_lite::domain::transcript::Transcript;
use friend_lite::engine::gate::Gate;
use friend_lite::stt::deepgram::Deepgram;
use friend_lite::stt::openai::OpenaiSpeech;
use friend_lite::stt::whisper::WhisperEngine;
use friend_lite::stt::wyoming::WyomingSpeech;
use friend_lite::stt::{Speech, SpeechToText};
use friend_lite::supervisor::Supervisor;

use super::faults::{self, DEADLINE};
use super::{Report, http, service};
use crate::engines;
use crate::harness::daemon::Daemon;
use crate::harness::faulty::Proxy;
use crate::harness::services::{KEY, Server};
use crate::harness::{speech, wer};

const PATIENCE: Duration = Duration::from_secs(120);

fn of(samples: Vec<i16>) -> Speech {
    Speech { samples, lane: Lane::Live, language: Some("en".into()), place: None }
}

/// Every word lies in order within `seconds`.
fn assert_timed(heard: &Transcript, seconds: f64) {
    let mut last = 0.0;
    for segment in &heard.segments {
        assert!(segment.start >= last - 0.1 && segment.end >= segment.start, "{segment:?}");
        assert!(segment.end <= seconds + 0.5 && !segment.text.is_empty(), "{segment:?}");
        assert!((0.0..=1.0).contains(&segment.confidence), "{segment:?}");
        last = segment.end;
        for word in &segment.words {
            assert!(word.start >= segment.start - 0.5 && word.end <= segment.end + 0.5, "{word:?}");
            assert!((0.0..=1.0).contains(&word.confidence) && word.end >= word.start, "{word:?}");
        }
    }
}

async fn suite(report: &mut Report, engine: &dyn SpeechToText) {
    assert!(engine.is_ready() && !engine.name().is_empty());
    assert!(engine.languages().contains(&"en"));
    report.passed("says what it is");

    let jfk = speech::jfk();
    let samples = speech::samples(&jfk.path);
    let heard = engine.transcribe(of(samples.clone())).await.unwrap();
    assert!(wer::rate(&jfk.text, &heard.text()) < 0.1, "{}", heard.text());
    report.passed("hears what was said");
    assert_timed(&heard, 11.0);
    report.passed("places it in the audio");

    let other = &speech::librivox()[1];
    let (one, two) = tokio::join!(
        engine.transcribe(of(samples)),
        engine.transcribe(of(speech::samples(&other.path))),
    );
    assert!(wer::rate(&jfk.text, &one.unwrap().text()) < 0.1);
    let two = two.unwrap().text();
    assert!(wer::rate(&other.text, &two) < 0.35, "{two}");
    report.passed("answers two at once, each its own");

    let nothing = engine.transcribe(of(Vec::new())).await.unwrap();
    assert_eq!(nothing.text(), "");
    report.passed("hears nothing in nothing");
}

/// Two seconds, so that an answer is quick.
fn short() -> Speech {
    of(speech::samples(&speech::jfk().path)[..40_000].to_vec())
}

#[tokio::test]
async fn whisper() {
    let (gate, supervisor) = (Gate::new(false), Supervisor::new());
    let settings = engines::settings(friend_lite::engine::WHISPER, "ggml-tiny.bin");
    let engine = WhisperEngine::new(&settings, "en", &gate, &supervisor);
    suite(&mut Report::of("speech", "whisper"), &engine).await;
}

#[tokio::test]
async fn wyoming() {
    let mut report = Report::of("speech", "wyoming (wyoming-faster-whisper)");
    let mut server = Server::wyoming();
    let connect = Duration::from_secs(5);
    let at = |port: u16, deadline| {
        let (service, address) = (service("wyoming"), format!("127.0.0.1:{port}"));
        (service.clone(), WyomingSpeech::new(service, &address, Some("en"), connect, deadline))
    };
    suite(&mut report, &at(server.port, PATIENCE).1).await;
    let proxy = Proxy::before(server.port).await;
    let (service, engine) = at(proxy.port, DEADLINE);
    let ask = async || engine.transcribe(short()).await.map(drop);
    faults::suite(&mut report, &mut server, &proxy, &service, ask).await;
}

#[tokio::test]
async fn openai() {
    let mut report = Report::of("speech", "openai (this daemon)");
    let daemon = Daemon::with(&[("STT__MODEL", "whisper-tiny")]);
    let token = daemon.admin().await.token;
    let url = format!("{}/v1", daemon.url);
    let engine = |key: &str| {
        let http = http("openai_speech", &url, "Bearer", key, PATIENCE);
        OpenaiSpeech::new(service("openai_speech"), http, "whisper-1", Some("en"))
    };
    suite(&mut report, &engine(&token)).await;
    let heard = engine(&token).transcribe(of(speech::samples(&speech::jfk().path))).await.unwrap();
    let words: Vec<_> = heard.segments.iter().flat_map(|segment| &segment.words).collect();
    assert!(words.len() >= 20, "{heard:?}");
    report.passed("tells the times of words");
    let error = engine("not the key").transcribe(short()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("refuses the key"), "{}", error.report());
    assert!(!error.report().contains("not the key"), "{}", error.report());
    report.passed("a wrong key is told, and not shown");
}

#[tokio::test]
async fn deepgram() {
    let mut report = Report::of("speech", "deepgram (stand-in)");
    let mut server = Server::deepgram();
    let at = |port: u16, key: &str, deadline| {
        let (service, url) = (service("deepgram"), format!("http://127.0.0.1:{port}"));
        let http = http("deepgram", &url, "Token", key, deadline);
        (service.clone(), Deepgram::new(service, http, "nova-3", None))
    };
    let (_, engine) = at(server.port, KEY, PATIENCE);
    suite(&mut report, &engine).await;
    let heard = engine.transcribe(of(speech::samples(&speech::jfk().path))).await.unwrap();
    assert!(heard.segments.iter().all(|one| one.speaker.as_deref() == Some("Speaker 0")));
    assert!(heard.segments.iter().flat_map(|one| &one.words).count() >= 20, "{heard:?}");
    report.passed("tells speakers, and the times of words");
    let any = Speech { language: None, ..short() };
    assert_eq!(engine.transcribe(any).await.unwrap().language.as_deref(), Some("en"));
    report.passed("finds the language");
    let (service, wrong) = at(server.port, "not the key", PATIENCE);
    let error = wrong.transcribe(short()).await.unwrap_err();
    assert!(error.message().contains("refuses the key"), "{}", error.report());
    assert!(!error.report().contains("not the key") && !service.is_ready());
    report.passed("a wrong key is told, and not shown");

    let proxy = Proxy::before(server.port).await;
    let (service, engine) = at(proxy.port, KEY, DEADLINE);
    let ask = async || engine.transcribe(short()).await.map(drop);
    faults::suite(&mut report, &mut server, &proxy, &service, ask).await;
}
