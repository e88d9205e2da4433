//! Opus packets out of a container (RFC 7845), of any number of channels.

use ::opus::MSDecoder;

use crate::audio::opus::{OpusDecoder, packet_samples};
use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::conversation::SAMPLE_RATE;

/// The rate of the clock that containers count in.
const CLOCK: u64 = 48_000;

/// Decodes the packets of one track to 16 kHz mono.
pub(super) struct Opus {
    streams: Streams,
    /// Samples at the start that only warm the decoder up.
    skip: usize,
}

enum Streams {
    /// Mono or stereo, which the codec mixes itself.
    One(OpusDecoder),
    /// More channels, in several streams a packet.
    Many { decoder: MSDecoder, channels: usize, interleaved: Vec<i16> },
}

impl Opus {
    /// `head` is the identification header, which every container keeps.
    ///
    /// # Errors
    /// `BadInput` when the header asks for what cannot be.
    pub(super) fn new(head: Option<&[u8]>) -> Result<Self> {
        let head = head.unwrap_or_default();
        let skip = head.get(10..).and_then(|rest| rest.first_chunk()).copied();
        let skip = skip.map_or(0, u16::from_le_bytes);
        let family = head.get(18).copied().unwrap_or(0);
        let streams =
            if family == 0 { Streams::One(OpusDecoder::new()?) } else { Streams::many(head)? };
        Ok(Self { streams, skip: samples(skip.into()) })
    }

    /// Appends the samples of `packet` to `out`, less what is not to be heard:
    /// the warming up, and `trim` ticks at the end.
    ///
    /// # Errors
    /// `BadInput` when it is no Opus packet.
    pub(super) fn decode(&mut self, packet: &[u8], trim: u64, out: &mut Vec<i16>) -> Result<()> {
        self.streams.decode(packet, out)?;
        out.truncate(out.len().saturating_sub(samples(trim)));
        let skip = self.skip.min(out.len());
        self.skip -= skip;
        out.drain(..skip);
        Ok(())
    }
}

impl Streams {
    fn many(head: &[u8]) -> Result<Self> {
        let bad = || Error::new(Kind::BadInput, "its Opus header is damaged");
        let (Some([channels]), Some([streams, coupled])) = (head.get(9..10), head.get(19..21))
        else {
            return Err(bad());
        };
        let channels = usize::from(*channels);
        let mapping = head.get(21..21 + channels).ok_or_else(bad)?;
        // The codec reads as many streams as this says out of each packet.
        if channels == 0
            || *streams == 0
            || coupled > streams
            || streams.checked_add(*coupled).is_none()
        {
            return Err(bad());
        }
        let decoder = MSDecoder::new(SAMPLE_RATE, *streams, *coupled, mapping)
            .context(Kind::BadInput, "its Opus header is damaged")?;
        Ok(Self::Many { decoder, channels, interleaved: Vec::new() })
    }

    fn decode(&mut self, packet: &[u8], out: &mut Vec<i16>) -> Result<()> {
        match self {
            Self::One(decoder) => decoder.decode(packet, out).map(|_| ()),
            Self::Many { decoder, channels, interleaved } => {
                interleaved.clear();
                interleaved.resize(packet_samples(packet)? * *channels, 0);
                let frames = decoder
                    .decode(packet, interleaved, false)
                    .context(Kind::BadInput, "not an Opus packet")?;
                let count = i32::try_from(*channels).unwrap_or(1);
                out.extend(interleaved.chunks_exact(*channels).take(frames).map(|frame| {
                    (frame.iter().map(|sample| i32::from(*sample)).sum::<i32>() / count) as i16
                }));
                Ok(())
            }
        }
    }
}

/// Ticks of a container's clock as samples.
fn samples(ticks: u64) -> usize {
    let samples = ticks.saturating_mul(u64::from(SAMPLE_RATE)) / CLOCK;
    usize::try_from(samples).unwrap_or(usize::MAX)
}
