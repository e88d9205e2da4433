//! PCM of any format to the samples that are recorded: 16 kHz mono.

use super::pcm::{PcmDecoder, PcmFormat};
use super::resample::Resampler;
use crate::base::error::Result;
use crate::domain::conversation::SAMPLE_RATE;

/// Converts one stream. At 16 kHz nothing is resampled.
pub struct Converter {
    decoder: PcmDecoder,
    resampler: Option<Box<Resampler>>,
    mono: Vec<i16>,
}

impl Converter {
    /// A converter from `format`.
    ///
    /// # Errors
    /// `BadInput` when its rate cannot be resampled.
    pub fn new(format: PcmFormat) -> Result<Self> {
        let resampler = match format.rate() {
            SAMPLE_RATE => None,
            rate => Some(Box::new(Resampler::new(rate)?)),
        };
        Ok(Self { decoder: PcmDecoder::new(format), resampler, mono: Vec::new() })
    }

    /// The format it converts from.
    pub fn format(&self) -> PcmFormat {
        self.decoder.format()
    }

    /// Takes `bytes` and appends the samples that are ready to `out`.
    ///
    /// # Errors
    /// `Internal` when the filter fails.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<i16>) -> Result<()> {
        match &mut self.resampler {
            None => self.decoder.decode(bytes, out),
            Some(resampler) => {
                self.mono.clear();
                self.decoder.decode(bytes, &mut self.mono);
                resampler.push(&self.mono, out)?;
            }
        }
        Ok(())
    }

    /// Appends what the filter still holds to `out`, and begins anew.
    ///
    /// # Errors
    /// `Internal` when the filter fails.
    pub fn finish(&mut self, out: &mut Vec<i16>) -> Result<()> {
        self.decoder = PcmDecoder::new(self.decoder.format());
        self.resampler.as_mut().map_or(Ok(()), |resampler| resampler.finish(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stereo_48_khz_becomes_16_khz_mono() {
        let mut converter = Converter::new(PcmFormat::new(48_000, 4, 2).unwrap()).unwrap();
        let frame: Vec<u8> =
            [8_000i32 << 16, 4_000 << 16].iter().flat_map(|s| s.to_le_bytes()).collect();
        let bytes = frame.repeat(48_000);
        let mut out = Vec::new();
        for piece in bytes.chunks(1_001) {
            converter.push(piece, &mut out).unwrap();
        }
        converter.finish(&mut out).unwrap();
        assert_eq!(out.len(), 16_000);
        assert!(out.iter().skip(1_000).take(14_000).all(|s| (5_990..=6_010).contains(s)));
    }

    #[test]
    fn speech_format_passes_through() {
        let mut converter = Converter::new(PcmFormat::SPEECH).unwrap();
        let mut out = Vec::new();
        converter.push(&[1, 0, 2, 0, 3], &mut out).unwrap();
        converter.push(&[0], &mut out).unwrap();
        converter.finish(&mut out).unwrap();
        assert_eq!(out, [1, 2, 3]);
        assert!(converter.resampler.is_none());
    }
}
