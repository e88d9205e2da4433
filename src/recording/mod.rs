//! Audio files that survive a power cut: one standard WAV file for each
//! conversation, playable at all times.

use std::fs::{DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Context, Error, Kind, Result, io_kind};
use crate::domain::conversation::{Conversation, SAMPLE_RATE, Span};
use crate::domain::ids::{ClientId, ConversationId};
use crate::supervisor::blocking;

mod cropped;
mod recorder;
mod wav_file;

pub use recorder::Recorder;
use wav_file::{HEADER, WavFile, data_samples};

/// The most samples one read gives: a minute.
const MAX_READ: u64 = 60 * SAMPLE_RATE as u64;

/// The directory of recordings. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recordings {
    dir: Arc<Path>,
    sync_interval: Duration,
    clock: Clock,
}

/// A file in the directory, as the sweep sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, as in [`Conversation::audio_path`].
    pub name: String,
    /// Samples in it, by its length.
    pub samples: u64,
    /// When it was last written.
    pub modified: Timestamp,
}

/// What [`Recordings::remove`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone for good, those that were gone before included.
    pub names: Vec<String>,
    /// Bytes that came free.
    pub bytes: u64,
}

/// What the name of a recording tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// When it began, to the second.
    pub started_at: Timestamp,
    /// The device.
    pub client_id: ClientId,
    /// The conversation.
    pub conversation_id: ConversationId,
}

impl Recordings {
    /// Opens `audio` below `state_dir`, making it (0700) where it is missing.
    /// `sync_interval` is the longest time between syncs to disk; zero syncs
    /// each append.
    ///
    /// # Errors
    /// `Storage` or `NoSpace` when the directory cannot be made.
    pub fn open(state_dir: &Path, sync_interval: Duration, clock: Clock) -> Result<Self> {
        let dir = state_dir.join("audio");
        let failed = |error: std::io::Error| {
            Error::new(io_kind(&error), format!("cannot use {}", dir.display())).with_source(error)
        };
        DirBuilder::new().mode(0o700).recursive(true).create(&dir).map_err(failed)?;
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(Self { dir: dir.into(), sync_interval, clock })
    }

    /// The directory itself, to measure its disk.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file name of a conversation's recording.
    pub fn file_name(started_at: Timestamp, client: &ClientId, id: &ConversationId) -> String {
        format!("{}_{client}_{id}.wav", started_at.seconds())
    }

    /// Takes a file name apart; none when it is not one of ours.
    pub fn origin(name: &str) -> Option<Origin> {
        let (started_at, rest) = name.strip_suffix(".wav")?.split_once('_')?;
        let (client_id, conversation_id) = rest.rsplit_once('_')?;
        let seconds: i64 = started_at.parse().ok()?;
        if client_id.is_empty() || conversation_id.is_empty() {
            return None;
        }
        Some(Origin {
            started_at: Timestamp::from_millis(seconds.checked_mul(1000)?),
            client_id: ClientId::from_text(client_id),
            conversation_id: ConversationId::from_text(conversation_id),
        })
    }

    /// Begins the recording of `conversation`: the file and its directory entry
    /// are on disk when this returns.
    ///
    /// # Errors
    /// `NoSpace`, `Storage`, or `BadInput` for a name that is none.
    pub async fn create(&self, conversation: &Conversation) -> Result<Recorder> {
        let path = self.path(&conversation.audio_path)?;
        let dir = self.dir.clone();
        let file = blocking(move || WavFile::create(&path, &dir)).await?;
        Ok(Recorder::new(file, self.sync_interval, self.clock.clone()))
    }

    /// Makes the header of a recording tell its true length, and drops half a
    /// sample at its end: what a crash can leave behind. Returns its samples.
    /// Not for a file that is being recorded.
    ///
    /// # Errors
    /// `NotFound`, `Storage`, or `BadInput` when it is not a recording of ours.
    pub async fn repair(&self, name: &str) -> Result<u64> {
        let path = self.path(name)?;
        blocking(move || wav_file::repair(&path)).await
    }

