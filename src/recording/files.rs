//! What recordings ask of a file system: one directory of files, by name. The
//! machine's own, and in tests one that loses what was not synced.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice, Result};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::base::planned;

/// The most parts that the kernel takes in one write.
const MAX_PARTS: usize = 1024;

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
    /// As [`Handle::write_at`], of `parts` one after the other, which are one
    /// write: of several, a crash could keep a later one without an earlier.
    fn write_parts_at(&self, parts: &[&[u8]], at: u64) -> Result<()> {
        self.write_at(&parts.concat(), at)
    }
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

    fn write_parts_at(&self, parts: &[&[u8]], mut at: u64) -> Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        planned::around_io("writing", || {
            while !left.is_empty() {
                let now = left.get(..MAX_PARTS).unwrap_or(left);
                match rustix::io::pwritev(self, now, at) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        at += count as u64;
                        IoSlice::advance_slices(&mut left, count);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        planned::around_io("cutting a file", || File::set_len(self, bytes))
    }

    fn sync(&self) -> Result<()> {
        planned::around_io("syncing", || self.sync_data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_one_after_the_other_however_many_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk(dir.path().into());
        let file = disk.open("parts", Use::Create).unwrap();
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let mut parts: Vec<&[u8]> = bytes.chunks(37).collect();
        assert!(parts.len() > 2 * MAX_PARTS);
        parts.insert(0, &[]);
        parts.push(&[]);
        file.write_parts_at(&parts, 5).unwrap();
        file.write_parts_at(&[&[], &[]], 1_000_000).unwrap();
        let mut read = vec![0; 200_000];
        assert_eq!(file.read_at(&mut read, 5).unwrap(), bytes.len());
        assert_eq!(read[..bytes.len()], bytes);
    }
}
