//! Uploaded files on their way to a recording: written as they arrive, and gone
//! once they are recorded.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::base::error::{Error, Kind, Result, io_kind};
use crate::supervisor::blocking;

/// Bytes that gather before they are written.
const BLOCK: usize = 256 * 1024;
/// The directory of uploaded files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool {
    dir: Arc<Path>,
    /// Room that uploads leave on the disk, in bytes: live audio goes first.
    reserve: u64,
}

/// A file that is arriving. Dropped before [`Incoming::finish`], it is gone.
#[derive(Debug)]
pub struct Incoming {
    spool: Spool,
    entry: Entry,
    /// None while a write that nobody waits for any more is under way.
    sink: Option<Box<Sink>>,
    bytes: u64,
}

/// A file that has arrived and is on disk. Dropped before [`Spooled::keep`], it
/// is gone.
#[derive(Debug)]
pub struct Spooled {
    entry: Entry,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

#[derive(Debug)]
struct Sink {
    file: File,
    hash: Sha256,
    gathered: Vec<u8>,
}

/// A name in the directory, removed with this unless it is kept.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    name: String,
    kept: bool,
}

impl Spool {
    /// Opens `uploads` below `state_dir`, making it (0700) where it is missing.
    ///
    /// # Errors
    /// `Storage` or `NoSpace` when it cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let dir = state_dir.join("uploads");
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&dir);
        made.map_err(|error| failed("cannot make", &dir, error))?;
        Ok(Self { dir: dir.into(), reserve: 0 })
    }

    /// The same, leaving `bytes` on the disk free.
    #[must_use]
    pub fn leaving(self, bytes: u64) -> Self {
        Self { reserve: bytes, ..self }
    }

    /// Begins a file.
    ///
    /// # Errors
    /// `NoSpace` when the disk is too full for uploads, `Storage`.
    pub async fn begin(&self) -> Result<Incoming> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let entry = Entry { path: self.dir.join(&name), name, kept: false };
        let (spool, path) = (self.clone(), entry.path.clone());
        let file = blocking(move || {
            spool.has_room(0)?;
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&path);
            file.map_err(|error| failed("cannot create", &path, error))
        })
        .await?;
        let sink = Box::new(Sink { file, hash: Sha256::new(), gathered: Vec::new() });
        Ok(Incoming { spool: self.clone(), entry, sink: Some(sink), bytes: 0 })
    }

    /// Where the file of that name is.
    ///
    /// # Errors
    /// `NotFound` for a name that is none of ours.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(self.dir.join(name))
        } else {
            Err(Error::new(Kind::NotFound, "no such upload"))
        }
    }

    /// Removes a file; one that is gone already is no error.
    ///
    /// # Errors
    /// `Storage` when it cannot be removed.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        blocking(move || remove(&path)).await
    }

    /// Removes every file but those of these names: what requests that never
    /// ended left behind. Returns how many. For the start, when none arrives.
    ///
    /// # Errors
    /// `Storage` when the directory cannot be read or a file not removed.
    pub async fn sweep(&self, names: HashSet<String>) -> Result<usize> {
        let dir = self.dir.clone();
        blocking(move || {
            let cannot = |error| failed("cannot sweep", &dir, error);
            let mut swept = 0;
            for entry in std::fs::read_dir(&dir).map_err(cannot)? {
                let entry = entry.map_err(cannot)?;
                if entry.file_name().to_str().is_none_or(|name| !names.contains(name)) {
                    remove(&entry.path())?;
                    swept += 1;
                }
            }
            Ok(swept)
        })
        .await
    }

    /// Whether `bytes` more fit on the disk, with room to spare. Blocks.
    ///
    /// # Errors
    /// `NoSpace` when not; `Storage` when that cannot be told.
    pub fn has_room(&self, bytes: u64) -> Result<()> {
        let disk = rustix::fs::statvfs(&*self.dir)
            .map_err(|error| failed("cannot measure", &self.dir, error.into()))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < bytes.saturating_add(self.reserve) {
            let text = "there is no room on the disk for this upload; make some and send it again";
            return Err(Error::new(Kind::NoSpace, text));
        }
        Ok(())
    }
}

impl Incoming {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// `NoSpace` or `Storage` when they cannot be written; the file is given up.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        let sink = self.sink.as_mut().ok_or_else(given_up)?;
        sink.gathered.extend_from_slice(bytes);
        if sink.gathered.len() >= BLOCK { self.flush(false).await } else { Ok(()) }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the file: it and its name are on disk when this returns.
    ///
    /// # Errors
    /// `NoSpace` or `Storage` when they cannot be written.
    pub async fn finish(mut self) -> Result<Spooled> {
        self.flush(true).await?;
        let sink = self.sink.take().ok_or_else(given_up)?;
        let sha256 = hex::encode(sink.hash.finalize());
        Ok(Spooled { entry: self.entry, bytes: self.bytes, sha256 })
    }

    async fn flush(&mut self, end: bool) -> Result<()> {
        let mut sink = self.sink.take().ok_or_else(given_up)?;
        let (spool, path) = (self.spool.clone(), self.entry.path.clone());
        let sink = blocking(move || {
            spool.has_room(sink.gathered.len() as u64)?;
            let cannot = |error| failed("cannot write", &path, error);
            sink.hash.update(&sink.gathered);
            sink.file.write_all(&sink.gathered).map_err(cannot)?;
            sink.gathered.clear();
            if end {
                sink.file.sync_all().map_err(cannot)?;
                File::open(&spool.dir).and_then(|dir| dir.sync_all()).map_err(cannot)?;
            }
            Ok(sink)
        })
        .await?;
        self.sink = Some(sink);
        Ok(())
    }
}

impl Spooled {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.entry.path
    }

    /// Its name in the spool.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Leaves it there: something that lasts knows of it.
    pub fn keep(mut self) {
        self.entry.kept = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // One call on a file that nobody has open; if it fails, the next start
        // sweeps it.
        if !self.kept
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!("left to the next start: {}", error.report());
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(failed("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(io_kind(&error), format!("{doing} {}", path.display())).with_source(error)
}

fn given_up() -> Error {
    Error::new(Kind::Internal, "this upload has been given up")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(spool: &Spool) -> Vec<String> {
        let entries = std::fs::read_dir(&spool.dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_file_arrives_in_pieces_and_is_known_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let mut incoming = spool.begin().await.unwrap();
        for _ in 0..10 {
            incoming.write(&[7; 100_000]).await.unwrap();
        }
        let spooled = incoming.finish().await.unwrap();
        assert_eq!(spooled.bytes, 1_000_000);
        assert_eq!(std::fs::read(spooled.path()).unwrap(), [7; 1_000_000]);
        let whole = Sha256::digest([7; 1_000_000]);
        assert_eq!(spooled.sha256, hex::encode(whole));
        let name = spooled.name().to_owned();
        spooled.keep();
        assert_eq!(names(&spool), std::slice::from_ref(&name));
        assert_eq!(spool.sweep(HashSet::from([name.clone()])).await.unwrap(), 0);
        assert_eq!(spool.sweep(HashSet::new()).await.unwrap(), 1);
        spool.remove(&name).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_kept_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let mut incoming = spool.begin().await.unwrap();
        incoming.write(&[1; 600_000]).await.unwrap();
        drop(incoming);
        drop(spool.begin().await.unwrap().finish().await.unwrap());
        assert!(names(&spool).is_empty());
        assert_eq!(spool.path("../friend-lite.db").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(spool.has_room(u64::MAX).unwrap_err().kind(), Kind::NoSpace);
    }
}
