//! Where windows begin and end, given which frames are speech.
//!
//! Speech frames gather into spans, padded on both sides; a gap too short to
//! stay one after padding is kept inside its span. Spans gather into a window.

use std::collections::VecDeque;

use super::vad::{FRAME, Verdict};
use crate::config;
use crate::domain::conversation::{NewWindow, SAMPLE_RATE, Span};

const STEP: u64 = FRAME as u64;
/// Kept around speech, so that soft beginnings and ends are heard: 0.3 s.
pub const PAD: u64 = 10 * STEP;
/// How far back a quiet place is looked for when there is no pause: 4 s.
const SEARCH: usize = 133;
/// The most that a window may be configured to hold: a model takes 30 s.
const WINDOW_LIMIT: u64 = 29 * SAMPLE_RATE as u64;

/// When a window ends, in samples.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Speech from which on a pause ends a window that is packed.
    packed: u64,
    min: u64,
    max: u64,
    flush: u64,
}

/// Cuts a stream of verdicts into windows. Positions are samples from the start
/// of the recording.
#[derive(Clone, Debug)]
pub struct Cutter {
    limits: Limits,
    packing: bool,
    seq: u32,
    /// End of the last frame.
    position: u64,
    /// No span begins before this: the end of the last one.
    floor: u64,
    /// Finished spans of the window that is gathering, and their length.
    spans: Vec<Span>,
    gathered: u64,
    open: Option<Run>,
    levels: VecDeque<f32>,
    first_speech: Option<u64>,
    last_speech: Option<u64>,
}

/// A span that may still grow.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    speech_end: u64,
}

impl Cutter {
    /// A cutter at the start of a recording.
    pub fn new(config: &config::Transcribe) -> Self {
        let samples = |interval: config::Interval| {
            (interval.get().as_secs_f64() * f64::from(SAMPLE_RATE)) as u64
        };
        let max = samples(config.window_max).clamp(4 * PAD, WINDOW_LIMIT);
        let limits = Limits {
            packed: max - (max / 8).min(3 * u64::from(SAMPLE_RATE)),
            min: samples(config.window_min).min(max),
            max,
            flush: samples(config.flush_after).max(PAD),
        };
        Self {
            limits,
            packing: false,
            seq: 0,
            position: 0,
            floor: 0,
            spans: Vec::new(),
            gathered: 0,
            open: None,
            levels: VecDeque::new(),
            first_speech: None,
            last_speech: None,
        }
    }

    /// Whether windows are to be as full as they can be, because what they hold
    /// has to wait anyway. Else they end early, for text to appear soon.
    pub fn pack(&mut self, packing: bool) {
        self.packing = packing;
    }

    /// Goes on in a recording at sample `at`, where window `seq` is next.
    pub fn resume(&mut self, at: u64, seq: u32) {
        self.position = at;
        self.floor = at;
        self.seq = seq;
    }

    /// Begins a new recording with the next sample.
    pub fn restart(&mut self) {
        self.spans.clear();
        self.levels.clear();
        self.gathered = 0;
        self.open = None;
        self.first_speech = None;
        self.last_speech = None;
        self.resume(0, 0);
    }

    /// Counts from sample `origin` on, which becomes sample 0. What went before
    /// it is forgotten.
    pub fn rebase(&mut self, origin: u64) {
        let shift = |at: u64| at.saturating_sub(origin);
        self.position = shift(self.position);
        self.floor = shift(self.floor);
        self.first_speech = self.first_speech.map(shift);
        self.last_speech = self.last_speech.map(shift);
        for span in &mut self.spans {
            *span = Span { start: shift(span.start), end: shift(span.end) };
        }
        self.spans.retain(|span| !span.is_empty());
        self.gathered = self.spans.iter().map(|span| span.len()).sum();
        if let Some(run) = &mut self.open {
            *run = Run { start: shift(run.start), speech_end: shift(run.speech_end) };
        }
    }

    /// End of the last frame judged.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where the first speech began.
    pub fn first_speech(&self) -> Option<u64> {
        self.first_speech
    }

    /// Where the latest speech ended, so far.
    pub fn last_speech(&self) -> Option<u64> {
        self.last_speech
    }

