//! A database that is being filled with what another store holds. It is marked
//! until it is whole, and no daemon begins on one that is not.

use mongodb::bson::{Document, doc};

use super::MongoStore;
use super::schema::{self, META, USERS};
use super::tx::{Of, step};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};

/// The document of `fl_meta` that is there while the database is not whole.
const MARK: &str = "migrating";
/// Begins the names of all collections of ours.
const PREFIX: &str = "fl_";

impl MongoStore {
    /// `Conflict` when the database has been filled in part only.
    ///
    /// # Errors
    /// That, and as of any step.
    pub async fn check_whole(&self) -> Result<()> {
        if !self.is_marked().await? {
            return Ok(());
        }
        let message = format!(
            "the MongoDB database {} has been filled in part only: run `friend-lite migrate --to \
             mongodb` again",
            self.inner.database.name()
        );
        Err(Error::new(Kind::Conflict, message))
    }

    /// Makes the database empty, to be filled by one program. What an earlier
    /// attempt left is removed; anything else is put aside if `force`, and the
    /// beginning of the names of its collections is returned.
    ///
    /// # Errors
    /// `Conflict` when there is something and not `force`, and while other nodes
    /// are at work; as of any step.
    pub async fn begin_replacement(&self, force: bool, now: Timestamp) -> Result<Option<String>> {
        let (database, mut aside) = (&self.inner.database, None);
        if self.is_marked().await? {
            for name in schema::names() {
                if name != META.name {
                    let of = Of::<Document>::new(name);
                    steps!(self, |tx| tx.remove(of, doc! {}).await).await?;
                }
            }
            let rest = doc! { "_id": { "$ne": MARK } };
            steps!(self, |tx| tx.remove(META, rest).await).await?;
        } else if steps!(self, |tx| tx.has(USERS, doc! {}).await).await? {
            if !force {
                let message = format!(
                    "the MongoDB database {} is in use already; --force puts what is there aside, \
                     and mongodb.database names another",
                    database.name()
                );
                return Err(Error::new(Kind::Conflict, message));
            }
            aside = Some(self.put_aside(now).await?);
            schema::prepare(database).await?;
        }
        schema::fill(database).await?;
        let marked = doc! { "$setOnInsert": { "since": now.millis() } };
        let meta = database.collection::<Document>(META.name);
        step(meta.update_one(doc! { "_id": MARK }, marked).upsert(true)).await?;
        Ok(aside)
    }

    /// Says that the database is whole.
    ///
    /// # Errors
    /// As of any step.
    pub async fn end_replacement(&self) -> Result<()> {
        steps!(self, |tx| tx.remove(META, doc! { "_id": MARK }).await).await.map(drop)
    }

    async fn is_marked(&self) -> Result<bool> {
        steps!(self, |tx| tx.has(META, doc! { "_id": MARK }).await).await
    }

    /// Gives all collections other names; how those begin.
    async fn put_aside(&self, now: Timestamp) -> Result<String> {
        let database = &self.inner.database;
        let beginning = format!("before_migration_{}.", now.millis());
        let admin = self.inner.client.database("admin");
        for name in schema::names() {
            let (from, to) = (name, format!("{beginning}{}", name.trim_start_matches(PREFIX)));
            let rename = doc! {
                "renameCollection": format!("{}.{from}", database.name()),
                "to": format!("{}.{to}", database.name()),
            };
            step(admin.run_command(rename)).await?;
        }
        Ok(beginning)
    }

    /// Conversations whose recordings are on the disks of other nodes and not in
    /// the bucket: how many, by node.
    ///
    /// # Errors
    /// As of any step.
    pub async fn recordings_of_others(&self) -> Result<Vec<(String, u64)>> {
        #[derive(serde::Deserialize)]
        struct Count {
            #[serde(rename = "_id")]
            node: String,
            conversations: i64,
        }
        let pipeline = vec![
            doc! { "$match": { "node": { "$ne": self.node() }, "audio_deleted_at": null } },
            doc! { "$lookup": {
                "from": schema::OBJECTS.name, "localField": "audio_path", "foreignField": "_id",
                "as": "object",
            } },
            doc! { "$match": { "object.verified_at": { "$not": { "$type": "number" } } } },
            doc! { "$group": { "_id": "$node", "conversations": { "$sum": 1_i64 } } },
            doc! { "$sort": { "_id": 1 } },
        ];
        let counts: Vec<Count> =
            steps!(self, |tx| tx.aggregate(schema::CONVERSATIONS, pipeline).await).await?;
        Ok(counts
            .into_iter()
            .map(|count| (count.node, count.conversations.unsigned_abs()))
            .collect())
    }

    /// `Conflict` while other nodes are at work on the database.
    ///
    /// # Errors
    /// That, and as of any step.
    pub async fn check_alone(&self) -> Result<()> {
        let names = steps!(self, |tx| self.others(tx).await).await?;
        if names.is_empty() {
            return Ok(());
        }
        let message = format!(
            "other daemons have used this MongoDB database within the last minute: {}; stop them, \
             and try again after a minute",
            names.join(", ")
        );
        Err(Error::new(Kind::Conflict, message))
    }
}
