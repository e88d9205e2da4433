//! The last known time, and putting times right after the clock was set.

use async_trait::async_trait;
use mongodb::bson::{Document, doc};

use super::MongoStore;
use super::schema::{
    AUDIT, CHATS, CONVERSATIONS, DELETIONS, DEVICES, HISTORY, JOBS, MEMORIES, MESSAGES, NODES,
    OBJECTS, SHELF, UPLOADS, USERS,
};
use super::tx::{Of, Tx};
use super::users::set_setting;
use crate::base::clock::{Step, Timestamp};
use crate::base::error::{Context, Kind, Result};
use crate::store::{KnownTime, Timekeeping, Users};

/// The setting that holds the last known time of this node, as JSON.
pub(super) const KNOWN: &str = "known_time";

/// A conversation begins up to so many milliseconds before it is opened: with
/// what was held from before the first speech.
const HELD: i64 = 60_000;

/// Where times that have been are kept besides conversations; `[]` stands for each element of a list.
const PAST: &[(&str, &[&str])] = &[
    (USERS.name, &["created_at"]),
    (DEVICES.name, &["first_seen", "last_seen"]),
    (AUDIT.name, &["at"]),
    (JOBS.name, &["created_at", "updated_at"]),
    (MEMORIES.name, &["created_at", "updated_at"]),
    (HISTORY.name, &["at"]),
    (SHELF.name, &["memory.created_at", "memory.updated_at"]),
    (CHATS.name, &["created_at", "updated_at"]),
    (MESSAGES.name, &["at"]),
    (UPLOADS.name, &["created_at", "files.[].started_at", "files.[].ended_at"]),
    (DELETIONS.name, &["at"]),
    (OBJECTS.name, &["verified_at"]),
];

/// The same of conversations. Their beginning is moved by itself.
const OF_CONVERSATIONS: &[&str] = &[
    "ended_at",
    "audio_deleted_at",
    "crop.at",
    "transcripts.[].created_at",
    "transcripts.[].completed_at",
    "sets.[].created_at",
    "sets.[].completed_at",
];

#[async_trait]
impl Timekeeping for MongoStore {
    async fn known_time(&self) -> Result<Option<KnownTime>> {
        let text = self.setting(&self.known()).await?;
        // One that cannot be read is as good as none.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn note_time(&self, known: &KnownTime) -> Result<()> {
        let (key, text) = (self.known(), json(known)?);
        steps!(self, |tx| set_setting(tx, &key, Some(&text)).await).await
    }

    /// Of conversations, those that were recorded at this node: it is its clock that
    /// was wrong. What cannot be told to be of one node is moved where no other
    /// shares the database.
    async fn clock_stepped(
        &self,
        step: Step,
        since: Option<Timestamp>,
        known: &KnownTime,
    ) -> Result<usize> {
        let (key, text) = (self.known(), json(known)?);
        transaction!(self, |tx| {
            let alone = !tx.has(NODES, doc! { "_id": { "$ne": self.node() } }).await?;
            let mut corrected = 0;
            if let Some(since) = since {
                let own = doc! { "node": self.node() };
                for field in OF_CONVERSATIONS {
                    move_past(tx, (CONVERSATIONS.name, field), &own, since, step).await?;
                }
                for (collection, fields) in PAST.iter().filter(|_| alone) {
                    for field in *fields {
                        move_past(tx, (collection, field), &doc! {}, since, step).await?;
                    }
                }
                corrected = correct_beginnings(tx, own, since, step).await?;
            }
            if alone {
                let ahead = doc! { "$inc": { "run_at": step.by() } };
                tx.change(JOBS, doc! {}, ahead).await?;
                let ahead = doc! { "$inc": { "ended.$[].expires_at": step.by() } };
                tx.change(USERS, doc! { "ended": { "$exists": true } }, ahead).await?;
            }
            set_setting(tx, &key, Some(&text)).await?;
            Ok(usize::try_from(corrected).unwrap_or(usize::MAX))
        })
        .await
    }
}

impl MongoStore {
    /// Each node has a clock of its own.
    fn known(&self) -> String {
        format!("{KNOWN}:{}", self.node())
    }
}

/// Moves the times in one field of a collection that are from `since` to the step,
/// in the documents that `filter` names.
async fn move_past(
    tx: &mut Tx,
    (collection, field): (&'static str, &str),
    filter: &Document,
    since: Timestamp,
    step: Step,
) -> Result<()> {
    let of = Of::<Document>::new(collection);
    let moved = doc! { "$gte": since.millis(), "$lte": step.from.millis() };
    match field.split_once(".[].") {
        None => {
            let update = doc! { "$inc": { field: step.by() } };
            let mut filter = filter.clone();
            filter.insert(field, moved);
            tx.change(of, filter, update).await?;
        }
        Some((list, inner)) => {
            let mut any = filter.clone();
            any.insert(list, doc! { "$elemMatch": { inner: moved.clone() } });
            let update = doc! { "$inc": { format!("{list}.$[one].{inner}"): step.by() } };
            let elements = doc! { format!("one.{inner}"): moved };
            tx.change_elements(of, any, update, elements).await?;
        }
    }
    Ok(())
}

/// Moves the beginnings of conversations that were estimates; of how many it is
/// known now.
async fn correct_beginnings(
    tx: &mut Tx,
    own: Document,
    since: Timestamp,
    step: Step,
) -> Result<u64> {
    let from = since.moved(-HELD).millis();
    // What is older than the estimate was written when the time was known.
    let mut estimates = own;
    estimates.extend(doc! {
        "time_estimated": true, "started_at": { "$gte": from, "$lte": step.from.millis() },
    });
    let update = doc! {
        "$inc": { "started_at": step.by(), "revision": 1_i64 }, "$set": { "time_estimated": false },
    };
    tx.change(CONVERSATIONS, estimates, update).await
}

fn json(known: &KnownTime) -> Result<String> {
    serde_json::to_string(known).context(Kind::Internal, "cannot note the time")
}
