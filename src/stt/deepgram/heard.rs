//! What Deepgram has heard so far of conversations that are being recorded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use super::{HeardWord, segments};
use crate::domain::conversation::{Span, seconds};
use crate::domain::ids::ConversationId;
use crate::domain::transcript::Transcript;
use crate::stt::live::{Partial, Place};

/// Time that what was just said has to be understood, before the recording of it
/// is sent instead.
const PATIENCE: Duration = Duration::from_secs(10);
/// Words this near to a stretch of speech, in seconds, are of it.
const MARGIN: f64 = 0.5;
/// Partial results that a slow listener may be behind.
const PARTIALS: usize = 64;

/// All that is heard. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<HashMap<ConversationId, Arc<Conversation>>>>);

/// One conversation. Times are seconds from the start of its recording.
#[derive(Debug)]
pub(super) struct Conversation {
    words: Mutex<Vec<Word>>,
    progress: watch::Sender<Progress>,
    /// None when nothing more will be heard.
    partials: Mutex<Option<broadcast::Sender<Partial>>>,
}

#[derive(Debug)]
struct Word {
    word: HeardWord,
    /// The start of the stretch of speech that it was given to.
    taken: Option<u64>,
}

/// The stretch that is heard without a gap up to now.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    from: f64,
    through: f64,
    /// Nothing more will be heard.
    ended: bool,
}

impl Heard {
    pub(super) fn begin(&self, id: &ConversationId) -> Arc<Conversation> {
        let conversation = Arc::new(Conversation {
            words: Mutex::default(),
            progress: watch::Sender::default(),
            partials: Mutex::new(Some(broadcast::Sender::new(PARTIALS))),
        });
        self.all().insert(id.clone(), conversation.clone());
        conversation
    }

    pub(super) fn forget(&self, id: &ConversationId) {
        self.all().remove(id);
    }

    pub(super) fn subscribe(&self, id: &ConversationId) -> Option<broadcast::Receiver<Partial>> {
        let conversation = self.all().get(id).cloned()?;
        conversation.partials().as_ref().map(broadcast::Sender::subscribe)
    }

