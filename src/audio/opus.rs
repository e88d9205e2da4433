//! Opus packets (RFC 6716) to samples, for devices that send them bare: one
//! packet a message, no container.

use ::opus::{Channels, Decoder, packet};

use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::conversation::SAMPLE_RATE;

/// Samples of the longest packet there is: 120 ms.
pub const MAX_PACKET: usize = SAMPLE_RATE as usize * 120 / 1_000;

/// Decodes one stream of packets to 16 kHz mono. What a packet says of rate and
/// channels is converted by the codec itself. Holds about 18 KiB.
pub struct OpusDecoder(Decoder);

impl OpusDecoder {
    /// A decoder at the start of a stream.
    ///
    /// # Errors
    /// `Internal` when there is no memory for it.
    pub fn new() -> Result<Self> {
        Decoder::new(SAMPLE_RATE, Channels::Mono)
            .map(Self)
            .context(Kind::Internal, "cannot make an Opus decoder")
    }

    /// Appends the samples of `packet` to `out`: 2.5 to 120 ms. Returns how many.
    ///
    /// # Errors
    /// `BadInput` when it is no Opus packet; `out` is as before, and the stream
    /// goes on with the next packet.
    pub fn decode(&mut self, packet: &[u8], out: &mut Vec<i16>) -> Result<usize> {
        let length = packet_samples(packet)?;
        self.fill(packet, length, out).with_context(Kind::BadInput, || refusal(packet))
    }

    /// Appends `samples` in place of packets that were lost, at most
    /// [`MAX_PACKET`] of them, in whole steps of 2.5 ms: the last sound fades.
    /// Returns how many.
    ///
    /// # Errors
    /// `Internal` when the codec fails; `out` is as before.
    pub fn conceal(&mut self, samples: usize, out: &mut Vec<i16>) -> Result<usize> {
        let step = SAMPLE_RATE as usize / 400;
        let length = samples.min(MAX_PACKET) / step * step;
        if length == 0 {
            return Ok(0);
        }
        self.fill(&[], length, out).context(Kind::Internal, "cannot conceal a lost packet")
    }

    /// Decodes into `length` samples at the end of `out`. No packet is a lost one.
    fn fill(&mut self, packet: &[u8], length: usize, out: &mut Vec<i16>) -> ::opus::Result<usize> {
        let before = out.len();
        out.resize(before + length, 0);
        let decoded = match out.get_mut(before..) {
            Some(space) => self.0.decode(packet, space, false),
            None => Ok(0),
        };
        out.truncate(before + decoded.as_ref().copied().unwrap_or(0));
        decoded
    }
}

/// Samples that a packet holds, at 16 kHz, read from its header alone.
///
/// # Errors
/// `BadInput` when it is no Opus packet.
pub fn packet_samples(packet: &[u8]) -> Result<usize> {
    // The codec takes an empty one for a lost one.
    if packet.is_empty() {
        return Err(Error::new(Kind::BadInput, "an Opus packet cannot be empty"));
    }
    packet::get_nb_samples(packet, SAMPLE_RATE).with_context(Kind::BadInput, || refusal(packet))
}

fn refusal(packet: &[u8]) -> String {
    format!(
        "these {} bytes are not an Opus packet; send one bare packet a message, without a container",
        packet.len()
    )
}

#[cfg(test)]
mod tests {
    use ::opus::{Application, Encoder};
    use proptest::prelude::*;

    use super::*;
    use crate::audio::synthetic::speech;

