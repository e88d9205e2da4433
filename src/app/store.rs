//! Where everything but the audio is kept: in a SQLite file below the state
//! directory, or in MongoDB.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::error::{Kind, Result};
use crate::config::Config;
use crate::domain::client::ClientView;
use crate::domain::finding::Finding;
use crate::domain::ids::{ClientId, ConversationId};
use crate::graph::Graph;
use crate::graph::empty::EmptyGraph;
use crate::graph::sqlite::SqliteGraph;
use crate::index::Index;
use crate::index::mongodb::MongoScanIndex;
use crate::index::sqlite_vec::SqliteVecIndex;
use crate::ingest::Ingest;
use crate::jobs::Wake;
use crate::pipeline::reconcile::LiveConversations;
use crate::remote::Service;
use crate::store::Store;
use crate::store::mongodb::original::OriginalDatabase;
use crate::store::mongodb::{Beat, MongoStore};
use crate::store::sqlite::{Access, SqliteStore};
use crate::supervisor::Supervisor;
use crate::upkeep::backup;

/// A node that shares the database writes down that it lives so many times before it
/// would count as dead.
const BEATS: u32 = 4;
/// How often it is looked, at most, whether there is something to tell the others, and
/// whether they ask for something.
const LOOK: Duration = Duration::from_secs(1);

/// The database that a daemon has opened.
pub(super) enum Database {
    Sqlite(SqliteStore),
    Mongo {
        store: MongoStore,
        service: Arc<Service>,
        /// The right to the state directory, where the audio is.
        _held: Box<dyn Send + Sync>,
    },
}

impl Database {
    /// Opens the database for a daemon, which has the state directory alone.
    pub(super) async fn open(config: &Config, clock: &Clock) -> Result<Self> {
        let dir = config.state_dir();
        if !config.store.is_mongodb() {
            let copies = copies(config);
            let sqlite = SqliteStore::open_or_recover(&dir, copies, false, clock.now())?;
            return Ok(Self::Sqlite(sqlite));
        }
        let held = Box::new(SqliteStore::hold(&dir)?);
        let service = mongodb_service(config, clock);
        let store = open_mongodb(config, service.clone()).await?;
        store.check_whole().await?;
        let (silence, url) = (config.store.node_silence.get(), config.store.node_url.as_str());
        store.heartbeat(Beat { silence, url, clients: &[] }, clock.now()).await?;
        Ok(Self::Mongo { store, service, _held: held })
    }

    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Mongo { store, .. } => Arc::new(store.clone()),
        }
    }

    /// What the original may have in the same database.
    pub(super) fn original(&self) -> Option<OriginalDatabase> {
        match self {
            Self::Sqlite(_) => None,
            Self::Mongo { store, .. } => Some(store.original()),
        }
    }

    /// The index of memories that is part of it.
    pub(super) fn index(&self) -> Arc<dyn Index> {
        match self {
            Self::Sqlite(store) => Arc::new(SqliteVecIndex::new(store)),
            Self::Mongo { store, .. } => Arc::new(MongoScanIndex::new(store)),
        }
    }

    pub(super) fn graph(&self) -> Arc<dyn Graph> {
        match self {
            Self::Sqlite(store) => Arc::new(SqliteGraph::new(store)),
            Self::Mongo { .. } => Arc::new(EmptyGraph),
        }
    }

    /// The service outside that it is, if one.
    pub(super) fn service(&self) -> Option<Arc<Service>> {
        match self {
            Self::Sqlite(_) => None,
            Self::Mongo { service, .. } => Some(service.clone()),
        }
    }

    /// Has the other nodes know that this one lives and who is connected to it, where
    /// others share the database, and does what they ask for.
    pub(super) fn keep_alive(
        &self,
        config: &Config,
        ingest: &Arc<Ingest>,
        wake: &Wake,
        clock: &Clock,
        supervisor: &Supervisor,
    ) {
        let Self::Mongo { store, .. } = self else { return };
        let node = Node {
            store: store.clone(),
            ingest: ingest.clone(),
            silence: config.store.node_silence.get(),
            url: config.store.node_url.clone(),
            wake: wake.clone(),
            clock: clock.clone(),
            supervisor: supervisor.clone(),
        };
        supervisor.service("node", move |stop| {
            let node = node.clone();
            async move { node.run(stop).await }
        });
    }
}

/// This daemon among those that share the database.
#[derive(Clone)]
struct Node {
    store: MongoStore,
    ingest: Arc<Ingest>,
    silence: Duration,
    url: String,
    wake: Wake,
    clock: Clock,
    supervisor: Supervisor,
}

