//! Everything of one user, or of all, in forms that need no friend-lite to be
//! read: JSON Lines for programs, Markdown for people, and the audio as it is.
//!
//! ```text
//! anna@example.com/conversations.jsonl, memories.jsonl, chats.jsonl
//! anna@example.com/2026-11-25-1730-lunch-with-ben.md
//! anna@example.com/memories.md
//! anna@example.com/audio/…
//! ```

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::disk;
use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::Conversation;
use crate::domain::memory::Memory;
use crate::domain::transcript::Segment;
use crate::domain::user::User;
use crate::domain::version::Details;
use crate::remote::bucket::Bucket;
use crate::store::Store;
use crate::supervisor::blocking;

/// Bytes asked of the bucket at a time.
const PIECE: u64 = 1 << 20;
/// Characters of a title in a file name.
const TITLE: usize = 40;

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Users.
    pub users: usize,
    /// Their conversations.
    pub conversations: usize,
    /// Their memories.
    pub memories: usize,
    /// Recordings.
    pub recordings: usize,
}

/// What is exported, and from where.
pub struct Export {
    store: Arc<dyn Store>,
    state: PathBuf,
    bucket: Option<Bucket>,
    clock: Clock,
}

impl Export {
    /// Of what is in `store` and below the state directory `state`.
    pub fn new(store: Arc<dyn Store>, state: PathBuf, clock: Clock) -> Self {
        Self { store, state, bucket: None, clock }
    }

    /// The same, with the recordings that are in `bucket` alone.
    #[must_use]
    pub fn with_bucket(self, bucket: Option<Bucket>) -> Self {
        Self { bucket, ..self }
    }

    /// Writes everything of `users` to the directory `dir`, which is there all at
    /// once when this is done. `progress` hears how many conversations are done,
    /// of how many.
    ///
    /// # Errors
    /// `Conflict` when `dir` is there already, `NoSpace`, `Storage`; those of the
    /// bucket.
    pub async fn run(
        &self,
        dir: &Path,
        users: &[User],
        progress: impl Fn(usize, usize),
    ) -> Result<Exported> {
        if dir.exists() {
            let message = format!("{} is there already; name a new directory", dir.display());
            return Err(Error::new(Kind::Conflict, message));
        }
        let part = disk::part_of(dir);
        if part.exists() {
            std::fs::remove_dir_all(&part).map_err(|e| disk::failed("remove", &part, e))?;
        }
        disk::make_dir(&part)?;
        let mut exported = Exported { users: users.len(), ..Exported::default() };
        let mut all = Vec::new();
        for user in users {
            all.push((user, self.store.conversations(Some(&user.id), usize::MAX).await?));
        }
        let total = all.iter().map(|(_, conversations)| conversations.len()).sum();
        for (user, mut conversations) in all {
            conversations.reverse();
            let place = part.join(file_name(&user.email));
            disk::make_dir(&place.join("audio"))?;
            let mut lines = String::new();
            for conversation in &conversations {
                progress(exported.conversations, total);
                lines += &self.conversation(conversation, &place, &mut exported).await?;
                lines.push('\n');
            }
            write(place.join("conversations.jsonl"), lines).await?;
            exported.memories += self.memories(user, &place).await?;
            self.chats(user, &place).await?;
            let now = self.clock.now();
            self.store.audit(now, None, "exported", &user.email).await?;
        }
        disk::keep(&part, dir)?;
        Ok(exported)
    }

    /// Writes one conversation for people, and its audio; its line for programs.
    async fn conversation(
        &self,
        conversation: &Conversation,
        place: &Path,
        exported: &mut Exported,
    ) -> Result<String> {
        let ids = std::slice::from_ref(&conversation.id);
        let details = self.store.details(ids).await?.remove(&conversation.id).unwrap_or_default();
        exported.conversations += 1;
        let mut audio = None;
        if conversation.has_audio() {
            let name = &conversation.audio_path;
            if self.recording(name, place.join("audio").join(name)).await? {
                audio = Some(format!("audio/{name}"));
                exported.recordings += 1;
            }
        }
        let page = page(conversation, &details, audio.as_deref());
        write(place.join(page_name(conversation)), page).await?;
        Ok(line(conversation, &details, audio.as_deref()).to_string())
    }

    /// Writes a recording to the file `to`; false when there is none.
    async fn recording(&self, name: &str, to: PathBuf) -> Result<bool> {
        let (from, target) = (self.state.join("audio").join(name), to.clone());
        let copied = blocking(move || match disk::copy(&from, &target) {
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            done => done.map(|_| true),
        });
        match (copied.await?, &self.bucket) {
            (false, Some(bucket)) => fetch(bucket, name, &to).await,
            (copied, _) => Ok(copied),
        }
    }

    async fn memories(&self, user: &User, place: &Path) -> Result<usize> {
        let mut memories = self.store.memories(&user.id, usize::MAX).await?;
        memories.reverse();
        let lines = memories.iter().map(|memory| format!("{}\n", remembered(memory)));
        write(place.join("memories.jsonl"), lines.collect()).await?;
        let list = memories.iter().map(|memory| format!("- {}\n", one_line(&memory.text)));
        let page = format!("# Memories of {}\n\n{}", user.email, list.collect::<String>());
        write(place.join("memories.md"), page).await?;
        Ok(memories.len())
    }

