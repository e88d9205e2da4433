//! The files of the database: the directory, the lock, and opening connections.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::base::clock::Timestamp;
use crate::base::error::{Context, Error, Kind, Result, io_kind};

/// The file name of the database.
pub(super) const DATABASE: &str = "friend-lite.db";

/// How long a connection waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The page caches, bounded so that the daemon stays small as the database grows;
/// the system's own cache holds the rest. Negative: KiB.
const WRITER_CACHE: i64 = -512;
const READER_CACHE: i64 = -128;

/// The write-ahead log is cut back to this many bytes after a large write.
const WAL_LIMIT: i64 = 8 << 20;

/// The right to be the one daemon of a state directory; given up when dropped,
/// and by the system when the process dies.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `dir` without waiting. `Conflict` when it is held.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| failed("open", &path, e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(Error::new(
                Kind::Conflict,
                format!("another friend-lite is using {}; stop it first", dir.display()),
            )),
            Err(errno) => Err(failed("lock", &path, errno.into())),
        }
    }
}

/// Makes the state directory, open to its owner only, unless it is there.
pub(super) fn make_directory(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed("create", dir, e))
}

/// Whether `dir` holds a database.
pub(super) fn has_database(dir: &Path) -> bool {
    dir.join(DATABASE).is_file()
}

/// The database of `dir`. `NotFound` when there is none.
pub(super) fn find_database(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(DATABASE);
    if path.is_file() {
        return Ok(path);
    }
    let message =
        format!("{} has no database of friend-lite; --state-dir says where it is", dir.display());
    Err(Error::new(Kind::NotFound, message))
}

/// Makes an empty database, open to its owner only, unless one is there. SQLite
/// gives its companion files the same mode.
pub(super) fn make_database(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(DATABASE);
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| failed("create", &path, e))?;
    Ok(path)
}

/// Opens the one connection that writes.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = open(path, flags)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", WRITER_CACHE)?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = open(path, flags)?;
    connection.pragma_update(None, "cache_size", READER_CACHE)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)
        .with_context(Kind::Storage, || format!("cannot open {}", path.display()))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Creates an empty file, open to its owner only, in place of an earlier one.
pub(super) fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).write(true).truncate(true).mode(0o600).open(path);
    file.map_err(|error| failed("create", path, error))
}

/// Waits until the names in the directory of `path` are on disk.
pub(super) fn sync_directory_of(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed("sync", dir, error))
}

/// A time in a file name: `20261125T173000Z`.
pub(super) fn stamp(now: Timestamp) -> String {
    let text = now.to_rfc3339();
    let digits = text.split('.').next().unwrap_or_default();
    let mut stamp: String = digits.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    stamp.push('Z');
    stamp
}

pub(super) fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(io_kind(&error), format!("cannot {what} {}", path.display())).with_source(error)
}
