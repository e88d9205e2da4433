//! The collections, and what makes them quick to search.

use std::collections::HashSet;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::error::{Error as Driver, ErrorKind};
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};
use serde::{Deserialize, Serialize};

use super::documents::*;
use super::nodes::NodeRow;
use super::record::Record;
use super::tx::{Of, step};
use super::uploads::UploadRow;
use crate::base::error::{Error, Kind, Result};

/// The version of the shapes that this program writes.
const VERSION: i64 = 1;
/// The server says so when somebody else makes a collection at the same time.
const NAMESPACE_EXISTS: i32 = 48;
/// Making an index over what is there already takes its time.
const INDEXING: Duration = Duration::from_secs(600);

pub(super) const META: Of<Meta> = Of::new("fl_meta");
pub(super) const COUNTERS: Of<Counter> = Of::new("fl_counters");
pub(super) const NODES: Of<NodeRow> = Of::new("fl_nodes");
pub(super) const USERS: Of<UserRow> = Of::<UserRow>::new("fl_users").without(&["ended"]);
pub(super) const DEVICES: Of<DeviceRow> = Of::new("fl_devices");
pub(super) const SETTINGS: Of<Setting> = Of::new("fl_settings");
pub(super) const AUDIT: Of<AuditRow> = Of::new("fl_audit");
pub(super) const CONVERSATIONS: Of<Record> = Of::new("fl_conversations");
pub(super) const WINDOWS: Of<WindowRow> = Of::new("fl_windows");
pub(super) const JOBS: Of<JobRow> = Of::new("fl_jobs");
/// Memories with their vectors.
pub(super) const MEMORIES: Of<MemoryRow> = Of::new("fl_memories");
/// Memories as they are listed.
pub(super) const LISTED: Of<MemoryListed> =
    Of::<MemoryListed>::new("fl_memories").without(&["vector"]);
pub(super) const HISTORY: Of<HistoryRow> = Of::new("fl_memory_history");
pub(super) const NEWS: Of<News> = Of::new("fl_memory_news");
pub(super) const SHELF: Of<Shelved> = Of::new("fl_shelved_memories");
pub(super) const CHATS: Of<ChatRow> = Of::new("fl_chats");
pub(super) const MESSAGES: Of<MessageRow> = Of::new("fl_chat_messages");
pub(super) const UPLOADS: Of<UploadRow> = Of::new("fl_uploads");
pub(super) const IMPORTED: Of<ImportedRow> = Of::new("fl_imported");
pub(super) const DELETIONS: Of<DeletionRow> = Of::new("fl_deletions");
pub(super) const OBJECTS: Of<ObjectRow> = Of::new("fl_objects");

/// The counters that numbers are taken from.
pub(super) mod counter {
    pub(in crate::store::mongodb) const WINDOWS: &str = "windows";
    pub(in crate::store::mongodb) const JOBS: &str = "jobs";
    pub(in crate::store::mongodb) const UPLOADS: &str = "uploads";
    pub(in crate::store::mongodb) const MESSAGES: &str = "messages";
    pub(super) const ALL: [&str; 4] = [WINDOWS, JOBS, UPLOADS, MESSAGES];
}

/// Where the last number of a counter is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Counter {
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) number: i64,
}

