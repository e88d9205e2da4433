//! The SQLite adapter of the store: one file, `friend-lite.db`, in WAL mode.
//!
//! All writes go through one connection on a thread of its own, each closure
//! one transaction ([`writer`]); reads run on a few read-only connections
//! ([`readers`]). Every commit is synced to disk before it is acknowledged.

mod audio;
mod chats;
mod conversations;
mod deletions;
mod error;
mod file;
mod job_list;
mod jobs;
mod memories;
mod migrations;
mod queue;
mod readers;
mod rows;
mod shelf;
mod times;
mod uploads;
mod users;
pub(crate) mod vectors;
mod versions;
mod words;
mod writer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Transaction};

use crate::base::error::Result;

use self::file::Lock;
use self::readers::Readers;
use self::writer::Writer;

/// Who else may have the same state directory open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The daemon: refuses to start beside another one.
    Exclusive,
    /// A command that works beside the daemon.
    Shared,
}

/// The store in a SQLite database. Cheap to clone; the last clone to go waits
/// for the writes under way and closes the database.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

// Dropped in this order: the writer closes last of the connections, which folds
// the write-ahead log into the database, and only then is the lock given up.
struct Inner {
    readers: Readers,
    writer: Writer,
    _lock: Option<Lock>,
}

impl SqliteStore {
    /// Opens the database in the state directory `dir`, making the directory
    /// (0700) and the database (0600) if they are not there, and brings its
    /// schema up to date. Blocks; called at start.
    ///
    /// # Errors
    /// `Conflict` when another daemon holds the directory, or a newer version
    /// has written the database; `Storage` and `NoSpace` from the disk.
    pub fn open(dir: &Path, access: Access) -> Result<Self> {
        file::make_directory(dir)?;
        let lock = match access {
            Access::Exclusive => Some(Lock::take(dir)?),
            Access::Shared => None,
        };
        let path = file::make_database(dir)?;
        vectors::register()?;
        let mut connection = file::open_for_writing(&path)?;
        if migrations::pending(&connection)? {
            // A daemon at work must not find its tables changed under it.
            let _held = if lock.is_none() { Some(Lock::take(dir)?) } else { None };
            migrations::run(&mut connection)?;
        }
        let writer = Writer::start(connection)?;
        Ok(Self { inner: Arc::new(Inner { readers: Readers::new(path), writer, _lock: lock }) })
    }

    /// Runs `work` on a read-only connection, off the async threads.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.inner.readers.run(work).await
    }

    /// Runs `work` as one transaction on the writer's thread; an error rolls it
    /// back. Once asked for it happens, even if the caller stops waiting.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        self.inner.writer.run(work).await
    }
}

/// A limit of ours as SQLite's `LIMIT`.
fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