    /// The recordings there are, in the order of their names.
    ///
    /// # Errors
    /// `Storage` when the directory cannot be read.
    pub async fn scan(&self) -> Result<Vec<Found>> {
        let dir = self.dir.clone();
        blocking(move || {
            let failed = "cannot list the recordings";
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&dir).context(Kind::Storage, failed)? {
                let entry = entry.context(Kind::Storage, failed)?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let metadata = match entry.metadata() {
                    Ok(metadata) if metadata.is_file() && name.ends_with(".wav") => metadata,
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(error).context(Kind::Storage, failed);
                    }
                    _ => continue,
                };
                let modified = std::os::unix::fs::MetadataExt::mtime(&metadata);
                found.push(Found {
                    name,
                    samples: data_samples(metadata.len()),
                    modified: Timestamp::from_millis(modified.saturating_mul(1000)),
                });
            }
            found.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        })
        .await
    }

    /// Samples in a recording, by its length on disk.
    ///
    /// # Errors
    /// `NotFound` or `Storage`.
    pub async fn samples(&self, name: &str) -> Result<u64> {
        let path = self.path(name)?;
        blocking(move || {
            let metadata = std::fs::metadata(&path).map_err(|e| failed("cannot read", &path, e))?;
            Ok(data_samples(metadata.len()))
        })
        .await
    }

    /// The samples of `spans`, one after the other; at most a minute.
    ///
    /// # Errors
    /// `NotFound`, `Storage`; `TooLarge` for more than a minute; `BadInput` when
    /// the recording ends before the spans do.
    pub async fn read(&self, name: &str, spans: &[Span]) -> Result<Vec<i16>> {
        let total = spans.iter().fold(0u64, |sum, span| sum.saturating_add(span.len()));
        if total > MAX_READ {
            return Err(Error::new(Kind::TooLarge, "more than a minute of audio at once"));
        }
        let path = self.path(name)?;
        let spans = spans.to_vec();
        blocking(move || {
            let file = File::open(&path).map_err(|e| failed("cannot read", &path, e))?;
            let mut samples = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
            let mut bytes = Vec::new();
            for span in spans {
                bytes.resize(usize::try_from(span.len() * 2).unwrap_or_default(), 0);
                let at = span.start.saturating_mul(2).saturating_add(HEADER as u64);
                match file.read_exact_at(&mut bytes, at) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        let message = format!("{} is shorter than it should be", path.display());
                        return Err(error).context(Kind::BadInput, message);
                    }
                    done => done.map_err(|e| failed("cannot read", &path, e))?,
                }
                samples.extend(bytes.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b)));
            }
            Ok(samples)
        })
        .await
    }

    /// The file of a recording and its length in bytes, to send as it is.
    ///
    /// # Errors
    /// `NotFound` (also for any name that is not a plain file name) or `Storage`.
    pub async fn audio_file(&self, name: &str) -> Result<(tokio::fs::File, u64)> {
        let path = self.path(name)?;
        let (file, len) = blocking(move || {
            let file = File::open(&path).map_err(|e| failed("cannot read", &path, e))?;
            let metadata = file.metadata().map_err(|e| failed("cannot read", &path, e))?;
            if !metadata.is_file() {
                return Err(Error::new(Kind::NotFound, "no such recording"));
            }
            Ok((file, metadata.len()))
        })
        .await?;
        Ok((tokio::fs::File::from_std(file), len))
    }

    /// Deletes recordings. One that cannot be deleted does not keep the others,
    /// and is not among the names that are returned.
    ///
    /// # Errors
    /// `Storage` when it is not certain that the disk has let go of them.
    pub async fn remove(&self, names: &[String]) -> Result<Removed> {
        let paths: Vec<_> = names.iter().map(|name| (name.clone(), self.path(name))).collect();
        let dir = self.dir.clone();
        blocking(move || {
            let mut removed = Removed::default();
            for (name, path) in paths {
                match path.and_then(|path| remove(&path)) {
                    Ok(bytes) => {
                        removed.bytes += bytes;
                        removed.names.push(name);
                    }
                    Err(error) => {
                        tracing::error!("{name} is still there: {}", error.report());
                    }
                }
            }
            let synced = File::open(&dir).and_then(|dir| dir.sync_all());
            synced.map_err(|e| failed("cannot sync", &dir, e))?;
            Ok(removed)
        })
        .await
    }

    /// The path of a recording. A name that could lead elsewhere is none.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let plain = !name.starts_with('.')
            && !name.is_empty()
            && name.len() <= 255
            && !name.contains(['/', '\\', '\0']);
        if plain {
            Ok(self.dir.join(name))
        } else {
            Err(Error::new(Kind::NotFound, "no such recording"))
        }
    }
}

/// Deletes a file; the bytes it had, none when it was gone already.
fn remove(path: &Path) -> Result<u64> {
    let gone = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Ok(0),
        _ => Err(failed("cannot delete", path, error)),
    };
    let bytes = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) => return gone(error),
    };
    std::fs::remove_file(path).map_or_else(gone, |()| Ok(bytes))
}

/// An error of the file system that names what was being done to which file.
fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(io_kind(&error), format!("{doing} {}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests;
