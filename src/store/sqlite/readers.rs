//! A few connections that only read, opened when they are needed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::file;
use crate::base::error::{Context, Kind, Result};
use crate::supervisor;

/// Reads at once. More wait: the disk gains nothing from them, and each
/// connection keeps a page cache.
const CONNECTIONS: usize = 4;

pub(super) struct Readers {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            shared: Arc::new(Shared { path, idle: Mutex::default() }),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Runs `work` on a connection of its own for the while.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .context(Kind::Unavailable, "the database is closed")?;
        let shared = Arc::clone(&self.shared);
        supervisor::blocking(move || {
            let connection = shared.take()?;
            let outcome = work(&connection);
            shared.put(connection);
            drop(permit);
            outcome
        })
        .await
    }
}

impl Shared {
    fn take(&self) -> Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => file::open_for_reading(&self.path),
        }
    }

    fn put(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}
