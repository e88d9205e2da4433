//! How the disk under the recordings is, for whoever looks for what is wrong.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::base::clock::Clock;
use crate::base::error::{Context, Error, Kind, Result, io_kind};

/// What a stream writes in a second of PCM, and how often it is tried.
const BYTES: usize = 32_000;
const WRITES: usize = 15;

/// Bytes that are free in `dir`.
///
/// # Errors
/// `Storage` when it cannot be told.
pub fn free(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir)
        .with_context(Kind::Storage, || format!("cannot ask for the room in {}", dir.display()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// How long a second of audio takes to be safe on the disk of `dir`: the median
/// of some writes to a file without a name, of which nothing is left.
///
/// # Errors
/// `NoSpace` or `Storage` when it cannot be written.
pub fn sync_time(dir: &Path) -> Result<Duration> {
    let failed = |error: std::io::Error| {
        Error::new(io_kind(&error), format!("cannot write in {}", dir.display())).with_source(error)
    };
    let mut file = nameless(dir).map_err(failed)?;
    let (clock, audio) = (Clock::system(), vec![0x55; BYTES]);
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let started = clock.monotonic();
        file.write_all(&audio).and_then(|()| file.sync_data()).map_err(failed)?;
        times.push(clock.monotonic().saturating_sub(started));
    }
    times.sort_unstable();
    Ok(times.get(WRITES / 2).copied().unwrap_or_default())
}

fn nameless(dir: &Path) -> std::io::Result<File> {
    let flags = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or(0);
    let made = OpenOptions::new().write(true).custom_flags(flags).mode(0o600).open(dir);
    match made {
        // Some file systems want a name, which is taken away at once.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            let path = dir.join(".doctor");
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free(dir.path()).unwrap() > 0);
        assert!(sync_time(dir.path()).unwrap() < Duration::from_secs(60));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let gone = sync_time(&dir.path().join("gone")).unwrap_err();
        assert_eq!(gone.kind(), Kind::NotFound);
    }
}
