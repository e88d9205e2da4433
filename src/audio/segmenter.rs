//! A stream of samples to windows of speech: the detector and the cutter joined.

use super::cutter::Cutter;
use super::vad::{FRAME, Vad};
use crate::config;
use crate::domain::conversation::NewWindow;

/// Finds the speech in a recording and cuts it into windows to transcribe.
/// However the samples are split between calls, the windows are the same.
pub struct Segmenter {
    mode: u8,
    vad: Option<Box<Vad>>,
    cutter: Cutter,
    partial: Vec<i16>,
}

impl Segmenter {
    /// A segmenter at the start of a recording. The detector is made with the
    /// first sample.
    pub fn new(config: &config::Transcribe) -> Self {
        let cutter = Cutter::new(config);
        Self { mode: config.vad_mode, vad: None, cutter, partial: Vec::new() }
    }

    /// A segmenter that goes on at sample `at` of a recording, where the next
    /// window is number `seq`: the samples pushed are those from `at` on.
    pub fn resume(config: &config::Transcribe, at: u64, seq: u32) -> Self {
        let mut segmenter = Self::new(config);
        segmenter.cutter.resume(at, seq);
        segmenter
    }

    /// Lets the detector hear what comes before the first sample, so that it
    /// judges as if it had never stopped: speech that a window ended in the
    /// middle of goes on, where a new detector would wait for its next onset.
    pub fn hear_before(&mut self, samples: &[i16]) {
        let vad = self.vad.get_or_insert_with(|| Box::new(Vad::new(self.mode)));
        for frame in samples.as_chunks::<FRAME>().0 {
            vad.judge(frame);
        }
    }

    /// See [`Cutter::pack`].
    pub fn pack(&mut self, packing: bool) {
        self.cutter.pack(packing);
    }

    /// Takes 16 kHz mono samples and appends the windows that end to `windows`.
    pub fn push(&mut self, mut samples: &[i16], windows: &mut Vec<NewWindow>) {
        let vad = self.vad.get_or_insert_with(|| Box::new(Vad::new(self.mode)));
        if !self.partial.is_empty() {
            let missing = FRAME.saturating_sub(self.partial.len());
            let (head, rest) = samples.split_at(samples.len().min(missing));
            self.partial.extend_from_slice(head);
            samples = rest;
            let Some(frame) = self.partial.first_chunk::<FRAME>() else { return };
            windows.extend(self.cutter.push(vad.judge(frame)));
            self.partial.clear();
        }
        let (frames, rest) = samples.as_chunks::<FRAME>();
        for frame in frames {
            windows.extend(self.cutter.push(vad.judge(frame)));
        }
        self.partial.extend_from_slice(rest);
    }

    /// The last window, when no more samples come.
    pub fn finish(&mut self) -> Option<NewWindow> {
        self.cutter.finish(self.position())
    }

    /// Samples so far, counted from the start of the recording.
    pub fn position(&self) -> u64 {
        self.cutter.position() + self.partial.len() as u64
    }

    /// The sample where speech began first.
    pub fn first_speech(&self) -> Option<u64> {
        self.cutter.first_speech()
    }

    /// The sample where the latest speech ended, so far.
    pub fn last_speech(&self) -> Option<u64> {
        self.cutter.last_speech()
    }

    /// Counts from sample `origin` on, which becomes sample 0 of the recording.
    pub fn rebase(&mut self, origin: u64) {
        self.cutter.rebase(origin);
    }

    /// Begins a new recording with the next sample; what the detector learned
    /// of the surroundings stays.
    pub fn restart(&mut self) {
        self.partial.clear();
        self.cutter.restart();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audio::synthetic::{Noise, speech};

    /// Talk and pauses over a little noise: about a minute.
    fn talk() -> Vec<i16> {
        let mut sound = Vec::new();
        for (voice, pause) in [(6.0, 1.0), (11.0, 2.5), (3.0, 8.0), (20.0, 0.5), (4.0, 1.0)] {
            sound.extend(speech(voice));
            sound.resize(sound.len() + (pause * 16_000.0) as usize, 0);
        }
        sound.iter().zip(Noise::new(1).white(25.0)).map(|(a, b)| a.saturating_add(b)).collect()
    }

    fn windows(samples: &[i16], pieces: impl IntoIterator<Item = usize>) -> Vec<NewWindow> {
        let mut segmenter = Segmenter::new(&config::Transcribe::default());
        let (mut windows, mut from) = (Vec::new(), 0);
        for piece in pieces {
            let to = (from + piece).min(samples.len());
            segmenter.push(&samples[from..to], &mut windows);
            from = to;
        }
        segmenter.push(&samples[from..], &mut windows);
        assert_eq!(segmenter.position(), samples.len() as u64);
        windows.extend(segmenter.finish());
        windows
    }

    #[test]
    fn talk_is_cut_into_windows_without_the_silence() {
        let sound = talk();
        let windows = windows(&sound, []);
        assert!((3..=5).contains(&windows.len()), "{windows:?}");
        let spoken: u64 = windows.iter().flat_map(|w| &w.spans).map(|s| s.len()).sum();
        let share = spoken as f64 / sound.len() as f64;
        assert!((0.76..0.88).contains(&share), "{share}");
    }

    #[test]
    fn an_idle_segmenter_has_no_detector() {
        let segmenter = Segmenter::new(&config::Transcribe::default());
        assert!(segmenter.vad.is_none() && segmenter.partial.capacity() == 0);
    }

    #[test]
    fn a_resumed_segmenter_counts_on() {
        let sound = talk();
        let config = config::Transcribe::default();
        let mut segmenter = Segmenter::resume(&config, 160_000, 2);
        let mut windows = Vec::new();
        segmenter.push(&sound, &mut windows);
        assert_eq!(windows[0].seq, 2);
        assert!(windows[0].spans[0].start >= 160_000);
    }

    #[test]
    fn the_end_of_speech_after_a_cut_is_not_lost() {
        // A word ends 0.1 s after the place where a window was cut.
        let mut sound = speech(7.1);
        sound.resize(sound.len() + 32_000, 0);
        let cut = 7 * 16_000 / FRAME * FRAME;
        let mut segmenter = Segmenter::resume(&config::Transcribe::default(), cut as u64, 1);
        segmenter.hear_before(&sound[..cut]);
        let mut windows = Vec::new();
        segmenter.push(&sound[cut..], &mut windows);
        windows.extend(segmenter.finish());
        let span = windows.first().and_then(|window| window.spans.first()).expect("a window");
        assert!(span.start == cut as u64 && span.end >= 71 * 1_600, "{span:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_split_gives_the_same_windows(
            pieces in prop::collection::vec(prop_oneof![0usize..50, 300usize..700, 1usize..40_000], 0..80),
        ) {
            let sound = talk();
            prop_assert_eq!(windows(&sound, pieces), windows(&sound, []));
        }
    }
}
