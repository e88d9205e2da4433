//! What was said, with times.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A word with its place in the audio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Word {
    /// The word as printed, without surrounding space.
    pub text: String,
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
    /// How sure the engine is, 0 to 1.
    pub confidence: f32,
}

/// A phrase or sentence with its place in the audio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Segment {
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
    /// The text, without surrounding space.
    pub text: String,
    /// Who spoke, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// How sure the engine is, 0 to 1.
    pub confidence: f32,
    /// Its words.
    #[serde(default)]
    pub words: Vec<Word>,
}

/// The result of transcribing one piece of audio.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// In order of time; empty when nobody spoke.
    pub segments: Vec<Segment>,
    /// Language the engine used or found: an ISO 639-1 code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Engine and model that made it, where it was not the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

impl Transcript {
    /// The whole text on one line.
    pub fn text(&self) -> String {
        plain_text(&self.segments)
    }
}

/// The text of `segments`, joined by single spaces.
pub fn plain_text(segments: &[Segment]) -> String {
    let mut text = String::new();
    for segment in segments.iter().map(|s| s.text.trim()).filter(|t| !t.is_empty()) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(segment);
    }
    text
}