    /// The transcript of what was recorded at `place`, with times in its joined
    /// audio; none when not all of it was heard.
    pub(super) async fn transcript(&self, place: &Place) -> Option<Transcript> {
        let conversation = self.all().get(&place.conversation).cloned()?;
        let (start, end) = (place.spans.first()?.start, place.spans.last()?.end);
        let (start, end) = (seconds(start), seconds(end));
        let mut progress = conversation.progress.subscribe();
        let settled = progress.wait_for(|p| p.ended || start < p.from || p.through >= end);
        let heard = *timeout(PATIENCE, settled).await.ok()?.ok()?;
        (start >= heard.from && heard.through >= end).then(|| Transcript {
            segments: segments(conversation.take(&place.spans)),
            ..Transcript::default()
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ConversationId, Arc<Conversation>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conversation {
    /// Hearing begins at `from`; what is before it and was not heard never will be.
    pub(super) fn begin_at(&self, from: f64) {
        self.progress.send_modify(|progress| {
            if progress.through < from {
                (progress.from, progress.through) = (from, from);
            }
        });
    }

    /// Everything up to `through` is heard, and `words` are the last of it.
    pub(super) fn hear(&self, words: Vec<HeardWord>, through: f64) {
        self.words().extend(words.into_iter().map(|word| Word { word, taken: None }));
        self.progress.send_modify(|progress| progress.through = progress.through.max(through));
    }

    /// Tells whoever listens. That nobody does is no matter.
    pub(super) fn tell(&self, partial: Partial) {
        if let Some(partials) = &*self.partials() {
            let _ = partials.send(partial);
        }
    }

    pub(super) fn end(&self) {
        self.partials().take();
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// The words of `spans`, with times in their joined audio. A word is given to
    /// one stretch of speech, and to that again when it is asked for again.
    fn take(&self, spans: &[Span]) -> Vec<HeardWord> {
        let Some(owner) = spans.first().map(|span| span.start) else { return Vec::new() };
        let mut taken = Vec::new();
        for Word { word, taken: by } in self.words().iter_mut() {
            if by.is_some_and(|by| by != owner) {
                continue;
            }
            let middle = f64::midpoint(word.start, word.end);
            if let Some((span, joined)) = nearest(spans, middle) {
                *by = Some(owner);
                let place = |time: f64| {
                    joined + (time - seconds(span.start)).clamp(0.0, seconds(span.len()))
                };
                let (start, end) = (place(word.start), place(word.end));
                taken.push(HeardWord { start, end, ..word.clone() });
            }
        }
        taken
    }

    fn partials(&self) -> MutexGuard<'_, Option<broadcast::Sender<Partial>>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn words(&self) -> MutexGuard<'_, Vec<Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The span that a moment is in or near to, and where it begins in the joined
/// audio of all.
fn nearest(spans: &[Span], moment: f64) -> Option<(Span, f64)> {
    let distance =
        |span: Span| (seconds(span.start) - moment).max(moment - seconds(span.end)).max(0.0);
    let mut joined = 0.0;
    let begun = spans.iter().map(|&span| {
        let start = joined;
        joined += seconds(span.len());
        (span, start)
    });
    begun
        .min_by(|(one, _), (other, _)| distance(*one).total_cmp(&distance(*other)))
        .filter(|(span, _)| distance(*span) <= MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::conversation::SAMPLE_RATE;

    fn word(text: &str, start: f64) -> HeardWord {
        HeardWord {
            word: text.into(),
            punctuated_word: None,
            start,
            end: start + 0.4,
            confidence: 0.9,
            speaker: Some(0),
        }
    }

    fn place(id: &ConversationId, spans: &[(u64, u64)]) -> Place {
        let second = u64::from(SAMPLE_RATE);
        let span = |&(start, end): &(u64, u64)| Span { start: start * second, end: end * second };
        Place { conversation: id.clone(), spans: spans.iter().map(span).collect() }
    }

    async fn text(heard: &Heard, place: &Place) -> Option<String> {
        heard.transcript(place).await.map(|transcript| transcript.text())
    }

    #[tokio::test(start_paused = true)]
    async fn each_word_is_of_one_window_and_of_that_again() {
        let (heard, id) = (Heard::default(), ConversationId::generate());
        let one = heard.begin(&id);
        let said = [("a", 0.9), ("b", 2.0), ("c", 4.2), ("d", 4.8), ("lost", 8.0), ("e", 11.0)];
        one.hear(said.map(|(text, at)| word(text, at)).into(), 12.0);
        let (first, second) = (place(&id, &[(1, 3), (4, 5)]), place(&id, &[(5, 6), (10, 12)]));
        assert_eq!(text(&heard, &first).await.as_deref(), Some("a b c d"));
        assert_eq!(text(&heard, &second).await.as_deref(), Some("e"));
        assert_eq!(text(&heard, &first).await.as_deref(), Some("a b c d"));
        // In joined audio: 2 s of the first span are before the second.
        let segments = heard.transcript(&first).await.unwrap().segments;
        let times: Vec<_> = segments.iter().flat_map(|s| &s.words).map(|w| w.start).collect();
        let expected = [0.0, 1.0, 2.2, 2.8];
        assert!(times.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_heard_is_not_made_up() {
        let (heard, id) = (Heard::default(), ConversationId::generate());
        assert_eq!(text(&heard, &place(&id, &[(0, 1)])).await, None);
        let one = heard.begin(&id);
        one.hear(vec![word("early", 1.0)], 3.0);
        // Not yet, and not within the time there is for it.
        assert_eq!(text(&heard, &place(&id, &[(2, 4)])).await, None);
        let late = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            one.hear(vec![word("late", 3.2)], 4.5);
        };
        let asked = place(&id, &[(2, 4)]);
        assert_eq!(tokio::join!(text(&heard, &asked), late).0.as_deref(), Some("late"));
        // A gap: nobody will hear what is in it.
        one.begin_at(20.0);
        one.hear(vec![word("after", 21.0)], 25.0);
        let at_once = tokio::time::Instant::now();
        assert_eq!(text(&heard, &place(&id, &[(10, 22)])).await, None);
        assert_eq!(text(&heard, &place(&id, &[(20, 22)])).await.as_deref(), Some("after"));
        one.end();
        assert_eq!(text(&heard, &place(&id, &[(24, 26)])).await, None);
        assert_eq!(at_once.elapsed(), Duration::ZERO);
        assert!(heard.subscribe(&id).is_none());
        heard.forget(&id);
        assert_eq!(text(&heard, &place(&id, &[(20, 22)])).await, None);
    }
}
