//! A whole audio file into text at once, with nothing stored.

use crate::audio::decode::AudioFile;
use crate::audio::windows::{Window, Windows};
use crate::base::error::Result;
use crate::config;
use crate::domain::conversation::SAMPLE_RATE;
use crate::domain::job::Lane;
use crate::domain::transcript::Transcript;
use crate::pipeline::transcribe::on_timeline;
use crate::stt::{Speech, SpeechToText};
use crate::supervisor::blocking;

/// Samples decoded at a time, or a little more: 10 s.
const PIECE: usize = 10 * SAMPLE_RATE as usize;

/// The text of a file, and how long it is.
#[derive(Debug, Default)]
pub struct FileTranscript {
    /// With times from the start of the file.
    pub transcript: Transcript,
    /// Seconds of audio in the file.
    pub seconds: f64,
    /// Why that may be less than the file once held.
    pub note: Option<String>,
}

/// Transcribes `file` while somebody waits, speech alone and a window at a
/// time. `language` is an ISO 639-1 code; none: the configured one. `progress`
/// hears how many seconds are done.
///
/// # Errors
/// Those of reading and of the engine.
pub async fn transcribe_file(
    engine: &dyn SpeechToText,
    config: &config::Transcribe,
    file: AudioFile,
    language: Option<&str>,
    progress: impl Fn(u64),
) -> Result<FileTranscript> {
    let rate = u64::from(SAMPLE_RATE);
    let mut reading = Box::new(Reading { file, cut: Windows::new(config), piece: Vec::new() });
    let mut whole = Transcript::default();
    let mut more = true;
    while more {
        let windows;
        (reading, windows, more) = blocking(move || reading.advance()).await?;
        for Window { spans, samples } in windows {
            let language = language.map(str::to_owned);
            let speech = Speech { samples, lane: Lane::Interactive, language, place: None };
            let part = engine.transcribe(speech).await?;
            whole.language = whole.language.or(part.language);
            whole.engine = part.engine.or(whole.engine);
            whole.segments.extend(on_timeline(part.segments, &spans));
        }
        progress(reading.cut.position() / rate);
    }
    Ok(FileTranscript {
        transcript: whole,
        seconds: reading.cut.position() as f64 / rate as f64,
        note: reading.file.note().map(str::to_owned),
    })
}

/// A file on its way into windows. Hours of it, silent or not, take little
/// memory.
struct Reading {
    file: AudioFile,
    cut: Windows,
    piece: Vec<i16>,
}

impl Reading {
    /// Decodes the next piece: the windows that end with it, and whether there
    /// is more.
    fn advance(mut self: Box<Self>) -> Result<(Box<Self>, Vec<Window>, bool)> {
        let (mut windows, mut more) = (Vec::new(), true);
        self.piece.clear();
        while more && self.piece.len() < PIECE {
            more = self.file.read(&mut self.piece)?;
        }
        self.cut.push(&self.piece, &mut windows);
        if !more {
            windows.extend(self.cut.finish());
        }
        Ok((self, windows, more))
    }
}
