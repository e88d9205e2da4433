//! A request for a transcript: audio in, text out while it comes. Nothing of it
//! is kept.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::audio::convert::Converter;
use crate::audio::pcm::PcmFormat;
use crate::audio::windows::{Window, Windows};
use crate::base::error::{Error, Kind, Result};
use crate::config::{self, Interval};
use crate::domain::conversation::SAMPLE_RATE;
use crate::domain::job::Lane;
use crate::domain::transcript::Transcript;
use crate::pipeline::transcribe::on_timeline;
use crate::stt::{Speech, SpeechToText};
use crate::supervisor::Supervisor;

/// Windows that wait for the engine. With more, the sender of the audio waits.
const QUEUE: usize = 2;

/// One request. Somebody is waiting: it goes before everything that was
/// recorded, and in turn with other requests.
pub(super) struct Request {
    windows: Windows,
    /// The format that audio-start announced.
    format: PcmFormat,
    converter: Option<Converter>,
    limit: Interval,
    /// None once all audio is here.
    queue: Option<mpsc::Sender<Window>>,
    parts: mpsc::UnboundedReceiver<Result<Transcript>>,
    /// All parts so far.
    heard: Transcript,
}

impl Request {
    /// A request for speech in `language`, an ISO 639-1 code with or without a
    /// region; none: what is configured.
    ///
    /// # Errors
    /// `Unavailable` while the engine has no model, `BadInput` for a language
    /// that it does not know.
    pub(super) fn new(
        stt: &Arc<dyn SpeechToText>,
        language: Option<&str>,
        cutting: &config::Transcribe,
        limit: Interval,
        supervisor: &Supervisor,
    ) -> Result<Self> {
        let language = known_language(stt.as_ref(), language)?;
        if !stt.is_ready() {
            let message = format!(
                "{} cannot be asked now: its model is not on this machine \
                 (`friend-lite models fetch` gets it), or its service is away",
                stt.name()
            );
            return Err(Error::new(Kind::Unavailable, message));
        }
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (answers, parts) = mpsc::unbounded_channel();
        // A task of its own: an engine that is dropped in mid-answer has to be
        // started anew, so a request that lost its asker is let finish.
        supervisor.once(recognise(stt.clone(), language, waiting, answers));
        Ok(Self {
            windows: Windows::new(cutting),
            format: PcmFormat::SPEECH,
            converter: None,
            limit,
            queue: Some(queue),
            parts,
            heard: Transcript::default(),
        })
    }

    /// Whether audio is still expected.
    pub(super) fn is_listening(&self) -> bool {
        self.queue.is_some()
    }

    /// The format of chunks that do not name theirs.
    pub(super) fn start(&mut self, format: PcmFormat) {
        self.format = format;
    }

    /// Takes audio; waits while the engine is behind.
    ///
    /// # Errors
    /// `TooLarge` when it is longer than the limit, `BadInput` when its rate
    /// cannot be resampled.
    pub(super) async fn audio(&mut self, bytes: &[u8], format: Option<PcmFormat>) -> Result<()> {
        let format = format.unwrap_or(self.format);
        let mut samples = Vec::new();
        let converter = match &mut self.converter {
            Some(converter) if converter.format() == format => converter,
            other => {
                if let Some(last) = other {
                    last.finish(&mut samples)?;
                }
                other.insert(Converter::new(format)?)
            }
        };
        converter.push(bytes, &mut samples)?;
        let seconds = (self.windows.position() + samples.len() as u64) / u64::from(SAMPLE_RATE);
        if seconds > self.limit.get().as_secs() {
            let message = format!("audio is longer than {}", self.limit);
            return Err(Error::new(Kind::TooLarge, message));
        }
        let mut windows = Vec::new();
        self.windows.push(&samples, &mut windows);
        self.send(windows).await;
        Ok(())
    }

    /// That was all of the audio.
    ///
    /// # Errors
    /// `Internal` when the filter fails.
    pub(super) async fn finish(&mut self) -> Result<()> {
        let (mut samples, mut windows) = (Vec::new(), Vec::new());
        if let Some(converter) = &mut self.converter {
            converter.finish(&mut samples)?;
        }
        self.windows.push(&samples, &mut windows);
        windows.extend(self.windows.finish());
        self.send(windows).await;
        self.queue = None;
        Ok(())
    }

    /// The text of the next part; none once the transcript is complete. Cancel
    /// safe.
    ///
    /// # Errors
    /// The engine's. Nothing more comes then.
    pub(super) async fn next(&mut self) -> Result<Option<String>> {
        let Some(part) = self.parts.recv().await else {
            // Only a task that died ends before its queue.
            let died = || Error::new(Kind::Internal, "the request was lost");
            return if self.queue.is_none() { Ok(None) } else { Err(died()) };
        };
        let part = part?;
        let text = part.text();
        self.heard.language = self.heard.language.take().or(part.language);
        self.heard.segments.extend(part.segments);
        Ok(Some(text))
    }

    /// What was heard so far.
    pub(super) fn heard(&self) -> &Transcript {
        &self.heard
    }

    async fn send(&mut self, windows: Vec<Window>) {
        let Some(queue) = &self.queue else { return };
        for window in windows {
            if queue.send(window).await.is_err() {
                // It failed already; what `next` returns says why.
                return;
            }
        }
    }
}

/// Has one window after the other transcribed, until there are no more or nobody
/// wants to know.
async fn recognise(
    stt: Arc<dyn SpeechToText>,
    language: Option<String>,
    mut queue: mpsc::Receiver<Window>,
    answers: mpsc::UnboundedSender<Result<Transcript>>,
) {
    while let Some(Window { spans, samples }) = queue.recv().await {
        if answers.is_closed() {
            return;
        }
        let speech =
            Speech { samples, lane: Lane::Interactive, language: language.clone(), place: None };
        let mut heard = stt.transcribe(speech.clone()).await;
        // An engine that died is started again at once.
        if heard.as_ref().is_err_and(|error| error.kind() == Kind::Unavailable) {
            heard = stt.transcribe(speech).await;
        }
        let heard = heard
            .map(|mut heard| {
                heard.segments = on_timeline(heard.segments, &spans);
                heard
            })
            .map_err(told);
        let failed = heard.is_err();
        if answers.send(heard).is_err() || failed {
            return;
        }
    }
}

/// The engine's error as the asker is told of it.
fn told(error: Error) -> Error {
    let message = match error.kind() {
        Kind::BadInput => return error,
        Kind::Timeout => "the speech engine took too long",
        _ => "the speech engine failed; the log says why",
    };
    Error::new(error.kind(), message).with_source(error)
}

/// The language the engine is to be told: `en` of `en-US`; none for `auto`.
fn known_language(stt: &dyn SpeechToText, asked: Option<&str>) -> Result<Option<String>> {
    let asked = asked.unwrap_or_default().to_ascii_lowercase();
    let language = asked.split(['-', '_']).next().unwrap_or_default();
    if matches!(language, "" | "auto") {
        return Ok(None);
    }
    if !stt.languages().contains(&language) {
        let message = format!("{} does not understand the language `{language}`", stt.name());
        return Err(Error::new(Kind::BadInput, message));
    }
    Ok(Some(language.to_owned()))
}

#[cfg(test)]
#[path = "asr_tests.rs"]
pub(super) mod tests;
