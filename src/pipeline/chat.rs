//! Talks about one's own memories: each question is answered by the language
//! model from the memories that fit it and the talk so far.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::learn::Learner;
use super::prompts;
use super::recall::Recall;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::domain::chat::{Chat, ChatMessage, ChatRole};
use crate::domain::ids::{ChatId, MemoryId, UserId};
use crate::domain::job::Lane;
use crate::domain::memory::ScoredMemory;
use crate::llm::{LanguageModel, Told};
use crate::store::Store;

/// Memories shown to the model for one question.
const MEMORIES: usize = 5;
/// Below this (cosine) a memory has nothing to do with a question.
const RELATED: f32 = 0.2;
/// Messages of a talk that are looked back on.
const LOOK_BACK: usize = 6;
/// Messages of a talk that are looked at for facts.
const LEARNED_FROM: usize = 200;

/// Answers questions. Cheap to clone.
#[derive(Clone)]
pub struct Assistant {
    store: Arc<dyn Store>,
    recall: Recall,
    learner: Learner,
    llm: Arc<dyn LanguageModel>,
    clock: Clock,
    /// Users who wait for an answer: one at a time each, so that nobody keeps
    /// the model from others, and from speech.
    answering: Arc<Mutex<HashSet<UserId>>>,
}

/// The right of a user to be answered; given back when dropped.
pub struct Turn {
    assistant: Assistant,
    user: UserId,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the message.
    pub message: i64,
    /// What it says.
    pub text: String,
}

impl Assistant {
    /// With the model to ask and the memories to show it.
    pub fn new(
        store: Arc<dyn Store>,
        recall: Recall,
        learner: Learner,
        llm: Arc<dyn LanguageModel>,
        clock: Clock,
    ) -> Self {
        Self { store, recall, learner, llm, clock, answering: Arc::default() }
    }

    /// A new talk of `user`.
    ///
    /// # Errors
    /// What the store returns.
    pub async fn begin(&self, user: &UserId, title: &str) -> Result<Chat> {
        let now = self.clock.now();
        let chat = Chat {
            id: ChatId::generate(),
            user_id: user.clone(),
            title: title.to_owned(),
            created_at: now,
            updated_at: now,
            messages: 0,
        };
        self.store.add_chat(&chat).await?;
        Ok(chat)
    }

    /// Lets `user` ask.
    ///
    /// # Errors
    /// `Busy` while the same user waits for another answer.
    pub fn turn(&self, user: &UserId) -> Result<Turn> {
        if !self.waiting().insert(user.clone()) {
            let message = "an answer to your last message is on its way; wait for it";
            return Err(Error::new(Kind::Busy, message));
        }
        Ok(Turn { assistant: self.clone(), user: user.clone() })
    }

    /// Remembers what the user said in a talk. Returns the memories that are new
    /// or say more now.
    ///
    /// # Errors
    /// What the models and the store return.
    pub async fn learn(&self, chat: &Chat) -> Result<Vec<MemoryId>> {
        self.ready()?;
        let messages = self.store.chat_messages(&chat.id, LEARNED_FROM).await?;
        let said = messages.into_iter().filter(|message| message.role == ChatRole::User);
        let lines: Vec<String> = said.map(|message| message.content).collect();
        let learned = self.learner.learn(&chat.user_id, None, &lines, Lane::Interactive).await?;
        self.store.add_memories(&chat.user_id, &learned, self.clock.now()).await
    }

    /// Whether there is a language model to ask.
    pub fn is_ready(&self) -> bool {
        self.llm.is_ready()
    }

    fn ready(&self) -> Result<()> {
        if self.llm.is_ready() {
            return Ok(());
        }
        let message = "no language model can be asked now: it is not on this machine yet \
                       (`friend-lite models fetch` gets it), or its service is away";
        Err(Error::new(Kind::Unavailable, message))
    }

    fn waiting(&self) -> MutexGuard<'_, HashSet<UserId>> {
        self.answering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Notes the question, and finds the memories that fit it.
    ///
    /// # Errors
    /// What the store and the index return.
    pub async fn ask(&self, chat: &ChatId, question: &str) -> Result<Vec<ScoredMemory>> {
        let Assistant { store, recall, clock, .. } = &self.assistant;
        store.add_chat_message(chat, ChatRole::User, question, &[], clock.now()).await?;
        let mut found = recall.search(&self.user, question, MEMORIES, 0.0).await?;
        // With no score at all they were found by their words alone.
        if found.iter().any(|found| found.score > 0.0) {
            found.retain(|found| found.score >= RELATED);
        }
        Ok(found)
    }

    /// Answers the last message of a talk from `memories`, and notes the answer;
    /// `told` hears it piece by piece as it is written.
    ///
    /// # Errors
    /// `Unavailable` without a language model; what that and the store return.
    pub async fn answer(
        &self,
        chat: &ChatId,
        memories: &[ScoredMemory],
        told: &mut Told<'_>,
    ) -> Result<Answer> {
        let Assistant { store, llm, clock, .. } = &self.assistant;
        self.assistant.ready()?;
        let messages = store.chat_messages(chat, LOOK_BACK).await?;
        let said: Vec<(ChatRole, &str)> = messages.iter().map(said).collect();
        let facts: Vec<&str> = memories.iter().map(|found| found.memory.text.as_str()).collect();
        let mut begun = false;
        let mut pieces = |piece: &str| {
            let piece = if begun { piece } else { piece.trim_start() };
            begun |= !piece.is_empty();
            if !piece.is_empty() {
                told(piece);
            }
        };
        let prompt = prompts::chat(&facts, &said, Lane::Interactive);
        let text = llm.write(prompt, &mut pieces).await?.trim().to_owned();
        if text.is_empty() {
            return Err(Error::new(Kind::Unavailable, "the language model had no answer"));
        }
        let used: Vec<MemoryId> = memories.iter().map(|found| found.memory.id.clone()).collect();
        let role = ChatRole::Assistant;
        let message = store.add_chat_message(chat, role, &text, &used, clock.now()).await?;
        Ok(Answer { message, text })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.assistant.waiting().remove(&self.user);
    }
}

fn said(message: &ChatMessage) -> (ChatRole, &str) {
    (message.role, &message.content)
}

/// What a talk is called after its first message.
pub fn title(message: &str) -> String {
    const LONGEST: usize = 50;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST {
        return line;
    }
    let cut: String = line.chars().take(LONGEST).collect();
    format!("{}…", cut.trim_end())
}
