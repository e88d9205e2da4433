//! Everything in the database as rows that another store takes, and back.

use async_trait::async_trait;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::MongoStore;
use super::changes::{self, take_numbers};
use super::documents::*;
use super::queue::needs_audio;
use super::schema::*;
use super::times::KNOWN;
use super::tx::{Of, Tx};
use crate::base::clock::Timestamp;
use crate::base::error::{Context, Kind, Result};
use crate::domain::ids::ConversationId;
use crate::domain::job::{JobKind, JobState};
use crate::store::transfer::{Row, RowKind, Transfer, lacks, text};

/// A user with the tokens that were ended before they expired.
#[derive(Serialize, Deserialize)]
struct UserWithTokens {
    #[serde(flatten)]
    user: UserRow,
    #[serde(default)]
    ended: Vec<EndedToken>,
}

#[derive(Serialize, Deserialize)]
struct EndedToken {
    token: String,
    expires_at: Timestamp,
}

const USERS_WITH_TOKENS: Of<UserWithTokens> = Of::new(USERS.name);
/// Fields that belong to where a document is, and are not carried.
const OWN: [&str; 4] = ["node", "owner", "audio_at", "revision"];

#[async_trait]
impl Transfer for MongoStore {
    async fn count_rows(&self, of: RowKind) -> Result<u64> {
        match of {
            RowKind::Embedding | RowKind::Followers => {
                Ok(self.rows(of, None, usize::MAX).await?.len() as u64)
            }
            _ => {
                let (name, filter) = (collection(of), self.carried(of, None)?);
                let of = Of::<Document>::new(name);
                steps!(self, |tx| tx.count(of, filter).await).await
            }
        }
    }

    async fn rows(&self, of: RowKind, after: Option<&Value>, limit: usize) -> Result<Vec<Row>> {
        let filter = self.carried(of, after)?;
        steps!(self, |tx| {
            let page = Page { filter, limit };
            match of {
                RowKind::Users => page.read(tx, USERS_WITH_TOKENS, sort_tokens).await,
                RowKind::Devices => page.read(tx, DEVICES, as_it_is).await,
                RowKind::Settings => page.read(tx, SETTINGS, as_it_is).await,
                RowKind::Audit => page.read(tx, AUDIT, as_it_is).await,
                RowKind::Conversations => page.read(tx, CONVERSATIONS, without_own).await,
                RowKind::Windows => page.read(tx, WINDOWS, spell_segments).await,
                RowKind::Jobs => page.read(tx, JOBS, give_back).await,
                RowKind::Memories => page.read(tx, MEMORIES, spell_vector).await,
                RowKind::Shelved => page.read(tx, SHELF, spell_shelved).await,
                RowKind::History => page.read(tx, HISTORY, as_it_is).await,
                RowKind::News => page.read(tx, NEWS, as_it_is).await,
                RowKind::Chats => page.read(tx, CHATS, as_it_is).await,
                RowKind::Messages => page.read(tx, MESSAGES, as_it_is).await,
                RowKind::Uploads => page.read(tx, UPLOADS, as_it_is).await,
                RowKind::Deletions => page.read(tx, DELETIONS, without_own).await,
                RowKind::Objects => page.read(tx, OBJECTS, as_it_is).await,
                RowKind::Imported => page.read(tx, IMPORTED, as_it_is).await,
                // Few, and in one document.
                RowKind::Embedding | RowKind::Followers if after.is_some() => Ok(Vec::new()),
                RowKind::Embedding => Ok(embedding(&changes::meta(tx).await?)),
                RowKind::Followers => Ok(followers(&changes::meta(tx).await?)),
            }
        })
        .await
    }

