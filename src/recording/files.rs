//! What recordings ask of a file system: one directory of files, by name. The
//! machine's own, and in tests one that loses what was not synced.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::base::planned;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A new file (0600), to be written. It must not be there.
    Create,
    /// Reading and writing.
    Repair,
    /// Reading alone.
    Read,
}

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
    /// When it was last written, in whole seconds since 1970.
    pub(super) modified: i64,
}

/// A directory of files.
pub(super) trait Files: Debug + Send + Sync {
    /// Opens the file of that name.
    fn open(&self, name: &str, purpose: Use) -> Result<Box<dyn Handle>>;
    /// The plain files there are, in no order.
    fn list(&self) -> Result<Vec<Entry>>;
    /// Gives a file another name, in place of a file that had it.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> Result<()>;
    /// Waits until names that were made, changed or removed are on disk.
    fn sync_names(&self) -> Result<()>;
}

/// An open file.
pub(super) trait Handle: Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> Result<u64>;
    /// Reads at `at`; gives fewer bytes than fit only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<usize>;
    /// Writes all of `bytes` at `at`. On an error any part may be written.
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()>;
    /// Cuts it, or lengthens it with zeros.
    fn set_len(&self, bytes: u64) -> Result<()>;
    /// Waits until its bytes and length are on disk.
    fn sync(&self) -> Result<()>;
}

/// A directory of the machine.
#[derive(Debug)]
pub(super) struct Disk(pub(super) Box<Path>);

impl Files for Disk {
    fn open(&self, name: &str, purpose: Use) -> Result<Box<dyn Handle>> {
        let mut options = OpenOptions::new();
        match purpose {
            Use::Create => options.read(true).write(true).create_new(true).mode(0o600),
            Use::Repair => options.read(true).write(true),
            Use::Read => options.read(true),
        };
        let open = || options.open(self.0.join(name));
        let file = match purpose {
            Use::Create => planned::around_io("creating a file", open)?,
            Use::Repair | Use::Read => open()?,
        };
        Ok(Box::new(file))
    }

    fn list(&self) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => {
                    found.push(Entry { name, bytes: metadata.len(), modified: metadata.mtime() })
                }
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(found)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        planned::around_io("renaming a file", || {
            std::fs::rename(self.0.join(from), self.0.join(to))
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        planned::around_io("removing a file", || std::fs::remove_file(self.0.join(name)))
    }

    fn sync_names(&self) -> Result<()> {
        planned::around_io("syncing the names", || File::open(&self.0)?.sync_all())
    }
}

impl Handle for File {
    fn len(&self) -> Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, at + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        planned::around_io("writing", || self.write_all_at(bytes, at))
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        planned::around_io("cutting a file", || File::set_len(self, bytes))
    }

    fn sync(&self) -> Result<()> {
        planned::around_io("syncing", || self.sync_data())
    }
}
