//! Keeps what a recogniser made up out of transcripts.
//!
//! A model that was trained on subtitles always writes something. On noise that
//! is the name of a sound in brackets, a phrase over and over, or a phrase that
//! it does not believe in itself. None of the measures here knows a phrase.

use std::io::Write;
use std::ops::Range;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::domain::transcript::{Segment, Word, plain_text};

/// Text that zlib shrinks more than this repeats itself (Whisper's own bound).
const MAX_COMPRESSION: f64 = 2.4;
/// Below this mean logarithm of its tokens' probabilities, text is a guess
/// (Whisper's own bound).
const LEAST_LOG_PROBABILITY: f32 = -1.0;
/// Above this, silence is likelier than speech, and text must be sure of itself
/// (Whisper's own bound).
const LIKELY_SILENCE: f32 = 0.6;
/// What "sure of itself" is then. Whisper asks for -1.
const SURE: f32 = -0.6;
/// Above this, a failed text was noise rather than hard to understand.
const POSSIBLE_SILENCE: f32 = 0.3;
/// A phrase of at least this many words said [`PHRASE_REPEATS`] times in a row
/// is a loop; a shorter one is when it makes [`LOOP_WORDS`] words.
const PHRASE: usize = 3;
const PHRASE_REPEATS: usize = 3;
const LOOP_WORDS: usize = 8;
/// The longest phrase that is looked for.
const LONGEST_PHRASE: usize = 24;

/// One pass of a recogniser over one piece of audio.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// What it found.
    pub segments: Vec<Segment>,
    /// Mean natural logarithm of the probabilities of its tokens.
    pub log_probability: f32,
    /// Probability that nobody speaks, 0 to 1.
    pub no_speech: f32,
}

/// What to make of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody said this.
    Speech,
    /// Nobody spoke.
    Noise,
    /// Somebody spoke, but this is not what was said: try another way.
    Failed,
}

impl Pass {
    /// Leaves the names of sounds and segments without a letter or digit out.
    #[must_use]
    pub fn without_sounds(mut self) -> Self {
        for segment in &mut self.segments {
            let mut spoken = spoken();
            keep_words(segment, |word| spoken(&word.text));
        }
        self.segments.retain(|segment| segment.text.chars().any(char::is_alphanumeric));
        self
    }

    /// Leaves out what is said again in a loop, and all of it when a loop remains.
    #[must_use]
    pub fn without_loops(mut self) -> Self {
        loop {
            let words: Vec<_> = self.segments.iter().flat_map(|s| &s.words).collect();
            let words: Vec<_> = words.iter().map(|word| bare(&word.text)).collect();
            let Some(found) = find_loop(&words) else { break };
            let mut at = 0;
            for segment in &mut self.segments {
                keep_words(segment, |_| {
                    at += 1;
                    !found.contains(&(at - 1))
                });
            }
        }
        self.segments.retain(|segment| !segment.text.is_empty());
        if repeats(&plain_text(&self.segments)) {
            self.segments.clear();
        }
        self
    }

    /// What to make of it, once sounds are left out.
    pub fn verdict(&self) -> Verdict {
        let text = plain_text(&self.segments);
        let unsure = self.no_speech > LIKELY_SILENCE && self.log_probability < SURE;
        let failed = repeats(&text) || self.log_probability < LEAST_LOG_PROBABILITY;
        match () {
            () if text.is_empty() || unsure => Verdict::Noise,
            () if failed && self.no_speech > POSSIBLE_SILENCE => Verdict::Noise,
            () if failed => Verdict::Failed,
            () => Verdict::Speech,
        }
    }
}

/// Keeps some words of `segment`, and its text in step with them.
fn keep_words(segment: &mut Segment, keep: impl FnMut(&Word) -> bool) {
    let before = segment.words.len();
    segment.words.retain(keep);
    if segment.words.len() < before {
        let texts: Vec<_> = segment.words.iter().map(|word| word.text.as_str()).collect();
        segment.text = texts.join(" ");
    }
}

/// Tells words outside brackets, one after the other. A bracket that is never
/// closed runs to the end.
fn spoken() -> impl FnMut(&str) -> bool {
    let mut inside = 0_usize;
    move |word| {
        let before = inside;
        for character in word.chars() {
            match character {
                '[' | '(' | '{' | '（' | '【' => inside += 1,
                ']' | ')' | '}' | '）' | '】' => inside = inside.saturating_sub(1),
                _ => {}
            }
        }
        before == 0 && inside == 0 && !word.contains(['♪', '♫', '♬']) && !is_label(word)
    }
}

/// A whole label in one word: `[Music]`, `(cough)`, `*sigh*`.
fn is_label(word: &str) -> bool {
    let word = word.trim_end_matches(['.', ',', '!', '?']);
    [('[', ']'), ('(', ')'), ('{', '}'), ('*', '*'), ('（', '）'), ('【', '】')]
        .iter()
        .any(|(open, close)| word.starts_with(*open) && word.ends_with(*close))
}

