//! Any sample rate to 16 kHz, as a stream.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _};

use crate::base::error::{Context, Kind, Result};
use crate::domain::conversation::SAMPLE_RATE;

/// Blocks a second: 40 ms each, long enough for a sharp filter.
const BLOCKS: u32 = 25;

/// Resamples mono audio to 16 kHz. The whole signal comes out, aligned in time:
/// the filter's delay is cut from the start and made up for at the end.
pub struct Resampler {
    filter: Fft<f32>,
    rate: u64,
    /// Input that does not fill a block yet.
    pending: Vec<f32>,
    block: Vec<f32>,
    /// Samples in since the start.
    taken: u64,
    /// Samples out since the start.
    given: u64,
    /// Leading output still to be dropped.
    delay: usize,
}

impl Resampler {
    /// From `rate` samples a second to 16 kHz.
    ///
    /// # Errors
    /// [`Kind::BadInput`] when there is no filter for that rate.
    pub fn new(rate: u32) -> Result<Self> {
        // An even number of the smallest blocks: the filter is then symmetric
        // about a sample, and its delay exact.
        let unit = 2 * (rate / gcd(rate, SAMPLE_RATE).max(1)).max(1);
        let block = (rate / BLOCKS).next_multiple_of(unit);
        let filter = Fft::new_custom(
            rate as usize,
            SAMPLE_RATE as usize,
            block as usize,
            1,
            1,
            rubato::WindowFunction::BlackmanHarris2,
            FixedSync::Both,
        )
        .with_context(Kind::BadInput, || format!("cannot resample from {rate} Hz"))?;
        let block = vec![0.0; filter.output_frames_max()];
        let delay = filter.output_delay();
        let pending = Vec::with_capacity(filter.input_frames_max());
        Ok(Self { filter, rate: u64::from(rate), pending, block, taken: 0, given: 0, delay })
    }

    /// Takes `samples` and appends what is ready to `out`.
    ///
    /// # Errors
    /// [`Kind::Internal`] when the filter fails.
    pub fn push(&mut self, mut samples: &[i16], out: &mut Vec<i16>) -> Result<()> {
        self.taken += samples.len() as u64;
        while !samples.is_empty() {
            let need = self.filter.input_frames_next();
            let (head, rest) =
                samples.split_at(samples.len().min(need.saturating_sub(self.pending.len())));
            self.pending.extend(head.iter().map(|s| f32::from(*s)));
            samples = rest;
            if self.pending.len() >= need {
                self.process(None, u64::MAX, out)?;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// Appends the rest to `out`, and begins anew.
    ///
    /// # Errors
    /// [`Kind::Internal`] when the filter fails.
    pub fn finish(&mut self, out: &mut Vec<i16>) -> Result<()> {
        let total = resampled_len(self.taken, self.rate);
        while self.given < total {
            let pending = self.pending.len();
            self.pending.resize(self.filter.input_frames_next(), 0.0);
            self.process(Some(pending), total, out)?;
            self.pending.clear();
        }
        self.pending.clear();
        self.filter.reset();
        self.delay = self.filter.output_delay();
        (self.taken, self.given) = (0, 0);
        Ok(())
    }

    /// Filters one block, of which `partial` samples count, giving out no more
    /// than makes `total`.
    fn process(&mut self, partial: Option<usize>, total: u64, out: &mut Vec<i16>) -> Result<()> {
        let failed = "resampling failed";
        let indexing = Indexing { partial_len: partial, ..Indexing::default() };
        let input = InterleavedSlice::new(&self.pending[..], 1, self.pending.len())
            .context(Kind::Internal, failed)?;
        let frames = self.block.len();
        let mut output = InterleavedSlice::new_mut(&mut self.block[..], 1, frames)
            .context(Kind::Internal, failed)?;
        let (_, made) = self
            .filter
            .process_into_buffer(&input, &mut output, Some(&indexing))
            .context(Kind::Internal, failed)?;
        let skip = self.delay.min(made);
        self.delay -= skip;
        let room = usize::try_from(total - self.given).unwrap_or(usize::MAX);
        let fresh = self.block.iter().take(made).skip(skip).take(room);
        self.given += fresh.len() as u64;
        // `as` saturates: a filter may overshoot full scale.
        out.extend(fresh.map(|s| s.round() as i16));
        Ok(())
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How many samples at 16 kHz `samples` at `rate` make, rounded up.
pub fn resampled_len(samples: u64, rate: u64) -> u64 {
    (samples * u64::from(SAMPLE_RATE)).div_ceil(rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hertz: f64, seconds: f64) -> Vec<i16> {
        let count = (f64::from(rate) * seconds) as usize;
        (0..count)
            .map(|i| {
                let t = i as f64 / f64::from(rate);
                ((t * hertz * std::f64::consts::TAU).sin() * 10_000.0) as i16
            })
            .collect()
    }

    fn resample(rate: u32, samples: &[i16], piece: usize) -> Vec<i16> {
        let (mut resampler, mut out) = (Resampler::new(rate).unwrap(), Vec::new());
        for part in samples.chunks(piece) {
            resampler.push(part, &mut out).unwrap();
        }
        resampler.finish(&mut out).unwrap();
        out
    }

    #[test]
    fn a_tone_comes_out_in_time_and_whole() {
        for rate in [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000] {
            let out = resample(rate, &tone(rate, 440.0, 1.0), 777);
            let want = tone(16_000, 440.0, 1.0);
            assert_eq!(out.len(), want.len(), "{rate}");
            // Away from the edges, where the tone begins and ends in a step.
            let worst = out
                .iter()
                .zip(&want)
                .skip(1_000)
                .take(14_000)
                .map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs())
                .max();
            assert!(worst < Some(60), "{rate}: off by {worst:?}");
        }
    }

    #[test]
    fn what_16_khz_cannot_carry_is_filtered_out() {
        let out = resample(48_000, &tone(48_000, 11_000.0, 1.0), 4_800);
        let loudest = out.iter().skip(1_000).take(14_000).map(|s| i32::from(*s).abs()).max();
        assert!(loudest < Some(30), "{loudest:?}");
    }

    #[test]
    fn pieces_do_not_matter_and_a_resampler_can_start_again() {
        let input = tone(44_100, 300.0, 0.7);
        let whole = resample(44_100, &input, usize::MAX);
        assert_eq!(resample(44_100, &input, 1), whole);
        let (mut resampler, mut out) = (Resampler::new(44_100).unwrap(), Vec::new());
        for _ in 0..2 {
            out.clear();
            resampler.push(&input, &mut out).unwrap();
            resampler.finish(&mut out).unwrap();
        }
        assert_eq!(out, whole);
    }

    #[test]
    fn a_few_samples_are_not_lost() {
        assert_eq!(resample(48_000, &[1_000; 3], 1).len(), 1);
        assert_eq!(resample(48_000, &[], 1).len(), 0);
        assert_eq!(resample(44_101, &[1_000; 100], 7).len(), 37);
    }
}
