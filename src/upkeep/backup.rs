//! Backups: a copy of the database as of one moment, and the files that have
//! changed since the last one, beside a running daemon.
//!
//! ```text
//! backup-000007.json              the list: what the backup is made of, written last
//! database/backup-000007.db
//! audio/3f9ac04b21de-1753…wav     a file under its name, with its content before it
//! uploads/…
//! ```
//!
//! No file is ever changed: what has other content has another name, and several
//! backups share the rest. A backup that is cut short has no list, and harms
//! none that has; the next one uses what is there already.
//!
//! The database is copied first: a recording that came after it has no row there,
//! and the sweep finds it; one that was deleted meanwhile stays deleted.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::{self, Alone, Content, Stamp};
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Error, Kind, Result};
use crate::base::planned;
use crate::store::Store;
use crate::supervisor::blocking;

/// The form of a list that this program writes and reads.
const FORM: u32 = 1;
/// Below a backup: the copies of the database.
const DATABASES: &str = "database";
/// Below a backup, as below the state directory: what is kept file by file.
pub(super) const KINDS: [&str; 2] = ["audio", "uploads"];
/// Hex digits of its content before a file's name.
const DIGITS: usize = 12;

/// What one backup is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    form: u32,
    /// Its number, from 1. The newest has the highest: clocks go wrong.
    pub number: u32,
    /// When it was made.
    pub made_at: Timestamp,
    /// The same, to be read.
    made: String,
    /// The version of the program that made it.
    program: String,
    pub(super) database: Kept,
    pub(super) files: Vec<Kept>,
}

/// A file in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Where it belongs below the state directory: `audio/NAME`.
    pub(super) name: String,
    /// Where it is in the backup.
    pub(super) stored: String,
    #[serde(flatten)]
    pub(super) content: Content,
    /// When it was last written, in nanoseconds since 1970.
    modified: i64,
}

/// What a backup did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its number.
    pub number: u32,
    /// Files in it.
    pub files: usize,
    /// Files that were not in the last one.
    pub copied: usize,
    /// Bytes of those, and of the database.
    pub bytes: u64,
}

/// How to make one.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Backups that are kept.
    pub keep: usize,
    /// Read again what has not changed too.
    pub verify: bool,
}

/// Backs up `state`, whose rows are in `store`, to `dir`. `progress` hears how
/// many files are done, of how many.
///
/// # Errors
/// `Conflict` when another one is being made there, `NoSpace`, `Storage`.
pub async fn back_up(
    store: Arc<dyn Store>,
    state: &Path,
    dir: &Path,
    options: Options,
    clock: &Clock,
    progress: impl Fn(usize, usize),
) -> Result<Summary> {
    let (dir, now) = (dir.to_owned(), clock.now());
    let (alone, earlier) = {
        let dir = dir.clone();
        blocking(move || prepare(&dir)).await?
    };
    let number = earlier.last().map_or(1, |backup| backup.number + 1);
    let database = dir.join(DATABASES).join(format!("{}.db", stem(number)));
    planned::before("copying the database")?;
    store.back_up(&database).await?;
    planned::after("copying the database")?;
    let needed: HashSet<String> = store.spooled_uploads().await?.into_iter().collect();

    let mut summary = Summary { number, ..Summary::default() };
    let mut files = Vec::new();
    let sources = sources(state, &needed)?;
    let last: HashMap<String, Kept> = earlier
        .last()
        .map(|last| last.files.iter().map(|kept| (kept.name.clone(), kept.clone())).collect())
        .unwrap_or_default();
    let last = Arc::new(last);
    for (done, (name, path)) in sources.iter().enumerate() {
        progress(done, sources.len());
        let (dir, name, path, last) = (dir.clone(), name.clone(), path.clone(), last.clone());
        let kept =
            blocking(move || keep(&dir, &name, &path, last.get(&name), options.verify)).await?;
        let Some((kept, copied)) = kept else { continue };
        if copied {
            summary.copied += 1;
            summary.bytes += kept.content.bytes;
        }
        files.push(kept);
    }
    progress(sources.len(), sources.len());
    summary.files = files.len();
    let work = move || {
        let content = disk::content(&database)?;
        summary.bytes += content.bytes;
        let modified = disk::stamp(&database)?.map_or(0, |stamp| stamp.modified);
        let stored = format!("{DATABASES}/{}.db", stem(number));
        let name = "friend-lite.db".to_owned();
        let database = Kept { name, stored, content, modified };
        let program = env!("CARGO_PKG_VERSION").to_owned();
        let made = now.to_rfc3339();
        let backup = Backup { form: FORM, number, made_at: now, made, program, database, files };
        disk::write(&list(&dir, number), &disk::to_json(&backup)?)?;
        forget(&dir, earlier, backup, options.keep)?;
        drop(alone);
        Ok(summary)
    };
    blocking(work).await
}

