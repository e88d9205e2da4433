//! A database that SQLite cannot use any more: it is set aside, with its log,
//! under a dated name, and the newest copy that is whole takes its place, or a
//! new one. What no row knows of then, the sweep finds by its files.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use super::{file, migrations, vectors};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, Kind, Result};

/// How thoroughly a database is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Its pages: a fraction of the time.
    Pages,
    /// Indexes and the like too.
    All,
}

/// Why a database is set aside that cannot be used.
const DAMAGED: &str = "damaged";
/// What is said of a database without a schema: each that was in use has one.
const EMPTY: &str = "it is empty, as one that has lost its log";
/// Bytes in which no schema fits: SQLite's one page.
const PAGE: u64 = 4096;

/// What SQLite finds wrong with the database `path`, in its words.
pub(super) fn damage(path: &Path, look: Look) -> Result<Vec<String>> {
    vectors::register()?;
    let check = match look {
        Look::Pages => "pragma quick_check",
        Look::All => "pragma integrity_check",
    };
    let look = |db: Connection| -> Result<Vec<String>> {
        let mut found: Vec<String> = said(&db, check)?;
        found.retain(|line| line != "ok");
        if found.is_empty() && migrations::is_empty(&db)? {
            found.push(EMPTY.to_owned());
        }
        Ok(found)
    };
    match file::open_for_reading(path).and_then(look) {
        Ok(found) => Ok(found),
        Err(error) if is_damage(&error) => Ok(vec![error.report()]),
        Err(error) => Err(error),
    }
}

fn said(db: &Connection, check: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare(check)?.query_map([], |row| row.get(0))?.collect()
}

/// Whether an error says that the file is damaged, rather than out of reach.
fn is_damage(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<rusqlite::Error>());
    matches!(
        source.and_then(rusqlite::Error::sqlite_error_code),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether the last to have the database open did not close it: then its log is
/// still there, or was lost before anything of it was in the database.
fn was_left_open(path: &Path) -> bool {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    bytes(&companion(path, "-wal")) > 0 || bytes(path) <= PAGE
}

/// Sees to it that the database of `dir` can be used, after a crash or when
/// `always`. `copies` are what may take its place. The caller holds the lock.
pub(super) fn recover(
    dir: &Path,
    copies: Vec<PathBuf>,
    always: bool,
    now: Timestamp,
) -> Result<()> {
    let path = dir.join(file::DATABASE);
    if !path.exists() {
        // Setting it aside was cut short: a log without its database would be
        // taken for the log of the next.
        return set_aside(&path, DAMAGED, now).map(drop);
    }
    if !always && !was_left_open(&path) {
        return Ok(());
    }
    let found = damage(&path, if always { Look::All } else { Look::Pages })?;
    let Some(what) = found.first() else { return Ok(()) };
    let aside = set_aside(&path, DAMAGED, now)?;
    tracing::error!("the database is damaged ({what}); it is kept as {}", aside.display());
    match newest(copies) {
        Some(copy) => {
            put_in_place(&copy, &path)?;
            tracing::error!("the copy {} is used from now on", copy.display());
        }
        None => tracing::error!("there is no copy of it: a new one is begun"),
    }
    Ok(())
}

/// Gives the database and its companions a name that is not taken, with `why` and
/// the date.
pub(super) fn set_aside(path: &Path, why: &str, now: Timestamp) -> Result<PathBuf> {
    let stamp = file::stamp(now);
    let names = (1..).map(|n| {
        let more = if n > 1 { format!("-{n}") } else { String::new() };
        path.with_file_name(format!("friend-lite.{why}-{stamp}{more}.db"))
    });
    let free = |aside: &PathBuf| !aside.exists() && !companion(aside, "-wal").exists();
    let mut names = names.filter(free);
    let Some(aside) = names.next() else { return Err(Error::new(Kind::Internal, "no name left")) };
    // The database first: see `recover`.
    for part in ["", "-wal", "-shm"] {
        let (from, to) = (companion(path, part), companion(&aside, part));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(file::failed("set aside", &from, error));
            }
            _ => {}
        }
    }
    file::sync_directory_of(path)?;
    Ok(aside)
}

/// The newest of those databases that is whole and that this program can use.
fn newest(copies: Vec<PathBuf>) -> Option<PathBuf> {
    let mut dated: Vec<_> = copies
        .into_iter()
        .filter_map(|copy| Some((std::fs::metadata(&copy).ok()?.modified().ok()?, copy)))
        .collect();
    dated.sort();
    let usable = |path: &Path| -> Result<bool> {
        let whole = damage(path, Look::All)?.is_empty();
        Ok(whole && migrations::pending(&file::open_for_reading(path)?).is_ok())
    };
    dated.into_iter().rev().map(|(_, copy)| copy).find(|copy| match usable(copy) {
        Ok(usable) => usable,
        Err(error) => {
            tracing::warn!("{} cannot be used: {}", copy.display(), error.report());
            false
        }
    })
}

/// Copies a whole database to `path`, where there is none: it is there all at
/// once.
fn put_in_place(copy: &Path, path: &Path) -> Result<()> {
    let part = companion(path, ".part");
    let cannot = |error| file::failed("restore", path, error);
    let mut source = File::open(copy).map_err(cannot)?;
    let mut target = file::create(&part)?;
    std::io::copy(&mut source, &mut target).map_err(cannot)?;
    target.sync_all().map_err(cannot)?;
    std::fs::rename(&part, path).map_err(cannot)?;
    file::sync_directory_of(path)
}

/// The file beside `path` whose name has `more` at its end.
fn companion(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}