    async fn chats(&self, user: &User, place: &Path) -> Result<()> {
        let mut lines = String::new();
        for chat in self.store.chats(&user.id, usize::MAX).await? {
            let messages = self.store.chat_messages(&chat.id, usize::MAX).await?;
            let said = messages.iter().map(|message| {
                json!({
                    "role": message.role,
                    "content": message.content,
                    "at": message.at.to_rfc3339(),
                })
            });
            let chat = json!({
                "session_id": chat.id.as_str(),
                "title": chat.title,
                "created_at": chat.created_at.to_rfc3339(),
                "updated_at": chat.updated_at.to_rfc3339(),
                "messages": said.collect::<Vec<Value>>(),
            });
            lines += &format!("{chat}\n");
        }
        write(place.join("chats.jsonl"), lines).await
    }
}

/// A conversation for programs, with the names of the API.
fn line(conversation: &Conversation, details: &Details, audio: Option<&str>) -> Value {
    let segments: Vec<&Segment> = segments(details).collect();
    json!({
        "conversation_id": conversation.id.as_str(),
        "client_id": conversation.client_id.as_str(),
        "started_at": conversation.started_at.to_rfc3339(),
        "ended_at": conversation.ended_at.map(|at| at.to_rfc3339()),
        "time_estimated": conversation.time_estimated,
        "duration_seconds": conversation.duration_seconds(),
        "title": conversation.title,
        "summary": details.summary,
        "speakers": details.speakers,
        "transcription_status": conversation.transcription,
        "memory_processing_status": conversation.memory,
        "transcript": segments,
        "memories": details.memories.iter().map(|memory| memory.id.as_str()).collect::<Vec<_>>(),
        "audio": audio,
    })
}

fn remembered(memory: &Memory) -> Value {
    json!({
        "id": memory.id.as_str(),
        "memory": memory.text,
        "conversation_id": memory.conversation_id.as_ref().map(|id| id.as_str()),
        "created_at": memory.created_at.to_rfc3339(),
        "updated_at": memory.updated_at.to_rfc3339(),
    })
}

/// A conversation for people.
fn page(conversation: &Conversation, details: &Details, audio: Option<&str>) -> String {
    let mut page = String::new();
    let title = conversation.title.as_deref().unwrap_or("Conversation");
    let length = conversation.duration_seconds() as u64;
    // Writing to a string does not fail.
    let _ = writeln!(page, "# {}\n", one_line(title));
    let _ = writeln!(
        page,
        "{}, {}, {} long",
        conversation.started_at.to_rfc3339(),
        conversation.client_id,
        clock_time(length as f64)
    );
    if let Some(audio) = audio {
        let _ = writeln!(page, "\n[Recording]({audio})");
    }
    if let Some(summary) = &details.summary {
        let _ = writeln!(page, "\n{}", one_line(summary));
    }
    let _ = writeln!(page, "\n## Transcript\n");
    for segment in segments(details) {
        let speaker =
            segment.speaker.as_ref().map_or_else(String::new, |name| format!("**{name}:** "));
        let _ = writeln!(
            page,
            "`{}` {speaker}{}\n",
            clock_time(segment.start),
            one_line(&segment.text)
        );
    }
    if !details.memories.is_empty() {
        let _ = writeln!(page, "## Memories\n");
        for memory in &details.memories {
            let _ = writeln!(page, "- {}", one_line(&memory.text));
        }
    }
    page
}

fn segments(details: &Details) -> impl Iterator<Item = &Segment> {
    details.windows.iter().flat_map(|window| &window.segments)
}

/// `2026-11-25-1730-lunch-with-ben-1a2b3c4d.md`: in order of time, and unique.
fn page_name(conversation: &Conversation) -> String {
    let time: String = conversation.started_at.to_rfc3339().replace(['T', ':'], "-");
    let day = time.get(..16).unwrap_or(&time);
    let title = file_name(conversation.title.as_deref().unwrap_or("conversation"));
    let title: String = title.chars().take(TITLE).collect();
    let id = conversation.id.as_str();
    format!("{day}-{title}-{}.md", id.get(..8).unwrap_or(id))
}

/// A text as a part of a file name: letters, digits, and what an address has.
fn file_name(text: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_alphanumeric() => c.to_lowercase().next().unwrap_or(c),
        '@' | '.' | '_' | '+' => c,
        _ => '-',
    };
    let name: String = text.chars().map(plain).collect();
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Seconds as `1:02:03` or `2:03`.
fn clock_time(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Writes what the bucket has of a recording to the file `to`; false when that is
/// nothing.
async fn fetch(bucket: &Bucket, name: &str, to: &Path) -> Result<bool> {
    let Some(stored) = bucket.head(name).await? else { return Ok(false) };
    let failed = |error| disk::failed("write", to, error);
    let mut file = tokio::fs::File::create(to).await.map_err(failed)?;
    let mut at = 0;
    while at < stored.bytes {
        let end = stored.bytes.min(at + PIECE);
        file.write_all(&bucket.read(name, at..end).await?).await.map_err(failed)?;
        at = end;
    }
    file.sync_all().await.map_err(failed)?;
    Ok(true)
}

async fn write(path: PathBuf, text: String) -> Result<()> {
    blocking(move || disk::write(&path, text.as_bytes())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(file_name("Anna+x@Example.com"), "anna+x@example.com");
        assert_eq!(file_name("../../etc/passwd"), "etc-passwd");
        assert_eq!(file_name("Lunch: Zoë & I?"), "lunch--zoë---i");
        assert_eq!(file_name("…"), "unnamed");
    }

    #[test]
    fn times_read_as_on_a_clock() {
        assert_eq!([clock_time(7.9), clock_time(3_723.0)], ["0:07", "1:02:03"]);
    }
}
