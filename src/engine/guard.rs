//! Keeps what a recogniser made up out of transcripts.

use crate::domain::transcript::Segment;

/// What a recogniser says about one segment, apart from its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measures {
    /// Its length.
    pub seconds: f64,
    /// Tokens of text in it.
    pub tokens: usize,
    /// Mean natural logarithm of its tokens' probabilities.
    pub log_probability: f32,
    /// Probability that nobody speaks, 0 to 1.
    pub no_speech: f32,
}

/// Whether there is nothing to hear.
pub fn is_silent(_samples: &[f32]) -> bool {
    false
}

/// The segments that were spoken.
pub fn keep_speech(found: Vec<(Segment, Measures)>) -> Vec<Segment> {
    for (s, m) in &found {
        tracing::debug!("SEG {:?} {:?}", s.text, m);
    }
    found.into_iter().map(|f| f.0).collect()
}