/// Whether `text` says the same over and over.
pub fn repeats(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(bare).collect();
    compression(text) > MAX_COMPRESSION || find_loop(&words).is_some()
}

/// The words that say a phrase again and again, its first time left out.
fn find_loop(words: &[String]) -> Option<Range<usize>> {
    (1..=LONGEST_PHRASE.min(words.len() / 2)).find_map(|length| {
        let least = if length >= PHRASE { PHRASE_REPEATS } else { LOOP_WORDS / length };
        // A run of words that equal those one phrase before.
        let same: Vec<bool> = words.windows(length + 1).map(|w| w.first() == w.last()).collect();
        let mut at = length;
        for run in same.chunk_by(|a, b| a == b) {
            let again = run.first().is_some_and(|same| *same);
            if again && (run.len() + length) / length >= least {
                return Some(at..at + run.len());
            }
            at += run.len();
        }
        None
    })
}

/// A word without case and punctuation.
fn bare(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}

/// How many times longer `text` is than after zlib.
fn compression(text: &str) -> f64 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory cannot fail; were it to, nothing is said about the text.
    let written = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    written.map_or(0.0, |bytes| text.len() as f64 / bytes.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(texts: &[&str], log_probability: f32, no_speech: f32) -> Pass {
        let segment = |text: &&str| {
            let word =
                |text: &str| Word { text: text.into(), start: 0.0, end: 0.0, confidence: 1.0 };
            let words = text.split_whitespace().map(word).collect();
            let text = (*text).to_owned();
            Segment { start: 0.0, end: 1.0, text, speaker: None, confidence: 1.0, words }
        };
        let segments = texts.iter().map(segment).collect();
        Pass { segments, log_probability, no_speech }.without_sounds()
    }

    fn kept(text: &str) -> String {
        plain_text(&pass(&[text], 0.0, 0.0).segments)
    }

    #[test]
    fn names_of_sounds_are_left_out() {
        for sound in [
            "[BLANK_AUDIO]",
            "[ Music ]",
            "(water running)",
            "♪",
            "♪la♪",
            "[B",
            "*sigh*",
            "...",
            "[BELL RINGING] [BELL RINGING]",
            "(music).",
            "- -",
            "【音楽】",
        ] {
            assert_eq!(kept(sound), "", "{sound}");
        }
        assert_eq!(kept("[Music] Hello (coughs) there."), "Hello there.");
        assert_eq!(kept("It's 3:30, isn't it?"), "It's 3:30, isn't it?");
        assert_eq!(kept("こんにちは。"), "こんにちは。");
    }

    #[test]
    fn loops_are_told_from_emphasis() {
        for text in [
            "I'm going to do it. I'm going to do it. I'm going to do it.",
            "you you you you you you you you you",
            "Thank you. Thank you. Thank you. Thank you. Thank you.",
            &"憤".repeat(120),
        ] {
            assert!(repeats(text), "{text}");
        }
        for text in [
            "",
            "No, no, no, no, I did not say that.",
            "Row, row, row your boat, gently down the stream.",
            "Ask not what your country can do for you, ask what you can do for your country.",
            "one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
            "He said yes. She said yes. They all said yes, yes, and yes again.",
        ] {
            assert!(!repeats(text), "{text}");
        }
    }

    #[test]
    fn of_a_loop_the_first_time_is_kept() {
        let texts =
            ["Well, I'm going to do it.", "I'm going to do it.", "I'm going to do it. Now."];
        let pass = pass(&texts, -0.2, 0.1).without_loops();
        assert_eq!(plain_text(&pass.segments), "Well, I'm going to do it. Now.");
        assert_eq!(pass.segments.len(), 2);
        assert!(self::pass(&[&"憤".repeat(120)], -0.2, 0.1).without_loops().segments.is_empty());
    }

    #[test]
    fn a_pass_is_judged_by_what_the_model_believes() {
        let say = |log_probability, no_speech| pass(&["Hello there."], log_probability, no_speech);
        assert_eq!(say(-0.3, 0.05).verdict(), Verdict::Speech);
        assert_eq!(say(-0.3, 0.5).verdict(), Verdict::Speech);
        assert_eq!(say(-1.3, 0.05).verdict(), Verdict::Failed);
        assert_eq!(say(-1.3, 0.7).verdict(), Verdict::Noise);
        let looped = ["I'm going to do it."; 3];
        assert_eq!(pass(&looped, -0.2, 0.1).verdict(), Verdict::Failed);
        assert_eq!(pass(&looped, -0.2, 0.8).verdict(), Verdict::Noise);
        assert_eq!(pass(&["[Music]"], -0.1, 0.0).verdict(), Verdict::Noise);
        assert_eq!(Pass::default().verdict(), Verdict::Noise);
    }
}
