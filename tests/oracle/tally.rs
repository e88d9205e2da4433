//! What is on disk against what is told.
//!
//! What had been synced when a kill came is read from the disk while the daemon
//! is dead. A SIGKILL takes nothing that was written (the system's cache stays),
//! so all that the files hold counts, synced or not: the stricter rule. A second
//! counts once all of its hundred blocks are there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use friend_lite::recording::Recordings;

use crate::numbered::{self, BLOCKS, Block};

/// Bytes of a WAV file before its samples.
const HEADER: u64 = 44;

/// The four figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    synced: usize,
    found: usize,
    lost: usize,
    duplicated: usize,
}

/// The second a block belongs to.
fn second_of(block: &Block) -> (u16, u32) {
    (block.device, block.number / BLOCKS)
}

impl Tally {
    /// Compares what was on disk with how often each block is in the transcripts.
    pub fn of(disk: &BTreeSet<Block>, told: &BTreeMap<Block, u32>) -> Self {
        let mut blocks: BTreeMap<(u16, u32), u32> = BTreeMap::new();
        for block in disk {
            *blocks.entry(second_of(block)).or_default() += 1;
        }
        let synced: Vec<_> = blocks.into_iter().filter(|(_, n)| *n == BLOCKS).collect();
        let told_whole = |(device, second): (u16, u32)| {
            let first = second * BLOCKS;
            (first..first + BLOCKS).all(|number| told.contains_key(&Block { device, number }))
        };
        let found = synced.iter().filter(|(second, _)| told_whole(*second)).count();
        let twice = told.iter().filter(|(_, times)| **times > 1).map(|(block, _)| second_of(block));
        Self {
            synced: synced.len(),
            found,
            lost: synced.len() - found,
            duplicated: twice.collect::<BTreeSet<_>>().len(),
        }
    }

    pub fn is_perfect(self) -> bool {
        self.synced > 0 && self.lost == 0 && self.duplicated == 0
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.synced += other.synced;
        self.found += other.found;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { synced, found, lost, duplicated } = self;
        write!(f, "seconds synced {synced}, found {found}, lost {lost}, duplicated {duplicated}")
    }
}

/// What the recordings hold.
#[derive(Default)]
pub struct Disk {
    pub blocks: BTreeSet<Block>,
    /// Bytes of each file that have been looked at.
    read: HashMap<std::ffi::OsString, u64>,
}

impl Disk {
    /// Takes in what has been written since the last time.
    pub fn read(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            // What is made from recordings is no recording, and the numbers do not
            // outlive the archive's compression: each file is read while it is WAV.
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if Recordings::origin(&name).is_none() || !name.ends_with(".wav") {
                continue;
            }
            let file = match File::open(entry.path()) {
                Ok(file) => file,
                // Archived since the directory was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => panic!("{}: {error}", entry.path().display()),
            };
            let length = file.metadata().unwrap().len();
            let from = self.read.entry(entry.file_name()).or_insert(HEADER);
            let mut bytes = vec![0; usize::try_from(length.saturating_sub(*from)).unwrap()];
            file.read_exact_at(&mut bytes, *from).unwrap();
            let samples: Vec<i16> =
                bytes.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
            self.blocks.extend(numbered::blocks(&samples));
            // A block at the end may be half there: look at it again.
            let whole = samples.len().saturating_sub(numbered::BLOCK) as u64 * 2;
            *from += whole;
        }
    }
}

/// Names what went wrong, for whoever has to find out why.
pub fn report(disk: &BTreeSet<Block>, told: &BTreeMap<Block, u32>) {
    let missing: Vec<Block> = disk.iter().filter(|b| !told.contains_key(b)).copied().collect();
    let twice: Vec<Block> = told.iter().filter(|(_, n)| **n > 1).map(|(b, _)| *b).collect();
    println!("on disk and not told: {}", numbered::to_text(&missing));
    println!("told twice: {}", numbered::to_text(&twice));
}
