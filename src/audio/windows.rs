//! A stream of samples to pieces of speech, for audio that is transcribed as it
//! comes and kept nowhere.

use super::cutter::PAD;
use super::segmenter::Segmenter;
use crate::config;
use crate::domain::conversation::{NewWindow, SAMPLE_RATE, Span};

/// Speech to transcribe at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Where it is in the stream.
    pub spans: Vec<Span>,
    /// The samples of the spans, joined.
    pub samples: Vec<i16>,
}

/// Cuts a stream into [`Window`]s. Holds what a window may still need and no
/// more: silence of any length takes no memory.
pub struct Windows {
    segmenter: Segmenter,
    /// Silence after which nothing is left to be cut.
    rest: u64,
    /// Samples from `origin` on.
    kept: Vec<i16>,
    origin: u64,
    found: Vec<NewWindow>,
}

impl Windows {
    /// At the start of a stream.
    pub fn new(config: &config::Transcribe) -> Self {
        let flush = config.flush_after.get().as_secs_f64() * f64::from(SAMPLE_RATE);
        Self {
            segmenter: Segmenter::new(config),
            rest: flush as u64 + 2 * PAD,
            kept: Vec::new(),
            origin: 0,
            found: Vec::new(),
        }
    }

    /// Samples so far.
    pub fn position(&self) -> u64 {
        self.segmenter.position()
    }

    /// Takes 16 kHz mono samples and appends the windows that end to `windows`.
    pub fn push(&mut self, samples: &[i16], windows: &mut Vec<Window>) {
        self.kept.extend_from_slice(samples);
        self.segmenter.push(samples, &mut self.found);
        for window in std::mem::take(&mut self.found) {
            windows.push(self.take(window));
        }
        let position = self.position();
        let quiet = position - self.segmenter.last_speech().unwrap_or(0);
        if quiet > self.rest {
            // Speech to come reaches back by a pad, from a frame not yet judged.
            self.forget(position.saturating_sub(2 * PAD));
        }
    }

    /// The last window, when no more samples come.
    pub fn finish(&mut self) -> Option<Window> {
        let window = self.segmenter.finish()?;
        Some(self.take(window))
    }

    fn take(&mut self, window: NewWindow) -> Window {
        let place = |at: u64| usize::try_from(at.saturating_sub(self.origin)).unwrap_or(usize::MAX);
        let spans = &window.spans;
        let pieces = spans.iter().filter_map(|s| self.kept.get(place(s.start)..place(s.end)));
        let samples = pieces.flatten().copied().collect();
        if let Some(last) = spans.last() {
            self.forget(last.end);
        }
        Window { spans: window.spans, samples }
    }

    /// Drops what is before sample `at`.
    fn forget(&mut self, at: u64) {
        let count = usize::try_from(at.saturating_sub(self.origin)).unwrap_or(usize::MAX);
        let count = count.min(self.kept.len());
        self.kept.drain(..count);
        self.origin += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::synthetic::{Noise, speech};

    #[test]
    fn windows_hold_the_samples_of_their_spans_and_silence_is_forgotten() {
        let mut sound = Vec::new();
        for (voice, pause) in [(4.0, 1.0), (20.0, 40.0), (5.0, 0.2)] {
            sound.extend(speech(voice));
            sound.resize(sound.len() + (pause * 16_000.0) as usize, 0);
        }
        let sound: Vec<i16> =
            sound.iter().zip(Noise::new(1).white(25.0)).map(|(a, b)| a.saturating_add(b)).collect();
        let mut windows = Windows::new(&config::Transcribe::default());
        let (mut found, mut most) = (Vec::new(), 0);
        for piece in sound.chunks(1_234) {
            windows.push(piece, &mut found);
            most = most.max(windows.kept.len());
        }
        found.extend(windows.finish());
        assert_eq!(windows.position(), sound.len() as u64);
        assert!(most < 16_000 * 36, "{most} samples were kept");
        assert!(found.len() >= 2, "{}", found.len());
        for window in &found {
            let spans = window.spans.iter();
            let expected: Vec<i16> =
                spans.flat_map(|s| &sound[s.start as usize..s.end as usize]).copied().collect();
            assert_eq!(window.samples, expected, "{:?}", window.spans);
        }
        assert!(found.last().unwrap().spans[0].start > 16_000 * 60);
    }

    #[test]
    fn nothing_comes_of_nothing() {
        let mut windows = Windows::new(&config::Transcribe::default());
        assert_eq!(windows.finish(), None);
        let mut found = Vec::new();
        windows.push(&[0; 160_000], &mut found);
        assert_eq!((windows.finish(), found), (None, vec![]));
    }
}
