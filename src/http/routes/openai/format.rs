//! Transcripts in the formats that can be asked for.

use std::fmt::Write as _;
use std::io::Write as _;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::domain::transcript::Segment;
use crate::http::multipart::Form;
use crate::pipeline::file::FileTranscript;

/// How the transcript is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case", as = TranscriptFormat)]
pub(super) enum Format {
    /// The text in an object.
    Json,
    /// The text alone.
    Text,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// The text with times.
    VerboseJson,
}

/// What is to be in the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    format: Format,
    words: bool,
    segments: bool,
}

impl Wanted {
    /// What `form` asks for.
    ///
    /// # Errors
    /// Of a value that is none.
    pub(super) fn of(form: &Form) -> Result<Self, Problem> {
        let format = match form.get("response_format").unwrap_or("json") {
            "json" => Format::Json,
            "text" => Format::Text,
            "srt" => Format::Srt,
            "vtt" => Format::Vtt,
            "verbose_json" => Format::VerboseJson,
            other => {
                let text = format!("`{other}` is not one of json, text, srt, vtt, verbose_json");
                return Err(Problem::parameter("response_format", text));
            }
        };
        let name = "timestamp_granularities";
        if let Some(other) = form.all(name).find(|value| !matches!(*value, "word" | "segment")) {
            let text = format!("`{other}` is neither word nor segment");
            return Err(Problem::parameter(name, text));
        }
        let words = form.all(name).any(|value| value == "word");
        let segments = !words || form.all(name).any(|value| value == "segment");
        Ok(Self { format, words, segments })
    }

    /// `heard` as it was asked for.
    pub(super) fn answer(self, heard: &FileTranscript) -> Response {
        let text = heard.transcript.text();
        let segments = &heard.transcript.segments;
        match self.format {
            Format::Json => axum::Json(Brief { text, usage: Usage::of(heard) }).into_response(),
            Format::Text => plain(format!("{text}\n")),
            Format::Srt => plain(srt(segments)),
            Format::Vtt => plain(vtt(segments)),
            Format::VerboseJson => axum::Json(self.verbose(heard, text)).into_response(),
        }
    }

    fn verbose(self, heard: &FileTranscript, text: String) -> Verbose {
        let all = &heard.transcript.segments;
        let segments = all.iter().enumerate().map(|(id, segment)| VerboseSegment::of(id, segment));
        let words = all.iter().flat_map(|segment| &segment.words).map(|word| VerboseWord {
            word: word.text.clone(),
            start: word.start,
            end: word.end,
        });
        Verbose {
            task: "transcribe",
            language: heard.transcript.language.clone().unwrap_or_default(),
            duration: heard.seconds,
            text,
            segments: self.segments.then(|| segments.collect()),
            words: self.words.then(|| words.collect()),
            usage: Usage::of(heard),
        }
    }
}

/// The text alone.
#[derive(Serialize, ToSchema)]
#[schema(as = Transcription)]
pub(super) struct Brief {
    text: String,
    usage: Usage,
}

/// How much was heard.
#[derive(Serialize, ToSchema)]
#[schema(as = TranscriptionUsage)]
struct Usage {
    r#type: &'static str,
    seconds: u64,
}

impl Usage {
    fn of(heard: &FileTranscript) -> Self {
        Self { r#type: "duration", seconds: heard.seconds.ceil() as u64 }
    }
}

/// The text with times, in seconds.
#[derive(Serialize, ToSchema)]
#[schema(as = VerboseTranscription)]
pub(super) struct Verbose {
    task: &'static str,
    /// ISO 639-1 code of the language spoken; empty where nobody speaks.
    language: String,
    duration: f64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<VerboseSegment>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<VerboseWord>>,
    usage: Usage,
}

/// A stretch of speech.
#[derive(Serialize, ToSchema)]
struct VerboseSegment {
    id: usize,
    /// Hundredths of a second before it.
    seek: u64,
    start: f64,
    end: f64,
    text: String,
    /// Always empty.
    tokens: Vec<u32>,
    temperature: f32,
    /// Logarithm of how sure the engine is.
    avg_logprob: f32,
    compression_ratio: f64,
    /// Always 0: what holds no speech is left out.
    no_speech_prob: f32,
}

impl VerboseSegment {
    fn of(id: usize, segment: &Segment) -> Self {
        Self {
            id,
            seek: (segment.start.max(0.0) * 100.0) as u64,
            start: segment.start,
            end: segment.end,
            text: segment.text.clone(),
            tokens: Vec::new(),
            temperature: 0.0,
            avg_logprob: segment.confidence.clamp(1e-6, 1.0).ln(),
            compression_ratio: compression_ratio(&segment.text),
            no_speech_prob: 0.0,
        }
    }
}

/// A word.
#[derive(Serialize, ToSchema)]
struct VerboseWord {
    word: String,
    start: f64,
    end: f64,
}

/// How many times shorter zlib makes `text`: much, where a model repeats itself.
fn compression_ratio(text: &str) -> f64 {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing to memory does not fail.
    let written = zlib.write_all(text.as_bytes()).and_then(|()| zlib.finish());
    written.map_or(1.0, |bytes| text.len() as f64 / bytes.len().max(1) as f64)
}

fn plain(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

fn srt(segments: &[Segment]) -> String {
    let mut out = String::new();
    for (number, segment) in (1..).zip(segments) {
        let (start, end) = (clock(segment.start, ','), clock(segment.end, ','));
        // Writing to a string does not fail.
        let _ = write!(out, "{number}\n{start} --> {end}\n{}\n\n", cue(&segment.text));
    }
    out
}

fn vtt(segments: &[Segment]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for segment in segments {
        let (start, end) = (clock(segment.start, '.'), clock(segment.end, '.'));
        let text = cue(&segment.text).replace('&', "&amp;").replace('<', "&lt;");
        let _ = write!(out, "{start} --> {end}\n{text}\n\n");
    }
    out
}

/// The text of a cue, which no line of its own may end or part.
fn cue(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ").replace("-->", "->")
}

/// `01:02:03,456`.
fn clock(seconds: f64, point: char) -> String {
    let millis = (seconds.max(0.0) * 1000.0).round() as u64;
    let (rest, millis) = (millis / 1000, millis % 1000);
    let (minutes, seconds) = (rest / 60, rest % 60);
    format!("{:02}:{:02}:{seconds:02}{point}{millis:03}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: f64, end: f64, text: &str) -> Segment {
        let text = text.to_owned();
        Segment { start, end, text, speaker: None, confidence: 0.5, words: Vec::new() }
    }

    #[test]
    fn subtitles_keep_to_their_grammar() {
        let said = [segment(0.0, 1.5, "One & two"), segment(3723.0004, 3724.9999, "a --> b\n\nc")];
        assert_eq!(
            srt(&said),
            "1\n00:00:00,000 --> 00:00:01,500\nOne & two\n\n\
             2\n01:02:03,000 --> 01:02:05,000\na -> b c\n\n"
        );
        assert_eq!(
            vtt(&said),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne &amp; two\n\n\
             01:02:03.000 --> 01:02:05.000\na -> b c\n\n"
        );
    }

    #[test]
    fn what_is_repeated_compresses() {
        assert!(compression_ratio("no no no no no no no no no no no no no no no no") > 2.4);
        assert!(compression_ratio("ask what you can do for your country") < 1.2);
    }
}
