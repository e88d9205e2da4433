//! Speech to text by Deepgram, all of a conversation in one request: its speakers
//! are numbered through that, and anew in the next.
//!
//! What is sent is the windows one after the other, read from the recording piece
//! by piece, so that an hour takes no more memory than a window.

use std::convert::identity;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method};

use super::{Answer, Deepgram, Heard, HeardWord, segments};
use crate::audio::wav;
use crate::base::error::{Error, Result};
use crate::domain::conversation::seconds;
use crate::domain::transcript::Transcript;
use crate::remote::Fault;
use crate::stt::live::Place;
use crate::stt::{HearsWhole, SpeechToText, Whole};

/// Where the error is put that kept a recording from being read.
type Unread = Arc<Mutex<Option<Error>>>;

#[async_trait]
impl HearsWhole for Deepgram {
    async fn transcribe_whole(&self, whole: &Whole) -> Result<Vec<Transcript>> {
        let mut live = Vec::with_capacity(whole.windows.len());
        for window in &whole.windows {
            live.push(self.heard_live(window).await);
        }
        // What was heard live has been paid for.
        let windows = whole.windows.iter().zip(&live).filter(|(_, heard)| heard.is_none());
        let windows = windows.map(|(window, _)| window.clone()).collect();
        let asked = self.ask(&Whole { windows, ..whole.clone() }).await?;
        let mut asked = asked.into_iter();
        Ok(live
            .into_iter()
            .map(|heard| heard.or_else(|| asked.next()).unwrap_or_default())
            .collect())
    }
}

impl Deepgram {
    /// The transcript of each window, by one request for all.
    async fn ask(&self, whole: &Whole) -> Result<Vec<Transcript>> {
        let lengths: Vec<u64> = whole.windows.iter().map(samples).collect();
        let total = lengths.iter().sum();
        if total == 0 {
            return Ok(vec![Transcript::default(); lengths.len()]);
        }
        let asked = self.asked(None);
        // Who sends as slowly as it was said is waited for.
        let patience = self.http.total() + Duration::from_secs_f64(seconds(total));
        let listen = || async {
            let unread = Unread::default();
            let request = self.http.request(Method::POST, "/v1/listen").query(&asked);
            let request = request
                .timeout(patience)
                .header(CONTENT_TYPE, "audio/wav")
                .header(CONTENT_LENGTH, wav::HEADER as u64 + total * 2)
                .body(Body::wrap_stream(body(whole, total, unread.clone())));
            let answer = self.http.json::<Answer>(request).await;
            // That is not the service's fault.
            let unread = unread.lock().unwrap_or_else(PoisonError::into_inner).take();
            unread.map_or(answer, |error| Err(Fault::Refused(error)))
        };
        let Heard { words, language } = self.service.call(listen).await?.heard();
        let windows = split(words, &lengths).into_iter();
        let transcript = |words| Transcript {
            segments: segments(words),
            language: language.clone(),
            engine: Some(self.name()),
        };
        Ok(windows.map(transcript).collect())
    }
}

/// A WAV file of the windows; an error on the way goes to `unread` too.
fn body(whole: &Whole, total: u64, unread: Unread) -> impl Stream<Item = Result<Bytes>> + use<> {
    let header = stream::iter([Ok(Bytes::copy_from_slice(&wav::header(total)))]);
    let Whole { recordings, file, windows } = whole.clone();
    let read = move |window: Place| {
        let (recordings, file, unread) = (recordings.clone(), file.clone(), unread.clone());
        async move {
            match recordings.read(&file, &window.spans).await {
                Ok(samples) => Ok(samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()),
                Err(error) => {
                    let told = Error::new(error.kind(), error.message());
                    *unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Err(told)
                }
            }
        }
    };
    header.chain(stream::iter(windows).then(read))
}

fn samples(window: &Place) -> u64 {
    window.spans.iter().map(|span| span.len()).sum()
}

/// The words of each window, with times from its first sample, of those that were
/// heard in windows of so many samples one after the other. A word is of the window
/// that its middle is in.
fn split(words: Vec<HeardWord>, lengths: &[u64]) -> Vec<Vec<HeardWord>> {
    let ends: Vec<f64> = lengths
        .iter()
        .scan(0, |end, length| {
            *end += length;
            Some(seconds(*end))
        })
        .collect();
    let mut windows = vec![Vec::new(); lengths.len()];
    for word in words {
        let middle = f64::midpoint(word.start, word.end);
        let last = lengths.len().saturating_sub(1);
        let number =
            ends.binary_search_by(|end| end.total_cmp(&middle)).map_or_else(identity, |n| n + 1);
        let number = number.min(last);
        let (Some(window), Some(length)) = (windows.get_mut(number), lengths.get(number)) else {
            continue;
        };
        let length = seconds(*length);
        let begin = ends.get(number).map_or(0.0, |end| end - length);
        let place = |time: f64| (time - begin).clamp(0.0, length);
        let (start, end) = (place(word.start), place(word.end));
        window.push(HeardWord { start, end, ..word });
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_of_the_window_that_its_middle_is_in() {
        let word = |text: &str, start: f64, end: f64| HeardWord {
            word: text.into(),
            punctuated_word: None,
            start,
            end,
            confidence: 1.0,
            speaker: Some(1),
        };
        let words = [
            word("a", 0.0, 0.5),
            word("b", 1.8, 2.1),
            word("c", 1.9, 2.4),
            word("e", 2.5, 3.0),
            word("late", 5.2, 5.6),
        ];
        // Of 2 s, none, 1 s, and 2 s.
        let windows = split(words.into(), &[32_000, 0, 16_000, 32_000]);
        let told: Vec<Vec<(&str, f64, f64)>> = windows
            .iter()
            .map(|words| words.iter().map(|w| (w.word.as_str(), w.start, w.end)).collect())
            .collect();
        let near = |(a, b): (f64, f64)| (a - b).abs() < 1e-9;
        let expected = [
            vec![("a", 0.0, 0.5), ("b", 1.8, 2.0)],
            vec![],
            vec![("c", 0.0, 0.4), ("e", 0.5, 1.0)],
            vec![("late", 2.0, 2.0)],
        ];
        for (told, expected) in told.iter().zip(&expected) {
            assert_eq!(told.len(), expected.len(), "{told:?}");
            for (one, other) in told.iter().zip(expected) {
                assert!(
                    one.0 == other.0 && near((one.1, other.1)) && near((one.2, other.2)),
                    "{one:?}"
                );
            }
        }
        assert!(split(vec![word("a", 0.0, 1.0)], &[]).is_empty());
    }
}
