//! What the original tells of a conversation in the shapes of the store.

use super::told::{Said, Told};
use crate::base::clock::Timestamp;
use crate::domain::conversation::{
    CloseReason, Conversation, NewWindow, Progress, SAMPLE_RATE, Span, WindowState,
};
use crate::domain::ids::{ClientId, ConversationId, UserId};
use crate::domain::past::{PastConversation, PastSet, PastTranscript, PastWindow};
use crate::domain::transcript::Segment;
use crate::domain::version::Crop;
use crate::recording::{Brought, Format, Recordings};

/// The longest window: what is transcribed at once.
const WINDOW: u64 = 30 * SAMPLE_RATE as u64;

/// What is known of a conversation besides what the original tells.
pub(super) struct Found<'a> {
    pub(super) owner: &'a UserId,
    /// Its audio, if that is there.
    pub(super) sound: Option<&'a Brought>,
    /// Samples of its cropped audio, if that is there.
    pub(super) cropped: Option<u64>,
    pub(super) now: Timestamp,
}

/// When it began and on which device, or what is missing to say so.
pub(super) fn origin(told: &Told) -> Result<(Timestamp, ClientId), String> {
    let client = told.client_id.clone().ok_or("it has no client_id")?;
    let started_at = told.started_at.ok_or("it does not say when it was")?;
    Ok((started_at, ClientId::from_text(client)))
}

/// The name that its recording has here. (The one that it has there is the same
/// where its id is that of its audio.)
pub(super) fn audio_name(told: &Told) -> Result<String, String> {
    let (started_at, client) = origin(told)?;
    let id = ConversationId::from_text(&told.id);
    Ok(Recordings::file_name(started_at, &client, &id, Format::Wav))
}

/// The conversation as the store takes it.
pub(super) fn conversation(told: &Told, found: &Found<'_>) -> Result<PastConversation, String> {
    let (started_at, client_id) = origin(told)?;
    let samples = found.sound.map_or_else(|| length(told), |sound| sound.samples);
    let spans = spans(found.sound, samples);
    let transcription = transcription(told, found.sound.is_some());
    let mut transcripts: Vec<PastTranscript> = told
        .transcripts
        .iter()
        .map(|said| transcript(said, &spans, transcription, started_at))
        .collect();
    if transcripts.is_empty() {
        // Where nobody can be heard there is nothing to transcribe.
        let silent = found.sound.is_some_and(|sound| sound.windows.is_empty());
        let spans = if silent { &[] } else { spans.as_slice() };
        transcripts.push(untold(spans, transcription, started_at));
    }
    let (memory, memories) = memory(told, transcription, started_at);
    let id = ConversationId::from_text(&told.id);
    let mut new = Conversation::begin(
        id.clone(),
        found.owner.clone(),
        client_id,
        audio_name(told)?,
        started_at,
    );
    let millis = samples.saturating_mul(1000) / u64::from(SAMPLE_RATE);
    new.ended_at = Some(started_at.moved(i64::try_from(millis).unwrap_or(i64::MAX)));
    new.close_reason = Some(CloseReason::Imported);
    new.samples = samples;
    (new.transcription, new.memory) = (transcription, memory);
    if transcription == Progress::Failed {
        let why = "its recording is not there to be transcribed";
        new.error = Some(told.error.clone().unwrap_or_else(|| why.to_owned()));
    }
    new.title.clone_from(&told.title);
    if found.sound.is_none() {
        new.audio_deleted_at = Some(found.now);
    }
    let crop = found.cropped.filter(|_| found.sound.is_some()).map(|cropped| Crop {
        audio_path: Some(Recordings::cropped_name(&id)),
        spans: crop_spans(&told.speech, cropped, samples),
        at: told.cropped_at.unwrap_or(started_at),
    });
    Ok(PastConversation {
        conversation: new,
        transcripts,
        memories,
        speakers: told.speakers.clone(),
        summary: told.summary.clone(),
        crop,
    })
}

/// Where its transcription stands here. What there is no text of is left to be
/// transcribed, if that can be.
fn transcription(told: &Told, has_audio: bool) -> Progress {
    if told.segments().iter().any(|segment| !segment.text.is_empty()) {
        return Progress::Completed;
    }
    match told.transcription {
        Some(Progress::Completed | Progress::Empty | Progress::Skipped) => Progress::Empty,
        _ if told.transcripts.iter().any(|said| said.active) => Progress::Empty,
        _ if has_audio => Progress::Pending,
        _ => Progress::Failed,
    }
}

