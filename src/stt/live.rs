//! Listening to conversations while they are recorded: the port. What is heard in
//! this way is there sooner; the recording stays what counts, and what nobody
//! heard live is transcribed from it.

use serde::Serialize;
use tokio::sync::{broadcast, watch};
use utoipa::ToSchema;

use crate::domain::conversation::Span;
use crate::domain::ids::ConversationId;

/// Where speech was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which conversation.
    pub conversation: ConversationId,
    /// The stretches of its recording that the samples are, one after the other.
    pub spans: Vec<Span>,
}

/// Words that somebody says just now.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Partial {
    /// What is understood so far of the phrase that begins at `start`.
    pub text: String,
    /// Seconds from the start of the recording.
    pub start: f64,
    /// The same, of its end.
    pub end: f64,
    /// Whether it stays so; what comes next is another phrase then.
    pub is_final: bool,
}

/// Hears conversations while they are recorded.
pub trait Listener: Send + Sync {
    /// Listens to the conversation that is recorded in the file of that name.
    fn listen(&self, conversation: &ConversationId, file: &str) -> Listening;

    /// What is heard of it from now on; none when nobody listens to it.
    fn subscribe(&self, conversation: &ConversationId) -> Option<broadcast::Receiver<Partial>>;
}

/// Held while a conversation is recorded, to tell how long it was in the end.
#[derive(Debug)]
pub struct Listening(watch::Sender<Option<u64>>);

impl Listening {
    /// And the other end, which sees the samples of the whole recording once it
    /// is closed, or that this end is gone.
    pub fn new() -> (Self, watch::Receiver<Option<u64>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    /// The recording is closed, with so many samples.
    pub fn closed(self, samples: u64) {
        self.0.send_replace(Some(samples));
    }
}
