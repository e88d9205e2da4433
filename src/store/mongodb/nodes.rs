//! Which daemons share the database, and who of them lives.

use std::sync::atomic::Ordering;

use mongodb::bson::{Document, doc};

use super::MongoStore;
use super::schema::{JOBS, NODES};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::job::JobState;

/// A node that has not been heard of for so many milliseconds does nothing any
/// more: its leases are void.
const SILENCE: i64 = 60_000;

impl MongoStore {
    /// Writes down that this node lives, and puts back what nodes hold that have
    /// not done so for a minute, by the server's clock; how many jobs those are.
    ///
    /// # Errors
    /// `Config` when another daemon goes by the same name; as of any step when
    /// the server cannot be reached.
    pub async fn heartbeat(&self, at: Timestamp) -> Result<u64> {
        let (node, run) = (self.node(), self.inner.run.as_str());
        let beat = vec![doc! { "$set": { "seen": "$$NOW", "before": "$run", "run": run } }];
        let (before, back) = steps!(self, |tx| {
            let own = tx.upsert(NODES, doc! { "_id": node }, beat.clone()).await?;
            let living = tx.all(NODES, doc! { "$expr": is_living() }, doc! {}).await?;
            let living: Vec<&str> =
                living.iter().filter_map(|one| one.get_str("_id").ok()).collect();
            let held = doc! { "state": JobState::Leased.as_str(), "node": { "$nin": living } };
            let back = tx.change(JOBS, held, put_back(false, at)).await?;
            let before = own.and_then(|own| Some(own.get_str("before").ok()?.to_owned()));
            Ok((before, back))
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
}

/// Whether a node has been heard of of late, by the server's clock.
pub(super) fn is_living() -> Document {
    doc! { "$lt": [{ "$subtract": ["$$NOW", "$seen"] }, SILENCE] }
}

/// Has leased jobs wait again; `uncount` takes the attempt back too.
pub(super) fn put_back(uncount: bool, at: Timestamp) -> Vec<Document> {
    let attempts = doc! { "$subtract": ["$attempts", i32::from(uncount)] };
    vec![doc! { "$set": {
        "state": JobState::Ready.as_str(),
        "owner": null,
        "node": null,
        "updated_at": at.millis(),
        "attempts": { "$max": [attempts, 0] },
    } }]
}
