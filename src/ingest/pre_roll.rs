//! Audio from before the first speech, on a stream without boundaries.

use std::collections::VecDeque;

use crate::recording::Format;

/// Opus packets, each with its samples.
pub(super) type Packets = VecDeque<(Box<[u8]>, u16)>;

/// The latest audio: samples, or Opus packets as they came.
#[derive(Debug, Default)]
pub(super) struct PreRoll {
    samples: Vec<i16>,
    packets: Packets,
    /// Samples of all packets.
    packed: usize,
}

impl PreRoll {
    /// Samples in it.
    pub(super) fn len(&self) -> usize {
        self.samples.len() + self.packed
    }

    /// Whether what comes next is of the kind that is held.
    pub(super) fn takes(&self, packet: Option<&[u8]>) -> bool {
        self.len() == 0 || packet.is_some() == (self.format() == Format::Opus)
    }

    pub(super) fn format(&self) -> Format {
        if self.packets.is_empty() { Format::Wav } else { Format::Opus }
    }

    /// Adds samples, and the packet that they are of.
    pub(super) fn push(&mut self, samples: &[i16], packet: Option<&[u8]>) {
        match packet {
            Some(packet) => {
                self.packets.push_back((packet.into(), u16::try_from(samples.len()).unwrap_or(0)));
                self.packed += samples.len();
            }
            None => self.samples.extend_from_slice(samples),
        }
    }

    /// Forgets at most the first `count` samples, in whole packets; how many.
    pub(super) fn skip(&mut self, count: usize) -> usize {
        let mut skipped = count.min(self.samples.len());
        self.samples.drain(..skipped);
        while let Some((_, samples)) = self.packets.front() {
            let samples = usize::from(*samples);
            if skipped + samples > count {
                break;
            }
            skipped += samples;
            self.packed -= samples;
            self.packets.pop_front();
        }
        skipped
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What is held: samples, and packets with their samples.
    pub(super) fn into_parts(self) -> (Vec<i16>, Packets) {
        (self.samples, self.packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_skipped_whole() {
        let mut held = PreRoll::default();
        for value in 0u8..10 {
            assert!(held.takes(Some(&[value])) && (value == 0 || !held.takes(None)));
            held.push(&[0; 320], Some(&[value]));
        }
        assert_eq!((held.len(), held.skip(1_000), held.len()), (3_200, 960, 2_240));
        assert_eq!(held.format(), Format::Opus);
        let (samples, packets) = held.into_parts();
        assert!(samples.is_empty());
        assert_eq!((packets.len(), &*packets[0].0), (7, &[3][..]));
    }

    #[test]
    fn samples_are_skipped_one_by_one() {
        let mut held = PreRoll::default();
        held.push(&[1, 2, 3, 4], None);
        assert_eq!((held.skip(3), held.len(), held.skip(9)), (3, 1, 1));
    }
}