    /// Not in a transaction: the server keeps one of a program that was killed for a
    /// minute, and those rows would be in the way of the next attempt.
    async fn add_rows(&self, of: RowKind, rows: &[Row]) -> Result<()> {
        steps!(self, |tx| {
            match of {
                RowKind::Users => add(tx, USERS_WITH_TOKENS, rows, Ok).await,
                RowKind::Devices => add(tx, DEVICES, rows, Ok).await,
                RowKind::Settings => add(tx, SETTINGS, rows, Ok).await,
                RowKind::Audit => add(tx, AUDIT, rows, numbered).await,
                RowKind::Conversations => {
                    add(tx, CONVERSATIONS, rows, |mut row| {
                        row.insert("node".to_owned(), self.node().into());
                        row.insert("revision".to_owned(), 0.into());
                        Ok(row)
                    })
                    .await
                }
                RowKind::Windows => add(tx, WINDOWS, rows, read_segments).await,
                RowKind::Jobs => {
                    add(tx, JOBS, rows, |mut row| {
                        let kind = JobKind::from_name(text(&row, "kind")?);
                        let bound = kind.is_some_and(needs_audio).then(|| self.node());
                        row.insert("audio_at".to_owned(), bound.into());
                        Ok(row)
                    })
                    .await
                }
                RowKind::Embedding => bind(tx, rows).await,
                RowKind::Memories => {
                    let read: Result<Vec<MemoryRow>> = rows.iter().map(memory).collect();
                    tx.insert(MEMORIES, &read?).await
                }
                RowKind::Shelved => {
                    let read: Result<Vec<Shelved>> = rows.iter().map(shelved).collect();
                    tx.insert(SHELF, &read?).await
                }
                RowKind::History => add(tx, HISTORY, rows, Ok).await,
                RowKind::Followers => follow(tx, rows).await,
                RowKind::News => add(tx, NEWS, rows, Ok).await,
                RowKind::Chats => add(tx, CHATS, rows, Ok).await,
                RowKind::Messages => add(tx, MESSAGES, rows, Ok).await,
                RowKind::Uploads => add(tx, UPLOADS, rows, Ok).await,
                RowKind::Deletions => {
                    add(tx, DELETIONS, rows, |mut row| {
                        row.insert("node".to_owned(), self.node().into());
                        Ok(row)
                    })
                    .await
                }
                RowKind::Objects => add(tx, OBJECTS, rows, Ok).await,
                RowKind::Imported => add(tx, IMPORTED, rows, Ok).await,
            }
        })
        .await
    }

    /// Has the numbers go on after those that are taken.
    async fn complete(&self) -> Result<()> {
        steps!(self, |tx| {
            for (name, of, field) in [
                (counter::WINDOWS, WINDOWS.name, "_id"),
                (counter::JOBS, JOBS.name, "_id"),
                (counter::UPLOADS, UPLOADS.name, "seq"),
                (counter::MESSAGES, MESSAGES.name, "_id"),
            ] {
                let last = highest(tx, of, field).await?;
                let at_least = doc! { "$max": { "number": last } };
                tx.change(COUNTERS, doc! { "_id": name }, at_least).await?;
            }
            let mut last = 0;
            for (of, field) in [
                (MEMORIES.name, "seq"),
                (HISTORY.name, "_id"),
                (SHELF.name, "_id"),
                (NEWS.name, "number"),
            ] {
                last = last.max(highest(tx, of, field).await?);
            }
            take_numbers(tx, last).await.map(drop)
        })
        .await
    }
}

impl MongoStore {
    /// The documents of a kind that are carried, of those after `after`.
    fn carried(&self, of: RowKind, after: Option<&Value>) -> Result<Document> {
        let mut id = match after {
            None => Document::new(),
            Some(after) => doc! { "$gt": key(of, after)? },
        };
        let mut filter = Document::new();
        match of {
            RowKind::Settings => {
                id.insert("$not", doc! { "$regex": format!("^{KNOWN}:") });
            }
            // The files of other nodes.
            RowKind::Deletions => {
                filter.insert("node", self.node());
            }
            _ => {}
        }
        if !id.is_empty() {
            filter.insert("_id", id);
        }
        Ok(filter)
    }
}