/// The backups in `dir`, oldest first, without those that are not whole lists.
///
/// # Errors
/// `Storage` when the directory cannot be read.
pub fn backups(dir: &Path) -> Result<Vec<Backup>> {
    let mut found = Vec::new();
    for name in disk::names(dir)? {
        let is_list = name.starts_with("backup-") && name.ends_with(".json");
        let backup = if is_list { disk::read_json::<Backup>(&dir.join(&name))? } else { None };
        match backup {
            Some(backup) if backup.form == FORM => found.push(backup),
            _ if is_list => tracing::warn!("{name} is no list of a backup that can be read"),
            _ => {}
        }
    }
    found.sort_by_key(|backup| backup.number);
    Ok(found)
}

/// The copies of the database in `dir`; none when it cannot be read.
pub fn databases(dir: &Path) -> Vec<PathBuf> {
    let found = backups(dir).unwrap_or_default();
    found.into_iter().map(|backup| dir.join(backup.database.stored)).collect()
}

/// Makes the directories, and removes what an earlier attempt left; the earlier
/// backups.
fn prepare(dir: &Path) -> Result<(Alone, Vec<Backup>)> {
    disk::make_dir(dir)?;
    let alone = Alone::take(dir)?;
    disk::remove_parts(dir)?;
    for below in [DATABASES].iter().chain(&KINDS) {
        let below = dir.join(below);
        disk::make_dir(&below)?;
        disk::remove_parts(&below)?;
    }
    let earlier = backups(dir)?;
    Ok((alone, earlier))
}

/// The files to keep: the name of each below `state`, and where it is.
fn sources(state: &Path, spooled: &HashSet<String>) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for kind in KINDS {
        let dir = state.join(kind);
        for name in disk::names(&dir)? {
            // What is still arriving has not been accepted.
            if kind == "audio" || spooled.contains(&name) {
                found.push((format!("{kind}/{name}"), dir.join(name)));
            }
        }
    }
    Ok(found)
}

/// Keeps one file, and tells whether it had to be copied; none when it is gone.
fn keep(
    dir: &Path,
    name: &str,
    path: &Path,
    last: Option<&Kept>,
    verify: bool,
) -> Result<Option<(Kept, bool)>> {
    let Some(stamp) = disk::stamp(path)? else { return Ok(None) };
    if let Some(last) = last
        && (Stamp { bytes: last.content.bytes, modified: last.modified }) == stamp
        && is_kept(dir, last, verify)?
    {
        return Ok(Some((last.clone(), false)));
    }
    let (kind, file) = name.split_once('/').unwrap_or(("", name));
    let part = disk::part_of(&dir.join(kind).join(file));
    let content = match disk::copy_to_part(path, &part) {
        // Deleted, or archived, since the directory was listed.
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        content => content?,
    };
    let stored = format!("{kind}/{}-{file}", content.sha256.get(..DIGITS).unwrap_or_default());
    disk::keep(&part, &dir.join(&stored))?;
    let name = name.to_owned();
    Ok(Some((Kept { name, stored, content, modified: stamp.modified }, true)))
}

/// Whether a file of an earlier backup is there still.
fn is_kept(dir: &Path, kept: &Kept, verify: bool) -> Result<bool> {
    let path = dir.join(&kept.stored);
    let there = disk::stamp(&path)?.is_some_and(|stamp| stamp.bytes == kept.content.bytes);
    Ok(there && (!verify || disk::content(&path)? == kept.content))
}

/// Removes the backups before the newest `keep`, and the files that none needs.
fn forget(dir: &Path, earlier: Vec<Backup>, newest: Backup, keep: usize) -> Result<()> {
    let mut all = earlier;
    all.push(newest);
    let surplus = all.len().saturating_sub(keep.max(1));
    for old in all.drain(..surplus) {
        disk::remove(&list(dir, old.number))?;
    }
    // No list may come back after its files have gone.
    disk::sync_dir_of(&list(dir, 0))?;
    let lists = disk::names(dir)?.iter().filter(|name| name.ends_with(".json")).count();
    if lists != all.len() {
        // One that cannot be read may need any of them.
        return Ok(());
    }
    let needed: HashSet<&str> = all
        .iter()
        .flat_map(|backup| backup.files.iter().chain([&backup.database]))
        .map(|kept| kept.stored.as_str())
        .collect();
    for below in [DATABASES].iter().chain(&KINDS) {
        for name in disk::names(&dir.join(below))? {
            if !needed.contains(format!("{below}/{name}").as_str()) {
                disk::remove(&dir.join(below).join(&name))?;
            }
        }
    }
    Ok(())
}

fn list(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{}.json", stem(number)))
}

fn stem(number: u32) -> String {
    format!("backup-{number:06}")
}

/// The newest backup in `dir`, or that of `number`.
///
/// # Errors
/// `NotFound` without one.
pub fn find(dir: &Path, number: Option<u32>) -> Result<Backup> {
    let found = backups(dir)?;
    let wanted = match number {
        Some(number) => found.into_iter().find(|backup| backup.number == number),
        None => found.into_iter().next_back(),
    };
    wanted.ok_or_else(|| {
        let which = number.map_or_else(String::new, |number| format!(" of number {number}"));
        Error::new(Kind::NotFound, format!("{} has no backup{which}", dir.display()))
    })
}
