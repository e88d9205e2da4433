//! Archiving: a WAV recording made anew as Ogg Opus, a tenth of its size.

use opus::{Application, Bitrate, Channels, Encoder};

use super::files::{Files, Handle, Use};
use super::{Format, MAX_READ, Recordings, check, failed, opus_file, part_of, remove, wav_file};
use crate::audio::ogg::{self, Head, Mark};
use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::conversation::{SAMPLE_RATE, Span};
use crate::supervisor::blocking;

/// Samples of a packet: 20 ms.
const FRAME: usize = SAMPLE_RATE as usize / 50;
/// Ogg ticks a sample.
const STEP: u64 = (ogg::TICKS / SAMPLE_RATE) as u64;
/// Bytes of the largest packet that the codec makes of one frame.
const MAX_PACKET: usize = 1_275;
/// Samples encoded at a time: half a minute.
const PIECE: u64 = MAX_READ / 2;

impl Recordings {
    /// The name that a recording has once it is archived.
    pub fn archived_name(name: &str) -> Option<String> {
        let stem = name.strip_suffix(Format::Wav.extension())?;
        Some(format!("{stem}{}", Format::Opus.extension()))
    }

    /// Makes an Ogg Opus recording of the WAV recording `name`, in place of an
    /// earlier attempt, and returns its name and bytes. It is on disk and has
    /// been read back when this returns; until then there is no file of that
    /// name. The WAV recording stays.
    ///
    /// # Errors
    /// `NotFound`, `NoSpace`, `Storage`; `BadInput` when it is no WAV recording;
    /// `Internal` when what was written does not read as long as its source.
    pub async fn archive(&self, name: &str, bits_per_second: i32) -> Result<(String, u64)> {
        check(name)?;
        let archived = Self::archived_name(name)
            .ok_or_else(|| Error::new(Kind::BadInput, "only WAV recordings are archived"))?;
        let part = part_of(&archived);
        let (files, shelf, source) = (self.files.clone(), self.shelf(), name.to_owned());
        let mut copy = {
            let part = part.clone();
            blocking(move || {
                let handle = shelf.open(&source)?;
                Copy::begin(files.as_ref(), &source, handle, part, bits_per_second)
            })
            .await?
        };
        // In pieces, so that a shutdown does not wait for hours of audio.
        while !copy.is_complete() {
            copy = blocking(move || copy.step().map(|()| copy)).await?;
        }
        let (samples, mut at) = (copy.samples, 0);
        let files = self.files.clone();
        while at < samples {
            let span = Span { start: at, end: samples.min(at + PIECE) };
            let (files, part) = (files.clone(), part.clone());
            at = blocking(move || verify(files.as_ref(), &part, span)).await?;
        }
        let target = archived.clone();
        blocking(move || {
            let cannot = |error| failed("cannot archive", &target, error);
            let file = files.open(&part, Use::Read).map_err(cannot)?;
            let (length, bytes) = (opus_file::samples(file.as_ref()), file.len());
            if length.map_err(cannot)? != samples {
                return Err(unlike(&target));
            }
            files.rename(&part, &target).map_err(cannot)?;
            files.sync_names().map_err(cannot)?;
            bytes.map_err(cannot)
        })
        .await
        .map(|bytes| (archived, bytes))
    }
}

/// Reads `span` of what was written; where it ends.
fn verify(files: &dyn Files, name: &str, span: Span) -> Result<u64> {
    let file = files.open(name, Use::Read).map_err(|error| failed("cannot read", name, error))?;
    let mut read = Vec::new();
    opus_file::read(file.as_ref(), name, span, &mut read).map_err(|_| unlike(name))?;
    if read.len() as u64 == span.len() { Ok(span.end) } else { Err(unlike(name)) }
}

fn unlike(name: &str) -> Error {
    Error::new(Kind::Internal, format!("{name} is not as long as the recording it was made of"))
}

/// A recording on its way into another format.
struct Copy {
    source: Box<dyn Handle>,
    name: String,
    target: Box<dyn Handle>,
    part: String,
    encoder: Encoder,
    serial: u32,
    /// Samples of the source, and those that are encoded, the codec's delay and
    /// the rest of a frame behind the end included.
    samples: u64,
    done: u64,
    delay: u64,
    mark: Mark,
    bytes: u64,
}

