//! Whether new audio is accepted, and how the disk is: noted by whoever looks
//! after the disk, read by everybody who records.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Recordings;
use super::files::Use;
use crate::base::error::{Error, Kind, Result, io_kind};
use crate::supervisor::blocking;

/// Why new audio is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `NoSpace`, or `Unavailable` for everything else.
    pub kind: Kind,
    /// What to tell people; it names no path.
    pub message: &'static str,
}

impl Refusal {
    /// The disk is full, or below its reserve.
    pub const FULL: Self = Self {
        kind: Kind::NoSpace,
        message: "the disk is full: audio is not accepted until there is room",
    };
    /// The file system is mounted read-only.
    pub const READ_ONLY: Self = Self {
        kind: Kind::Unavailable,
        message: "the disk is read-only: audio is not accepted until it can be written again",
    };
    /// The directory or its files belong to somebody else.
    pub const FORBIDDEN: Self = Self {
        kind: Kind::Unavailable,
        message: "the audio directory may not be written: audio is not accepted until it may",
    };
    /// The disk does not take what is written.
    pub const BROKEN: Self = Self {
        kind: Kind::Unavailable,
        message: "the disk fails: audio is not accepted until it can be written again",
    };

    fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ReadOnlyFilesystem => Self::READ_ONLY,
            ErrorKind::PermissionDenied => Self::FORBIDDEN,
            _ if io_kind(error) == Kind::NoSpace => Self::FULL,
            _ => Self::BROKEN,
        }
    }
}

/// The disk under the recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes free to this process.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The disk as it was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its room.
    pub space: Space,
    /// How long the room above the reserve lasts at the present rate; none
    /// while nothing is recorded.
    pub headroom: Option<Duration>,
}

/// What recorders and those who look after the disk have in common.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: AtomicBool,
    refusal: Mutex<Option<Refusal>>,
    seen: Mutex<Option<Seen>>,
    written: AtomicU64,
    begun: AtomicU64,
}

impl Gate {
    fn refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, refusal: Option<Refusal>) {
        self.closed.store(refusal.is_some(), Ordering::Relaxed);
        *self.refusal() = refusal;
    }

    /// Notes how a write of audio ended: one that failed refuses what comes.
    pub(super) fn heed<T>(&self, result: Result<T>) -> Result<T> {
        let cause = result.as_ref().err().and_then(std::error::Error::source);
        if let Some(error) = cause.and_then(|cause| cause.downcast_ref()) {
            self.set(Some(Refusal::of(error)));
        }
        result
    }

    /// Where in its interval the next recording begins, from 0 up to 1. They are
    /// spread over it, so that they do not all gather the most at once, and in few
    /// groups: what is synced together costs the disk less.
    pub(super) fn next_phase(&self) -> f64 {
        const GROUPS: u64 = 8;
        (self.begun.fetch_add(1, Ordering::Relaxed) % GROUPS) as f64 / GROUPS as f64
    }

    /// Notes that audio was written.
    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Recordings {
    /// Whether new audio is accepted now.
    ///
    /// # Errors
    /// `NoSpace` or `Unavailable`, with the reason in words for whoever sends it.
    pub fn accepting(&self) -> Result<()> {
        if !self.gate.closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        match &*self.gate.refusal() {
            Some(refusal) => Err(Error::new(refusal.kind, refusal.message)),
            None => Ok(()),
        }
    }

    /// Why new audio is refused, if it is.
    pub fn refusal(&self) -> Option<Refusal> {
        self.gate.refusal().clone()
    }

    /// Refuses new audio from now on, or accepts it again. (A write that fails
    /// refuses by itself.)
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.gate.set(refusal);
    }

    /// The disk as it was seen last; none before it was looked at, and while it
    /// cannot be written.
    pub fn disk(&self) -> Option<Seen> {
        *self.gate.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how the disk is.
    pub fn see(&self, seen: Option<Seen>) {
        *self.gate.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Bytes of audio written since the start.
    pub fn bytes_written(&self) -> u64 {
        self.gate.written.load(Ordering::Relaxed)
    }

    /// The room there is, unless nothing can be written at all.
    ///
    /// # Errors
    /// The reason, for [`Recordings::refuse`].
    pub async fn space(&self) -> Result<std::result::Result<Space, Refusal>> {
        let dir = self.dir.clone();
        blocking(move || {
            let seen = rustix::fs::statvfs(&*dir).map_err(|error| {
                let error = std::io::Error::from(error);
                Error::new(io_kind(&error), "cannot measure the disk").with_source(error)
            })?;
            if seen.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                return Ok(Err(Refusal::READ_ONLY));
            }
            let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            if rustix::fs::access(&*dir, access).is_err() {
                return Ok(Err(Refusal::FORBIDDEN));
            }
            let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
            Ok(Ok(Space { free: bytes(seen.f_bavail), total: bytes(seen.f_blocks) }))
        })
        .await
    }

    /// Whether something can be written: it is tried.
    ///
    /// # Errors
    /// `Internal` alone; what the disk says is the answer.
    pub async fn probe(&self) -> Result<Option<Refusal>> {
        const NAME: &str = ".probe";
        let files = self.files.clone();
        blocking(move || {
            let attempt = || {
                // One may be left of an attempt that got no further.
                let _ = files.remove(NAME);
                let file = files.open(NAME, Use::Create)?;
                file.write_at(&[0; 4096], 0)?;
                file.sync()
            };
            let outcome: std::io::Result<()> = attempt();
            let _ = files.remove(NAME);
            Ok(outcome.err().map(|error| Refusal::of(&error)))
        })
        .await
    }
}
