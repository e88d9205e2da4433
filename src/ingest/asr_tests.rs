use std::future::Future;
use std::sync::Mutex;
use std::task::Poll;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::audio::synthetic::speech;
use crate::config::Config;
use crate::domain::transcript::Segment;

/// An engine that says how long what it heard is, once it is let.
pub(in crate::ingest) struct Ear {
    pub(in crate::ingest) ready: bool,
    pub(in crate::ingest) turns: Semaphore,
    pub(in crate::ingest) asked: Mutex<Vec<(usize, Option<String>, Lane)>>,
    pub(in crate::ingest) failures: Mutex<Vec<Kind>>,
}

impl Ear {
    pub(in crate::ingest) fn new() -> Arc<Self> {
        let (turns, asked, failures) = (Semaphore::new(1_000), Mutex::default(), Mutex::default());
        Arc::new(Self { ready: true, turns, asked, failures })
    }
}

#[async_trait]
impl SpeechToText for Ear {
    fn name(&self) -> String {
        "ear".into()
    }

    fn languages(&self) -> &[&str] {
        &["de", "en"]
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    async fn transcribe(&self, speech: Speech) -> Result<Transcript> {
        self.turns.acquire().await.unwrap().forget();
        let seconds = speech.samples.len() / 16_000;
        self.asked.lock().unwrap().push((
            speech.samples.len(),
            speech.language.clone(),
            speech.lane,
        ));
        if let Some(kind) = self.failures.lock().unwrap().pop() {
            return Err(Error::new(kind, "told to fail in /secret"));
        }
        let (start, end) = (0.0, seconds as f64);
        let text = format!("{seconds} s");
        let segment =
            Segment { start, end, text, speaker: None, confidence: 1.0, words: Vec::new() };
        let language = speech.language;
        Ok(Transcript { segments: vec![segment], language, ..Transcript::default() })
    }
}

fn request(ear: &Arc<Ear>, language: Option<&str>) -> Result<Request> {
    let stt: Arc<dyn SpeechToText> = ear.clone();
    let limit = Interval::from_secs(120);
    Request::new(&stt, language, &Config::default().transcribe, limit, &Supervisor::new())
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

fn silence(seconds: usize) -> Vec<i16> {
    vec![0; seconds * 16_000]
}

async fn rest(request: &mut Request) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some(text) = request.next().await.unwrap() {
        parts.push(text);
    }
    parts
}

#[tokio::test]
async fn text_comes_while_audio_does() {
    let ear = Ear::new();
    let mut request = request(&ear, Some("en-US")).unwrap();
    let sound = bytes(&[silence(20), speech(16.0), silence(20)].concat());
    for chunk in sound.chunks(1_000) {
        request.audio(chunk, None).await.unwrap();
    }
    // Long before its end the first part is there.
    let first = request.next().await.unwrap().unwrap();
    assert!(matches!(&*first, "15 s" | "16 s"), "{first}");
    request.audio(&bytes(&speech(5.0)), None).await.unwrap();
    request.finish().await.unwrap();
    assert_eq!(rest(&mut request).await, ["5 s"]);
    let heard = request.heard();
    assert_eq!(heard.text(), format!("{first} 5 s"));
    assert_eq!(heard.language.as_deref(), Some("en"));
    // Times are those of the stream, silence included.
    assert!((19.0..=20.5).contains(&heard.segments[0].start), "{heard:?}");
    assert!((55.0..=56.5).contains(&heard.segments[1].start), "{heard:?}");
    let asked = ear.asked.lock().unwrap();
    let as_asked = |(_, language, lane): &(usize, Option<String>, Lane)| {
        language.as_deref() == Some("en") && *lane == Lane::Interactive
    };
    assert!(asked.len() == 2 && asked.iter().all(as_asked), "{asked:?}");
}

#[tokio::test]
async fn silence_and_nothing_at_all_are_an_empty_transcript() {
    let ear = Ear::new();
    for seconds in [0, 1, 30] {
        let mut request = request(&ear, None).unwrap();
        request.audio(&bytes(&silence(seconds)), None).await.unwrap();
        request.finish().await.unwrap();
        assert!(rest(&mut request).await.is_empty());
        assert_eq!(request.heard(), &Transcript::default());
    }
    assert!(ear.asked.lock().unwrap().is_empty(), "the engine is not bothered");
}

#[tokio::test]
async fn any_format_is_converted_even_if_it_changes() {
    let ear = Ear::new();
    let mut request = request(&ear, None).unwrap();
    request.start(PcmFormat::new(48_000, 4, 2).unwrap());
    let sound = speech(6.0);
    let wide = |samples: &[i16]| -> Vec<u8> {
        let frame = |s: &i16| [i32::from(*s) << 16; 6];
        samples.iter().flat_map(frame).flat_map(i32::to_le_bytes).collect()
    };
    request.audio(&wide(&sound[..48_000]), None).await.unwrap();
    request.audio(&bytes(&sound[48_000..]), Some(PcmFormat::SPEECH)).await.unwrap();
    request.finish().await.unwrap();
    let parts = rest(&mut request).await;
    assert!(matches!(&*parts.concat(), "5 s" | "6 s"), "{parts:?}");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let ear = Ear::new();
    assert_eq!(request(&ear, Some("tlh")).err().unwrap().kind(), Kind::BadInput);
    for language in ["de_AT", "DE", "auto", ""] {
        assert!(request(&ear, Some(language)).is_ok(), "{language}");
    }
    let mut long = request(&ear, None).unwrap();
    for _ in 0..120 {
        long.audio(&bytes(&silence(1)), None).await.unwrap();
    }
    assert_eq!(long.audio(&bytes(&silence(1)), None).await.unwrap_err().kind(), Kind::TooLarge);
    let deaf = Arc::new(Ear { ready: false, ..Arc::into_inner(Ear::new()).unwrap() });
    let error = request(&deaf, None).err().unwrap();
    assert!(error.message().contains("friend-lite models fetch"), "{error}");
}

#[tokio::test]
async fn an_engine_that_died_is_asked_once_more() {
    let ear = Ear::new();
    let ask = async |failures: Vec<Kind>| {
        *ear.failures.lock().unwrap() = failures;
        let mut request = request(&ear, None).unwrap();
        request.audio(&bytes(&speech(3.0)), None).await.unwrap();
        request.finish().await.unwrap();
        request.next().await
    };
    assert!(ask(vec![Kind::Unavailable]).await.unwrap().is_some());
    let error = ask(vec![Kind::Unavailable, Kind::Unavailable]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(!error.message().contains("secret") && error.report().contains("secret"));
    assert_eq!(ask(vec![Kind::Timeout]).await.unwrap_err().kind(), Kind::Timeout);
}

#[tokio::test]
async fn a_slow_engine_makes_the_sender_wait() {
    let ear = Ear::new();
    ear.turns.forget_permits(1_000);
    let mut request = request(&ear, None).unwrap();
    let sound = bytes(&[speech(16.0), silence(7)].concat());
    // One with the engine, as many as may wait, and one that does not fit.
    for _ in 0..=QUEUE {
        request.audio(&sound, None).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut more = Box::pin(request.audio(&sound, None));
    let waits =
        std::future::poll_fn(|context| Poll::Ready(more.as_mut().poll(context).is_pending()));
    assert!(waits.await);
    ear.turns.add_permits(1);
    more.await.unwrap();
}