impl Copy {
    fn begin(
        files: &dyn Files,
        name: &str,
        source: Box<dyn Handle>,
        part: String,
        bits_per_second: i32,
    ) -> Result<Self> {
        let cannot = |error| failed("cannot archive", name, error);
        let samples = source.len().map(wav_file::data_samples).map_err(cannot)?;
        let codec = "cannot make an Opus encoder";
        let mut encoder = Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Voip)
            .context(Kind::Internal, codec)?;
        encoder.set_bitrate(Bitrate::Bits(bits_per_second)).context(Kind::Internal, codec)?;
        let delay = encoder.get_lookahead().context(Kind::Internal, codec)?;
        let delay = u64::try_from(delay).unwrap_or(0);
        // Players leave this much out at the start, so that the times are the same.
        let pre_skip = u16::try_from(delay * STEP).unwrap_or(0);
        let serial = rand::random();
        let head = Head { pre_skip }.pages(serial, SAMPLE_RATE);
        remove(files, &part)?;
        let target = files.open(&part, Use::Create).map_err(cannot)?;
        target.write_at(&head, 0).map_err(cannot)?;
        let (bytes, mark) = (head.len() as u64, Mark { granule: 0, sequence: 2 });
        let name = name.to_owned();
        Ok(Self {
            source,
            name,
            target,
            part,
            encoder,
            serial,
            samples,
            done: 0,
            delay,
            mark,
            bytes,
        })
    }

    /// What is encoded until the last sample has come out of the codec.
    fn total(&self) -> u64 {
        (self.samples + self.delay).next_multiple_of(FRAME as u64).max(FRAME as u64)
    }

    fn is_complete(&self) -> bool {
        self.done >= self.total()
    }

    /// Encodes the next piece; the last is synced.
    fn step(&mut self) -> Result<()> {
        let end = self.total().min(self.done + PIECE);
        let span = Span { start: self.done.min(self.samples), end: end.min(self.samples) };
        let mut samples = Vec::new();
        wav_file::read(self.source.as_ref(), &self.name, span, &mut samples)?;
        samples.resize(usize::try_from(end - self.done).unwrap_or(0), 0);
        let mut packets = Vec::new();
        for frame in samples.chunks_exact(FRAME) {
            let packet = self.encoder.encode_vec(frame, MAX_PACKET);
            packets.push(packet.context(Kind::Internal, "cannot encode")?);
        }
        let timed = packets.iter().map(|packet| (packet.as_slice(), FRAME as u64 * STEP));
        let mut pages = Vec::new();
        self.mark = ogg::write_pages(&mut pages, self.serial, self.mark, timed);
        self.done = end;
        if self.is_complete() {
            ogg::end_stream(&mut pages, (self.samples + self.delay) * STEP);
        }
        let cannot = |error| failed("cannot archive", &self.part, error);
        self.target.write_at(&pages, self.bytes).map_err(cannot)?;
        self.bytes += pages.len() as u64;
        if self.is_complete() {
            self.target.sync().map_err(cannot)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::audio::synthetic::speech;
    use crate::recording::tests::{bench, closed, conversation_in};

    /// How alike two sounds of one length are, from -1 to 1.
    fn likeness(a: &[i16], b: &[i16]) -> f64 {
        let dot = |a: &[i16], b: &[i16]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[tokio::test]
    async fn an_archived_recording_keeps_its_length_and_times() {
        let bench = bench(Duration::from_secs(1));
        for length in [0, 1, 319, 320, 16_000, 16_000 * 61 + 77] {
            let sound: Vec<i16> = speech(62.0).into_iter().take(length).collect();
            let conversation = conversation_in(Format::Wav);
            let name = &conversation.audio_path;
            let mut recorder = bench.recordings.create(&conversation).await.unwrap();
            recorder.append(&sound).await.unwrap();
            assert_eq!(closed(recorder).await, length as u64);
            // What an earlier attempt left does not matter.
            let archived = Recordings::archived_name(name).unwrap();
            std::fs::write(bench.recordings.dir().join(format!(".{archived}.part")), b"x").unwrap();
            let (made, bytes) = bench.recordings.archive(name, 24_000).await.unwrap();
            assert_eq!(made, archived);
            assert_eq!(bench.bytes(&made).len() as u64, bytes);
            assert_eq!(bench.recordings.samples(&made).await.unwrap(), length as u64);
            assert_eq!(bench.recordings.repair(&made).await.unwrap(), length as u64);
            assert_eq!(bench.recordings.samples(name).await.unwrap(), length as u64, "it stays");
            if length < 16_000 {
                continue;
            }
            let end = length as u64;
            let spans = [Span { start: end - 12_000, end }];
            let read = bench.recordings.read(&made, &spans).await.unwrap();
            let alike = likeness(&read, &sound[length - 12_000..]);
            assert!(alike > 0.8, "{length}: {alike}");
            let beyond = [Span { start: end - 10, end: end + 1 }];
            assert!(bench.recordings.read(&made, &beyond).await.is_err());
            if length > 500_000 {
                assert!(bytes < 2 * end / 8, "{bytes}");
            }
        }
        assert_eq!(std::fs::read_dir(bench.recordings.dir()).unwrap().count(), 12);
    }
}
