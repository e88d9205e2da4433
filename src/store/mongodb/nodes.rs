//! Which daemons share the database, who of them lives, and what they tell and ask
//! each other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::{Bson, Document, doc};
use serde::{Deserialize, Serialize};

use super::MongoStore;
use super::queue::find_record;
use super::schema::{JOBS, NODES};
use super::tx::Tx;
use crate::base::clock::Timestamp;
use crate::base::error::{Context, Error, Kind, Result};
use crate::domain::client::ClientView;
use crate::domain::ids::{ClientId, ConversationId};
use crate::domain::job::JobState;
use crate::store::Nodes;

/// A daemon among those that share the database.
#[derive(Serialize, Deserialize)]
pub(super) struct NodeRow {
    #[serde(rename = "_id")]
    id: String,
    /// The run of the daemon that was there before.
    before: Option<String>,
    /// Where it is reached.
    #[serde(default)]
    url: String,
    /// The devices that are connected to it.
    #[serde(default)]
    clients: Vec<ClientView>,
    /// Conversations that it is asked to close.
    #[serde(default)]
    asked: Vec<ConversationId>,
}

/// What a node tells the others.
#[derive(Clone, Copy, Debug)]
pub struct Beat<'a> {
    /// If it does not tell again for so long, by the server's clock, it does nothing any
    /// more: its leases are void.
    pub silence: Duration,
    /// Where it is reached; empty where it is not.
    pub url: &'a str,
    /// The devices that are connected to it.
    pub clients: &'a [ClientView],
}

impl MongoStore {
    /// Writes down that this node lives, and puts back what nodes hold that do not live
    /// any more; how many jobs those are.
    ///
    /// # Errors
    /// `Config` when another daemon goes by the same name; as of any step when
    /// the server cannot be reached.
    pub async fn heartbeat(&self, beat: Beat<'_>, at: Timestamp) -> Result<u64> {
        let (node, run) = (self.node(), self.inner.run.as_str());
        let silence = i64::try_from(beat.silence.as_millis()).unwrap_or(i64::MAX);
        let (url, clients) = (beat.url, mongodb::bson::serialize_to_bson(beat.clients));
        let clients = clients.context(Kind::Internal, "cannot tell of the clients")?;
        let beat = vec![doc! { "$set": {
            "lives_until": { "$add": ["$$NOW", silence] }, "clients": { "$literal": clients },
            "url": { "$literal": url },
            "before": "$run", "run": run,
        } }];
        let (before, back) = steps!(self, |tx| {
            let own = tx.upsert(NODES, doc! { "_id": node }, beat.clone()).await?;
            let living = living(tx).await?;
            let living: Vec<&str> = living.iter().map(|node| node.id.as_str()).collect();
            let held = doc! { "state": JobState::Leased.as_str(), "node": { "$nin": living } };
            let back = tx.change(JOBS, held, put_back(false, at)).await?;
            Ok((own.and_then(|own| own.before), back))
        })
        .await?;
        // The first beat takes the place of an earlier run.
        let first = !self.inner.beaten.swap(true, Ordering::Relaxed);
        if !first && before.is_some_and(|before| before != run) {
            let message = format!(
                "another daemon on this MongoDB is called {node} too; give each a store.node of \
                 its own"
            );
            return Err(Error::new(Kind::Config, message));
        }
        Ok(back)
    }

    /// The conversations that others have asked this node to close since it was last
    /// called.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn asked_to_close(&self) -> Result<Vec<ConversationId>> {
        let asked = doc! { "_id": self.node(), "asked.0": { "$exists": true } };
        steps!(self, |tx| {
            let Some(own) = tx.first(NODES, asked.clone()).await? else { return Ok(Vec::new()) };
            let taken: Vec<&str> = own.asked.iter().map(ConversationId::as_str).collect();
            let taken = doc! { "$pull": { "asked": { "$in": taken } } };
            tx.change(NODES, asked, taken).await?;
            Ok(own.asked)
        })
        .await
    }

    /// The names of the other nodes that live.
    pub(super) async fn others(&self, tx: &mut Tx) -> Result<Vec<String>> {
        let names = living(tx).await?.into_iter().map(|node| node.id);
        Ok(names.filter(|name| name != self.node()).collect())
    }
}

#[async_trait]
impl Nodes for MongoStore {
    async fn clients_elsewhere(&self) -> Result<Vec<ClientView>> {
        let living = steps!(self, |tx| living(tx).await).await?;
        let others = living.into_iter().filter(|node| node.id != self.node());
        Ok(others.flat_map(|node| node.clients).collect())
    }

    async fn node_with(&self, client: &ClientId) -> Result<Option<String>> {
        let living = steps!(self, |tx| living(tx).await).await?;
        let records = |one: &ClientView| one.client_id == *client && one.conversation.is_some();
        let with = living.into_iter().find(|node| {
            node.id != self.node() && !node.url.is_empty() && node.clients.iter().any(records)
        });
        Ok(with.map(|node| node.url))
    }

    async fn ask_to_close(&self, id: &ConversationId) -> Result<bool> {
        let ask = doc! { "$addToSet": { "asked": id.as_str() } };
        steps!(self, |tx| {
            let Some(record) = find_record(tx, id).await? else { return Ok(false) };
            if record.node == self.node() || record.ended_at.is_some() {
                return Ok(false);
            }
            let mut there = lives();
            there.insert("_id", &record.node);
            Ok(tx.change(NODES, there, ask).await? > 0)
        })
        .await
    }

    async fn recorded_elsewhere(&self, id: &ConversationId) -> Result<Option<String>> {
        let found = steps!(self, |tx| find_record(tx, id).await).await?;
        Ok(found.map(|record| record.node).filter(|node| node != self.node()))
    }
}

/// The nodes that live.
async fn living(tx: &mut Tx) -> Result<Vec<NodeRow>> {
    tx.all(NODES, lives(), doc! { "_id": 1 }).await
}

fn lives() -> Document {
    doc! { "$expr": { "$gt": ["$lives_until", "$$NOW"] } }
}

/// Has leased jobs wait again; `uncount` takes the attempt back too.
pub(super) fn put_back(uncount: bool, at: Timestamp) -> Vec<Document> {
    let attempts = doc! { "$subtract": ["$attempts", i32::from(uncount)] };
    vec![doc! { "$set": {
        "state": JobState::Ready.as_str(),
        "owner": Bson::Null,
        "node": Bson::Null,
        "updated_at": at.millis(),
        "attempts": { "$max": [attempts, 0] },
    } }]
}
