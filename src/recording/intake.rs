//! Recordings that were made elsewhere, on their way in: written under another name
//! first, and given theirs once somebody knows of them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::files::{Files, Handle, Use};
use super::track::{Piece, Track};
use super::wav_file::{self, HEADER};
use super::{Format, MAX_READ, Recordings, Spool, check, failed, part_of, remove};
use crate::audio::decode::AudioFile;
use crate::audio::segmenter::Segmenter;
use crate::base::error::{Error, Kind, Result, io_kind};
use crate::config;
use crate::domain::conversation::{NewWindow, SAMPLE_RATE, Span};
use crate::supervisor::blocking;

/// Bytes copied at a time.
const BLOCK: usize = 256 * 1024;
/// Samples that are decoded before they are written: a minute.
const PIECE: usize = 60 * SAMPLE_RATE as usize;

/// A recording that was brought here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// Its samples.
    pub samples: u64,
    /// The speech in it, in pieces to be transcribed.
    pub windows: Vec<NewWindow>,
}

impl Recordings {
    /// How many samples the audio file `source` makes, by its header.
    ///
    /// # Errors
    /// `BadInput` when it is no audio or may not be read; `NotFound`.
    pub async fn measure(source: PathBuf) -> Result<u64> {
        blocking(move || match plain(&source)? {
            Some((_, bytes)) => Ok(wav_file::data_samples(bytes)),
            None => Ok(AudioFile::open(&source)?.shape().samples.unwrap_or(0)),
        })
        .await
    }

    /// Brings the audio of the file `source` here, to be the recording `name`: byte
    /// by byte where it is such a WAV file as is made here, else decoded. It is on
    /// disk and has been read back when this returns, and gets its name by
    /// [`Recordings::keep_brought`]. The source stays as it is.
    ///
    /// # Errors
    /// `BadInput` when the source is no audio or may not be read; `NotFound`;
    /// `NoSpace` and `Storage`.
    pub async fn bring(
        &self,
        source: PathBuf,
        name: &str,
        transcribe: &config::Transcribe,
    ) -> Result<Brought> {
        check(name)?;
        let (files, spool, part) = (self.files.clone(), self.spool().clone(), part_of(name));
        let mut segmenter = Segmenter::new(transcribe);
        segmenter.pack(true);
        blocking(move || {
            remove(files.as_ref(), &part)?;
            let samples = match plain(&source)? {
                Some((file, bytes)) => {
                    has_room(&spool, bytes)?;
                    copy(files.as_ref(), file, &source, &part)?;
                    wav_file::repair(files.as_ref(), &part)?
                }
                None => decode(files.as_ref(), &spool, &source, &part)?,
            };
            let cannot = |error| failed("cannot read", &part, error);
            let file = files.open(&part, Use::Read).map_err(cannot)?;
            let windows = windows(file.as_ref(), &part, samples, segmenter)?;
            Ok(Brought { samples, windows })
        })
        .await
    }

    /// Gives what was brought its name, for good.
    ///
    /// # Errors
    /// `Storage`, `NoSpace`.
    pub async fn keep_brought(&self, name: &str) -> Result<()> {
        check(name)?;
        let (files, name) = (self.files.clone(), name.to_owned());
        blocking(move || {
            let cannot = |error| failed("cannot create", &name, error);
            files.rename(&part_of(&name), &name).map_err(cannot)?;
            files.sync_names().map_err(cannot)
        })
        .await
    }
}

/// The file `source` and its length, if it is such a WAV file as is made here.
fn plain(source: &Path) -> Result<Option<(File, u64)>> {
    let mut file = File::open(source).map_err(|error| unreadable(source, error))?;
    let metadata = file.metadata().map_err(|error| unreadable(source, error))?;
    let mut head = [0; HEADER];
    let whole = match file.read_exact(&mut head) {
        Ok(()) => metadata.is_file() && wav_file::is_header(&head),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(unreadable(source, error)),
    };
    Ok(whole.then_some((file, metadata.len())))
}

/// What may not be read is as good as none: it does not keep the rest.
fn unreadable(source: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::IsADirectory => Kind::BadInput,
        _ => io_kind(&error),
    };
    Error::new(kind, format!("cannot read {}", source.display())).with_source(error)
}

fn has_room(spool: &Spool, bytes: u64) -> Result<()> {
    spool.has_room(bytes).map_err(|error| match error.kind() {
        Kind::NoSpace => {
            let message = "there is no room on the disk for the recordings; make some, and run \
                           this again: it goes on where it ended";
            Error::new(Kind::NoSpace, message)
        }
        _ => error,
    })
}

/// Copies a file, and reads the copy back.
fn copy(files: &dyn Files, mut from: File, source: &Path, part: &str) -> Result<()> {
    let cannot = |error| failed("cannot write", part, error);
    std::io::Seek::rewind(&mut from).map_err(|error| unreadable(source, error))?;
    let target = files.open(part, Use::Create).map_err(cannot)?;
    let (mut hash, mut at, mut block) = (Sha256::new(), 0_u64, vec![0; BLOCK]);
    loop {
        let count = match from.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(source, error)),
        };
        let bytes = block.get(..count).unwrap_or_default();
        target.write_at(bytes, at).map_err(cannot)?;
        hash.update(bytes);
        at += count as u64;
    }
    target.sync().map_err(cannot)?;
    let written = hash.finalize();
    let mut read = Sha256::new();
    let mut from = 0;
    while from < at {
        let count = target.read_at(&mut block, from).map_err(cannot)?;
        if count == 0 {
            break;
        }
        read.update(block.get(..count).unwrap_or_default());
        from += count as u64;
    }
    if read.finalize() != written {
        let message = format!("{part} does not read as it was written; check the disk");
        return Err(Error::new(Kind::Storage, message));
    }
    Ok(())
}

