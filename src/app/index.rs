//! Where memories are found by meaning: in the store's own database, or in a
//! service outside that is kept in step with it.

use std::sync::Arc;

use super::HEALTH_INTERVAL;
use super::store::Database;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::config::Config;
use crate::index::Index;
use crate::index::qdrant::{Client, QdrantIndex};
use crate::jobs::Wake;
use crate::remote::Service;
use crate::store::{Follower, Store};
use crate::supervisor::Supervisor;

/// An index in a service outside, and how that is.
type Outside = (Arc<dyn Index>, Arc<Service>);

/// The index that `config` asks for, over the vectors of the embedding model
/// `model`; and the service outside that it is, if one.
pub(super) async fn open(
    config: &Config,
    database: &Database,
    model: String,
    clock: &Clock,
) -> Result<(Arc<dyn Index>, Option<Arc<Service>>)> {
    let store = database.store();
    match outside(config, store.clone(), model, clock)? {
        Some((index, service)) => Ok((index, Some(service))),
        None => {
            store.follow_memories(Follower::Index, None, false).await?;
            Ok((database.index(), None))
        }
    }
}

/// The index in a service outside, if `config` asks for one.
fn outside(
    config: &Config,
    store: Arc<dyn Store>,
    model: String,
    clock: &Clock,
) -> Result<Option<Outside>> {
    if config.index.engine != "qdrant" {
        return Ok(None);
    }
    let client = Client::new(&config.qdrant, &config.remote)?;
    let service = Arc::new(Service::new("qdrant", config.remote.pause.get(), clock.clone()));
    Ok(Some((Arc::new(QdrantIndex::new(store, service.clone(), client, model)), service)))
}

/// The index in a service outside, for the command line.
///
/// # Errors
/// `Config` when it cannot be used.
pub fn index_outside(
    config: &Config,
    store: Arc<dyn Store>,
    model: String,
) -> Result<Option<Arc<dyn Index>>> {
    Ok(outside(config, store, model, &Clock::system())?.map(|(index, _)| index))
}

/// Keeps an index outside in step with the store; what waited for it is done once
/// it is.
pub(super) fn keep(index: &Arc<dyn Index>, wake: &Wake, supervisor: &Supervisor) {
    let (index, wake) = (index.clone(), wake.clone());
    supervisor.background("index", move || {
        let (index, wake) = (index.clone(), wake.clone());
        async move { follow(index.as_ref(), &wake).await }
    });
}

async fn follow(index: &dyn Index, wake: &Wake) {
    let mut wakes = wake.listen();
    let (mut behind, mut told) = (false, String::new());
    loop {
        match index.catch_up().await {
            Ok(()) => {
                told.clear();
                if std::mem::take(&mut behind) {
                    wake.wake();
                }
            }
            // Its breaker has told.
            Err(error) if error.is_transient() => behind = true,
            Err(error) if error.message() != told => {
                tracing::error!("memories are found by their words alone: {}", error.report());
                error.message().clone_into(&mut told);
            }
            Err(_) => {}
        }
        tokio::select! {
            () = wakes.wait() => {}
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
}