/// Where its memories stand here, and the set of them. What was left to do there is
/// left to do here.
fn memory(
    told: &Told,
    transcription: Progress,
    started_at: Timestamp,
) -> (Progress, Option<PastSet>) {
    let remembered = &told.memories;
    let state = match (transcription, remembered.status) {
        (Progress::Pending, _) => return (Progress::Pending, None),
        _ if remembered.any => Progress::Completed,
        (Progress::Completed, Some(Progress::Pending | Progress::Failed)) => Progress::Pending,
        (Progress::Completed, Some(Progress::Completed | Progress::Empty)) => Progress::Empty,
        _ => return (Progress::Skipped, None),
    };
    let model = remembered.model.clone();
    let created_at = remembered.created_at.unwrap_or(started_at);
    (state, Some(PastSet { state, model, created_at }))
}

/// How long it is by its transcript, in samples.
fn length(told: &Told) -> u64 {
    let said = told.transcripts.iter().flat_map(|said| &said.segments);
    let ends = said.map(|segment| segment.end).chain(told.speech.iter().map(|(_, end)| *end));
    let end = (ends.fold(0.0, f64::max) * f64::from(SAMPLE_RATE)).ceil() as u64;
    // Words without times have some place, too.
    let any = told.transcripts.iter().any(|said| !said.segments.is_empty());
    end.max(u64::from(any))
}

/// Its speech in pieces; all of it where nobody can be heard.
fn spans(sound: Option<&Brought>, samples: u64) -> Vec<Vec<Span>> {
    let heard = sound.map(|sound| sound.windows.as_slice()).unwrap_or_default();
    if !heard.is_empty() {
        return heard.iter().map(|NewWindow { spans, .. }| spans.clone()).collect();
    }
    let starts = (0..samples).step_by(usize::try_from(WINDOW).unwrap_or(usize::MAX));
    starts.map(|start| vec![Span { start, end: samples.min(start + WINDOW) }]).collect()
}

fn transcript(
    said: &Said,
    spans: &[Vec<Span>],
    active: Progress,
    started_at: Timestamp,
) -> PastTranscript {
    let state = match said.active {
        true => active,
        false if said.segments.is_empty() => Progress::Empty,
        false => Progress::Completed,
    };
    let mut windows: Vec<PastWindow> = spans
        .iter()
        .map(|spans| PastWindow {
            spans: spans.clone(),
            state: WindowState::Done,
            segments: Vec::new(),
        })
        .collect();
    let mut at = 0;
    for segment in &said.segments {
        at = place(segment, spans, at);
        if let Some(window) = windows.get_mut(at) {
            window.segments.push(segment.clone());
        }
    }
    PastTranscript {
        active: said.active,
        state,
        engine: said.engine.clone(),
        created_at: said.created_at.unwrap_or(started_at),
        windows,
    }
}

/// The window that a segment begins in, not before the one at `least`: segments stay
/// in their order.
fn place(segment: &Segment, spans: &[Vec<Span>], least: usize) -> usize {
    let start = (segment.start * f64::from(SAMPLE_RATE)) as u64;
    let begun = |spans: &Vec<Span>| spans.first().is_some_and(|span| span.start <= start);
    spans.iter().rposition(begun).unwrap_or(0).max(least)
}

/// The transcript of a conversation that has none.
fn untold(spans: &[Vec<Span>], state: Progress, started_at: Timestamp) -> PastTranscript {
    let of_window = match state {
        Progress::Pending => WindowState::Waiting,
        Progress::Failed => WindowState::Failed,
        _ => WindowState::Done,
    };
    let window = |spans: &Vec<Span>| PastWindow {
        spans: spans.clone(),
        state: of_window,
        segments: Vec::new(),
    };
    PastTranscript {
        active: true,
        state,
        engine: None,
        created_at: started_at,
        windows: spans.iter().map(window).collect(),
    }
}

/// The stretches of a recording that its cropped one holds, in order.
fn crop_spans(speech: &[(f64, f64)], cropped: u64, samples: u64) -> Vec<Span> {
    let at = |seconds: f64| ((seconds.max(0.0) * f64::from(SAMPLE_RATE)) as u64).min(samples);
    let mut spans: Vec<Span> = speech
        .iter()
        .map(|(start, end)| Span { start: at(*start), end: at(*end) })
        .filter(|span| !span.is_empty())
        .collect();
    spans.sort_by_key(|span| span.start);
    if spans.is_empty() && cropped > 0 {
        spans.push(Span { start: 0, end: cropped.min(samples) });
    }
    spans
}
