//! Recordings against a model, on a file system that fails and forgets: what was
//! synced is read back bit for bit, in order, and nothing is invented.

use proptest::prelude::*;

use super::faulty::{Fault, Faulty};
use super::files::{Files, Use};
use super::track::{Piece, Track};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// So many samples, or packets.
    Append(u8),
    Sync,
    /// The recording ends and another begins.
    Rotate,
    Fail(Fault),
    /// The process dies and starts again; what it had written is there.
    Kill,
    /// The power goes.
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        (0usize..900).prop_map(Fault::NoSpace),
        (0usize..900).prop_map(Fault::Broken),
        any::<u64>().prop_map(Fault::Sync),
    ];
    prop_oneof![
        8 => (0u8..30).prop_map(Step::Append),
        1 => Just(Step::Append(255)),
        6 => Just(Step::Sync),
        1 => Just(Step::Rotate),
        4 => fault.prop_map(Step::Fail),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

/// What was recorded under one name: each sample, or each packet.
struct Expected {
    name: String,
    units: Vec<Vec<u8>>,
    /// How many of them must be there whatever happens.
    synced: usize,
    /// A sync failed since: what is seen may be in memory alone for good.
    doubtful: bool,
    /// The process ended then, and cannot write it again: behind what was synced
    /// the disk may hold anything.
    vague: bool,
}

struct Model {
    files: Faulty,
    format: Format,
    count: u32,
    track: Option<Track>,
    all: Vec<Expected>,
}

/// Samples of a unit: one, or the 20 ms of a packet.
fn length(format: Format) -> u64 {
    if format == Format::Wav { 1 } else { 320 }
}

impl Model {
    fn new(format: Format) -> Self {
        Self { files: Faulty::default(), format, count: 0, track: None, all: Vec::new() }
    }

    /// A sample, or a packet (one SILK frame of 20 ms), unlike the one before.
    fn unit(&mut self) -> Vec<u8> {
        self.count += 1;
        match self.format {
            Format::Wav => (self.count as i16).to_le_bytes().to_vec(),
            Format::Opus => {
                let mut packet = vec![0x48];
                packet.extend(self.count.to_le_bytes());
                // Some fill more than one entry of a page's table.
                packet.resize(if self.count.is_multiple_of(7) { 300 } else { 9 }, 7);
                packet
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(count) => self.append(*count),
            Step::Sync => {
                if let (Some(track), Some(expected)) = (&mut self.track, self.all.last_mut()) {
                    expected.doubtful = track.sync().is_err();
                    if !expected.doubtful {
                        expected.synced = expected.units.len();
                    }
                    assert_eq!(track.synced(), expected.synced as u64 * length(self.format));
                }
            }
            Step::Rotate => {
                if let (Some(mut track), Some(expected)) = (self.track.take(), self.all.last_mut())
                {
                    expected.doubtful = track.finish().is_err();
                    if !expected.doubtful {
                        expected.synced = expected.units.len();
                    }
                }
            }
            Step::Fail(fault) => self.files.fail(*fault),
            Step::Kill => self.restart(),
            Step::Crash(bits) => {
                self.files.crash(*bits);
                self.all.iter_mut().for_each(|expected| expected.doubtful = false);
                self.restart();
            }
        }
    }

    fn append(&mut self, count: u8) {
        if self.track.is_none() {
            let name = format!("{}.{}", self.all.len(), self.format.extension());
            self.track = Track::create(&self.files, &name, self.format).ok();
            self.all.push(Expected {
                name,
                units: Vec::new(),
                synced: 0,
                doubtful: false,
                vague: false,
            });
        }
        let units: Vec<Vec<u8>> = (0..count).map(|_| self.unit()).collect();
        let (Some(track), Some(expected)) = (&mut self.track, self.all.last_mut()) else { return };
        let mut piece = Piece::default();
        for unit in &units {
            match self.format {
                Format::Wav => piece.add_samples(&[i16::from_le_bytes([unit[0], unit[1]])]),
                Format::Opus => piece.add_packet(unit, 320),
            }
        }
        track.add(piece);
        expected.units.extend(units);
    }

    /// What the sweep does at a start, and then the comparison.
    fn restart(&mut self) {
        self.track = None;
        self.files.heal();
        for Expected { name, units, synced, doubtful, vague } in &mut self.all {
            let files = &self.files;
            let repair = || match self.format {
                Format::Wav => wav_file::repair(files, name),
                Format::Opus => opus_file::repair(files, name),
            };
            let samples = match repair() {
                Err(error) if error.kind() == Kind::NotFound && *synced == 0 => continue,
                repaired => repaired.unwrap(),
            };
            let found = units_of(files, name, self.format);
            assert!(found.len() >= *synced, "{name}: {} of {synced} are there", found.len());
            *vague |= *doubtful;
            let sure = if *vague { *synced } else { found.len() };
            assert_eq!(found[..sure], units[..sure], "{name}");
            assert_eq!(samples, found.len() as u64 * length(self.format));
            let file = files.open(name, Use::Read).unwrap();
            if self.format == Format::Opus {
                assert_eq!(opus_file::samples(file.as_ref()).unwrap(), samples);
            }
            let bytes = files.bytes(name);
            assert_eq!(repair().unwrap(), samples);
            assert_eq!(files.bytes(name), bytes, "a second repair changes nothing");
            // What is repaired is synced: it stays.
            if !*vague {
                units.truncate(found.len());
                *synced = found.len();
            }
        }
    }
}

fn units_of(files: &Faulty, name: &str, format: Format) -> Vec<Vec<u8>> {
    match format {
        Format::Wav => {
            let bytes = files.bytes(name);
            let reader = hound::WavReader::new(bytes.as_slice()).unwrap();
            reader.into_samples::<i16>().map(|s| s.unwrap().to_le_bytes().to_vec()).collect()
        }
        Format::Opus => opus_file::packets(files.open(name, Use::Read).unwrap().as_ref()),
    }
}

fn run(format: Format, steps: &[Step]) {
    let mut model = Model::new(format);
    steps.iter().for_each(|next| model.step(next));
    model.step(&Step::Crash(0x9E37_79B9_7F4A_7C15));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8 * ProptestConfig::default().cases))]

    #[test]
    fn wav_recordings_keep_what_was_synced(steps in prop::collection::vec(step(), 1..40)) {
        run(Format::Wav, &steps);
    }
}

proptest! {
    #[test]
    fn opus_recordings_keep_what_was_synced(steps in prop::collection::vec(step(), 1..40)) {
        run(Format::Opus, &steps);
    }
}
