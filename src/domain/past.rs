//! What another database holds, on its way into the store.

use super::conversation::{Conversation, Progress, Span, WindowState, named};
use super::ids::{ConversationId, MemoryId, UserId};
use super::transcript::Segment;
use super::version::Crop;
use crate::base::clock::Timestamp;

named!(
    /// What is noted as having come from another database.
    Imported {
        /// A user.
        User = "user",
        /// A conversation with its transcripts.
        Conversation = "conversation",
        /// The recording of a conversation.
        Audio = "audio",
        /// A memory.
        Memory = "memory",
        /// A talk with the assistant.
        Chat = "chat",
        /// A message of one.
        Message = "message",
    }
);

/// A conversation that ended elsewhere, with what was made of it there.
#[derive(Clone, Debug, PartialEq)]
pub struct PastConversation {
    /// Closed; it says where its active transcript and set of memories stand.
    pub conversation: Conversation,
    /// Oldest first, at least one; exactly one is active.
    pub transcripts: Vec<PastTranscript>,
    /// The set of memories that is active or is still to be made.
    pub memories: Option<PastSet>,
    /// Who is known to speak in it.
    pub speakers: Vec<String>,
    /// What it is about.
    pub summary: Option<String>,
    /// Its speech alone.
    pub crop: Option<Crop>,
}

impl PastConversation {
    /// The number of the active transcript, from 1.
    pub fn active_transcript(&self) -> u32 {
        let mut numbered = (1_u32..).zip(&self.transcripts);
        numbered.find(|(_, transcript)| transcript.active).map_or(1, |(number, _)| number)
    }
}

/// A transcript of such a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct PastTranscript {
    /// Whether it is the one that is shown.
    pub active: bool,
    /// Where it stands.
    pub state: Progress,
    /// Which engine and model made it.
    pub engine: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// In order.
    pub windows: Vec<PastWindow>,
}

/// A piece of such a transcript.
#[derive(Clone, Debug, PartialEq)]
pub struct PastWindow {
    /// Speech, in samples from the start of the conversation.
    pub spans: Vec<Span>,
    /// Where it stands.
    pub state: WindowState,
    /// What was said.
    pub segments: Vec<Segment>,
}

/// A set of memories of such a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastSet {
    /// Where it stands; only what is complete or empty is active.
    pub state: Progress,
    /// Which engine and model made it.
    pub model: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl PastSet {
    /// Whether its memories are shown.
    pub fn is_active(&self) -> bool {
        matches!(self.state, Progress::Completed | Progress::Empty)
    }
}

/// A message of a talk, with the id that it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastMessage {
    /// Identifier there.
    pub id: String,
    /// Who says it.
    pub role: super::chat::ChatRole,
    /// What is said.
    pub content: String,
    /// The memories it was made with.
    pub memories: Vec<MemoryId>,
    /// When.
    pub at: Timestamp,
}

/// A memory as others keep it, without a vector: that is of a model of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastMemory {
    /// Identifier.
    pub id: MemoryId,
    /// Whose it is, in their words.
    pub user: String,
    /// The fact.
    pub text: String,
    /// The conversation that it came from, where they say so.
    pub conversation_id: Option<ConversationId>,
    /// When it was first known, where they say so.
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
}

/// Something that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its id.
    pub id: String,
    /// Why.
    pub why: String,
}

/// A user who has come: who that is here, and whether they are new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Their id here.
    pub id: UserId,
    /// Not there before.
    pub new: bool,
}

/// Seconds or milliseconds since the Unix epoch: nobody kept a conversation in
/// 1973, which is what milliseconds would be as seconds.
pub fn time_of_number(number: f64) -> Timestamp {
    let millis = if number.abs() < 1e11 { number * 1000.0 } else { number };
    Timestamp::from_millis(millis.round() as i64)
}

/// The time in a text: a number as of [`time_of_number`], or a date and time as in
/// ISO 8601, which is UTC where it does not say.
pub fn time_of_text(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then(|| time_of_number(number));
    }
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let local: jiff::civil::DateTime = text.parse().ok()?;
        jiff::tz::Offset::UTC.to_timestamp(local).ok()
    })?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_however_they_are_written() {
        let read = |text: &str| time_of_text(text).map(Timestamp::millis);
        let at = Some(1_753_190_000_250);
        assert_eq!(read("2025-07-22T06:13:20.250000-07:00"), at);
        assert_eq!(read("2025-07-22T13:13:20.250Z"), at);
        assert_eq!(read("2025-07-22T13:13:20.250000"), at);
        assert_eq!(read(" 2025-07-22 13:13:20.250 "), at);
        assert_eq!(read("1753190000.25"), at);
        assert_eq!(read("1753190000250"), at);
        assert_eq!(read("1753190000"), Some(1_753_190_000_000));
        for none in ["", "yesterday", "NaN", "inf"] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
