//! Voice activity: WebRTC's detector behind a gate that keeps steady noise out.
//!
//! WebRTC's detector takes broadband noise for speech. Speech is never steady:
//! within a second or two it falls back to what surrounds it, while a fan stays
//! within a decibel or two of its own floor. So a frame counts only when it is
//! also clearly above the quietest of the last seconds.

use webrtc_vad::{SampleRate, Vad as WebRtc, VadMode};

/// Samples of a frame: 30 ms.
pub const FRAME: usize = 480;
/// How far above the floor speech must be, in decibels.
const MARGIN: f32 = 5.0;
/// Power of a frame below which nothing is speech: an RMS of about -69 dBFS.
const SILENCE: f32 = 21.0;
/// Voiced frames, of the last [`ONSET_OF`], that begin speech.
const ONSET: u32 = 3;
const ONSET_OF: u32 = 5;
/// Frames that still count as speech after the last voiced one: 240 ms.
const HANG_OVER: u8 = 8;

/// What one frame is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Whether somebody speaks.
    pub speech: bool,
    /// How loud it is, in decibels above one step of the converter.
    pub level: f32,
}

/// Tells speech from everything else, a frame at a time.
pub struct Vad {
    detector: Detector,
    high_pass: HighPass,
    floor: Floor,
    smoothed: Option<f32>,
    /// Voiced or not, newest in the lowest bit.
    history: u32,
    hang: u8,
}

/// WebRTC's detector; it holds a pointer into C.
struct Detector(WebRtc);

// SAFETY: the C state is plain memory that only this value points to. It has no
// ties to the thread that made it, and `&mut self` keeps use to one at a time.
#[allow(unsafe_code)]
unsafe impl Send for Detector {}

impl Vad {
    /// A detector of `mode`: 0 takes much for speech, 3 little.
    pub fn new(mode: u8) -> Self {
        let mode = match mode {
            0 => VadMode::Quality,
            1 => VadMode::LowBitrate,
            2 => VadMode::Aggressive,
            _ => VadMode::VeryAggressive,
        };
        Self {
            detector: Detector(WebRtc::new_with_rate_and_mode(SampleRate::Rate16kHz, mode)),
            high_pass: HighPass::default(),
            floor: Floor::default(),
            smoothed: None,
            history: 0,
            hang: 0,
        }
    }

    /// Judges the next frame.
    pub fn judge(&mut self, frame: &[i16; FRAME]) -> Verdict {
        let power = self.high_pass.power(frame);
        let level = decibels(power);
        let smoothed = self.smoothed.map_or(level, |before| (before + level) / 2.0);
        self.smoothed = Some(smoothed);
        self.floor.note(smoothed);
        // The detector hears every frame, so that its own model keeps up.
        let heard = self.detector.0.is_voice_segment(frame).unwrap_or(false);
        let voiced = heard && power > SILENCE && level.max(smoothed) > self.floor.get() + MARGIN;
        self.history = (self.history << 1 | u32::from(voiced)) & ((1 << ONSET_OF) - 1);
        if self.history.count_ones() >= ONSET || (voiced && self.hang > 0) {
            self.hang = HANG_OVER + 1;
        } else {
            self.hang = self.hang.saturating_sub(1);
        }
        Verdict { speech: self.hang > 0, level }
    }
}

/// Ten times the logarithm; silence is 0.
fn decibels(power: f32) -> f32 {
    10.0 * power.max(1.0).log10()
}

/// Removes what is below about 130 Hz: hum, and the wander of cheap microphones.
/// `y[n] = x[n] - x[n-1] + A y[n-1]`, computed four samples at a time as
/// `y[n] = e[n] + A⁴ y[n-4]`, so that a sample need not wait for the one before.
#[derive(Default)]
struct HighPass {
    /// The last inputs.
    before: [f32; 4],
    /// The last outputs.
    outputs: [f32; 4],
}