/// Writes the sound of a file of any kind; returns its samples.
fn decode(files: &dyn Files, spool: &Spool, source: &Path, part: &str) -> Result<u64> {
    let mut file = AudioFile::open(source)?;
    has_room(spool, file.shape().samples.unwrap_or(0) * 2)?;
    let mut track = Track::create(files, part, Format::Wav)?;
    let (mut samples, mut more) = (Vec::new(), true);
    while more {
        samples.clear();
        while more && samples.len() < PIECE {
            more = file.read(&mut samples)?;
        }
        let mut piece = Piece::default();
        piece.add_samples(&samples);
        track.add(piece);
        track.sync()?;
    }
    track.finish()?;
    Ok(track.synced())
}

fn windows(
    file: &dyn Handle,
    name: &str,
    samples: u64,
    mut segmenter: Segmenter,
) -> Result<Vec<NewWindow>> {
    let (mut windows, mut sound, mut at) = (Vec::new(), Vec::new(), 0);
    while at < samples {
        let end = samples.min(at + MAX_READ);
        sound.clear();
        wav_file::read(file, name, Span { start: at, end }, &mut sound)?;
        segmenter.push(&sound, &mut windows);
        at = end;
    }
    windows.extend(segmenter.finish());
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::audio::synthetic::speech;
    use crate::audio::wav;
    use crate::base::clock::Clock;

    async fn bring(dir: &Path, bytes: &[u8]) -> Result<(Recordings, Brought)> {
        let source = dir.join("source");
        std::fs::write(&source, bytes).unwrap();
        let recordings = Recordings::open(dir, Duration::ZERO, Clock::system()).unwrap();
        let transcribe = config::Transcribe::default();
        let brought = recordings.bring(source.clone(), "1_a_b.wav", &transcribe).await?;
        assert_eq!(std::fs::read(source).unwrap(), bytes, "the source stays");
        Ok((recordings, brought))
    }

    fn made(recordings: &Recordings) -> Vec<u8> {
        std::fs::read(recordings.dir().join("1_a_b.wav")).unwrap()
    }

    #[tokio::test]
    async fn a_recording_of_the_same_kind_is_copied_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut sound = speech(40.0);
        sound.resize(sound.len() + 32_000, 0);
        let whole = wav::file(&sound);
        let (recordings, brought) = bring(dir.path(), &whole).await.unwrap();
        assert!(recordings.scan().await.unwrap().is_empty(), "it has no name yet");
        assert_eq!(brought.samples, sound.len() as u64);
        assert!(brought.windows.len() >= 2, "{:?}", brought.windows);
        recordings.keep_brought("1_a_b.wav").await.unwrap();
        assert_eq!(made(&recordings), whole);

        // The writer was cut off: half a sample, and a header that says nothing.
        let mut torn = whole[..whole.len() - 32_001].to_vec();
        torn[40..44].fill(0);
        let (recordings, brought) = bring(dir.path(), &torn).await.unwrap();
        assert_eq!(brought.samples, sound.len() as u64 - 16_001);
        recordings.keep_brought("1_a_b.wav").await.unwrap();
        assert_eq!(made(&recordings)[44..], whole[44..whole.len() - 32_002]);
    }

    #[tokio::test]
    async fn a_recording_of_another_kind_is_decoded() {
        let dir = tempfile::tempdir().unwrap();
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 48_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        for at in 0..2 * 48_000 {
            writer.write_sample((at % 100) as i16).unwrap();
            writer.write_sample((at % 100) as i16).unwrap();
        }
        writer.finalize().unwrap();
        let (recordings, brought) = bring(dir.path(), &bytes.into_inner()).await.unwrap();
        assert!(brought.samples.abs_diff(32_000) < 200, "{}", brought.samples);
        recordings.keep_brought("1_a_b.wav").await.unwrap();
        assert_eq!(made(&recordings).len() as u64, 44 + 2 * brought.samples);
        let measured = Recordings::measure(dir.path().join("source")).await.unwrap();
        assert!(measured.abs_diff(32_000) < 200);
    }

    #[tokio::test]
    async fn what_is_no_audio_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"RIFF", &[7; 5_000]] {
            assert_eq!(bring(dir.path(), bytes).await.unwrap_err().kind(), Kind::BadInput);
        }
        let recordings = Recordings::open(dir.path(), Duration::ZERO, Clock::system()).unwrap();
        assert_eq!(std::fs::read_dir(recordings.dir()).unwrap().count(), 0);
        let none = Recordings::measure(dir.path().join("none")).await.unwrap_err();
        assert_eq!(none.kind(), Kind::NotFound);
    }
}
