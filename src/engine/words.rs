//! A recogniser's tokens to words and segments.

use crate::domain::transcript::{Segment, Word};

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

/// What a recogniser writes, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text, and the natural logarithm of its probability.
    Text(Token, f32),
    /// A segment begins or ends at so many seconds.
    Time(f64),
    /// It has no more to write.
    End,
}

/// One pass of a recogniser, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Mean natural logarithm of the probabilities of its text.
    pub log_probability: f32,
    /// Seconds up to which it surely wrote everything.
    pub read_to: f64,
    /// Whether it was done with all of the audio. As in Whisper's own decoder:
    /// one time at the end says so, two say that another segment follows.
    pub complete: bool,
}

/// Takes what a recogniser wrote about `length` seconds apart.
pub fn read(pieces: &[Piece], length: f64) -> Reading {
    let mut reading = Reading::default();
    let (mut tokens, mut log_sum, mut count, mut pair) = (Vec::new(), 0.0, 0_u16, false);
    for piece in pieces {
        match piece {
            Piece::Text(token, log_probability) => {
                log_sum += log_probability;
                count += 1;
                tokens.push(token.clone());
                pair = false;
            }
            Piece::Time(at) => {
                let at = at.clamp(reading.read_to, length.max(reading.read_to));
                pair = tokens.is_empty();
                reading.segments.extend(segment(&tokens, reading.read_to, at));
                reading.read_to = at;
                tokens.clear();
            }
            Piece::End => reading.complete = true,
        }
    }
    if tokens.is_empty() {
        reading.complete &= !pair;
    } else if reading.complete || reading.segments.is_empty() {
        // The last segment was left open: it lasts to the end.
        reading.segments.extend(segment(&tokens, reading.read_to, length));
        reading.complete = true;
    }
    if reading.complete {
        reading.read_to = length;
    }
    reading.log_probability = log_sum / f32::from(count.max(1));
    reading
}

fn segment(tokens: &[Token], start: f64, end: f64) -> Option<Segment> {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.bytes.iter().copied()).collect();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if text.is_empty() {
        return None;
    }
    let sum: f32 = tokens.iter().map(|token| token.probability).sum();
    let confidence = (sum / tokens.len() as f32).clamp(0.0, 1.0);
    let words = words(tokens, start, end);
    Some(Segment { start, end, text, speaker: None, confidence, words })
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

    fn text(text: &str) -> Piece {
        Piece::Text(token(text.as_bytes(), 0.0, 0.0, 0.5), -0.5)
    }

    #[test]
    fn times_cut_segments() {
        use Piece::{End, Time};
        let pieces = [
            Time(0.2),
            text(" One"),
            text(" two."),
            Time(2.0),
            Time(2.5),
            text(" Three."),
            Time(4.0),
            End,
        ];
        let reading = read(&pieces, 5.0);
        let spans: Vec<_> =
            reading.segments.iter().map(|s| (s.start, s.end, s.text.as_str())).collect();
        assert_eq!(spans, [(0.2, 2.0, "One two."), (2.5, 4.0, "Three.")]);
        assert_eq!((reading.log_probability, reading.read_to, reading.complete), (-0.5, 5.0, true));
    }

    #[test]
    fn what_was_not_read_is_told() {
        use Piece::{End, Time};
        let told = |pieces: &[Piece]| {
            let reading = read(pieces, 5.0);
            (reading.segments.len(), reading.read_to, reading.complete)
        };
        // Two times at the end: another segment follows.
        assert_eq!(told(&[Time(0.0), text(" a"), Time(2.0), Time(2.0), End]), (1, 2.0, false));
        // Out of tokens: what was begun is read again.
        assert_eq!(
            told(&[Time(0.0), text(" a"), Time(2.0), Time(2.0), text(" b")]),
            (1, 2.0, false)
        );
        assert_eq!(told(&[Time(0.0), text(" a")]), (1, 5.0, true));
        // Left open, or nothing at all.
        assert_eq!(told(&[Time(0.0), text(" a"), End]), (1, 5.0, true));
        assert_eq!(told(&[Time(0.0), End]), (0, 0.0, false));
        assert_eq!(told(&[End]), (0, 5.0, true));
        assert_eq!(told(&[]), (0, 0.0, false));
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
