//! A speech-to-text service over the Wyoming framing: gathers the audio of one
//! request and has it recognised.

use super::serve::{Service, Tell};
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::SAMPLE_RATE;
use crate::domain::transcript::Transcript;
use crate::wyoming::event::{
    self, AudioChunk, AudioStart, AudioStop, Body, Event, Format, Info, Transcribe,
};

/// The longest request, in samples: callers cut at 30 s.
const MAX_SAMPLES: usize = 60 * SAMPLE_RATE as usize;

/// A model that turns speech into text.
pub trait Recognizer {
    /// What it is.
    fn info(&self) -> Info;

    /// The transcript of 16 kHz mono `samples` in -1 to 1, in `language` (an
    /// ISO 639-1 code; none: the one it finds).
    ///
    /// # Errors
    /// `BadInput` for a language that it does not know.
    fn recognize(&mut self, samples: &[f32], language: Option<&str>) -> Result<Transcript>;
}

/// The service around a [`Recognizer`]. Nothing of a request outlives it.
#[derive(Debug)]
pub struct Session<R> {
    recognizer: R,
    language: Option<String>,
    samples: Vec<f32>,
    /// Why the request under way cannot be answered; said at its end.
    failed: Option<Error>,
}

impl<R: Recognizer> Session<R> {
    /// A service with no request under way.
    pub fn new(recognizer: R) -> Self {
        Self { recognizer, language: None, samples: Vec::new(), failed: None }
    }

    fn append(&mut self, chunk: &Event) -> Result<()> {
        let format = chunk.body::<AudioChunk>()?.format;
        if format != Format::default() {
            return Err(bad_input("audio must be 16 kHz, 16 bits, mono"));
        }
        let samples = chunk.payload.as_chunks::<2>().0;
        if self.samples.len() + samples.len() > MAX_SAMPLES {
            self.samples.clear();
            return Err(bad_input("audio is longer than 60 s"));
        }
        let samples = samples.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes)) / 32_768.0);
        self.samples.extend(samples);
        Ok(())
    }

    fn finish(&mut self) -> Result<Event> {
        let (samples, language) = (std::mem::take(&mut self.samples), self.language.take());
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let transcript = self.recognizer.recognize(&samples, language.as_deref())?;
        Ok(Event::of(&event::Transcript {
            text: transcript.text(),
            language: transcript.language,
            segments: transcript.segments,
            is_final: None,
        }))
    }
}

impl<R: Recognizer> Service for Session<R> {
    fn info(&self) -> Info {
        self.recognizer.info()
    }

    fn handle(&mut self, event: Event, _: &mut Tell<'_>) -> Result<Option<Event>> {
        match event.kind.as_str() {
            Transcribe::KIND => self.language = event.body::<Transcribe>()?.language,
            AudioStart::KIND => {
                self.samples.clear();
                self.failed = None;
            }
            AudioChunk::KIND if self.failed.is_none() => self.failed = self.append(&event).err(),
            AudioStop::KIND => return self.finish().map(Some),
            _ => {}
        }
        Ok(None)
    }
}

fn bad_input(message: &str) -> Error {
    Error::new(Kind::BadInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::transcript::Segment;

    /// Says how much it heard.
    struct Counter;

    impl Recognizer for Counter {
        fn info(&self) -> Info {
            Info::default()
        }

        fn recognize(&mut self, samples: &[f32], language: Option<&str>) -> Result<Transcript> {
            let text = format!("{} samples", samples.len());
            let (start, end, confidence) = (0.0, 1.0, 1.0);
            let segment =
                Segment { start, end, text, speaker: None, confidence, words: Vec::new() };
            let language = language.map(str::to_owned);
            Ok(Transcript { segments: vec![segment], language, ..Transcript::default() })
        }
    }

    fn ask(session: &mut Session<Counter>, chunks: &[Event]) -> Result<event::Transcript> {
        session.handle(Event::of(&AudioStart::default()), &mut |_| Ok(()))?;
        for chunk in chunks {
            assert!(session.handle(chunk.clone(), &mut |_| Ok(()))?.is_none());
        }
        let answer = session.handle(Event::of(&AudioStop::default()), &mut |_| Ok(()))?;
        answer.expect("an answer").body()
    }

    fn chunk(bytes: usize) -> Event {
        Event::of(&AudioChunk::default()).with_payload(vec![0x40; bytes])
    }

    #[test]
    fn a_request_leaves_nothing_behind() {
        let mut session = Session::new(Counter);
        let german = Transcribe { name: None, language: Some("de".into()) };
        session.handle(Event::of(&german), &mut |_| Ok(())).unwrap();
        let first = ask(&mut session, &[chunk(4), chunk(3)]).unwrap();
        assert_eq!((first.text.as_str(), first.language.as_deref()), ("3 samples", Some("de")));
        let second = ask(&mut session, &[]).unwrap();
        assert_eq!((second.text.as_str(), second.language), ("0 samples", None));
    }

    #[test]
    fn what_cannot_be_recognised_is_refused_at_its_end() {
        let mut session = Session::new(Counter);
        let minute = vec![chunk(32_000); 61];
        assert_eq!(ask(&mut session, &minute).unwrap_err().kind(), Kind::BadInput);
        let mut stereo = AudioChunk::default();
        stereo.format.channels = 2;
        let stereo = Event::of(&stereo).with_payload(vec![0; 64]);
        assert_eq!(ask(&mut session, &[stereo, chunk(8)]).unwrap_err().kind(), Kind::BadInput);
        assert_eq!(ask(&mut session, &[chunk(8)]).unwrap().text, "4 samples");
    }
}
