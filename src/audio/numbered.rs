//! Numbered audio: something close enough to a voice, with the device and the
//! number of each hundredth of a second in the lowest bit of its samples.
//!
//! The number survives whatever keeps samples as they are, wherever the audio is
//! cut; silence carries none.

use std::collections::BTreeMap;

use super::synthetic;

/// Samples of one numbered block: a hundredth of a second.
pub(crate) const BLOCK: usize = 160;
/// Blocks in a second.
pub(crate) const BLOCKS: u32 = 100;
/// Samples in a second.
pub(crate) const SECOND: usize = BLOCK * BLOCKS as usize;

const SYNC: u32 = 0xB5E2_4C97;
/// Bits of the sync word, the device, the block and the check.
const BITS: usize = 32 + 16 + 32 + 16;

/// One block of audio: which device sent it, and its number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    pub(crate) device: u16,
    pub(crate) number: u32,
}

impl Block {
    fn check(self) -> u16 {
        let folded = (u32::from(self.device) << 16).wrapping_mul(0x9E37_79B1) ^ self.number;
        (folded.wrapping_mul(0x85EB_CA6B) >> 16) as u16
    }

    fn word(self) -> u128 {
        let mut word = u128::from(SYNC);
        for (value, bits) in
            [(u32::from(self.device), 16), (self.number, 32), (u32::from(self.check()), 16)]
        {
            word = word << bits | u128::from(value);
        }
        word
    }

    /// The block that begins with the first of `samples`, if one does.
    fn read(samples: &[i16]) -> Option<Self> {
        let head = samples.get(..BITS)?;
        let bit = |word: u128, sample: &i16| word << 1 | u128::from(*sample as u16 & 1);
        if head[..32].iter().fold(0, bit) != u128::from(SYNC) || samples.len() < BLOCK {
            return None;
        }
        let word = head.iter().fold(0, bit);
        let block = Self { device: (word >> 48) as u16, number: (word >> 16) as u32 };
        (block.word() == word).then_some(block)
    }
}

/// The voice that numbers are written into: some seconds, again and again.
pub(crate) struct Voice(Vec<i16>);

impl Voice {
    pub(crate) fn new() -> Self {
        Self(synthetic::speech(8.0))
    }

    /// Second number `second` of `device`.
    pub(crate) fn second(&self, device: u16, second: u32) -> Vec<i16> {
        let from = second as usize % (self.0.len() / SECOND) * SECOND;
        let mut samples = self.0[from..from + SECOND].to_vec();
        for (block, samples) in (0..).zip(samples.chunks_mut(BLOCK)) {
            let word = Block { device, number: second * BLOCKS + block }.word();
            for (at, sample) in samples.iter_mut().take(BITS).enumerate() {
                let bit = (word >> (BITS - 1 - at) & 1) as i16;
                *sample = *sample & !1 | bit;
            }
        }
        samples
    }
}

/// The whole blocks in `samples`, in order.
pub(crate) fn blocks(samples: &[i16]) -> Vec<Block> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at + BLOCK <= samples.len() {
        match Block::read(&samples[at..]) {
            Some(block) => {
                found.push(block);
                at += BLOCK;
            }
            None => at += 1,
        }
    }
    found
}

/// Blocks as words, neighbours together: `2:300-499 2:700-712`.
pub(crate) fn to_text(blocks: &[Block]) -> String {
    let mut runs: Vec<(Block, u32)> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some((first, last)) if first.device == block.device && *last + 1 == block.number => {
                *last = block.number;
            }
            _ => runs.push((*block, block.number)),
        }
    }
    let word = |(first, last): &(Block, u32)| format!("{}:{}-{last}", first.device, first.number);
    runs.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Counts the blocks that a text of [`to_text`] names.
pub(crate) fn count(text: &str, counts: &mut BTreeMap<Block, u32>) {
    for word in text.split_whitespace() {
        let parts = word.split_once(':').and_then(|(device, run)| {
            let (first, last) = run.split_once('-')?;
            Some((device.parse().ok()?, first.parse().ok()?, last.parse().ok()?))
        });
        let (device, first, last): (u16, u32, u32) = parts.expect("a run of blocks");
        for number in first..=last {
            *counts.entry(Block { device, number }).or_default() += 1;
        }
    }
}
