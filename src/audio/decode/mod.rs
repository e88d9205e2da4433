//! Audio files of any common format, read as 16 kHz mono a piece at a time.
//!
//! Containers and codecs are symphonia's, but for Opus packets, which libopus
//! decodes. A file that ends early or is damaged gives what can be read of it,
//! and a note that says so.

mod opus;

use std::fs::File;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder};
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::FORMAT_ID_MKV;
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};

use self::opus::Opus;
use super::resample::{Resampler, resampled_len};
use crate::base::error::{Error, Kind, Result, io_kind};
use crate::domain::conversation::SAMPLE_RATE;

/// What is read, in words for people.
pub const ACCEPTED: &str = "WAV, FLAC, MP3, Ogg (Vorbis, Opus), M4A/MP4 (AAC, ALAC), AAC and WebM";

/// The rates that are accepted, in samples a second.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;
/// Packets in a row that give no sound, after which no more is looked for.
const MAX_BARREN: u32 = 5_000;
/// How often the rate may change within one file.
const MAX_RATES: u32 = 64;
/// A file this much shorter than its header says has been cut, in samples.
const CUT: u64 = SAMPLE_RATE as u64 / 2;

/// An audio file that is being read.
pub struct AudioFile {
    name: String,
    reader: Box<dyn FormatReader>,
    track: u32,
    decoder: Decoder,
    resampler: Option<(u32, Box<Resampler>)>,
    interleaved: Vec<f32>,
    mono: Vec<i16>,
    shape: Shape,
    /// Samples so far.
    given: u64,
    rates: u32,
    damaged: u32,
    ended: bool,
    note: Option<String>,
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Samples a second of each channel, as stored.
    pub rate: u32,
    /// Channels, as stored.
    pub channels: usize,
    /// Samples that the whole makes at 16 kHz, where the file tells.
    pub samples: Option<u64>,
}

enum Decoder {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
}

/// What became of one packet.
enum Step {
    Sound,
    Nothing,
    End,
}

