//! A whole audio file into text at once, with nothing stored.

use crate::audio::decode::AudioFile;
use crate::audio::reading::Reading;
use crate::audio::segmenter::Segmenter;
use crate::base::error::Result;
use crate::config;
use crate::domain::conversation::{NewWindow, SAMPLE_RATE};
use crate::domain::job::Lane;
use crate::domain::transcript::Transcript;
use crate::pipeline::transcribe::on_timeline;
use crate::stt::{Speech, SpeechToText};

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
    let mut reading = Reading::new(file, Segmenter::new(config));
    let mut whole = Transcript::default();
    // Audio that no window has taken yet, and where in the file it begins.
    let (mut kept, mut origin) = (Vec::new(), 0_u64);
    while let Some(piece) = reading.next().await? {
        kept.extend_from_slice(&piece.samples);
        let windows = std::mem::take(&mut piece.windows);
        for window in windows {
            let language = language.map(str::to_owned);
            let samples = speech(&window, &kept, origin);
            let part =
                engine.transcribe(Speech { samples, lane: Lane::Interactive, language }).await?;
            whole.language = whole.language.or(part.language);
            whole.segments.extend(on_timeline(part.segments, &window.spans));
            let end = window.spans.last().map_or(origin, |span| span.end);
            progress(end / u64::from(SAMPLE_RATE));
            let taken = usize::try_from(end - origin).unwrap_or(usize::MAX).min(kept.len());
            kept.drain(..taken);
            origin += taken as u64;
        }
    }
    Ok(FileTranscript {
        transcript: whole,
        seconds: reading.position() as f64 / f64::from(SAMPLE_RATE),
        note: reading.note().map(str::to_owned),
    })
}

/// The samples of `window` out of `kept`, which begins at sample `origin`.
fn speech(window: &NewWindow, kept: &[i16], origin: u64) -> Vec<i16> {
    let at = |sample: u64| usize::try_from(sample.saturating_sub(origin)).unwrap_or(usize::MAX);
    let spans = window.spans.iter().filter_map(|span| kept.get(at(span.start)..at(span.end)));
    spans.flatten().copied().collect()
}
