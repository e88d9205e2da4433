//! Where it is kept who and what memories speak of: in the store's own database, or
//! in a service outside that is kept in step with it.

use std::sync::Arc;

use super::store::Database;
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::config::Config;
use crate::graph::Graph;
use crate::graph::neo4j::{Client, Neo4jGraph};
use crate::jobs::Wake;
use crate::pipeline::relate::Relate;
use crate::remote::Service;
use crate::store::Follower;
use crate::supervisor::Supervisor;

/// The graph that `config` asks for; and the service outside that it is, if one.
pub(super) async fn open(
    config: &Config,
    database: &Database,
    clock: &Clock,
) -> Result<(Arc<dyn Graph>, Option<Arc<Service>>)> {
    let store = database.store();
    if !config.graph.enabled || config.graph.engine != "neo4j" {
        store.follow_memories(Follower::Graph, None, false).await?;
        return Ok((database.graph(), None));
    }
    let client = Client::new(&config.neo4j, &config.remote)?;
    let service = Arc::new(Service::new("neo4j", config.remote.pause.get(), clock.clone()));
    Ok((Arc::new(Neo4jGraph::new(store, service.clone(), client)), Some(service)))
}

/// Has memories read for who and what they speak of.
pub(super) fn keep(relate: Relate, wake: &Wake, supervisor: &Supervisor) {
    let (relate, wake) = (Arc::new(relate), wake.clone());
    supervisor.background("graph", move || {
        let (relate, wake) = (relate.clone(), wake.clone());
        async move { relate.run(&wake).await }
    });
}
