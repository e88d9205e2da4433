//! Windows of recorded speech into text.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::schedule::Schedule;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::base::{metrics, planned};
use crate::domain::conversation::{Conversation, SAMPLE_RATE, Span, Window, WindowState};
use crate::domain::job::{Job, JobKind, Lane, Lease, Payload};
use crate::domain::transcript::{Segment, Transcript, Word};
use crate::domain::version::Transcribed;
use crate::jobs::load::Load;
use crate::jobs::worker::Handler;
use crate::recording::Recordings;
use crate::store::Store;
use crate::stt::live::Place;
use crate::stt::{Speech, SpeechToText, Whole};

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

    /// The conversation of the window that `job` is about, and the window.
    async fn subject(&self, job: &Job) -> Result<(Conversation, Window)> {
        let Payload::Window(id) = &job.payload else { return Err(gone()) };
        let window = self.store.window(*id).await?.ok_or_else(gone)?;
        let conversation = self.store.conversation(&window.conversation_id).await?;
        Ok((conversation.ok_or_else(gone)?, window))
    }

    /// What the engine makes of `samples`, as `ask` has it.
    async fn timed<T>(&self, samples: u64, ask: impl Future<Output = Result<T>>) -> Result<T> {
        planned::before("asking the speech engine")?;
        let started = self.clock.monotonic();
        let answer = ask.await?;
        self.load.done(samples, self.clock.monotonic().saturating_sub(started));
        planned::after("asking the speech engine")?;
        Ok(answer)
    }

    /// The result of a window that `transcript` is of.
    fn result(&self, lease: Lease, window: &Window, transcript: Transcript) -> Transcribed {
        let engine = transcript.engine.unwrap_or_else(|| self.stt.name());
        let segments = on_timeline(transcript.segments, &window.spans);
        Transcribed { lease, window: window.id, segments, engine }
    }

    /// Keeps the results of windows that have so many samples.
    async fn keep(&self, results: &[Transcribed], samples: u64) -> Result<()> {
        planned::before("keeping a transcript")?;
        self.store.complete_windows(results, self.clock.now()).await?;
        metrics::AUDIO_TRANSCRIBED.add(&[], samples as f64 / f64::from(SAMPLE_RATE));
        planned::after("keeping a transcript")
    }

    /// Has one window transcribed.
    async fn one(&self, job: &Job) -> Result<()> {
        let (conversation, window) = self.subject(job).await?;
        let length = samples(&window);
        if let Some(kept) = kept(job.lease(), &window) {
            return self.keep(&[kept], length).await;
        }
        let samples = self.recordings.read(&conversation.audio_path, &window.spans).await?;
        let place = Some(place_of(&window));
        let speech = Speech { samples, lane: job.lane, language: None, place };
        let transcript = self.timed(length, self.stt.transcribe(speech)).await?;
        self.keep(&[self.result(job.lease(), &window, transcript)], length).await
    }

    /// Has windows of one transcript transcribed at once.
    async fn together(&self, jobs: &[Job]) -> Result<()> {
        let first = jobs.first().ok_or_else(gone)?;
        let (conversation, window) = self.subject(first).await?;
        let windows = self.store.version_windows(&conversation.id, window.version).await?;
        let leases: HashMap<_, _> =
            jobs.iter().map(|job| (job.payload.clone(), job.lease())).collect();
        let lease = |window: &Window| leases.get(&Payload::Window(window.id)).copied();
        let claimed = windows.iter().filter_map(|window| Some((lease(window)?, window)));
        let claimed: Vec<(Lease, &Window)> = claimed.collect();
        if claimed.len() < jobs.len() {
            return Err(gone());
        }
        let length = claimed.iter().map(|(_, window)| samples(window)).sum();
        let mut results: Vec<Transcribed> =
            claimed.iter().filter_map(|(lease, window)| kept(*lease, window)).collect();
        let waiting: Vec<_> =
            claimed.into_iter().filter(|(_, window)| window.state != WindowState::Done).collect();
        let whole = Whole {
            recordings: self.recordings.clone(),
            file: conversation.audio_path,
            windows: waiting.iter().map(|(_, window)| place_of(window)).collect(),
        };
        let engine = self.stt.whole();
        let engine =
            engine.ok_or_else(|| Error::new(Kind::Away, "who hears all at once is away"))?;
        let heard = self.timed(length, engine.transcribe_whole(&whole)).await;
        // What is refused together may be taken one by one.
        let heard = heard.map_err(|error| match error.kind() {
            Kind::BadInput => Error::new(Kind::Unavailable, error.message()).with_source(error),
            _ => error,
        })?;
        let heard = waiting.into_iter().zip(heard);
        results.extend(heard.map(|((lease, window), one)| self.result(lease, window, one)));
        self.keep(&results, length).await
    }

    /// How it ended. A recording that is missing is not lost while another node has it:
    /// its turn comes there.
    async fn unless_elsewhere(&self, job: &Job, done: Result<()>) -> Result<()> {
        let Err(error) = done else { return Ok(()) };
        if error.kind() != Kind::NotFound {
            return Err(error);
        }
        let Ok((conversation, _)) = self.subject(job).await else { return Err(error) };
        match self.store.recorded_elsewhere(&conversation.id).await? {
            Some(node) => {
                let message = format!("the recording is with the daemon {node} alone");
                Err(Error::new(Kind::Away, message).with_source(error))
            }
            None => Err(error),
        }
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
        match self.schedule.least_urgent() {
            // Nobody is there for whom it would be held.
            Lane::Backlog if self.stt.whole().is_none() => Lane::Held,
            least => least,
        }
    }

    fn takes_together(&self) -> bool {
        self.stt.whole().is_some()
    }

    async fn handle(&self, job: &Job) -> Result<()> {
        let done = self.one(job).await;
        self.unless_elsewhere(job, done).await
    }

    async fn handle_together(&self, jobs: &[Job]) -> Result<()> {
        let done = self.together(jobs).await;
        self.unless_elsewhere(jobs.first().ok_or_else(gone)?, done).await
    }
}

fn gone() -> Error {
    Error::new(Kind::NotFound, "the window to transcribe is gone")
}

fn samples(window: &Window) -> u64 {
    window.spans.iter().map(|span| span.len()).sum()
}

fn place_of(window: &Window) -> Place {
    Place { conversation: window.conversation_id.clone(), spans: window.spans.clone() }
}

/// The result of a window that has one: its lease was lost after that had been
/// kept.
fn kept(lease: Lease, window: &Window) -> Option<Transcribed> {
    let (segments, engine) = (window.segments.clone(), window.engine.clone().unwrap_or_default());
    let kept = Transcribed { lease, window: window.id, segments, engine };
    (window.state == WindowState::Done).then_some(kept)
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