    /// Takes the verdict on the next frame; returns a window when one ends.
    pub fn push(&mut self, verdict: Verdict) -> Option<NewWindow> {
        let start = self.position;
        self.position += STEP;
        if self.levels.len() == SEARCH {
            self.levels.pop_front();
        }
        self.levels.push_back(verdict.level);
        if verdict.speech {
            self.hear(start);
        }
        let pause = self.position - self.last_speech?;
        let gathered = self.gathered + self.open.map_or(0, |run| self.position - run.start);
        if gathered == 0 {
            return None;
        }
        let enough = if self.packing { self.limits.packed } else { self.limits.min };
        let flush = pause >= self.limits.flush && !self.packing;
        if flush || (pause >= PAD && gathered >= enough) {
            self.close_span(self.position);
            return self.take_window();
        }
        if gathered >= self.limits.max {
            return self.cut_at_quiet();
        }
        // From here on no later speech can reach back into this span.
        if pause >= 2 * PAD {
            self.close_span(self.position);
        }
        None
    }

    /// The last window, when the recording ends at sample `end`.
    pub fn finish(&mut self, end: u64) -> Option<NewWindow> {
        self.close_span(end.max(self.position));
        self.take_window()
    }

    /// Notes speech in the frame that begins at `start`.
    fn hear(&mut self, start: u64) {
        let end = start + STEP;
        self.first_speech.get_or_insert(start);
        self.last_speech = Some(end);
        match &mut self.open {
            Some(run) => run.speech_end = end,
            None => {
                let start = start.saturating_sub(PAD).max(self.floor);
                self.open = Some(Run { start, speech_end: end });
            }
        }
    }

    /// Ends the open span a pad after its speech, at most at `limit`.
    fn close_span(&mut self, limit: u64) {
        if let Some(run) = self.open.take() {
            self.add_span(Span { start: run.start, end: (run.speech_end + PAD).min(limit) });
        }
    }

    fn add_span(&mut self, span: Span) {
        self.floor = span.end;
        self.gathered += span.len();
        self.spans.push(span);
    }

    /// Gives out what has gathered, if anything.
    fn take_window(&mut self) -> Option<NewWindow> {
        if self.spans.is_empty() {
            return None;
        }
        self.gathered = 0;
        let window = NewWindow { seq: self.seq, spans: std::mem::take(&mut self.spans) };
        self.seq += 1;
        Some(window)
    }

    /// Ends the window between the two quietest neighbouring frames of the last
    /// seconds, inside the open span.
    fn cut_at_quiet(&mut self) -> Option<NewWindow> {
        let Some(run) = self.open else { return self.take_window() };
        let quietest = self
            .levels
            .iter()
            .rev()
            .zip(self.levels.iter().rev().skip(1))
            .zip(1u64..)
            .map(|((after, before), back)| (self.position - back * STEP, after + before))
            .take_while(|(at, _)| *at > run.start)
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let at = quietest.map_or(self.position, |(at, _)| at);
        self.add_span(Span { start: run.start, end: at });
        self.open = (run.speech_end > at).then_some(Run { start: at, speech_end: run.speech_end });
        self.take_window()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = SAMPLE_RATE as u64;

    /// Runs of (speech, frames) through a cutter.
    fn cut(runs: &[(bool, usize)]) -> Vec<NewWindow> {
        let mut cutter = Cutter::new(&config::Transcribe::default());
        let mut windows = Vec::new();
        for (speech, frames) in runs {
            for _ in 0..*frames {
                windows.extend(cutter.push(Verdict { speech: *speech, level: 40.0 }));
            }
        }
        windows.extend(cutter.finish(cutter.position()));
        windows
    }

    fn frames(seconds: f64) -> usize {
        (seconds / 0.03) as usize
    }

    #[test]
    fn silence_makes_no_window() {
        assert_eq!(cut(&[(false, 10_000)]), []);
    }

    #[test]
    fn a_long_pause_ends_a_window_of_any_length() {
        let windows = cut(&[(false, 100), (true, 50), (false, 1_000), (true, 10), (false, 5)]);
        let span = |start: u64, end: u64| vec![Span { start: start * STEP, end: end * STEP }];
        assert_eq!(windows[0], NewWindow { seq: 0, spans: span(90, 160) });
        assert_eq!(windows[1], NewWindow { seq: 1, spans: span(1_140, 1_165) });
        assert_eq!(windows.len(), 2);
    }

    #[test]
    fn packed_windows_are_nearly_full() {
        // Ten seconds of talk, and ten of pause, again and again.
        let mut cutter = Cutter::new(&config::Transcribe::default());
        cutter.pack(true);
        let mut windows = Vec::new();
        for i in 0..frames(400.0) {
            let speech = (i / frames(10.0)).is_multiple_of(2);
            windows.extend(cutter.push(Verdict { speech, level: 40.0 }));
        }
        let total = |w: &NewWindow| w.spans.iter().map(|s| s.len()).sum::<u64>();
        assert!(windows.len() >= 6, "{windows:?}");
        for window in &windows {
            assert!((49 * SECOND / 2..=28 * SECOND + STEP).contains(&total(window)), "{window:?}");
        }
    }

    #[test]
    fn a_short_pause_ends_a_window_with_enough_speech() {
        let speak = frames(9.0);
        let windows = cut(&[(true, speak), (false, 30), (true, speak), (false, 11), (true, speak)]);
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[0].spans.len(), 2);
        assert_eq!(windows[0].spans[1].end, windows[1].spans[0].start);
    }