    /// `samples` as packets of `frame` samples, at `rate`.
    fn packets(samples: &[i16], frame: usize) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Audio).unwrap();
        samples.chunks_exact(frame).map(|chunk| encoder.encode_vec(chunk, 4_000).unwrap()).collect()
    }

    fn energy(samples: &[i16]) -> f64 {
        samples.iter().map(|s| f64::from(*s).powi(2)).sum()
    }

    /// How alike two sounds are, from -1 to 1, at the lag where they are most so.
    fn likeness(sent: &[i16], heard: &[i16]) -> f64 {
        (0..400)
            .map(|lag| {
                let heard = &heard[lag..];
                let both: f64 =
                    sent.iter().zip(heard).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                both / (energy(sent) * energy(heard)).sqrt()
            })
            .fold(-1.0, f64::max)
    }

    #[test]
    fn every_length_of_packet_comes_out_whole_and_alike() {
        let sound = speech(1.2);
        for tenths in [25, 50, 100, 200, 400, 600, 800, 1_000, 1_200] {
            let frame = SAMPLE_RATE as usize * tenths / 10_000;
            let (mut decoder, mut out) = (OpusDecoder::new().unwrap(), Vec::new());
            for packet in packets(&sound, frame) {
                assert_eq!(packet_samples(&packet).unwrap(), frame);
                assert_eq!(decoder.decode(&packet, &mut out).unwrap(), frame);
            }
            assert_eq!(out.len(), sound.len(), "{tenths}");
            let likeness = likeness(&sound, &out);
            assert!(likeness > 0.8, "{tenths}: {likeness}");
        }
    }

    #[test]
    fn stereo_and_other_rates_become_16_khz_mono() {
        let mut encoder = Encoder::new(48_000, Channels::Stereo, Application::Audio).unwrap();
        let (mut decoder, mut out) = (OpusDecoder::new().unwrap(), Vec::new());
        for _ in 0..50 {
            let packet = encoder.encode_vec(&[1_000; 2 * 960], 4_000).unwrap();
            decoder.decode(&packet, &mut out).unwrap();
        }
        assert_eq!(out.len(), 16_000);
    }

    #[test]
    fn a_bad_packet_says_so_and_costs_only_itself() {
        let sound = speech(1.0);
        let (mut decoder, mut out) = (OpusDecoder::new().unwrap(), Vec::new());
        let error = decoder.decode(&[], &mut out).unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        for packet in packets(&sound, 320) {
            // Code 3 without a count, and a frame longer than its packet.
            for bad in [&[0x7F][..], &[0x7E, 0xFF, 0xFF, 0x00]] {
                let before = out.len();
                let error = decoder.decode(bad, &mut out).unwrap_err();
                assert_eq!(error.kind(), Kind::BadInput);
                assert!(error.message().contains("not an Opus packet"), "{error}");
                assert_eq!(out.len(), before);
            }
            decoder.decode(&packet, &mut out).unwrap();
        }
        assert_eq!(out.len(), sound.len());
        assert!(likeness(&sound, &out) > 0.8);
    }

    #[test]
    fn lost_packets_are_filled_in_and_fade() {
        let sound = speech(1.0);
        let (mut decoder, mut out) = (OpusDecoder::new().unwrap(), Vec::new());
        for (number, packet) in packets(&sound, 320).iter().enumerate() {
            if number % 10 == 9 {
                assert_eq!(decoder.conceal(320, &mut out).unwrap(), 320);
            } else {
                decoder.decode(packet, &mut out).unwrap();
            }
        }
        assert_eq!(out.len(), sound.len());
        assert!(likeness(&sound, &out) > 0.6);
        assert_eq!(decoder.conceal(39, &mut out).unwrap(), 0);
        assert_eq!(decoder.conceal(usize::MAX, &mut out).unwrap(), MAX_PACKET);
        out.clear();
        decoder.conceal(MAX_PACKET, &mut out).unwrap();
        assert!(energy(&out) < energy(&sound[..MAX_PACKET]) / 10.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn garbage_never_panics_and_never_outgrows_its_header(
            garbage in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        ) {
            let (mut decoder, mut out) = (OpusDecoder::new().unwrap(), Vec::new());
            for packet in &garbage {
                let before = out.len();
                match decoder.decode(packet, &mut out) {
                    Ok(count) => {
                        prop_assert_eq!(count, packet_samples(packet).unwrap());
                        prop_assert!(count <= MAX_PACKET);
                        prop_assert_eq!(out.len(), before + count);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.kind(), Kind::BadInput);
                        prop_assert_eq!(out.len(), before);
                    }
                }
            }
            // Whatever it was fed, it goes on.
            let good = &packets(&speech(0.1), 320)[0];
            prop_assert_eq!(decoder.decode(good, &mut out).unwrap(), 320);
        }

        #[test]
        fn damaged_packets_never_panic(at in 0usize..60, bit in 0u8..8, cut in 0usize..60) {
            let (mut decoder, mut out) = (OpusDecoder::new().unwrap(), Vec::new());
            for mut packet in packets(&speech(0.2), 320) {
                let position = at % packet.len();
                packet[position] ^= 1 << bit;
                packet.truncate(packet.len().saturating_sub(cut));
                let _ = decoder.decode(&packet, &mut out);
            }
        }
    }
}
