//! Files that are there whole or not at all, and are known by their content.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FlockOperation};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::error::{Context, Error, Kind, Result, io_kind};
use crate::base::planned;

/// Bytes copied at a time.
const BLOCK: usize = 256 * 1024;
/// Ends the name of a file that is being written.
const PART: &str = "part";

/// A file as it was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// Its length.
    pub(super) bytes: u64,
    /// SHA-256 of its bytes, in hex.
    pub(super) sha256: String,
}

/// How a file looks without being read: whether it may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub(super) modified: i64,
}

/// The right to work in a directory alone; given up when dropped.
#[derive(Debug)]
pub(super) struct Alone {
    _file: File,
}

impl Alone {
    /// Takes `dir` without waiting. `Conflict` when somebody has it.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(".lock");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(|error| failed("open", &path, error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(Error::new(
                Kind::Conflict,
                format!("another friend-lite is at work in {}; wait for it", dir.display()),
            )),
            Err(errno) => Err(failed("lock", &path, errno.into())),
        }
    }
}

/// Makes a directory (0700), and those above it.
pub(super) fn make_dir(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| failed("create", dir, error))
}

/// How the file `path` looks; none when it is not there, or no plain file.
pub(super) fn stamp(path: &Path) -> Result<Option<Stamp>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            let modified = metadata.mtime().saturating_mul(1_000_000_000);
            let modified = modified.saturating_add(metadata.mtime_nsec());
            Ok(Some(Stamp { bytes: metadata.len(), modified }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path, error)),
    }
}

/// What is in the file `path`.
pub(super) fn content(path: &Path) -> Result<Content> {
    let cannot = |error| failed("read", path, error);
    let file = File::open(path).map_err(cannot)?;
    // From the disk, not from what the system remembers of it.
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    pour(file, &mut std::io::sink()).map_err(cannot)
}

/// Copies `source` to `target`, which is on disk and has been read back when
/// this returns; until then there is no such file, or an earlier one.
///
/// # Errors
/// `NotFound` without the source, `NoSpace`, `Storage`.
pub(super) fn copy(source: &Path, target: &Path) -> Result<Content> {
    let part = part_of(target);
    let written = copy_to_part(source, &part)?;
    keep(&part, target)?;
    Ok(written)
}

/// Copies `source` to `part`, on disk and read back.
pub(super) fn copy_to_part(source: &Path, part: &Path) -> Result<Content> {
    let file = File::open(source).map_err(|error| failed("read", source, error))?;
    let cannot = |error| failed("write", part, error);
    let written = planned::around_io("writing a copy", || {
        let mut target = create(part)?;
        let written = pour(file, &mut target)?;
        target.sync_all()?;
        Ok(written)
    });
    let written = written.map_err(cannot)?;
    if content(part)? != written {
        let message = format!("{} does not read as it was written; check the disk", part.display());
        return Err(Error::new(Kind::Storage, message));
    }
    Ok(written)
}

/// Writes a file of those bytes, in place of an earlier one.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = part_of(path);
    let written = planned::around_io("writing a list", || {
        let mut file = create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| failed("write", &part, error))?;
    keep(&part, path)
}

/// Gives what has been written its name.
pub(super) fn keep(part: &Path, name: &Path) -> Result<()> {
    let renamed = planned::around_io("naming a file", || std::fs::rename(part, name));
    renamed.map_err(|error| failed("create", name, error))?;
    sync_dir_of(name)
}

/// Waits until the names beside `path` are on disk.
pub(super) fn sync_dir_of(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed("sync", dir, error))
}

/// Removes a file; one that is not there is removed already.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = planned::around_io("removing what is old", || std::fs::remove_file(path));
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// The plain files of a directory by name, but for hidden ones and those that
/// are being written; none without the directory.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = every_name(dir)?;
    names.retain(|name| !name.starts_with('.') && !is_part(name));
    Ok(names)
}

/// Removes what an earlier attempt left half written.
pub(super) fn remove_parts(dir: &Path) -> Result<()> {
    every_name(dir)?
        .iter()
        .filter(|name| is_part(name))
        .try_for_each(|name| remove(&dir.join(name)))
}

fn every_name(dir: &Path) -> Result<Vec<String>> {
    let cannot = |error| failed("list", dir, error);
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type().map_err(cannot)?.is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a JSON file; none when it is not there or says something else.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, error)),
    }
}

/// As JSON, to be read by people too.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).context(Kind::Internal, "cannot write JSON")
}

/// The name of a file while it is being written.
pub(super) fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(PART);
    name.into()
}

fn is_part(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == PART)
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// Everything from `source` into `sink`.
fn pour(mut source: File, sink: &mut dyn Write) -> std::io::Result<Content> {
    let (mut hash, mut bytes, mut block) = (Sha256::new(), 0, vec![0; BLOCK]);
    loop {
        let count = match source.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = block.get(..count).unwrap_or_default();
        hash.update(read);
        sink.write_all(read)?;
        bytes += count as u64;
    }
    let sha256 = hex::encode(hash.finalize());
    Ok(Content { bytes, sha256 })
}

pub(super) fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(io_kind(&error), format!("cannot {what} {}", path.display())).with_source(error)
}
