//! WAV files of any common shape, read as 16 kHz mono a piece at a time.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use hound::{SampleFormat, WavReader};

use super::pcm::PcmFormat;
use super::resample::{Resampler, resampled_len};
use crate::base::error::{Context, Error, Kind, Result, io_kind};
use crate::domain::conversation::SAMPLE_RATE;

/// Frames decoded at a time.
const BLOCK: usize = 4096;

/// Reads a WAV file (integers of 8 to 32 bits, or 32-bit floats) as 16 kHz mono.
pub struct WavSource<R> {
    name: String,
    reader: WavReader<R>,
    resampler: Option<Resampler>,
    mono: Vec<i16>,
    total: u64,
    ended: bool,
}

impl WavSource<BufReader<File>> {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// `NotFound` or `Storage` when it cannot be opened, `BadInput` when it is
    /// not a WAV file that can be read. Each names the file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| {
            Error::new(io_kind(&error), format!("cannot open {name}")).with_source(error)
        })?;
        Self::new(BufReader::new(file), name)
    }
}

impl<R: Read> WavSource<R> {
    /// Reads from `reader`; `name` is for messages.
    ///
    /// # Errors
    /// `BadInput` when it is not a WAV file that can be read.
    pub fn new(reader: R, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let bad = || format!("{name} is not a WAV file that can be read");
        let reader = WavReader::new(reader).with_context(Kind::BadInput, bad)?;
        let spec = reader.spec();
        // Depth is hound's to judge; rate and channels follow the same rule as a stream's.
        PcmFormat::new(spec.sample_rate, 2, spec.channels).with_context(Kind::BadInput, bad)?;
        let resampler = match spec.sample_rate {
            SAMPLE_RATE => None,
            rate => Some(Resampler::new(rate)?),
        };
        let total = resampled_len(u64::from(reader.duration()), u64::from(spec.sample_rate));
        Ok(Self { name, reader, resampler, mono: Vec::new(), total, ended: false })
    }

    /// Samples the whole file makes at 16 kHz, by its header.
    pub fn total_samples(&self) -> u64 {
        self.total
    }

    /// Appends the next piece, about a quarter of a second, to `out`. False
    /// when the file has ended. A file cut short ends where its data ends.
    ///
    /// # Errors
    /// `BadInput` when the data is damaged, `Storage` when reading fails.
    pub fn read(&mut self, out: &mut Vec<i16>) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.mono.clear();
        match self.reader.spec().sample_format {
            SampleFormat::Float => self.read_block(|s: f32| f64::from(s) * 32_768.0)?,
            SampleFormat::Int => {
                let scale = 2f64.powi(16 - i32::from(self.reader.spec().bits_per_sample));
                self.read_block(|s: i32| f64::from(s) * scale)?;
            }
        }
        match &mut self.resampler {
            None => out.extend_from_slice(&self.mono),
            Some(resampler) => resampler.push(&self.mono, out)?,
        }
        if self.ended
            && let Some(resampler) = &mut self.resampler
        {
            resampler.finish(out)?;
        }
        Ok(true)
    }

    /// Decodes up to [`BLOCK`] frames into `mono`; `to_i16` scales a sample.
    fn read_block<S: hound::Sample>(&mut self, to_i16: impl Fn(S) -> f64) -> Result<()> {
        let channels = usize::from(self.reader.spec().channels);
        let mut samples = self.reader.samples::<S>();
        for _ in 0..BLOCK {
            let mut sum = 0.0;
            for _ in 0..channels {
                match samples.next() {
                    Some(Ok(sample)) => sum += to_i16(sample),
                    None => {
                        self.ended = true;
                        return Ok(());
                    }
                    Some(Err(hound::Error::IoError(e))) if cut_short(&e) => {
                        tracing::warn!(file = self.name, "the file ends before its header says");
                        self.ended = true;
                        return Ok(());
                    }
                    Some(Err(hound::Error::IoError(error))) => {
                        let kind = io_kind(&error);
                        return Err(error).context(kind, format!("cannot read {}", self.name));
                    }
                    Some(Err(error)) => {
                        let message = format!("{} is damaged", self.name);
                        return Err(error).context(Kind::BadInput, message);
                    }
                }
            }
            // `as` saturates.
            self.mono.push((sum / channels as f64).round() as i16);
        }
        Ok(())
    }
}

/// Whether a read failed for want of data (hound reports it as `Other`).
fn cut_short(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof)
        || (error.kind() == ErrorKind::Other && error.raw_os_error().is_none())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use hound::{WavSpec, WavWriter};
    use proptest::prelude::*;

    use super::*;

    fn spec(rate: u32, bits: u16, channels: u16, sample_format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format }
    }

    fn file<S: hound::Sample + Copy>(spec: WavSpec, samples: &[S]) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        samples.iter().for_each(|s| writer.write_sample(*s).unwrap());
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    fn read(bytes: &[u8]) -> Result<Vec<i16>> {
        let mut source = WavSource::new(bytes, "test.wav")?;
        let mut out = Vec::new();
        while source.read(&mut out)? {}
        Ok(out)
    }

    #[test]
    fn every_depth_reads_alike() {
        let want = [16_384i16, -16_384, 0, 8_192];
        for bits in [8u16, 16, 24, 32] {
            let scaled: Vec<i32> =
                want.iter().map(|s| i32::from(*s) << 16 >> (32 - bits)).collect();
            let bytes = file(spec(16_000, bits, 1, SampleFormat::Int), &scaled);
            assert_eq!(read(&bytes).unwrap(), want, "{bits} bits");
        }
        let float: Vec<f32> = want.iter().map(|s| f32::from(*s) / 32_768.0).collect();
        assert_eq!(read(&file(spec(16_000, 32, 1, SampleFormat::Float), &float)).unwrap(), want);
    }

    #[test]
    fn stereo_44_khz_keeps_its_length() {
        let samples: Vec<i16> =
            (0..88_200).map(|i| if i % 2 == 0 { 3_000 } else { 1_000 }).collect();
        let bytes = file(spec(44_100, 16, 2, SampleFormat::Int), &samples);
        assert_eq!(WavSource::new(&bytes[..], "x").unwrap().total_samples(), 16_000);
        let out = read(&bytes).unwrap();
        assert_eq!(out.len(), 16_000);
        assert!(out[8_000].abs_diff(2_000) < 5);
    }

    #[test]
    fn a_file_cut_short_gives_what_it_has() {
        let bytes = file(spec(16_000, 16, 1, SampleFormat::Int), &[5i16; 1_000]);
        assert_eq!(read(&bytes[..bytes.len() - 501]).unwrap(), [5i16; 749]);
    }

    #[test]
    fn what_is_no_wav_is_named() {
        let error = read(b"ID3 an mp3, say").unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        assert!(error.message().contains("test.wav"));
        let slow = file(spec(100, 16, 1, SampleFormat::Int), &[0i16; 4]);
        assert_eq!(read(&slow).unwrap_err().kind(), Kind::BadInput);
        let missing = WavSource::open(Path::new("/nonexistent/a.wav")).err().unwrap();
        assert_eq!(missing.kind(), Kind::NotFound);
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            damage in prop::collection::vec((0usize..80, any::<u8>()), 1..8),
            length in 0usize..144,
        ) {
            let mut bytes = file(spec(48_000, 16, 2, SampleFormat::Int), &[7i16; 50]);
            for (at, value) in damage {
                bytes[at] = value;
            }
            bytes.truncate(length);
            let _ = read(&bytes);
        }
    }
}
