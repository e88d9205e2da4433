//! Speech to text by Deepgram, a window or a conversation ([`whole`]) at a time:
//! <https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded>,
//! or while it is being said ([`live`]).

mod heard;
mod live;
mod whole;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

use live::Live;

use super::live::Place;
use super::{HearsWhole, LANGUAGES, Speech, SpeechToText};
use crate::audio::wav;
use crate::base::error::Result;
use crate::domain::transcript::{Segment, Transcript, Word};
use crate::recording::Recordings;
use crate::remote::Service;
use crate::remote::http::Http;
use crate::supervisor::Supervisor;

/// A silence between two words, in seconds, that ends a segment.
const PAUSE: f64 = 1.0;

/// Deepgram. Cheap to clone.
#[derive(Clone)]
pub struct Deepgram {
    service: Arc<Service>,
    http: Http,
    model: String,
    language: Option<String>,
    live: Option<Live>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    results: Results,
}

#[derive(Debug, Deserialize)]
struct Results {
    channels: Vec<Channel>,
}

#[derive(Debug, Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
    #[serde(default)]
    detected_language: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Alternative {
    #[serde(default)]
    words: Vec<HeardWord>,
    /// Of speech in several languages, the most spoken first.
    #[serde(default)]
    languages: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct HeardWord {
    word: String,
    #[serde(default)]
    punctuated_word: Option<String>,
    start: f64,
    end: f64,
    confidence: f32,
    #[serde(default)]
    speaker: Option<u32>,
}

impl Deepgram {
    /// With `model` of the service behind `http`, which is told that `language`
    /// is spoken unless a request names another.
    pub fn new(service: Arc<Service>, http: Http, model: &str, language: Option<&str>) -> Self {
        let (model, language) = (model.to_owned(), language.map(str::to_owned));
        Self { service, http, model, language, live: None }
    }

    /// The same, which also hears what is being recorded in `recordings`.
    #[must_use]
    pub fn listening(self, recordings: Recordings, supervisor: Supervisor) -> Self {
        Self { live: Some(Live::new(recordings, supervisor)), ..self }
    }

    /// What was heard of `place` while it was recorded.
    async fn heard_live(&self, place: &Place) -> Option<Transcript> {
        let heard = self.live.as_ref()?.heard.transcript(place).await?;
        Some(Transcript { engine: Some(format!("{} (live)", self.name())), ..heard })
    }

    /// What it is asked for; the `language` that a request names comes first.
    fn asked<'a>(&'a self, language: Option<&'a str>) -> [(&'static str, &'a str); 5] {
        // `multi` is any of the languages that the model knows, mixed or not.
        let language = language.or(self.language.as_deref()).unwrap_or("multi");
        [
            ("model", self.model.as_str()),
            ("language", language),
            ("smart_format", "true"),
            ("punctuate", "true"),
            ("diarize", "true"),
        ]
    }
}

#[async_trait]
impl SpeechToText for Deepgram {
    fn name(&self) -> String {
        format!("deepgram/{}", self.model)
    }

    fn languages(&self) -> &[&str] {
        &LANGUAGES
    }

    fn is_ready(&self) -> bool {
        self.service.is_ready()
    }

    fn whole(&self) -> Option<&dyn HearsWhole> {
        Some(self)
    }

    async fn transcribe(&self, speech: Speech) -> Result<Transcript> {
        if speech.samples.is_empty() {
            return Ok(Transcript::default());
        }
        if let Some(place) = &speech.place
            && let Some(heard) = self.heard_live(place).await
        {
            return Ok(heard);
        }
        let file = Bytes::from(wav::file(&speech.samples));
        let asked = self.asked(speech.language.as_deref());
        let listen = || {
            let request = self.http.request(Method::POST, "/v1/listen").query(&asked);
            self.http.json(request.header(CONTENT_TYPE, "audio/wav").body(file.clone()))
        };
        let answer: Answer = self.service.call(listen).await?;
        let Heard { words, language } = answer.heard();
        Ok(Transcript { segments: segments(words), language, engine: None })
    }
}

/// What was heard, and in which language.
#[derive(Debug, Default)]
struct Heard {
    words: Vec<HeardWord>,
    language: Option<String>,
}

impl Answer {
    fn heard(self) -> Heard {
        let channel = self.results.channels.into_iter().next();
        let best = channel.map(|channel| (channel.detected_language, channel.alternatives));
        let Some((language, alternatives)) = best else { return Heard::default() };
        let Some(best) = alternatives.into_iter().next() else { return Heard::default() };
        let language = language.or(best.languages.into_iter().next());
        Heard { words: best.words, language }
    }
}

/// Words as sentences, each of one speaker.
fn segments(words: Vec<HeardWord>) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut ended = true;
    for heard in words {
        let text = heard.punctuated_word.unwrap_or(heard.word);
        let speaker = heard.speaker.map(|number| format!("Speaker {number}"));
        let next = segments
            .last()
            .is_none_or(|last| ended || last.speaker != speaker || heard.start - last.end > PAUSE);
        ended = text.ends_with(['.', '?', '!', '。', '？', '！']);
        let (start, end, confidence) = (heard.start, heard.end, heard.confidence);
        let word = Word { text, start, end, confidence };
        match segments.last_mut() {
            Some(last) if !next => {
                last.end = end;
                last.text.push(' ');
                last.text.push_str(&word.text);
                last.words.push(word);
            }
            _ => segments.push(Segment {
                start,
                end,
                text: word.text.clone(),
                speaker,
                confidence: 0.0,
                words: vec![word],
            }),
        }
    }
    for segment in &mut segments {
        let sum: f32 = segment.words.iter().map(|word| word.confidence).sum();
        segment.confidence = sum / segment.words.len().max(1) as f32;
    }
    segments
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sentences_are_of_one_speaker() {
        let word = |text: &str, start: f64, speaker: Option<u32>| {
            json!({"word": text.to_lowercase(), "punctuated_word": text, "start": start,
                   "end": start + 0.4, "confidence": 0.5 + start / 10.0, "speaker": speaker})
        };
        let words = [
            word("Hello", 0.0, Some(0)),
            word("there.", 0.5, Some(0)),
            word("Yes", 1.0, Some(0)),
            word("Who", 1.5, Some(1)),
            word("is", 3.0, Some(1)),
        ];
        let answer = json!({"metadata": {}, "results": {"channels": [{
            "alternatives": [{"transcript": "…", "confidence": 0.9, "words": words, "languages": ["en"]}]}]}});
        let heard = serde_json::from_value::<Answer>(answer).unwrap().heard();
        let segments = segments(heard.words);
        let told: Vec<_> = segments
            .iter()
            .map(|one| (one.text.as_str(), one.speaker.as_deref().unwrap(), one.words.len()))
            .collect();
        assert_eq!(
            told,
            [
                ("Hello there.", "Speaker 0", 2),
                ("Yes", "Speaker 0", 1),
                ("Who", "Speaker 1", 1),
                ("is", "Speaker 1", 1),
            ]
        );
        assert_eq!(heard.language.as_deref(), Some("en"));
        assert!((segments[0].confidence - 0.525).abs() < 1e-6);
        let silent = json!({"results": {"channels": [{"alternatives": [{"words": []}]}]}});
        let silent = serde_json::from_value::<Answer>(silent).unwrap();
        assert!(silent.heard().words.is_empty());
    }
}
