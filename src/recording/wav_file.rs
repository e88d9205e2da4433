//! One WAV file on disk: 16 kHz mono s16le behind the plain 44-byte header.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::failed;
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::domain::conversation::SAMPLE_RATE;

/// Bytes before the first sample.
pub(super) const HEADER: usize = 44;

/// Samples in a recording whose file has `bytes` bytes.
pub(super) fn data_samples(bytes: u64) -> u64 {
    bytes.saturating_sub(HEADER as u64) / 2
}

/// The header of a file with `samples` samples.
pub(super) fn header(samples: u64) -> [u8; HEADER] {
    // 37 hours fit; a longer file plays its first 37 hours.
    let data = u32::try_from(samples.saturating_mul(2)).unwrap_or(u32::MAX) & !1;
    let data = data.min(u32::MAX - 1 - HEADER as u32);
    let mut bytes = *b"RIFF----WAVEfmt \x10\0\0\0\x01\0\x01\0rateb/s.\x02\0\x10\0data----";
    let mut put = |at: usize, value: u32| {
        if let Some(field) = bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    };
    put(4, data + HEADER as u32 - 8);
    put(24, SAMPLE_RATE);
    put(28, SAMPLE_RATE * 2);
    put(40, data);
    bytes
}

/// A recording that is being written.
#[derive(Debug)]
pub(super) struct WavFile {
    file: File,
    path: Box<Path>,
    /// Samples on disk, synced.
    synced: u64,
    /// Samples to write behind those: kept until they are synced, so that a
    /// write that failed can be made again at the same place.
    waiting: Vec<i16>,
}

impl WavFile {
    /// Makes a new empty file (0600), and has it and its entry in `dir` on disk.
    pub(super) fn create(path: &Path, dir: &Path) -> Result<Self> {
        let cannot = |error| failed("cannot create", path, error);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = planned::around("creating a recording", || options.open(path).map_err(cannot))?;
        planned::around("writing a new header", || {
            file.write_all_at(&header(0), 0).map_err(cannot)
        })?;
        planned::around("syncing a new recording", || file.sync_all().map_err(cannot))?;
        planned::around("syncing the directory", || {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(cannot)
        })?;
        Ok(Self { file, path: path.into(), synced: 0, waiting: Vec::new() })
    }

    /// Takes `samples` to be written by the next [`WavFile::sync`].
    pub(super) fn add(&mut self, samples: Vec<i16>) {
        if self.waiting.is_empty() {
            self.waiting = samples;
        } else {
            self.waiting.extend_from_slice(&samples);
        }
    }

    /// Samples that are not on disk yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Samples that are on disk for good.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Writes what waits and the header, without waiting for the disk.
    pub(super) fn write(&mut self) -> Result<()> {
        let bytes: Vec<u8> = self.waiting.iter().flat_map(|s| s.to_le_bytes()).collect();
        let cannot = |error| failed("cannot write", &self.path, error);
        planned::around("writing audio", || {
            self.file.write_all_at(&bytes, HEADER as u64 + self.synced * 2).map_err(cannot)
        })?;
        let samples = self.synced + self.waiting.len() as u64;
        planned::around("writing the header", || {
            self.file.write_all_at(&header(samples), 0).map_err(cannot)
        })
    }

    /// Writes what waits, then the header, and waits for the disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.write()?;
        planned::around("syncing audio", || {
            self.file.sync_data().map_err(|error| failed("cannot write", &self.path, error))
        })?;
        self.synced += self.waiting.len() as u64;
        self.waiting = Vec::new();
        Ok(())
    }
}

#[cfg(test)]
impl WavFile {
    /// A recording that writes to `file`, whatever that is.
    pub(super) fn over(file: File, path: &Path) -> Self {
        Self { file, path: path.into(), synced: 0, waiting: Vec::new() }
    }

    /// Goes on with the handle of `other`.
    pub(super) fn use_file(&mut self, other: Self) {
        self.file = other.file;
    }
}

/// Makes the header fit the length of the file at `path`, and drops a torn
/// sample. Returns its samples.
pub(super) fn repair(path: &Path) -> Result<u64> {
    let cannot = |error| failed("cannot repair", path, error);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(cannot)?;
    let length = file.metadata().map_err(cannot)?.len();
    let samples = data_samples(length);
    let wanted = header(samples);
    let mut found = [0; HEADER];
    let present = HEADER.min(usize::try_from(length).unwrap_or(HEADER));
    if let Some(found) = found.get_mut(..present) {
        file.read_exact_at(found, 0).map_err(cannot)?;
    }
    // Everything but the two sizes is the same in all of our files. A file that
    // was being made may have less, or zeros where nothing arrived.
    let ours = |at: usize| (4..8).contains(&at) || (40..44).contains(&at);
    let foreign = found.iter().zip(&wanted).take(present).enumerate();
    let blank = found.iter().all(|byte| *byte == 0);
    if !blank && foreign.into_iter().any(|(at, (found, wanted))| !ours(at) && found != wanted) {
        let message = format!("{} is not a recording made here", path.display());
        return Err(Error::new(Kind::BadInput, message));
    }
    let exact = HEADER as u64 + samples * 2;
    if found != wanted || length != exact {
        planned::around("cutting a torn end", || file.set_len(exact).map_err(cannot))?;
        planned::around("repairing the header", || file.write_all_at(&wanted, 0).map_err(cannot))?;
        planned::around("syncing a repair", || file.sync_all().map_err(cannot))?;
    }
    Ok(samples)
}
