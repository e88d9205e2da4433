//! Copies of the database that are whole at any time, made while it is in use.

use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::recover::{Look, damage};
use super::{file, outbox, vectors};
use crate::base::error::{Context, Error, Kind, Result};

/// Begins the name of a copy that was made before a schema was changed.
const BEFORE: &str = "friend-lite.schema-";
/// Copies that are kept of those.
const KEPT: usize = 2;

/// Copies the database behind `from` to the file `to`, as of one moment, in
/// place of an earlier one. The copy needs no companion files, has been read
/// back, and is on disk when this returns.
pub(super) fn copy(from: &Connection, to: &Path) -> Result<()> {
    vectors::register()?;
    let part = to.with_extension("part");
    drop(file::create(&part)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut target = Connection::open_with_flags(&part, flags)
        .with_context(Kind::Storage, || format!("cannot open {}", part.display()))?;
    {
        let backup = Backup::new(from, &mut target)?;
        // All at once: readers and the writer go on beside it.
        while backup.step(-1)? != StepResult::Done {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    outbox::unfollow(&target)?;
    target.pragma_update(None, "journal_mode", "delete")?;
    target.close().map_err(|(_, error)| Error::from(error))?;
    if let Some(what) = damage(&part, Look::All)?.first() {
        let message = format!("the copy of the database is damaged ({what}); check the disk");
        return Err(Error::new(Kind::Storage, message));
    }
    let cannot = |error| file::failed("copy the database to", to, error);
    std::fs::File::open(&part).and_then(|file| file.sync_all()).map_err(cannot)?;
    std::fs::rename(&part, to).map_err(cannot)?;
    file::sync_directory_of(to)
}

/// Keeps the database of `dir` as it is at schema `version`, and removes the
/// oldest of such copies.
pub(super) fn keep(from: &Connection, dir: &Path, version: usize) -> Result<()> {
    copy(from, &dir.join(format!("{BEFORE}{version:04}.db")))?;
    let kept = kept(dir)?;
    let surplus = kept.len().saturating_sub(KEPT);
    for old in kept.iter().take(surplus) {
        std::fs::remove_file(old).map_err(|error| file::failed("remove", old, error))?;
    }
    Ok(())
}

/// The copies that were kept, oldest schema first.
pub(super) fn kept(dir: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |error| file::failed("read", dir, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(BEFORE) && name.ends_with(".db") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