/// Where the rows of a kind are.
fn collection(of: RowKind) -> &'static str {
    match of {
        RowKind::Users => USERS.name,
        RowKind::Devices => DEVICES.name,
        RowKind::Settings => SETTINGS.name,
        RowKind::Audit => AUDIT.name,
        RowKind::Conversations => CONVERSATIONS.name,
        RowKind::Windows => WINDOWS.name,
        RowKind::Jobs => JOBS.name,
        RowKind::Embedding | RowKind::Followers => META.name,
        RowKind::Memories => MEMORIES.name,
        RowKind::Shelved => SHELF.name,
        RowKind::History => HISTORY.name,
        RowKind::News => NEWS.name,
        RowKind::Chats => CHATS.name,
        RowKind::Messages => MESSAGES.name,
        RowKind::Uploads => UPLOADS.name,
        RowKind::Deletions => DELETIONS.name,
        RowKind::Objects => OBJECTS.name,
        RowKind::Imported => IMPORTED.name,
    }
}

/// Some documents of a collection, by `_id`.
struct Page {
    filter: Document,
    limit: usize,
}

impl Page {
    /// The documents as rows, each as `finish` leaves it.
    async fn read<T>(
        self,
        tx: &mut Tx,
        of: Of<T>,
        finish: impl Fn(&mut Row, &T) -> Result<()>,
    ) -> Result<Vec<Row>>
    where
        T: Serialize + DeserializeOwned + Send + Sync,
    {
        let read = tx.page(of, self.filter, doc! { "_id": 1 }, 0, self.limit).await?;
        let row = |document: &T| {
            let mut row = to_row(document)?;
            finish(&mut row, document)?;
            Ok(row)
        };
        read.iter().map(row).collect()
    }
}

/// Adds rows as documents, each as `prepare` leaves it.
async fn add<T>(
    tx: &mut Tx,
    of: Of<T>,
    rows: &[Row],
    prepare: impl Fn(Row) -> Result<Row>,
) -> Result<()>
where
    T: Serialize + DeserializeOwned + Send + Sync,
{
    let document = |row: &Row| -> Result<T> { from_row(prepare(row.clone())?) };
    let documents: Result<Vec<T>> = rows.iter().map(document).collect();
    tx.insert(of, &documents?).await
}

fn to_row(document: &impl Serialize) -> Result<Row> {
    match serde_json::to_value(document) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(_) => Err(lacks("fields")),
        Err(error) => Err(error).context(Kind::Storage, "a document cannot be read as a row"),
    }
}

fn from_row<T: DeserializeOwned>(row: Row) -> Result<T> {
    serde_json::from_value(Value::Object(row))
        .context(Kind::Storage, "a row cannot be read as a document")
}

/// The `_id` of a row as MongoDB compares it.
fn key(of: RowKind, id: &Value) -> Result<Bson> {
    match id {
        Value::String(text) => Ok(Bson::String(text.clone())),
        Value::Number(number) => number.as_i64().map(Bson::Int64).ok_or_else(|| lacks("_id")),
        id if of == RowKind::Audit => {
            let id: serde_json::Result<ObjectId> = serde_json::from_value(id.clone());
            Ok(Bson::ObjectId(id.context(Kind::Storage, "an audit row lacks its _id")?))
        }
        _ => Err(lacks("_id")),
    }
}

fn as_it_is<T>(_: &mut Row, _: &T) -> Result<()> {
    Ok(())
}

fn without_own<T>(row: &mut Row, _: &T) -> Result<()> {
    row.retain(|name, _| !OWN.contains(&name.as_str()));
    Ok(())
}

fn sort_tokens(row: &mut Row, user: &UserWithTokens) -> Result<()> {
    let mut ended: Vec<&EndedToken> = user.ended.iter().collect();
    ended.sort_by_key(|ended| &ended.token);
    row.insert("ended".to_owned(), json(&ended)?);
    Ok(())
}

/// Nobody holds a job that is carried.
fn give_back(row: &mut Row, job: &JobRow) -> Result<()> {
    without_own(row, job)?;
    if job.state == JobState::Leased {
        row.insert("state".to_owned(), json(&JobState::Ready)?);
    }
    Ok(())
}

fn spell_segments(row: &mut Row, window: &WindowRow) -> Result<()> {
    let text = serde_json::to_string(&window.segments);
    let text = text.context(Kind::Internal, "cannot write segments as JSON")?;
    row.insert("segments".to_owned(), text.into());
    Ok(())
}

