//! A recogniser's tokens to words.

use crate::domain::transcript::Word;

/// A piece of text as a recogniser prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its bytes: a character can be spread over tokens, and a leading space
    /// begins a word.
    pub bytes: Vec<u8>,
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
    /// Its probability, 0 to 1.
    pub probability: f32,
}

/// The words that `tokens` make, with times that never go back, all between
/// `start` and `end` seconds. Text without spaces is one word.
pub fn words(tokens: &[Token], start: f64, end: f64) -> Vec<Word> {
    let mut words = Vec::new();
    let mut now = start;
    for group in tokens.chunk_by(|_, next| next.bytes.first() != Some(&b' ')) {
        let bytes: Vec<u8> = group.iter().flat_map(|token| token.bytes.iter().copied()).collect();
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        if text.is_empty() {
            continue;
        }
        let from = first.start.max(now).min(end);
        now = last.end.max(from).min(end);
        let sum: f32 = group.iter().map(|token| token.probability).sum();
        let confidence = (sum / group.len() as f32).clamp(0.0, 1.0);
        words.push(Word { text, start: from, end: now, confidence });
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(text: &[u8], start: f64, end: f64, probability: f32) -> Token {
        Token { bytes: text.to_vec(), start, end, probability }
    }

    #[test]
    fn tokens_join_at_spaces() {
        let tokens = [
            token(b" Ask", 0.5, 0.7, 1.0),
            token(b"ed", 0.7, 0.9, 0.5),
            token(b" caf", 0.6, 1.2, 0.9),
            token(b"\xc3", 1.2, 1.3, 0.9),
            token(b"\xa9", 1.3, 1.4, 0.9),
            token(b".", 9.0, 9.5, 0.9),
            token(b" ", 9.5, 9.6, 0.1),
        ];
        let words = words(&tokens, 0.0, 2.0);
        let texts: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(texts, ["Asked", "caf\u{e9}."]);
        assert_eq!((words[0].start, words[0].end, words[0].confidence), (0.5, 0.9, 0.75));
        assert_eq!((words[1].start, words[1].end), (0.9, 2.0));
    }

    proptest! {
        #[test]
        fn times_never_go_back_or_out(
            tokens in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..6), -5.0..40.0, -5.0..40.0, 0.0_f32..1.0),
                0..40,
            ),
            length in 0.0..30.0,
        ) {
            let tokens: Vec<_> = tokens.iter().map(|(b, s, e, p)| token(b, *s, *e, *p)).collect();
            let mut now = 0.0;
            for word in words(&tokens, 0.0, length) {
                prop_assert!(now <= word.start && word.start <= word.end && word.end <= length);
                prop_assert!(!word.text.trim().is_empty());
                now = word.end;
            }
        }
    }
}