impl HighPass {
    /// Mean square of what passes.
    fn power(&mut self, frame: &[i16; FRAME]) -> f32 {
        const A: f32 = 0.95;
        let mut inputs = [0.0; 4 + FRAME];
        let (before, now) = inputs.split_at_mut(4);
        before.copy_from_slice(&self.before);
        for (input, sample) in now.iter_mut().zip(frame) {
            *input = f32::from(*sample);
        }
        let own: [f32; FRAME] = std::array::from_fn(|n| {
            let [x4, x3, x2, x1, x0] = [0, 1, 2, 3, 4].map(|after| inputs[n + after]);
            (x0 - x1) + A * (x1 - x2) + (A * A) * ((x2 - x3) + A * (x3 - x4))
        });
        let mut sums = [0.0; 4];
        for block in own.as_chunks::<4>().0 {
            for ((output, own), sum) in self.outputs.iter_mut().zip(block).zip(&mut sums) {
                *output = own + (A * A * A * A) * *output;
                *sum += *output * *output;
            }
        }
        if let Some(last) = inputs.last_chunk() {
            self.before = *last;
        }
        sums.iter().sum::<f32>() / FRAME as f32
    }
}

/// Frames of one bucket: about a second.
const BUCKET: u8 = 33;
/// Seconds that are looked back on.
const BUCKETS: usize = 5;

/// The quietest level of the last few seconds.
struct Floor {
    lowest: [f32; BUCKETS],
    current: usize,
    frames: u8,
}

impl Default for Floor {
    fn default() -> Self {
        Self { lowest: [f32::INFINITY; BUCKETS], current: 0, frames: 0 }
    }
}

impl Floor {
    fn note(&mut self, level: f32) {
        if self.frames == BUCKET {
            self.frames = 0;
            self.current = (self.current + 1) % BUCKETS;
            if let Some(bucket) = self.lowest.get_mut(self.current) {
                *bucket = f32::INFINITY;
            }
        }
        self.frames += 1;
        if let Some(bucket) = self.lowest.get_mut(self.current) {
            *bucket = bucket.min(level);
        }
    }

    fn get(&self) -> f32 {
        self.lowest.iter().copied().fold(f32::INFINITY, f32::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::synthetic::{Noise, speech};

    /// The share of frames taken for speech, after `skip` frames.
    fn share(samples: &[i16], skip: usize) -> f64 {
        let mut vad = Vad::new(2);
        let frames = samples.as_chunks::<FRAME>().0;
        let verdicts: Vec<bool> = frames.iter().map(|f| vad.judge(f).speech).collect();
        let counted = verdicts.get(skip..).unwrap_or_default();
        counted.iter().filter(|s| **s).count() as f64 / counted.len().max(1) as f64
    }

    #[test]
    fn the_high_pass_is_what_its_definition_says() {
        let samples: Vec<i16> = Noise::new(5).white(2_000.0).take(20 * FRAME).collect();
        let (mut filter, mut input, mut output) = (HighPass::default(), 0.0, 0.0);
        for frame in samples.as_chunks::<FRAME>().0 {
            let mut sum = 0.0;
            for sample in frame.map(f64::from) {
                output = sample - input + 0.95 * output;
                input = sample;
                sum += output * output;
            }
            let (wanted, got) = (sum / FRAME as f64, f64::from(filter.power(frame)));
            assert!((got / wanted - 1.0).abs() < 1e-4, "{got} for {wanted}");
        }
    }

    #[test]
    fn silence_is_never_speech() {
        assert_eq!(share(&[0; 16_000 * 10], 0), 0.0);
        let dither: Vec<i16> = (0..160_000).map(|i| (i * 7 % 3) as i16 - 1).collect();
        assert_eq!(share(&dither, 0), 0.0);
    }

    #[test]
    fn steady_noise_is_not_speech_at_any_level() {
        for rms in [30.0, 300.0, 3_000.0] {
            let white: Vec<i16> = Noise::new(7).white(rms).take(16_000 * 20).collect();
            let pink: Vec<i16> = Noise::new(7).pink(rms).take(16_000 * 20).collect();
            assert!(share(&white, 0) < 0.01, "white {rms}: {}", share(&white, 0));
            assert!(share(&pink, 0) < 0.03, "pink {rms}: {}", share(&pink, 0));
        }
    }

    #[test]
    fn speech_is_heard_through_noise() {
        let voice = speech(8.0);
        assert!(share(&voice, 0) > 0.8, "{}", share(&voice, 0));
        let noisy: Vec<i16> = voice
            .iter()
            .zip(Noise::new(3).white(200.0))
            .map(|(a, b)| a.saturating_add(b))
            .collect();
        assert!(share(&noisy, 0) > 0.7, "{}", share(&noisy, 0));
    }
}