fn read_segments(mut row: Row) -> Result<Row> {
    let segments: serde_json::Result<Value> = serde_json::from_str(text(&row, "segments")?);
    let segments = segments.context(Kind::Storage, "the segments of a window cannot be read")?;
    row.insert("segments".to_owned(), segments);
    Ok(row)
}

fn spell_vector(row: &mut Row, memory: &MemoryRow) -> Result<()> {
    row.insert("vector".to_owned(), hex::encode_upper(&memory.vector.bytes).into());
    Ok(())
}

fn memory(row: &Row) -> Result<MemoryRow> {
    let bytes = hex::decode(text(row, "vector")?);
    let bytes = bytes.context(Kind::Storage, "the vector of a memory cannot be read")?;
    let vector = Binary { subtype: BinarySubtype::Generic, bytes };
    Ok(MemoryRow { listed: from_row(row.clone())?, vector })
}

/// Where a shelved memory was among the others does not matter any more.
fn spell_shelved(row: &mut Row, shelved: &Shelved) -> Result<()> {
    let memory = row.get_mut("memory").and_then(Value::as_object_mut);
    let memory = memory.ok_or_else(|| lacks("memory"))?;
    memory.remove("seq");
    spell_vector(memory, &shelved.memory)
}

fn shelved(row: &Row) -> Result<Shelved> {
    let memory = row.get("memory").and_then(Value::as_object).ok_or_else(|| lacks("memory"))?;
    let mut inner = memory.clone();
    inner.insert("seq".to_owned(), 0.into());
    let mut row = row.clone();
    row.remove("memory");
    let Shelf { number, by_conversation, by_version } = from_row(row)?;
    Ok(Shelved { number, by_conversation, by_version, memory: self::memory(&inner)? })
}

/// A shelved memory without the memory.
#[derive(Deserialize)]
struct Shelf {
    #[serde(rename = "_id")]
    number: i64,
    by_conversation: Option<ConversationId>,
    by_version: Option<i64>,
}

/// Audit rows are numbered in the order of their coming.
fn numbered(mut row: Row) -> Result<Row> {
    row.insert("_id".to_owned(), json(&ObjectId::new())?);
    Ok(row)
}

fn embedding(meta: &Meta) -> Vec<Row> {
    let (Some(model), Some(width)) = (&meta.model, meta.width) else { return Vec::new() };
    let fields =
        [("_id", "embedding".into()), ("model", model.as_str().into()), ("width", width.into())];
    vec![fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()]
}

async fn bind(tx: &mut Tx, rows: &[Row]) -> Result<()> {
    for row in rows {
        let width = row.get("width").and_then(Value::as_u64).ok_or_else(|| lacks("width"))?;
        let width = usize::try_from(width).unwrap_or(usize::MAX);
        changes::bind(tx, text(row, "model")?, width).await?;
    }
    Ok(())
}

fn followers(meta: &Meta) -> Vec<Row> {
    let row = |(follower, name): (&String, &String)| {
        let fields = [("_id", follower), ("name", name)];
        fields.map(|(field, value)| (field.to_owned(), value.as_str().into())).into_iter().collect()
    };
    meta.followers.iter().map(row).collect()
}

async fn follow(tx: &mut Tx, rows: &[Row]) -> Result<()> {
    let mut followers = Document::new();
    for row in rows {
        followers.insert(format!("followers.{}", text(row, "_id")?), text(row, "name")?);
    }
    let known = doc! { "$set": followers };
    tx.change(META, doc! { "_id": MEMORIES_META }, known).await.map(drop)
}

/// The highest number in that field of a collection; 0 in an empty one.
async fn highest(tx: &mut Tx, name: &'static str, field: &str) -> Result<i64> {
    let last = tx.first_by(Of::<Document>::new(name), doc! {}, doc! { field: -1 }).await?;
    match last {
        None => Ok(0),
        Some(last) => last.get_i64(field).context(Kind::Storage, "a document lacks its number"),
    }
}

fn json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).context(Kind::Internal, "cannot write a value as JSON")
}
