//! One recording that is being written: what is on disk for good, and what is
//! still to be written behind it.

use super::files::{Files, Handle, Use};
use super::format::Format;
use super::{failed, wav_file};
use crate::audio::ogg::{self, Head, Mark};
use crate::base::error::Result;
use crate::domain::conversation::SAMPLE_RATE;

/// Ogg ticks a sample.
const TICKS: u64 = (ogg::TICKS / SAMPLE_RATE) as u64;
/// A WAV header may tell of this much less than there is; a repair, and the
/// close, put it right. Each write of it costs the disk a block.
const HEADER_LAG: u64 = 10 * SAMPLE_RATE as u64;

/// Bytes that are allocated at a time while audio gathers.
const BLOCK: usize = 4096;

/// Audio on its way to disk: samples as bytes, or whole packets.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) samples: u64,
    /// The bytes, in blocks that are filled one after the other: at any moment
    /// hundreds of recordings hold what has come and little more. What was added
    /// at once lies in one block.
    blocks: Vec<Vec<u8>>,
    /// The length of each packet in them, and its samples. PCM has none.
    packets: Vec<(u16, u16)>,
}

impl Piece {
    pub(super) fn add_samples(&mut self, samples: &[i16]) {
        self.samples += samples.len() as u64;
        let block = self.block(2 * samples.len());
        let before = block.len();
        block.resize(before + 2 * samples.len(), 0);
        let (slots, _) = block.get_mut(before..).unwrap_or_default().as_chunks_mut();
        for (slot, sample) in slots.iter_mut().zip(samples) {
            *slot = sample.to_le_bytes();
        }
    }

    /// `packet` holds `samples` samples and is no longer than
    /// [`ogg::MAX_PACKET`].
    pub(super) fn add_packet(&mut self, packet: &[u8], samples: u16) {
        self.samples += u64::from(samples);
        self.block(packet.len()).extend_from_slice(packet);
        self.packets.push((u16::try_from(packet.len()).unwrap_or(0), samples));
    }

    /// A block with room for `bytes` more.
    fn block(&mut self, bytes: usize) -> &mut Vec<u8> {
        let room = self.blocks.last().map_or(0, |block| block.capacity() - block.len());
        if room < bytes || self.blocks.is_empty() {
            self.blocks.push(Vec::with_capacity(bytes.max(BLOCK)));
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    fn append(&mut self, mut next: Self) {
        if self.samples == 0 {
            *self = next;
        } else {
            self.samples += next.samples;
            self.blocks.append(&mut next.blocks);
            self.packets.append(&mut next.packets);
        }
    }

    fn bytes(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    /// Its packets, each with its ticks.
    fn packets(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let mut blocks = self.blocks.iter();
        let mut rest: &[u8] = &[];
        self.packets.iter().map_while(move |(length, samples)| {
            let length = usize::from(*length);
            if rest.len() < length {
                rest = blocks.next()?;
            }
            let (packet, after) = rest.split_at_checked(length)?;
            rest = after;
            Some((packet, u64::from(*samples) * TICKS))
        })
    }
}

/// How far a recording has come.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// Bytes of the file.
    bytes: u64,
    samples: u64,
    mark: Mark,
}

/// A recording that is being written.
#[derive(Debug)]
pub(super) struct Track {
    file: Box<dyn Handle>,
    name: Box<str>,
    format: Format,
    serial: u32,
    synced: Position,
    /// What follows that: kept until it is synced, so that a write that failed
    /// can be made again at the same place.
    waiting: Piece,
    /// Samples that the header of a WAV file tells of.
    told: u64,
}

impl Track {
    /// Makes a new empty recording, and has it and its name on disk.
    pub(super) fn create(files: &dyn Files, name: &str, format: Format) -> Result<Self> {
        let cannot = |error| failed("cannot create", name, error);
        let serial = rand::random();
        let header = match format {
            Format::Wav => wav_file::header(0).to_vec(),
            Format::Opus => Head { pre_skip: 0 }.pages(serial, SAMPLE_RATE),
        };
        let file = files.open(name, Use::Create).map_err(cannot)?;
        file.write_at(&header, 0).map_err(cannot)?;
        file.sync().map_err(cannot)?;
        files.sync_names().map_err(cannot)?;
        let mark = Mark { granule: 0, sequence: 2 };
        let synced = Position { bytes: header.len() as u64, samples: 0, mark };
        let (name, waiting) = (name.into(), Piece::default());
        Ok(Self { file, name, format, serial, synced, waiting, told: 0 })
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Takes `piece` to be written by the next [`Track::sync`].
    pub(super) fn add(&mut self, piece: Piece) {
        self.waiting.append(piece);
    }

    /// Samples that are not on disk yet.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.samples
    }

    /// Samples that are on disk for good.
    pub(super) fn synced(&self) -> u64 {
        self.synced.samples
    }

    /// Bytes that are on disk for good.
    pub(super) fn bytes(&self) -> u64 {
        self.synced.bytes
    }

    /// Writes what waits, without waiting for the disk; returns how far the
    /// file reaches then. `last`: the header must be right.
    fn write(&mut self, last: bool) -> Result<Position> {
        let cannot = |error| failed("cannot write", &self.name, error);
        let mut next = self.synced;
        next.samples += self.waiting.samples;
        match self.format {
            Format::Wav => {
                let blocks: Vec<&[u8]> = self.waiting.blocks.iter().map(Vec::as_slice).collect();
                self.file.write_parts_at(&blocks, self.synced.bytes).map_err(cannot)?;
                next.bytes += self.waiting.bytes() as u64;
                if last || self.told == 0 || next.samples - self.told >= HEADER_LAG {
                    self.file.write_at(&wav_file::header(next.samples), 0).map_err(cannot)?;
                    self.told = next.samples;
                }
            }
            Format::Opus => {
                let mut pages = Vec::with_capacity(self.waiting.bytes() * 9 / 8);
                let packets = self.waiting.packets();
                next.mark = ogg::write_pages(&mut pages, self.serial, self.synced.mark, packets);
                self.file.write_at(&pages, self.synced.bytes).map_err(cannot)?;
                next.bytes += pages.len() as u64;
            }
        }
        Ok(next)
    }

    /// Writes what waits, and waits for the disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.save(false)
    }

    /// As [`Track::sync`]; the file needs no repair then.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.is_whole() { Ok(()) } else { self.save(true) }
    }

    /// Whether the file is as it is to be in the end.
    fn is_whole(&self) -> bool {
        let told = self.format == Format::Opus || self.told == self.synced.samples;
        self.waiting.samples == 0 && told
    }

    fn save(&mut self, last: bool) -> Result<()> {
        let next = self.write(last)?;
        self.file.sync().map_err(|error| failed("cannot write", &self.name, error))?;
        self.synced = next;
        self.waiting = Piece::default();
        Ok(())
    }

    /// Hands what waits to the system, without waiting for the disk.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        if self.is_whole() { Ok(()) } else { self.write(true).map(|_| ()) }
    }
}

#[cfg(test)]
impl Track {
    /// Writes to `file` from now on, whatever that is; returns the one before.
    pub(super) fn replace_file(&mut self, file: Box<dyn Handle>) -> Box<dyn Handle> {
        std::mem::replace(&mut self.file, file)
    }
}
