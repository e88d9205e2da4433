//! A MongoDB store for tests. All tests of one process share a server; each has a
//! database of its own while it runs, emptied of what the one before left.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde::Deserialize;

use super::MongoStore;
use super::schema::{self, AUDIT, CONVERSATIONS, HISTORY, JOBS, MEMORIES, SHELF, USERS, WINDOWS};
use super::tx::Of;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::config::{self, Secret};
use crate::domain::conversation::Progress;
use crate::domain::job::JobKind;
use crate::index::Index;
use crate::index::mongodb::MongoScanIndex;
use crate::remote::Service;
use crate::store::testing::{Rows, Tested};

#[path = "../../../tests/harness/mongod.rs"]
mod mongod;

/// Databases by the directory of the test that has them, and those that are free.
#[derive(Default)]
struct Databases {
    taken: HashMap<PathBuf, String>,
    free: Vec<String>,
    made: usize,
}

static DATABASES: OnceLock<Mutex<Databases>> = OnceLock::new();

fn databases() -> std::sync::MutexGuard<'static, Databases> {
    DATABASES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The database of the test in `place`, and whether it is new to it.
fn database_of(place: &Path) -> (String, bool) {
    let mut all = databases();
    let Databases { taken, free, made } = &mut *all;
    // A test is over when its directory is gone.
    let over: Vec<PathBuf> = taken.keys().filter(|place| !place.exists()).cloned().collect();
    free.extend(over.iter().filter_map(|place| taken.remove(place)));
    if let Some(known) = taken.get(place) {
        return (known.clone(), false);
    }
    let name = free.pop().unwrap_or_else(|| {
        *made += 1;
        format!("test-{made}")
    });
    taken.insert(place.to_owned(), name.clone());
    (name, true)
}

/// How the store is opened that the test in `place` has.
pub(super) fn config(database: &str) -> config::Mongodb {
    static SERVER: OnceLock<mongod::Mongod> = OnceLock::new();
    let server = SERVER.get_or_init(|| mongod::Mongod::start(0, &mongod::directory()));
    config::Mongodb { uri: Secret::new(server.uri()), database: database.to_owned() }
}

pub(super) fn service() -> Arc<Service> {
    Arc::new(Service::new("mongodb", Duration::from_millis(100), Clock::system()))
}

/// The store of `database`, as the node of that name has it.
pub(super) async fn open(database: &str, node: &str) -> Result<MongoStore> {
    let remote = config::Remote::default();
    MongoStore::open(&config(database), &remote, node, service()).await
}

impl MongoStore {
    async fn empty(&self) {
        for name in schema::names() {
            let of = Of::<Document>::new(name);
            steps!(self, |tx| tx.remove(of, doc! {}).await).await.unwrap();
        }
        schema::fill(&self.inner.database).await.unwrap();
    }
}

impl Tested for MongoStore {
    const NAME: &str = "mongodb";

    /// A round trip to a server that is emulated takes a hundred times as long.
    const CASES: u32 = 12;

    async fn open_at(place: &Path) -> Self {
        let (database, new) = database_of(place);
        let store = open(&database, "here").await.unwrap();
        if new {
            store.empty().await;
        }
        store
    }

    fn index(&self) -> impl Index {
        MongoScanIndex::new(self)
    }

    async fn count(&self, rows: Rows) -> u64 {
        let all = doc! {};
        let counted = steps!(self, |tx| match rows {
            Rows::Conversations => tx.count(CONVERSATIONS, all).await,
            Rows::Windows => tx.count(WINDOWS, all).await,
            Rows::Jobs => tx.count(JOBS, all).await,
            Rows::Memories => tx.count(MEMORIES, all).await,
            Rows::History => tx.count(HISTORY, all).await,
            Rows::Shelved => tx.count(SHELF, all).await,
            Rows::Vectors => tx.count(MEMORIES, doc! { "vector": { "$type": "binData" } }).await,
            Rows::Tea => {
                let mut found = 0;
                for user in tx.all(USERS, all, doc! {}).await? {
                    let tea = doc! { "user_id": user.id.as_str(), "$text": { "$search": "tea" } };
                    found += tx.all(MEMORIES, tea, doc! {}).await?.len() as u64;
                }
                Ok(found)
            }
            Rows::EndedTokens => {
                #[derive(Deserialize)]
                struct Ended {
                    tokens: u64,
                }
                let tokens = doc! { "$sum": { "$size": { "$ifNull": ["$ended", []] } } };
                let pipeline = vec![doc! { "$group": { "_id": null, "tokens": tokens } }];
                let ended: Vec<Ended> = tx.aggregate(USERS, pipeline).await?;
                Ok(ended.iter().map(|ended| ended.tokens).sum())
            }
        });
        counted.await.unwrap()
    }

    async fn actions(&self) -> Vec<String> {
        let trail = steps!(self, |tx| tx.all(AUDIT, doc! {}, doc! { "_id": 1 }).await);
        trail.await.unwrap().into_iter().map(|row| row.action).collect()
    }

    async fn lose_jobs(&self, kind: JobKind) {
        let jobs = doc! { "kind": kind.as_str() };
        steps!(self, |tx| tx.remove(JOBS, jobs).await).await.unwrap();
    }

    async fn unsettle_transcripts(&self) {
        let pending = doc! { "$set": { "transcripts.$[].state": Progress::Pending.as_str() } };
        transaction!(self, |tx| tx.change(CONVERSATIONS, doc! {}, pending.clone()).await)
            .await
            .unwrap();
    }
}