impl Node {
    async fn run(&self, stop: CancellationToken) -> Result<()> {
        let every = self.silence / BEATS;
        let mut told: Option<(Duration, Vec<Seen>)> = None;
        while !stop.is_cancelled() {
            let clients = self.ingest.clients().list(None);
            let (now, seen) = (self.clock.monotonic(), clients.iter().map(seen).collect());
            let is_known =
                told.as_ref().is_some_and(|(at, told)| *told == seen && now - *at < every);
            if !is_known && self.beat(&clients).await? {
                told = Some((now, seen));
            }
            self.close_what_is_asked().await?;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK.min(every)) => {}
            }
        }
        // Nobody is connected any more in a moment.
        self.beat(&[]).await.map(drop)
    }

    /// Whether the others know now.
    async fn beat(&self, clients: &[ClientView]) -> Result<bool> {
        let beat = Beat { silence: self.silence, url: &self.url, clients };
        match self.store.heartbeat(beat, self.clock.now()).await {
            Ok(0) => Ok(true),
            Ok(jobs) => {
                tracing::warn!(jobs, "took over what a node held that is not heard of any more");
                self.wake.wake();
                Ok(true)
            }
            // Its breaker has told.
            Err(error) if error.kind() == Kind::Away => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn close_what_is_asked(&self) -> Result<()> {
        let asked = match self.store.asked_to_close().await {
            Err(error) if error.kind() == Kind::Away => return Ok(()),
            asked => asked?,
        };
        for id in asked {
            let ingest = self.ingest.clone();
            // It takes a while, and must not keep this node from being heard of.
            self.supervisor.once(async move { ingest.close(&id).await });
        }
        Ok(())
    }
}

/// What the others are told at once when it changes.
type Seen = (ClientId, bool, Option<ConversationId>);

fn seen(client: &ClientView) -> Seen {
    let current = client.conversation.as_ref().map(|current| current.id.clone());
    (client.client_id.clone(), client.connected, current)
}

pub(super) fn mongodb_service(config: &Config, clock: &Clock) -> Arc<Service> {
    Arc::new(Service::new("mongodb", config.remote.pause.get(), clock.clone()))
}

pub(super) async fn open_mongodb(config: &Config, service: Arc<Service>) -> Result<MongoStore> {
    let node = config.store.node_name();
    MongoStore::open(&config.mongodb, &config.remote, &node, service).await
}

/// For a command, which asks once.
async fn mongodb_for_command(config: &Config) -> Result<Arc<dyn Store>> {
    let service = mongodb_service(config, &Clock::system());
    let store = open_mongodb(config, service).await?;
    store.check_whole().await?;
    Ok(Arc::new(store))
}

/// Whether a daemon has run with this configuration.
pub fn has_state(config: &Config) -> bool {
    config.store.is_mongodb() || SqliteStore::exists(&config.state_dir())
}

/// The store for a command that runs beside the daemon.
///
/// # Errors
/// `Storage` when it cannot be opened; of MongoDB, as of [`MongoStore::open`].
pub async fn open_store_beside_daemon(config: &Config) -> Result<Arc<dyn Store>> {
    if config.store.is_mongodb() {
        return mongodb_for_command(config).await;
    }
    Ok(Arc::new(SqliteStore::open(&config.state_dir(), Access::Shared)?))
}

/// The store for a command that only looks, and whether a daemon is at work.
///
/// # Errors
/// `NotFound` without a database, `Conflict` when another version wrote it,
/// `Storage` when it cannot be opened; of MongoDB, as of [`MongoStore::open`].
pub async fn open_store_to_look(config: &Config) -> Result<(Arc<dyn Store>, bool)> {
    let dir = config.state_dir();
    let store: Arc<dyn Store> = match config.store.is_mongodb() {
        true => mongodb_for_command(config).await?,
        false => Arc::new(SqliteStore::open(&dir, Access::Look)?),
    };
    Ok((store, SqliteStore::is_held(&dir)?))
}

/// The store for a command that works while the daemon is stopped, and what keeps
/// it from starting meanwhile. A damaged database is dealt with as at a start.
///
/// # Errors
/// `Conflict` when a daemon is at work, or a newer version wrote it; `Storage`
/// when it cannot be opened.
pub async fn open_store_alone(
    config: &Config,
    clock: &Clock,
) -> Result<(Arc<dyn Store>, impl Sized + use<>)> {
    let database = Database::open(config, clock).await?;
    Ok((database.store(), database))
}

/// Copies of the database that may take the place of a damaged one.
fn copies(config: &Config) -> Vec<PathBuf> {
    config.backup_dir().map_or_else(Vec::new, |dir| backup::databases(&dir))
}

/// Keeps every daemon from the state directory until dropped.
///
/// # Errors
/// `Conflict` when one is at work there.
pub fn hold_state(config: &Config) -> Result<impl Sized + use<>> {
    hold(&config.state_dir())
}

/// As [`hold_state`], of the directory `dir`.
pub(super) fn hold(dir: &Path) -> Result<impl Sized + use<>> {
    SqliteStore::hold(dir)
}

/// What is wrong with the database file itself; MongoDB looks after its own.
///
/// # Errors
/// `NotFound` without one, `Storage` when the disk does not give it.
pub fn database_damage(config: &Config) -> Result<Vec<Finding>> {
    match config.store.is_mongodb() {
        true => Ok(Vec::new()),
        false => SqliteStore::damage(&config.state_dir()),
    }
}