/// Each collection with its indexes.
fn collections() -> Vec<(&'static str, Vec<IndexModel>)> {
    vec![
        (META.name, vec![]),
        (COUNTERS.name, vec![]),
        (NODES.name, vec![]),
        (USERS.name, vec![unique(doc! { "email": 1 }, None)]),
        (DEVICES.name, vec![index(doc! { "user_id": 1, "first_seen": 1 })]),
        (SETTINGS.name, vec![]),
        (AUDIT.name, vec![index(doc! { "at": 1 })]),
        (
            CONVERSATIONS.name,
            vec![
                unique(doc! { "audio_path": 1 }, None),
                index(doc! { "user_id": 1, "started_at": -1 }),
                index(doc! { "started_at": 1 }),
                index(doc! { "node": 1, "ended_at": 1 }),
                index(doc! { "transcripts.state": 1 }),
                index(doc! { "sets.state": 1 }),
                index(doc! { "crop.audio_path": 1 }),
            ],
        ),
        (
            WINDOWS.name,
            vec![
                unique(doc! { "conversation_id": 1, "version": 1, "seq": 1 }, None),
                index(doc! { "state": 1 }),
            ],
        ),
        (
            JOBS.name,
            vec![
                unique(doc! { "key": 1 }, Some(doc! { "live": true })),
                index(doc! { "state": 1, "lane": 1, "_id": 1 }),
                index(doc! { "state": 1, "run_at": 1 }),
                index(doc! { "state": 1, "updated_at": 1 }),
                index(doc! { "conversation_id": 1 }),
                index(doc! { "user_id": 1 }),
            ],
        ),
        (
            MEMORIES.name,
            vec![
                index(doc! { "user_id": 1, "created_at": -1, "seq": -1 }),
                index(doc! { "created_at": -1, "seq": -1 }),
                index(doc! { "conversation_id": 1 }),
                index(doc! { "updated_at": 1 }),
                index(doc! { "user_id": 1, "text": "text" }),
            ],
        ),
        (
            HISTORY.name,
            vec![
                index(doc! { "memory_id": 1 }),
                index(doc! { "user_id": 1 }),
                index(doc! { "at": 1 }),
            ],
        ),
        (
            NEWS.name,
            vec![index(doc! { "follower": 1, "number": 1 }), index(doc! { "memory_id": 1 })],
        ),
        (
            SHELF.name,
            vec![
                index(doc! { "memory._id": 1 }),
                index(doc! { "memory.conversation_id": 1, "memory.version": 1 }),
                index(doc! { "memory.user_id": 1 }),
                index(doc! { "by_conversation": 1, "by_version": 1 }),
            ],
        ),
        (CHATS.name, vec![index(doc! { "user_id": 1, "updated_at": -1 })]),
        (MESSAGES.name, vec![index(doc! { "chat_id": 1 })]),
        (
            UPLOADS.name,
            vec![
                index(doc! { "user_id": 1, "created_at": -1 }),
                index(doc! { "created_at": -1 }),
                index(doc! { "files.conversation_id": 1 }),
                index(doc! { "files.sha256": 1 }),
                index(doc! { "files.spooled": 1 }),
            ],
        ),
        (IMPORTED.name, vec![index(doc! { "kind": 1 })]),
        (DELETIONS.name, vec![index(doc! { "node": 1 })]),
        (OBJECTS.name, vec![]),
    ]
}

fn index(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).build()
}

/// At most one document has those values, of all or of those that `only` names.
fn unique(keys: Document, only: Option<Document>) -> IndexModel {
    let options = IndexOptions::builder().unique(true).partial_filter_expression(only).build();
    IndexModel::builder().keys(keys).options(options).build()
}

/// The names of the collections.
pub(super) fn names() -> Vec<&'static str> {
    collections().into_iter().map(|(name, _)| name).collect()
}

/// Makes what is missing of collections and indexes. `Conflict` when a newer
/// version has written here.
pub(super) async fn prepare(database: &Database) -> Result<()> {
    check(database).await?;
    let there: HashSet<String> =
        step(database.list_collection_names()).await?.into_iter().collect();
    for (name, indexes) in collections() {
        if !there.contains(name) {
            // A transaction cannot make one on every server.
            match step(database.create_collection(name)).await {
                Err(error) if is_there(&error) => {}
                made => made?,
            }
        }
        if !indexes.is_empty() {
            let collection = database.collection::<Document>(name);
            let made = tokio::time::timeout(INDEXING, collection.create_indexes(indexes)).await;
            made.map_err(|_| super::error::silence())??;
        }
    }
    fill(database).await
}

/// What exactly one document is to hold from the start, so that a transaction
/// never has to add it beside another.
pub(super) async fn fill(database: &Database) -> Result<()> {
    let zero = doc! { "$setOnInsert": { "number": 0_i64 } };
    for counter in counter::ALL {
        let counters = database.collection::<Document>(COUNTERS.name);
        step(counters.update_one(doc! { "_id": counter }, zero.clone()).upsert(true)).await?;
    }
    let meta = database.collection::<Document>(META.name);
    for (id, start) in [(MEMORIES_META, zero), (ADMINS_META, doc! { "$setOnInsert": {} })] {
        step(meta.update_one(doc! { "_id": id }, start).upsert(true)).await?;
    }
    let version = doc! { "$max": { "version": VERSION } };
    step(meta.update_one(doc! { "_id": "schema" }, version).upsert(true)).await.map(drop)
}

/// `Conflict` when a newer version has written here.
async fn check(database: &Database) -> Result<()> {
    let meta = database.collection::<Document>(META.name);
    let schema = step(meta.find_one(doc! { "_id": "schema" })).await?;
    match schema.and_then(|schema| schema.get_i64("version").ok()) {
        Some(version) if version > VERSION => Err(Error::new(
            Kind::Conflict,
            format!(
                "the MongoDB database has schema version {version}, and this friend-lite knows \
                 versions up to {VERSION}; install the newer friend-lite that wrote it"
            ),
        )),
        _ => Ok(()),
    }
}

fn is_there(error: &Error) -> bool {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<Driver>()).is_some_and(
        |driver| matches!(&*driver.kind, ErrorKind::Command(command) if command.code == NAMESPACE_EXISTS),
    )
}