impl AudioFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// `NotFound` or `Storage` when it cannot be opened, `BadInput` when it is
    /// not audio that can be read. Each names the file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, path.display().to_string())
    }

    /// Opens the file at `path`, which people know by another `name`.
    ///
    /// # Errors
    /// As [`AudioFile::open`].
    pub fn open_as(path: &Path, name: String) -> Result<Self> {
        let file = File::open(path).map_err(|error| cannot("open", &name, error))?;
        Self::new(Box::new(file), name)
    }

    /// Reads `source`; `name` is for messages.
    ///
    /// # Errors
    /// `BadInput` when it is not audio that can be read, `Storage` when reading
    /// fails. Each names the file.
    pub fn new(source: Box<dyn MediaSource>, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let stream = MediaSourceStream::new(source, Default::default());
        let probe = || {
            symphonia::default::get_probe().probe(
                &Hint::new(),
                stream,
                Default::default(),
                Default::default(),
            )
        };
        let reader = match guarded(probe) {
            Some(Ok(reader)) => reader,
            Some(Err(Symphonia::IoError(error))) if error.kind() != ErrorKind::UnexpectedEof => {
                return Err(cannot("read", &name, error));
            }
            Some(Err(error)) => return Err(not_audio(&name).with_source(error)),
            None => return Err(not_audio(&name)),
        };
        let (track, decoder, shape) = choose(reader.as_ref(), &name)?;
        Ok(Self {
            name,
            reader,
            track,
            decoder,
            resampler: None,
            interleaved: Vec::new(),
            mono: Vec::new(),
            shape,
            given: 0,
            rates: 0,
            damaged: 0,
            ended: false,
            note: None,
        })
    }

    /// What the file says of itself.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Once all is read: why it may be less than the file once held.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Appends the next piece, a fraction of a second as a rule, to `out`. False
    /// when there is no more.
    ///
    /// # Errors
    /// `BadInput`, naming the file, when there is no sound in it at all;
    /// `Storage` when reading fails.
    pub fn read(&mut self, out: &mut Vec<i16>) -> Result<bool> {
        let before = out.len();
        let mut barren = 0;
        while !self.ended && out.len() == before {
            match self.step(out)? {
                Step::Sound => {}
                Step::Nothing => {
                    barren += 1;
                    if barren > MAX_BARREN {
                        self.tell("no more sound was found in it");
                        self.end(out)?;
                    }
                }
                Step::End => self.end(out)?,
            }
        }
        self.given += (out.len() - before) as u64;
        if self.ended && self.given == 0 {
            let text = format!("{} holds no sound that can be decoded", self.name);
            return Err(Error::new(Kind::BadInput, text));
        }
        if self.ended && self.note.is_none() {
            self.judge();
        }
        Ok(out.len() > before)
    }

    /// Decodes one packet.
    fn step(&mut self, out: &mut Vec<i16>) -> Result<Step> {
        let reader = &mut self.reader;
        let packet = match guarded(|| reader.next_packet()) {
            Some(Ok(Some(packet))) => packet,
            Some(Ok(None)) => return Ok(Step::End),
            Some(Err(Symphonia::IoError(error))) if error.kind() == ErrorKind::UnexpectedEof => {
                // A browser's recording never says where it ends.
                let open = self.reader.format_info().format == FORMAT_ID_MKV
                    && self.shape.samples.is_none();
                if !open {
                    self.tell("it ends in the middle");
                }
                return Ok(Step::End);
            }
            Some(Err(Symphonia::IoError(error))) => return Err(cannot("read", &self.name, error)),
            Some(Err(Symphonia::ResetRequired)) => return self.go_on(),
            Some(Err(_)) | None => {
                self.tell("the rest of it is damaged");
                return Ok(Step::End);
            }
        };
        if packet.track_id != self.track {
            return Ok(Step::Nothing);
        }
        self.mono.clear();
        let rate = match &mut self.decoder {
            Decoder::Opus(opus) => {
                let (data, end) = (&packet.data, packet.trim_end.get());
                opus.decode(data, end, &mut self.mono).ok().map(|()| SAMPLE_RATE)
            }
            Decoder::Symphonia(decoder) => {
                let (buffer, mono) = (&mut self.interleaved, &mut self.mono);
                match guarded(|| decoder.decode(&packet).map(|sound| mix(&sound, buffer, mono))) {
                    Some(Ok(rate)) => Some(rate),
                    Some(Err(Symphonia::DecodeError(_) | Symphonia::IoError(_))) => None,
                    Some(Err(_)) | None => {
                        self.tell("the rest of it is damaged");
                        return Ok(Step::End);
                    }
                }
            }
        };
        match rate {
            Some(rate) => self.give(rate, out),
            None => {
                self.damaged += 1;
                Ok(Step::Nothing)
            }
        }
    }

    /// Appends the samples of `mono`, which have that rate, to `out`.
    fn give(&mut self, rate: u32, out: &mut Vec<i16>) -> Result<Step> {
        if self.mono.is_empty() {
            return Ok(Step::Nothing);
        }
        if self.resampler.as_ref().map_or(SAMPLE_RATE, |(rate, _)| *rate) != rate {
            self.rates += 1;
            if self.rates > MAX_RATES || !RATES.contains(&rate) {
                self.tell("the rest of it is damaged");
                return Ok(Step::End);
            }
            self.flush(out)?;
            if rate != SAMPLE_RATE {
                self.resampler = Some((rate, Box::new(Resampler::new(rate)?)));
            }
        }
        match &mut self.resampler {
            None => out.extend_from_slice(&self.mono),
            Some((_, resampler)) => resampler.push(&self.mono, out)?,
        }
        Ok(Step::Sound)
    }

    /// Goes on where one stream of several in a file ends and another begins.
    fn go_on(&mut self) -> Result<Step> {
        match choose(self.reader.as_ref(), &self.name) {
            Ok((track, decoder, _)) => {
                (self.track, self.decoder) = (track, decoder);
                // What the header said was of the first one only.
                self.shape.samples = None;
                Ok(Step::Nothing)
            }
            Err(_) => {
                self.tell("the rest of it cannot be decoded");
                Ok(Step::End)
            }
        }
    }

    fn end(&mut self, out: &mut Vec<i16>) -> Result<()> {
        self.ended = true;
        self.flush(out)
    }

    /// Takes what the filter still holds.
    fn flush(&mut self, out: &mut Vec<i16>) -> Result<()> {
        match self.resampler.take() {
            Some((_, mut resampler)) => resampler.finish(out),
            None => Ok(()),
        }
    }

    fn tell(&mut self, what: &str) {
        let seconds = self.given as f64 / f64::from(SAMPLE_RATE);
        self.note = Some(format!("{}: {what}; the first {seconds:.1} s are kept", self.name));
    }

    /// At the end: says so where something is missing.
    fn judge(&mut self) {
        let missing = self.shape.samples.map_or(0, |samples| samples.saturating_sub(self.given));
        if missing > CUT {
            self.tell("it ends before its header says");
        } else if self.damaged > 0 {
            let text = format!("{}: {} damaged pieces are left out", self.name, self.damaged);
            self.note = Some(text);
        }
    }
}

