//! What the original Friend-Lite has, taken over: its users with their passwords,
//! its conversations of both shapes with their audio, its talks, its memories.
//!
//! ```text
//! documents, points, files ─► read (told, people, chats) ─► store, recordings
//! ```
//!
//! The source is read and never written. What has come is noted in the store, so
//! that a run which was cut off goes on, and another one adds nothing. What cannot
//! be read is left where it is and named with the reason.

mod audio;
mod chats;
mod fields;
mod memories;
mod past;
mod people;
mod tally;
mod told;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{BoxStream, TryStreamExt};
use mongodb::bson::Document;

use self::chats::Talk;
use self::fields::Fields;
use self::people::{Owner, People, Person};
pub use self::tally::{Fate, Problem, Row, Tally};
use self::told::Told;
use crate::base::clock::Clock;
use crate::base::error::{Kind, Result};
use crate::config;
use crate::domain::ids::{ChatId, ClientId, ConversationId, UserId};
use crate::domain::past::{Imported, PastMemory, PastMessage, Unreadable};
use crate::embed::Embedder;
use crate::recording::Recordings;
use crate::store::Store;

/// The documents of a collection, as they come.
pub type Documents =
    Arc<dyn Fn(&'static str) -> BoxStream<'static, Result<Document>> + Send + Sync>;
/// Memories, as they come, and what is in their place and is none.
pub type Memories = BoxStream<'static, Result<Result<PastMemory, Unreadable>>>;
/// Hears what is being taken over, and how many of it are done.
pub type Progress<'a> = &'a (dyn Fn(&'static str, u64) + Sync);

/// Where the original keeps what it has.
pub struct Original {
    /// Its MongoDB database.
    pub documents: Documents,
    /// Its collection of memories, and who makes vectors of them; none to leave them.
    pub memories: Option<(Memories, Arc<dyn Embedder>)>,
    /// The directory of its audio; none to leave that.
    pub audio: Option<PathBuf>,
}

/// Takes over what an original has.
pub struct Takeover {
    store: Arc<dyn Store>,
    recordings: Recordings,
    transcribe: config::Transcribe,
    clock: Clock,
    /// Counts, and changes nothing.
    dry: bool,
    /// Takes for there what has come.
    trusting: bool,
}

/// What one run knows and has counted.
struct Run<'a> {
    people: People,
    /// What had come before, by its id there.
    conversations: HashMap<String, String>,
    recordings: HashMap<String, String>,
    chats: HashMap<String, String>,
    messages: HashMap<String, String>,
    audio: Option<PathBuf>,
    tally: Tally,
    progress: Progress<'a>,
}

impl Takeover {
    /// Into `store` and `recordings`; speech is cut as `transcribe` says.
    pub fn new(
        store: Arc<dyn Store>,
        recordings: Recordings,
        transcribe: config::Transcribe,
        clock: Clock,
    ) -> Self {
        Self { store, recordings, transcribe, clock, dry: false, trusting: false }
    }

    /// The same, which counts and changes nothing.
    #[must_use]
    pub fn dry(self, dry: bool) -> Self {
        Self { dry, ..self }
    }

    /// The same, which does not look again at conversations and talks that have come:
    /// quick where there are many.
    #[must_use]
    pub fn trusting(self) -> Self {
        Self { trusting: true, ..self }
    }

    /// Takes over all of `original`; what became of it.
    ///
    /// # Errors
    /// Those of the source, of the store and of the disk: what has come by then is
    /// kept, and the next run goes on from there. `Conflict` when the memories here
    /// are of another embedding model.
    pub async fn run(&self, original: Original, progress: Progress<'_>) -> Result<Tally> {
        let mut run = Run {
            people: People::default(),
            conversations: self.store.imported(Imported::Conversation).await?,
            recordings: self.store.imported(Imported::Audio).await?,
            chats: self.store.imported(Imported::Chat).await?,
            messages: self.store.imported(Imported::Message).await?,
            audio: original.audio,
            tally: Tally::default(),
            progress,
        };
        self.users(&original.documents, &mut run).await?;
        self.conversations(&original.documents, &mut run).await?;
        if !self.dry {
            // What waits here has no jobs yet.
            self.store.requeue_lost(self.clock.now()).await?;
        }
        if let Some((memories, embedder)) = original.memories {
            self.memories(memories, embedder.as_ref(), &mut run).await?;
        }
        self.chats(&original.documents, &mut run).await?;
        let tally = run.tally;
        if !self.dry && tally.news() > 0 {
            let what = format!(
                "{} users, {} conversations, {} recordings, {} memories, {} chats",
                tally.users.taken,
                tally.conversations.taken,
                tally.recordings.taken,
                tally.memories.map_or(0, |row| row.taken),
                tally.chats.taken
            );
            self.store.audit(self.clock.now(), None, "imported", &what).await?;
        }
        Ok(tally)
    }

    async fn users(&self, documents: &Documents, run: &mut Run<'_>) -> Result<()> {
        let mut known: HashMap<ClientId, UserId> = HashMap::new();
        for device in self.store.devices(None).await? {
            known.insert(device.client_id, device.user_id);
        }
        let mut users = documents("users");
        while let Some(document) = users.try_next().await? {
            run.tally.users.source += 1;
            let person = match Person::read(&document) {
                Ok(person) => person,
                Err(why) => {
                    run.tally.users.add(Fate::Left, 1);
                    run.tally.note("user", Fields(&document).name(&["email"]), why);
                    continue;
                }
            };
            let (here, fate) = self.user(&person).await?;
            run.tally.users.add(fate, 1);
            for device in &person.devices {
                run.tally.devices.source += 1;
                let Some(here) = &here else {
                    run.tally.devices.add(Fate::Gone, 1);
                    continue;
                };
                let fate = match known.get(&device.client_id) {
                    Some(owner) if owner == here => Fate::Before,
                    Some(_) => {
                        let why = "a device of that id belongs to another user here";
                        run.tally.note("device", device.client_id.as_str(), why);
                        Fate::Left
                    }
                    None => Fate::Taken,
                };
                if fate == Fate::Taken && !self.dry {
                    let mut device = device.clone();
                    device.user_id.clone_from(here);
                    self.store.see_device(&device).await?;
                }
                run.tally.devices.add(fate, 1);
            }
            run.people.add(&person, here);
            (run.progress)("users", run.tally.users.source);
        }
        Ok(())
    }

    /// Adds a user; who that is here, unless they were deleted since.
    async fn user(&self, person: &Person) -> Result<(Option<UserId>, Fate)> {
        let user = &person.user;
        if self.dry {
            let known = self.store.imported(Imported::User).await?.remove(user.id.as_str());
            let id = known.clone().map_or_else(|| user.id.clone(), UserId::from_text);
            let there = match self.store.user(&id).await? {
                None => self.store.user_by_email(&user.email).await?,
                there => there,
            };
            return Ok(match (known, there) {
                (_, Some(there)) => (Some(there.id), Fate::Before),
                (Some(_), None) => (None, Fate::Gone),
                (None, None) => (Some(id), Fate::Taken),
            });
        }
        let arrived = self.store.import_user(user).await?;
        Ok(match self.store.user(&arrived.id).await? {
            Some(_) if arrived.new => (Some(arrived.id), Fate::Taken),
            Some(_) => (Some(arrived.id), Fate::Before),
            None => (None, Fate::Gone),
        })
    }

    /// Conversations of both shapes. Where both have a document of one conversation,
    /// that of its audio completes the other.
    async fn conversations(&self, documents: &Documents, run: &mut Run<'_>) -> Result<()> {
        let mut later = HashSet::new();
        let mut found = documents("conversations");
        while let Some(document) = found.try_next().await? {
            later.extend(ids(Fields(&document)));
        }
        let mut chunks: HashMap<String, Told> = HashMap::new();
        let mut found = documents("audio_chunks");
        while let Some(document) = found.try_next().await? {
            let fields = Fields(&document);
            let is_part = ids(fields).any(|id| later.contains(&id));
            match Told::of_chunk(&document) {
                Ok(told) if is_part => {
                    if let Some(id) = told.belongs_to.clone() {
                        chunks.insert(id, told.clone());
                    }
                    chunks.insert(told.id.clone(), told);
                }
                Ok(told) => self.conversation(told, run).await?,
                Err(why) => {
                    // Where it is a part, its conversation counts.
                    let left = u64::from(!is_part);
                    run.tally.conversations.source += left;
                    run.tally.conversations.add(Fate::Left, left);
                    run.tally.note("audio chunk", fields.name(&["audio_uuid"]), why);
                }
            }
        }
        let mut found = documents("conversations");
        while let Some(document) = found.try_next().await? {
            match Told::of_conversation(&document) {
                Ok(mut told) => {
                    let audio = told.audio_uuid.as_ref().and_then(|id| chunks.get(id));
                    if let Some(chunk) = chunks.get(&told.id).or(audio) {
                        told.complete(chunk);
                    }
                    self.conversation(told, run).await?;
                }
                Err(why) => {
                    run.tally.conversations.source += 1;
                    run.tally.conversations.add(Fate::Left, 1);
                    let id = Fields(&document).name(&["conversation_id"]);
                    run.tally.note("conversation", id, why);
                }
            }
        }
        Ok(())
    }

    async fn chats(&self, documents: &Documents, run: &mut Run<'_>) -> Result<()> {
        let mut said: HashMap<String, Vec<PastMessage>> = HashMap::new();
        let mut found = documents("chat_messages");
        while let Some(document) = found.try_next().await? {
            run.tally.messages.source += 1;
            match chats::message(&document) {
                Ok((session, message)) => said.entry(session).or_default().push(message),
                Err(why) => {
                    run.tally.messages.add(Fate::Left, 1);
                    run.tally.note("message", Fields(&document).name(&["message_id"]), why);
                }
            }
        }
        let mut found = documents("chat_sessions");
        while let Some(document) = found.try_next().await? {
            run.tally.chats.source += 1;
            match Talk::read(&document) {
                Ok(talk) => {
                    let messages = said.remove(&talk.id).unwrap_or_default();
                    self.chat(&talk, messages, run).await?;
                }
                Err(why) => {
                    run.tally.chats.add(Fate::Left, 1);
                    run.tally.note("chat", Fields(&document).name(&["session_id"]), why);
                }
            }
            (run.progress)("chats", run.tally.chats.source);
        }
        for (session, messages) in said {
            run.tally.messages.add(Fate::Left, messages.len() as u64);
            let why = format!("{} messages of a chat that is not there", messages.len());
            run.tally.note("chat", session, why);
        }
        Ok(())
    }

    async fn chat(
        &self,
        talk: &Talk,
        mut messages: Vec<PastMessage>,
        run: &mut Run<'_>,
    ) -> Result<()> {
        messages.sort_by_key(|message| message.at);
        let many = messages.len() as u64;
        let all = |run: &mut Run<'_>, fate| {
            run.tally.chats.add(fate, 1);
            run.tally.messages.add(fate, many);
        };
        let user = match run.people.owner(Some(&talk.user), "") {
            Owner::User(user) => user,
            Owner::Gone => {
                all(run, Fate::Gone);
                return Ok(());
            }
            // A talk is nobody else's to read.
            Owner::Administrator(_) | Owner::Nobody => {
                run.tally.note("chat", &talk.id, format!("its user {} is not there", talk.user));
                all(run, Fate::Left);
                return Ok(());
            }
        };
        let known = run.chats.contains_key(&talk.id);
        let come = |one: &&PastMessage| run.messages.contains_key(&one.id);
        let before = messages.iter().filter(come).count() as u64;
        if self.trusting && known && before == many {
            all(run, Fate::Before);
            return Ok(());
        }
        let id = ChatId::from_text(&talk.id);
        let there = self.store.chat(&id).await?;
        if known && there.is_none() {
            all(run, Fate::Gone);
            return Ok(());
        }
        let fate = if there.is_some() { Fate::Before } else { Fate::Taken };
        if !self.dry {
            let had = there.map_or(0, |chat| chat.messages);
            let new = self.store.import_chat(&talk.of(&user), &messages).await?.len() as u64;
            let has = self.store.chat(&id).await?.map_or(0, |chat| chat.messages);
            if has != had + new || new != many - before {
                run.tally.note("chat", &talk.id, "it does not read back as it was");
                return Ok(());
            }
        }
        run.tally.chats.add(fate, 1);
        run.tally.messages.add(Fate::Before, before);
        run.tally.messages.add(Fate::Taken, many - before);
        Ok(())
    }
}

/// What a conversation and its audio are known by.
fn ids(fields: Fields<'_>) -> impl Iterator<Item = String> {
    let ids = ["conversation_id", "audio_uuid"].map(|key| fields.text(key).ok().flatten());
    ids.into_iter().flatten()
}

/// Whether something cannot be taken because of what it is, so that the rest can.
fn is_its_own(kind: Kind) -> bool {
    matches!(kind, Kind::BadInput | Kind::Conflict | Kind::NotFound | Kind::TooLarge)
}

fn conversation_id(told: &Told) -> ConversationId {
    ConversationId::from_text(&told.id)
}