    #[test]
    fn without_a_pause_the_cut_is_at_the_quietest_place() {
        let mut cutter = Cutter::new(&config::Transcribe::default());
        let quiet = frames(26.0);
        let window = (0..).find_map(|i| {
            let level = if i == quiet || i == quiet + 1 { 20.0 } else { 50.0 };
            cutter.push(Verdict { speech: true, level })
        });
        assert_eq!(window.unwrap().spans[0].end, (quiet as u64 + 1) * STEP);
    }

    #[test]
    fn rebasing_moves_everything_alike() {
        let mut cutter = Cutter::new(&config::Transcribe::default());
        for i in 0..200 {
            cutter.push(Verdict { speech: i >= 150, level: 40.0 });
        }
        cutter.rebase(145 * STEP);
        assert_eq!(cutter.first_speech(), Some(5 * STEP));
        assert_eq!(cutter.last_speech(), Some(55 * STEP));
        let spans = cutter.finish(cutter.position()).unwrap().spans;
        assert_eq!(spans, [Span { start: 0, end: 55 * STEP }]);
    }

    proptest! {
        #[test]
        fn windows_cover_speech_exactly_once(
            runs in prop::collection::vec((any::<bool>(), 1usize..600, 0u8..60), 0..30),
            min in 0u64..30,
            max in 1u64..40,
            flush in 0u64..10,
            tail in 0u64..STEP,
            at in 0u64..100_000,
        ) {
            let seconds = config::Interval::from_secs;
            let config = config::Transcribe {
                window_min: seconds(min),
                window_max: seconds(max),
                flush_after: seconds(flush),
                ..config::Transcribe::default()
            };
            let mut cutter = Cutter::new(&config);
            cutter.resume(at, 3);
            let (mut windows, mut speech) = (Vec::new(), Vec::new());
            for (i, (spoken, count, level)) in runs.iter().enumerate() {
                for j in 0..*count {
                    if *spoken {
                        speech.push(cutter.position());
                    }
                    let level = f32::from(*level) + ((i * 31 + j * 7) % 11) as f32;
                    windows.extend(cutter.push(Verdict { speech: *spoken, level }));
                }
            }
            let end = cutter.position() + tail;
            windows.extend(cutter.finish(end));
            prop_assert_eq!(cutter.last_speech(), speech.last().map(|s| s + STEP));

            let mut before = at;
            for (i, window) in windows.iter().enumerate() {
                prop_assert_eq!(window.seq as usize, i + 3);
                prop_assert!(!window.spans.is_empty());
                let total: u64 = window.spans.iter().map(|s| s.len()).sum();
                prop_assert!(total <= 59 * SECOND / 2, "{total}");
                for span in &window.spans {
                    prop_assert!(!span.is_empty() && span.start >= before && span.end <= end);
                    before = span.end;
                }
            }
            let spans: Vec<Span> = windows.into_iter().flat_map(|w| w.spans).collect();
            for start in &speech {
                let covering =
                    spans.iter().filter(|s| s.start <= *start && start + STEP <= s.end).count();
                prop_assert_eq!(covering, 1);
            }
            // Silence stays out: nothing is further than a pad from speech,
            // but for gaps that padding fills.
            let padding: u64 = spans.iter().map(|s| s.len()).sum::<u64>()
                - speech.len() as u64 * STEP;
            let gaps = speech.windows(2).filter(|w| w[1] - w[0] > STEP).count() as u64 + 1;
            prop_assert!(padding <= gaps * 2 * PAD);
        }
    }
}
