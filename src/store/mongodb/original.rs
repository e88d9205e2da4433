//! The collections of the original Friend-Lite, which are read and never written.

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Database, options::ReadConcern};

use super::client;
use super::tx::step;
use crate::base::error::{Error, Kind, Result};
use crate::config;

/// Those that make a database one of the original.
const ITS_OWN: [&str; 3] = ["users", "audio_chunks", "conversations"];
/// Documents read at once.
const PAGE: i64 = 100;

/// A database of the original. Cheap to clone.
#[derive(Clone)]
pub struct OriginalDatabase(Database);

impl OriginalDatabase {
    /// The database that `config` names. Its server need not be part of a replica
    /// set.
    ///
    /// # Errors
    /// `Config` when the address cannot be used; `NotFound` when the database is none
    /// of the original; `Unavailable` and `Timeout` when the server cannot be reached.
    pub async fn open(config: &config::Mongodb, remote: &config::Remote) -> Result<Self> {
        let database = Self(client::connect(config, remote).await?.database(&config.database));
        if database.is_there().await? {
            return Ok(database);
        }
        let message = format!(
            "the MongoDB database {} has none of the collections {}; --database names another",
            config.database,
            ITS_OWN.join(", ")
        );
        Err(Error::new(Kind::NotFound, message))
    }

    /// The same database as that of a store.
    pub(super) fn beside(database: &Database) -> Self {
        Self(database.clone())
    }

    /// Whether the original has been here.
    ///
    /// # Errors
    /// `Unavailable` and `Timeout` when the server cannot be reached.
    pub async fn is_there(&self) -> Result<bool> {
        let names = step(self.0.list_collection_names()).await?;
        Ok(names.iter().any(|name| ITS_OWN.contains(&name.as_str())))
    }

    /// The documents of a collection in the order of their ids, as they come.
    pub fn documents(&self, name: &str) -> BoxStream<'static, Result<Document>> {
        let collection = self.0.collection::<Document>(name);
        // By pages of their own: what is done with one may take longer than a
        // cursor lives.
        let pages = stream::try_unfold(Some(Bson::MinKey), move |after| {
            let collection = collection.clone();
            async move {
                let Some(after) = after else { return Ok::<_, Error>(None) };
                let later = doc! { "$expr": { "$gt": ["$_id", { "$literal": after }] } };
                let find = collection
                    .find(later)
                    .sort(doc! { "_id": 1 })
                    .limit(PAGE)
                    .read_concern(ReadConcern::local());
                let cursor = step(find).await?;
                let page: Vec<Document> = step(cursor.try_collect()).await?;
                let more = page.len() as i64 == PAGE;
                let last = page.last().and_then(|last| last.get("_id").cloned());
                let page = stream::iter(page.into_iter().map(Ok::<_, Error>));
                Ok(Some((page, last.filter(|_| more))))
            }
        });
        pages.try_flatten().boxed()
    }
}
