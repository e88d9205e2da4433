//! Speech to text by OpenAI's API, of OpenAI or of anybody who speaks it:
//! <https://platform.openai.com/docs/api-reference/audio/createTranscription>.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;

use super::{LANGUAGES, Speech, SpeechToText};
use crate::audio::wav;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::SAMPLE_RATE;
use crate::domain::transcript::{Segment, Transcript, Word};
use crate::remote::http::Http;
use crate::remote::{Fault, Service};

/// A server with `/audio/transcriptions`.
#[derive(Debug)]
pub struct OpenaiSpeech {
    service: Arc<Service>,
    http: Http,
    model: String,
    language: Option<String>,
    /// It tells no times: some of OpenAI's own models do not.
    plain: AtomicBool,
}

/// The answer, in the form `verbose_json` or `json`.
#[derive(Debug, Deserialize)]
struct Answer {
    text: String,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    segments: Option<Vec<AnswerSegment>>,
    #[serde(default)]
    words: Option<Vec<AnswerWord>>,
}

#[derive(Debug, Deserialize)]
struct AnswerSegment {
    start: f64,
    end: f64,
    text: String,
    #[serde(default)]
    avg_logprob: Option<f32>,
}

#[derive(Debug, Deserialize)]
struct AnswerWord {
    word: String,
    start: f64,
    end: f64,
}

impl OpenaiSpeech {
    /// With `model` of the server behind `http`, which is told that `language` is
    /// spoken unless a request names another.
    pub fn new(service: Arc<Service>, http: Http, model: &str, language: Option<&str>) -> Self {
        let (model, language) = (model.to_owned(), language.map(str::to_owned));
        Self { service, http, model, language, plain: AtomicBool::new(false) }
    }

    async fn once(&self, file: &[u8], language: Option<&str>) -> Result<Answer, Fault> {
        let plain = self.plain.load(Ordering::Relaxed);
        let answer = self.post(file, language, plain).await;
        match answer {
            Err(Fault::Refused(error)) if !plain => {
                // It may have been the form of the answer alone.
                let answer = self.post(file, language, true).await;
                match answer {
                    Err(Fault::Refused(_)) => Err(Fault::Refused(error)),
                    answer => {
                        self.plain.store(answer.is_ok(), Ordering::Relaxed);
                        answer
                    }
                }
            }
            answer => answer,
        }
    }

    async fn post(
        &self,
        file: &[u8],
        language: Option<&str>,
        plain: bool,
    ) -> Result<Answer, Fault> {
        let part = Part::bytes(file.to_vec()).file_name("speech.wav").mime_str("audio/wav");
        let part = part.map_err(|error| {
            let error = Error::new(Kind::Internal, "cannot send audio").with_source(error);
            Fault::Refused(error)
        })?;
        let mut form = Form::new()
            .part("file", part)
            .text("model", self.model.clone())
            .text("temperature", "0");
        if let Some(language) = language {
            form = form.text("language", language.to_owned());
        }
        form = match plain {
            true => form.text("response_format", "json"),
            false => form
                .text("response_format", "verbose_json")
                .text("timestamp_granularities[]", "word")
                .text("timestamp_granularities[]", "segment"),
        };
        let request = self.http.request(Method::POST, "/audio/transcriptions").multipart(form);
        self.http.json(request).await
    }
}

#[async_trait]
impl SpeechToText for OpenaiSpeech {
    fn name(&self) -> String {
        format!("openai/{}", self.model)
    }

    fn languages(&self) -> &[&str] {
        &LANGUAGES
    }

    fn is_ready(&self) -> bool {
        self.service.is_ready()
    }

    async fn transcribe(&self, speech: Speech) -> Result<Transcript> {
        if speech.samples.is_empty() {
            return Ok(Transcript::default());
        }
        let (file, seconds) =
            (wav::file(&speech.samples), speech.samples.len() as f64 / f64::from(SAMPLE_RATE));
        let language = speech.language.as_deref().or(self.language.as_deref());
        let answer = self.service.call(|| self.once(&file, language)).await?;
        Ok(answer.transcript(seconds))
    }
}

impl Answer {
    /// As ours, of `end` seconds of audio.
    fn transcript(self, end: f64) -> Transcript {
        let mut words = self.words.unwrap_or_default().into_iter().peekable();
        let mut segments = self.segments.unwrap_or_default();
        if segments.is_empty() {
            let (start, text) = (0.0, self.text);
            segments.push(AnswerSegment { start, end, text, avg_logprob: None });
        }
        let last = segments.len() - 1;
        let segments = segments.into_iter().enumerate().map(|(n, segment)| {
            let confidence = segment.avg_logprob.map_or(1.0, |p| p.exp().clamp(0.0, 1.0));
            let mut own = Vec::new();
            // A word belongs to the segment in which it begins.
            while let Some(word) = words.next_if(|word| n == last || word.start < segment.end) {
                let (start, end) = (word.start, word.end);
                own.push(Word { text: word.word.trim().to_owned(), start, end, confidence });
            }
            Segment {
                start: segment.start,
                end: segment.end,
                text: segment.text.trim().to_owned(),
                speaker: None,
                confidence,
                words: own,
            }
        });
        let segments = segments.filter(|segment| !segment.text.is_empty()).collect();
        // OpenAI itself writes "english".
        let language = self.language.filter(|language| LANGUAGES.contains(&language.as_str()));
        Transcript { segments, language, engine: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_to_the_segments_they_begin_in() {
        let answer = r#"{"task": "transcribe", "language": "en", "duration": 3.0, "text": "One two. Three.",
            "segments": [{"id": 0, "start": 0.0, "end": 1.5, "text": " One two.", "avg_logprob": -0.1},
                         {"id": 1, "start": 1.5, "end": 2.8, "text": " Three.", "avg_logprob": -0.7}],
            "words": [{"word": "One", "start": 0.1, "end": 0.5}, {"word": "two", "start": 0.6, "end": 1.6},
                      {"word": "Three", "start": 2.9, "end": 3.0}]}"#;
        let heard = serde_json::from_str::<Answer>(answer).unwrap().transcript(3.0);
        assert_eq!(
            (heard.text().as_str(), heard.language.as_deref()),
            ("One two. Three.", Some("en"))
        );
        let words = heard.segments.iter().map(|segment| segment.words.len());
        assert_eq!(words.collect::<Vec<_>>(), [2, 1]);
        assert!((heard.segments[0].confidence - 0.905).abs() < 0.001);
    }

    #[test]
    fn text_alone_will_do() {
        let heard = serde_json::from_str::<Answer>(r#"{"text": "Hi. "}"#).unwrap().transcript(2.0);
        assert_eq!((heard.segments.len(), heard.segments[0].end), (1, 2.0));
        let silence = serde_json::from_str::<Answer>(r#"{"text": ""}"#).unwrap();
        assert!(silence.transcript(2.0).segments.is_empty());
    }
}
