//! One window of recorded speech into text.

use std::sync::Arc;

use async_trait::async_trait;

use super::schedule::Schedule;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::{metrics, planned};
use crate::domain::conversation::{SAMPLE_RATE, Span, WindowState};
use crate::domain::job::{Job, JobKind, Lane, Payload};
use crate::domain::transcript::{Segment, Word};
use crate::jobs::load::Load;
use crate::jobs::worker::Handler;
use crate::recording::Recordings;
use crate::store::Store;
use crate::stt::live::Place;
use crate::stt::{Speech, SpeechToText};

/// Does [`JobKind::Transcribe`].
pub struct Transcribe {
    store: Arc<dyn Store>,
    recordings: Recordings,
    stt: Arc<dyn SpeechToText>,
    schedule: Schedule,
    load: Load,
    clock: Clock,
}

impl Transcribe {
    /// With the recordings to read and the engine to ask, when that may be;
    /// `load` is told how long it took.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        stt: Arc<dyn SpeechToText>,
        schedule: Schedule,
        load: Load,
        clock: Clock,
    ) -> Self {
        Self { store, recordings, stt, schedule, load, clock }
    }
}

#[async_trait]
impl Handler for Transcribe {
    fn kinds(&self) -> &'static [JobKind] {
        &[JobKind::Transcribe]
    }

    fn is_ready(&self) -> bool {
        self.stt.is_ready()
    }

    fn least_urgent(&self) -> Lane {
        self.schedule.least_urgent()
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let gone = || Error::new(Kind::NotFound, "the window to transcribe is gone");
        let Payload::Window(id) = &job.payload else { return Err(gone()) };
        let window = self.store.window(*id).await?.ok_or_else(gone)?;
        let conversation =
            self.store.conversation(&window.conversation_id).await?.ok_or_else(gone)?;
        let (segments, engine) = if window.state == WindowState::Done {
            // A lease that was lost after its result had been kept.
            (window.segments, window.engine.unwrap_or_default())
        } else {
            let samples = self.recordings.read(&conversation.audio_path, &window.spans).await?;
            let length = samples.len() as u64;
            let (conversation, spans) = (conversation.id, window.spans.clone());
            let place = Some(Place { conversation, spans });
            let speech = Speech { samples, lane: job.lane, language: None, place };
            planned::before("asking the speech engine")?;
            let started = self.clock.monotonic();
            let transcript = self.stt.transcribe(speech).await?;
            self.load.done(length, self.clock.monotonic().saturating_sub(started));
            planned::after("asking the speech engine")?;
            let engine = transcript.engine.unwrap_or_else(|| self.stt.name());
            (on_timeline(transcript.segments, &window.spans), engine)
        };
        planned::before("keeping a transcript")?;
        let now = self.clock.now();
        self.store.complete_window(job.lease(), *id, &segments, &engine, now).await?;
        let samples: u64 = window.spans.iter().map(|span| span.len()).sum();
        metrics::AUDIO_TRANSCRIBED.add(&[], samples as f64 / f64::from(SAMPLE_RATE));
        planned::after("keeping a transcript")
    }
}

/// Moves times from the joined audio of `spans` to the recording they were
/// taken from.
pub fn on_timeline(mut segments: Vec<Segment>, spans: &[Span]) -> Vec<Segment> {
    for segment in &mut segments {
        (segment.start, segment.end) = place(segment.start, segment.end, spans);
        for Word { start, end, .. } in &mut segment.words {
            (*start, *end) = place(*start, *end, spans);
        }
    }
    segments
}

/// A stretch of joined time in recorded time. The start belongs to the span it
/// falls in, the end to the span it closes.
fn place(start: f64, end: f64, spans: &[Span]) -> (f64, f64) {
    let start = recorded_time(start, spans, |at, length| at < length);
    (start, recorded_time(end, spans, |at, length| at <= length).max(start))
}

fn recorded_time(joined: f64, spans: &[Span], inside: impl Fn(f64, f64) -> bool) -> f64 {
    let rate = f64::from(SAMPLE_RATE);
    let mut rest = joined.max(0.0);
    for span in spans {
        let length = span.len() as f64 / rate;
        if inside(rest, length) {
            return span.start as f64 / rate + rest;
        }
        rest -= length;
    }
    spans.last().map_or(joined, |span| span.end as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPANS: [Span; 2] =
        [Span { start: 16_000, end: 48_000 }, Span { start: 160_000, end: 176_000 }];

    #[test]
    fn times_land_in_the_span_they_came_from() {
        assert_eq!(place(0.0, 1.5, &SPANS), (1.0, 2.5));
        // The end of the first span and the start of the second are one point.
        assert_eq!(place(1.0, 2.0, &SPANS), (2.0, 3.0));
        assert_eq!(place(2.0, 2.5, &SPANS), (10.0, 10.5));
        assert_eq!(place(1.5, 2.5, &SPANS), (2.5, 10.5));
    }

    #[test]
    fn times_past_the_end_stay_inside_the_recording() {
        assert_eq!(place(9.0, 30.0, &SPANS), (11.0, 11.0));
    }
}
