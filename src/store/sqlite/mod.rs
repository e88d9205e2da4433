//! The SQLite adapter of the store: one file, `friend-lite.db`, in WAL mode.
//!
//! All writes go through one connection on a thread of its own, each closure
//! one transaction ([`writer`]); reads run on a few read-only connections
//! ([`readers`]). Every commit is synced to disk before it is acknowledged.

mod audio;
mod chats;
mod conversations;
mod copies;
mod deletions;
mod error;
mod file;
pub(crate) mod graph;
mod imports;
mod job_list;
mod jobs;
mod memories;
mod migrations;
mod outbox;
mod queue;
mod readers;
mod recover;
mod replacement;
mod rows;
mod shelf;
mod times;
mod transfer;
mod upkeep;
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

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, Transaction};

use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};
use crate::domain::finding::{Fault, Finding};

pub use self::replacement::Replacement;

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
    /// A command that only looks: nothing is made and no schema is changed.
    Look,
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
    /// Whether there is a database in the state directory `dir`.
    pub fn exists(dir: &Path) -> bool {
        file::has_database(dir)
    }

    /// Opens the database in the state directory `dir`, making the directory
    /// (0700) and the database (0600) if they are not there, and brings its
    /// schema up to date; a copy of what an older version wrote is kept beside
    /// it. Blocks; called at start.
    ///
    /// # Errors
    /// `Conflict` when another daemon holds the directory, or a newer version
    /// has written the database, or, for a look, an older one; `NotFound` when
    /// there is nothing to look at; `Storage` and `NoSpace` from the disk.
    pub fn open(dir: &Path, access: Access) -> Result<Self> {
        if access == Access::Look {
            file::find_database(dir)?;
        }
        file::make_directory(dir)?;
        let lock = match access {
            Access::Exclusive => Some(Lock::take(dir)?),
            Access::Shared | Access::Look => None,
        };
        Self::opened(dir, access, lock)
    }

    /// As [`SqliteStore::open`] for a daemon. A database that is damaged is set
    /// aside first, and the newest that is whole of `copies`, and of those that
    /// were kept before a change of the schema, takes its place. It is looked at
    /// when it was not closed in order, or when `always`.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_or_recover(
        dir: &Path,
        mut copies: Vec<PathBuf>,
        always: bool,
        now: Timestamp,
    ) -> Result<Self> {
        file::make_directory(dir)?;
        let lock = Lock::take(dir)?;
        copies.extend(copies::kept(dir)?);
        recover::recover(dir, copies, always, now)?;
        Self::opened(dir, Access::Exclusive, Some(lock))
    }

    fn opened(dir: &Path, access: Access, lock: Option<Lock>) -> Result<Self> {
        let path = file::make_database(dir)?;
        vectors::register()?;
        let mut connection = file::open_for_writing(&path)?;
        if migrations::pending(&connection)? {
            if access == Access::Look {
                return Err(Error::new(
                    Kind::Conflict,
                    "an older friend-lite wrote this database; start the daemon once to bring it \
                     up to date",
                ));
            }
            // A daemon at work must not find its tables changed under it.
            let _held = if lock.is_none() { Some(Lock::take(dir)?) } else { None };
            let version = migrations::version(&connection)?;
            if version > 0 {
                copies::keep(&connection, dir, version)?;
            }
            migrations::run(&mut connection)?;
        }
        let writer = Writer::start(connection)?;
        Ok(Self { inner: Arc::new(Inner { readers: Readers::new(path), writer, _lock: lock }) })
    }

    /// What SQLite finds wrong with the database file of `dir`.
    ///
    /// # Errors
    /// `NotFound` without one, `Storage` when the disk does not give it.
    pub fn damage(dir: &Path) -> Result<Vec<Finding>> {
        let found = recover::damage(&file::find_database(dir)?, recover::Look::All)?;
        let tell = |line| Finding::new(Fault::DatabaseDamaged, file::DATABASE, line);
        Ok(found.into_iter().map(tell).collect())
    }

    /// Takes the right to be the one program that works on the state directory
    /// `dir`, which is made where it is missing; given up when dropped.
    ///
    /// # Errors
    /// `Conflict` when a daemon has it, `Storage`.
    pub fn hold(dir: &Path) -> Result<impl Sized + use<>> {
        file::make_directory(dir)?;
        Lock::take(dir)
    }

    /// Whether a daemon has the state directory `dir` right now.
    ///
    /// # Errors
    /// `Storage` when that cannot be told.
    pub fn is_held(dir: &Path) -> Result<bool> {
        match Lock::take(dir) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == Kind::Conflict => Ok(true),
            Err(error) => Err(error),
        }
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
