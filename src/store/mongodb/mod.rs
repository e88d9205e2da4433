//! The MongoDB adapter of the store: one database of a replica set, which
//! several daemons may share.
//!
//! A conversation is one document ([`record`]), and what must not come apart is
//! one transaction: read as of one moment, made lasting on most members of the
//! set and in their journals before it is acknowledged, and made anew when
//! somebody else has changed one of its documents meanwhile ([`tx`]). Ids that
//! are numbers come from counters and may have gaps.
//!
//! A lease carries the name of the node whose worker holds it. Each node writes
//! down that it lives, by the server's clock, and who is connected to it; the leases
//! of one that has not done so for a while are put back by the others ([`nodes`]).
//! A job that needs audio is given to the node that has it, until that is in the
//! bucket.
//!
//! Every collection of ours begins with `fl_`: those of the original Friend-Lite
//! (`users`, `audio_chunks`, `conversations` and others) can be in the same
//! database, and are never written ([`original`]).
//!
//! While the server is away its breaker fails every call at once, with
//! [`Kind::Away`](crate::base::error::Kind::Away), and has told the log.

/// Makes steps that each stand for themselves. (A macro, and not a method that
/// takes a closure: futures that borrow from one cannot be proved `Send` yet.)
macro_rules! steps {
    ($store:expr, |$tx:ident| $work:expr) => {
        async {
            let store: &$crate::store::mongodb::MongoStore = $store;
            let mut steps = store.steps();
            let $tx = &mut steps;
            store.guarded(async { $work }).await
        }
    };
}

/// Does work as one transaction, as often as it takes; an error takes it back.
macro_rules! transaction {
    ($store:expr, |$tx:ident| $work:expr) => {
        async {
            let store: &$crate::store::mongodb::MongoStore = $store;
            let work = async {
                let mut attempts = $crate::store::mongodb::attempts::Attempts::default();
                loop {
                    let mut begun = store.begin().await?;
                    let outcome = {
                        let $tx = &mut begun;
                        $crate::store::mongodb::attempts::fallible(async { $work }).await
                    };
                    if let Some(end) = attempts.end(begun, outcome).await {
                        return end;
                    }
                }
            };
            store.guarded(work).await
        }
    };
}

mod attempts;
mod audio;
mod changes;
mod chats;
mod client;
mod conversations;
mod deletions;
mod documents;
mod error;
mod imports;
mod jobs;
mod lost;
mod memories;
mod nodes;
pub mod original;
mod outbox;
mod queue;
mod record;
mod replacement;
mod schema;
mod shelf;
mod times;
mod transfer;
mod tx;
mod upkeep;
mod uploads;
mod users;
mod vectors;
mod versions;

#[cfg(test)]
mod node_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mongodb::{Client, Database};

pub use self::nodes::Beat;
use self::original::OriginalDatabase;
use self::tx::Tx;
use crate::base::error::{Error, Kind, Result};
use crate::config;
use crate::remote::{Fault, Service};

/// The store in a MongoDB database. Cheap to clone.
#[derive(Clone)]
pub struct MongoStore {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    database: Database,
    node: String,
    /// This run of the daemon.
    run: String,
    /// Whether this run has written down that it lives.
    beaten: AtomicBool,
    service: Arc<Service>,
}

impl MongoStore {
    /// Connects to the server that `config` names and makes what is missing of
    /// collections and indexes; `node` is what this daemon is called among
    /// those that share the database. `service` tells how the server is.
    ///
    /// # Errors
    /// `Config` when the address or the certificates cannot be used, or the
    /// server is not part of a replica set and so has no transactions;
    /// `Conflict` when a newer version has written the database; `Unavailable`
    /// and `Timeout` when it cannot be reached.
    pub async fn open(
        config: &config::Mongodb,
        remote: &config::Remote,
        node: &str,
        service: Arc<Service>,
    ) -> Result<Self> {
        let client = client::connect(config, remote).await?;
        client::check(&client).await?;
        let database = client.database(&config.database);
        schema::prepare(&database).await?;
        let (node, run) = (node.to_owned(), uuid::Uuid::new_v4().simple().to_string());
        let beaten = AtomicBool::new(false);
        Ok(Self { inner: Arc::new(Inner { client, database, node, run, beaten, service }) })
    }

    /// What the original has in the same database.
    pub fn original(&self) -> OriginalDatabase {
        OriginalDatabase::beside(&self.inner.database)
    }

    /// What this daemon is called among those that share the database.
    fn node(&self) -> &str {
        &self.inner.node
    }

    /// Steps that each stand for themselves.
    fn steps(&self) -> Tx {
        Tx::new(self.inner.database.clone(), None)
    }

    async fn begin(&self) -> Result<Tx> {
        let mut session = tx::step(self.inner.client.start_session()).await?;
        tx::step(session.start_transaction().with_options(client::transaction())).await?;
        Ok(Tx::new(self.inner.database.clone(), Some(session)))
    }

    /// Waits for `work`, unless the server is known to be away; notes whether it
    /// answered.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let request = async {
            work.await.map_err(|error| match error.kind() {
                Kind::Unavailable | Kind::Timeout => Fault::Lasting(error),
                _ => Fault::Refused(error),
            })
        };
        let outcome = self.inner.service.once(request).await;
        outcome.map_err(|error| match error.kind() {
            // It is the server that is away, whatever was to be done there.
            Kind::Unavailable | Kind::Timeout => {
                Error::new(Kind::Away, error.message()).with_source(error)
            }
            _ => error,
        })
    }
}
