//! Uncompressed audio as devices send it: little-endian, interleaved.

use crate::base::error::{Error, Kind, Result};

/// The rates that are accepted, in samples a second.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// The most channels that are accepted.
const MAX_CHANNELS: u16 = 8;
/// The longest frame: four bytes of each channel.
const MAX_FRAME: usize = 4 * MAX_CHANNELS as usize;

/// How samples are laid out in bytes. One that exists is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcmFormat {
    rate: u32,
    width: u16,
    channels: u16,
}

impl PcmFormat {
    /// What speech models take, and what a device that says nothing sends:
    /// 16 kHz, 16 bits, mono.
    pub const SPEECH: Self = Self { rate: 16_000, width: 2, channels: 1 };

    /// `rate` in samples a second, `width` in bytes a sample.
    ///
    /// # Errors
    /// [`Kind::BadInput`] that names the value which no device can mean.
    pub fn new(rate: u32, width: u16, channels: u16) -> Result<Self> {
        let refuse = |text: String| Err(Error::new(Kind::BadInput, text));
        if !RATES.contains(&rate) {
            return refuse(format!("a sample rate of {rate} Hz is not supported (8000 to 192000)"));
        }
        if !(1..=4).contains(&width) {
            return refuse(format!("samples of {width} bytes are not supported (1 to 4)"));
        }
        if !(1..=MAX_CHANNELS).contains(&channels) {
            return refuse(format!("{channels} channels are not supported (1 to {MAX_CHANNELS})"));
        }
        Ok(Self { rate, width, channels })
    }

    /// Samples a second of each channel.
    pub fn rate(self) -> u32 {
        self.rate
    }

    /// Bytes of one sample.
    pub fn width(self) -> u16 {
        self.width
    }

    /// Interleaved channels.
    pub fn channels(self) -> u16 {
        self.channels
    }

    /// Bytes of one frame: a sample of each channel.
    pub fn frame_bytes(self) -> usize {
        usize::from(self.width) * usize::from(self.channels)
    }
}

/// Turns bytes into mono 16-bit samples, in pieces of any size.
#[derive(Clone, Debug)]
pub struct PcmDecoder {
    format: PcmFormat,
    partial: [u8; MAX_FRAME],
    partial_len: usize,
}

impl PcmDecoder {
    /// A decoder of `format` with nothing kept.
    pub fn new(format: PcmFormat) -> Self {
        Self { format, partial: [0; MAX_FRAME], partial_len: 0 }
    }

    /// The format it decodes.
    pub fn format(&self) -> PcmFormat {
        self.format
    }

    /// Appends the samples of `bytes` to `out`, the average of the channels each.
    /// An incomplete frame at the end waits for the next call.
    pub fn decode(&mut self, mut bytes: &[u8], out: &mut Vec<i16>) {
        let frame = self.format.frame_bytes();
        if self.partial_len > 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(frame - self.partial_len));
            for (to, from) in self.partial.iter_mut().skip(self.partial_len).zip(head) {
                *to = *from;
            }
            self.partial_len += head.len();
            bytes = rest;
            if self.partial_len < frame {
                return;
            }
            self.partial_len = 0;
            let whole = self.partial;
            self.convert(whole.get(..frame).unwrap_or_default(), out);
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % frame);
        self.convert(whole, out);
        for (to, from) in self.partial.iter_mut().zip(rest) {
            *to = *from;
        }
        self.partial_len = rest.len();
    }

    /// Converts whole frames.
    fn convert(&self, bytes: &[u8], out: &mut Vec<i16>) {
        let channels = usize::from(self.format.channels);
        match (self.format.width, channels) {
            (2, 1) => out.extend(chunks(bytes).map(i16::from_le_bytes)),
            (1, _) => mix(chunks(bytes).map(|[b]: [u8; 1]| i32::from(b as i8) << 8), channels, out),
            (2, _) => mix(chunks(bytes).map(|b| i32::from(i16::from_le_bytes(b))), channels, out),
            (3, _) => mix(
                chunks(bytes).map(|[a, b, c]: [u8; 3]| i32::from_le_bytes([0, a, b, c]) >> 16),
                channels,
                out,
            ),
            _ => mix(chunks(bytes).map(|b| i32::from_le_bytes(b) >> 16), channels, out),
        }
    }
}

/// The whole `N`-byte pieces of `bytes`.
fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// Averages `channels` samples at a time; each is within 16 bits.
fn mix(mut samples: impl Iterator<Item = i32>, channels: usize, out: &mut Vec<i16>) {
    let divisor = i32::try_from(channels).unwrap_or(1);
    while let Some(first) = samples.next() {
        let sum: i32 = first + samples.by_ref().take(channels - 1).sum::<i32>();
        out.push((sum / divisor) as i16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(format: PcmFormat, bytes: &[u8]) -> Vec<i16> {
        let mut out = Vec::new();
        PcmDecoder::new(format).decode(bytes, &mut out);
        out
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        let why = |rate, width, channels| {
            PcmFormat::new(rate, width, channels).unwrap_err().message().to_owned()
        };
        assert!(why(0, 2, 1).contains("0 Hz"));
        assert!(why(384_000, 2, 1).contains("384000"));
        assert!(why(16_000, 0, 1).contains("0 bytes"));
        assert!(why(16_000, 5, 1).contains("5 bytes"));
        assert!(why(16_000, 2, 0).contains("0 channels"));
        assert!(why(16_000, 2, 9).contains("9 channels"));
        assert!(PcmFormat::new(8_000, 1, 8).is_ok() && PcmFormat::new(192_000, 4, 1).is_ok());
    }

    #[test]
    fn every_width_keeps_sign_and_scale() {
        let mono = |width| PcmFormat::new(16_000, width, 1).unwrap();
        assert_eq!(decode(mono(1), &[0x40, 0xC0, 0x80]), [0x4000, -0x4000, -0x8000]);
        assert_eq!(decode(mono(2), &[0x34, 0x12, 0x00, 0x80]), [0x1234, -0x8000]);
        assert_eq!(decode(mono(3), &[0xFF, 0x34, 0x12, 0, 0, 0x80]), [0x1234, -0x8000]);
        assert_eq!(decode(mono(4), &[9, 9, 0x34, 0x12, 0, 0, 0, 0x80]), [0x1234, -0x8000]);
    }

    #[test]
    fn channels_are_averaged_without_overflow() {
        let stereo = PcmFormat::new(16_000, 2, 2).unwrap();
        let bytes: Vec<u8> = [100i16, 300, i16::MAX, i16::MAX, i16::MIN, i16::MIN]
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        assert_eq!(decode(stereo, &bytes), [200, i16::MAX, i16::MIN]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_samples(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(0usize..400, 0..12),
            width in 1u16..=4,
            channels in 1u16..=8,
        ) {
            let format = PcmFormat::new(16_000, width, channels).unwrap();
            let whole = decode(format, &bytes);
            prop_assert_eq!(whole.len(), bytes.len() / format.frame_bytes());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut decoder, mut pieces, mut from) = (PcmDecoder::new(format), Vec::new(), 0);
            for to in cuts {
                decoder.decode(&bytes[from..to], &mut pieces);
                from = to;
            }
            prop_assert_eq!(pieces, whole);
        }
    }
}