/// The sound track of a file, and a decoder for it.
fn choose(reader: &dyn FormatReader, name: &str) -> Result<(u32, Decoder, Shape)> {
    let track = reader.default_track(TrackType::Audio).ok_or_else(|| not_audio(name))?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let params = params.ok_or_else(|| not_audio(name))?;
    if params.sample_rate.is_some_and(|rate| !RATES.contains(&rate)) {
        let rate = params.sample_rate.unwrap_or_default();
        let text = format!(
            "{name}: a sample rate of {rate} Hz is not supported ({} to {})",
            RATES.start(),
            RATES.end()
        );
        return Err(Error::new(Kind::BadInput, text));
    }
    let shape = shape(track, params);
    let decoder = if params.codec == CODEC_ID_OPUS {
        Decoder::Opus(Box::new(Opus::new(params.extra_data.as_deref())?))
    } else {
        let codecs = symphonia::default::get_codecs();
        match guarded(|| codecs.make_audio_decoder(params, &Default::default())) {
            Some(Ok(decoder)) => Decoder::Symphonia(decoder),
            Some(Err(error)) => return Err(not_audio(name).with_source(error)),
            None => return Err(not_audio(name)),
        }
    };
    Ok((track.id, decoder, shape))
}

fn shape(track: &Track, params: &AudioCodecParameters) -> Shape {
    let rate = params.sample_rate.unwrap_or(SAMPLE_RATE);
    let timed = track.time_base.zip(track.duration).map(|(base, duration)| {
        let seconds = base.calc_duration_saturating(duration).as_secs_f64();
        (seconds * f64::from(SAMPLE_RATE)) as u64
    });
    let counted = track.num_frames.map(|frames| resampled_len(frames, rate.into()));
    Shape {
        rate,
        channels: params.channels.as_ref().map_or(1, |channels| channels.count()),
        samples: counted.or(timed).filter(|samples| *samples > 0),
    }
}

/// Averages the channels of `sound` into `mono`; returns its rate.
fn mix(sound: &GenericAudioBufferRef<'_>, interleaved: &mut Vec<f32>, mono: &mut Vec<i16>) -> u32 {
    let channels = sound.spec().channels().count().max(1);
    sound.copy_to_vec_interleaved(interleaved);
    let scale = 32_768.0 / channels as f32;
    // `as` saturates, and makes silence of what is not a number.
    mono.extend(
        interleaved
            .chunks_exact(channels)
            .map(|frame| (frame.iter().sum::<f32>() * scale).round() as i16),
    );
    sound.spec().rate()
}

/// Runs a step of the library; none when it panics, as some damaged files make
/// it do. What it worked on is not used again then.
fn guarded<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}

fn not_audio(name: &str) -> Error {
    let text = format!("{name} is not audio that can be read; accepted are {ACCEPTED}");
    Error::new(Kind::BadInput, text)
}

fn cannot(doing: &str, name: &str, error: std::io::Error) -> Error {
    Error::new(io_kind(&error), format!("cannot {doing} {name}")).with_source(error)
}

#[cfg(test)]
mod tests;
