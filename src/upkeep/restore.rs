//! Puts a backup in the place of what is in a state directory.
//!
//! Everything is first copied and read back below `restoring/`; a note there then
//! says that it is whole. From that moment on the exchange is only renamed into
//! place, and whoever comes next (a second attempt, or the daemon's start) takes
//! it to its end. What was there before is kept below a dated name.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::backup::{Backup, KINDS, Kept};
use super::disk;
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;

/// The files of the database. The log goes before what it belongs to, and the
/// database itself comes last of all.
const DATABASE: [&str; 3] = ["friend-lite.db-wal", "friend-lite.db-shm", "friend-lite.db"];
/// Where a backup is copied to first.
const RESTORING: &str = "restoring";
/// In there: the note that it is whole.
const NOTE: &str = "whole.json";

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The number of the backup.
    pub number: u32,
    /// When it was made.
    pub made_at: Timestamp,
    /// Files that are back.
    pub files: usize,
    /// Files that the backup has lost or that do not read as they were written;
    /// all others are back.
    pub damaged: Vec<String>,
    /// Where what was there before is.
    pub before: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The directory, below the state directory, for what was there before.
    before: String,
}

/// Restores `backup`, which is in `dir`, to the state directory `state`, for which
/// the caller holds the lock. Blocks; `progress` hears how many files are done,
/// of how many.
///
/// # Errors
/// `Conflict` when there is something already and not `force`; `Storage` when
/// the database of the backup is damaged, with nothing changed; `NoSpace`.
pub fn restore(
    dir: &Path,
    backup: &Backup,
    state: &Path,
    force: bool,
    clock: &Clock,
    progress: impl Fn(usize, usize),
) -> Result<Restored> {
    // One that was cut short is not to be mixed with this one.
    finish(state)?;
    if !force && holds_something(state)? {
        let message = format!(
            "{} holds data already; with --force it is kept under another name",
            state.display()
        );
        return Err(Error::new(Kind::Conflict, message));
    }
    let place = state.join(RESTORING);
    if place.exists() {
        planned::before("clearing the place")?;
        std::fs::remove_dir_all(&place).map_err(|e| disk::failed("remove", &place, e))?;
        planned::after("clearing the place")?;
    }
    disk::make_dir(&place)?;
    for kind in KINDS {
        disk::make_dir(&place.join(kind))?;
    }
    let mut restored =
        Restored { number: backup.number, made_at: backup.made_at, ..Restored::default() };
    if !put(dir, &backup.database, &place)? {
        let message = format!(
            "the database of backup {} is damaged; nothing was changed, and --number restores an \
             earlier one",
            backup.number
        );
        return Err(Error::new(Kind::Storage, message));
    }
    for (done, kept) in backup.files.iter().enumerate() {
        progress(done, backup.files.len());
        match put(dir, kept, &place)? {
            true => restored.files += 1,
            false => restored.damaged.push(kept.name.clone()),
        }
    }
    let before = free_name(state, &clock.now());
    disk::write(&place.join(NOTE), &disk::to_json(&Note { before: before.clone() })?)?;
    finish(state)?;
    give_to_owner(state)?;
    restored.before = Some(state.join(before)).filter(|before| before.exists());
    Ok(restored)
}

/// Takes a restore that was cut short to its end, if its copy was whole. The
/// caller holds the lock of `state`. Blocks.
///
/// # Errors
/// `Storage` when a file cannot be renamed.
pub fn finish(state: &Path) -> Result<()> {
    let place = state.join(RESTORING);
    let Some(note) = disk::read_json::<Note>(&place.join(NOTE))? else { return Ok(()) };
    let before = state.join(&note.before);
    disk::make_dir(&before)?;
    let comes = |name: &str| place.join(name).exists();
    let [log, shared, database] = DATABASE;
    for name in KINDS {
        // What has come already is not to be put away again.
        if comes(name) {
            put_away(state, name, &before)?;
            rename(&place.join(name), &state.join(name))?;
        }
    }
    if comes(database) {
        for name in [log, shared, database] {
            put_away(state, name, &before)?;
        }
        rename(&place.join(database), &state.join(database))?;
    }
    disk::sync_dir_of(&before)?;
    disk::remove(&place.join(NOTE))?;
    std::fs::remove_dir_all(&place).map_err(|e| disk::failed("remove", &place, e))?;
    // Empty when there was nothing before.
    let _ = std::fs::remove_dir(&before);
    Ok(())
}

/// Gives everything in `state` to the owner of that directory: what root restores
/// is the service's.
fn give_to_owner(state: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let cannot = |error| disk::failed("hand over", state, error);
    let owner = std::fs::symlink_metadata(state).map_err(cannot)?;
    let mut dirs = vec![state.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let metadata = entry.metadata().map_err(cannot)?;
            if (metadata.uid(), metadata.gid()) != (owner.uid(), owner.gid()) {
                let (user, group) = (Some(owner.uid()), Some(owner.gid()));
                std::os::unix::fs::lchown(entry.path(), user, group).map_err(cannot)?;
            }
            if metadata.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Copies a file of the backup into `place`; false when it is damaged or gone.
fn put(dir: &Path, kept: &Kept, place: &Path) -> Result<bool> {
    let belongs = kept.name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if !belongs {
        return Err(Error::new(Kind::BadInput, format!("{} is no name of ours", kept.name)));
    }
    let target = place.join(&kept.name);
    match disk::copy(&dir.join(&kept.stored), &target) {
        Ok(content) if content == kept.content => Ok(true),
        Ok(_) => disk::remove(&target).map(|()| false),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is anything that a restore would put away.
fn holds_something(state: &Path) -> Result<bool> {
    if state.join("friend-lite.db").exists() {
        return Ok(true);
    }
    for kind in KINDS {
        if !disk::names(&state.join(kind))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A dated name that nothing in `state` has.
fn free_name(state: &Path, now: &Timestamp) -> String {
    let digits: String = now.to_rfc3339().chars().filter(char::is_ascii_digit).collect();
    let stamp = digits.get(..14).unwrap_or(&digits);
    let names = (1..).map(|n| match n {
        1 => format!("before-restore-{stamp}"),
        n => format!("before-restore-{stamp}-{n}"),
    });
    let mut free = names.filter(|name: &String| !state.join(name).exists());
    free.next().unwrap_or_default()
}

/// Puts `name` of the state directory away, beside what was put away before: a
/// command may have made it anew after an attempt that was cut short.
fn put_away(state: &Path, name: &str, before: &Path) -> Result<()> {
    let names = (1..).map(|n| match n {
        1 => before.join(name),
        n => before.join(format!("{n}-{name}")),
    });
    let mut free = names.filter(|name: &PathBuf| !name.exists());
    free.next().map_or(Ok(()), |to| rename(&state.join(name), &to))
}

/// Renames what is there; nothing is no error.
fn rename(from: &Path, to: &Path) -> Result<()> {
    let renamed = planned::around_io("exchanging a file", || std::fs::rename(from, to));
    match renamed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(disk::failed("rename", from, error))
        }
        _ => Ok(()),
    }
}
