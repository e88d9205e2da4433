//! Audio files that survive a power cut: one standard file for each
//! conversation, playable at all times.
//!
//! What comes as PCM is a WAV file, what comes as Opus packets an Ogg Opus file
//! with those packets. Both grow at their end alone, and are synced there: a
//! crash leaves what was synced, and a tail that [`Recordings::repair`] puts
//! right. What a [`Bucket`] has is read from there once it is not on disk any more.

use std::fs::{DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Error, Kind, Result, io_kind};
use crate::domain::conversation::{Conversation, SAMPLE_RATE, Span};
use crate::domain::ids::{ClientId, ConversationId};
use crate::remote::bucket::Bucket;
use crate::supervisor::blocking;

mod archive;
mod cropped;
mod files;
mod format;
mod gate;
mod intake;
mod object;
mod opus_file;
mod playable;
pub mod probe;
mod recorder;
mod spool;
mod track;
mod wav_file;

use files::{Disk, Entry, Files, Use};
pub use format::Format;
use gate::Gate;
pub use gate::{Refusal, Seen, Space};
pub use intake::Brought;
use object::Shelf;
pub use playable::Playable;
pub use recorder::Recorder;
pub use spool::{Incoming, Spool, Spooled};
use track::Track;

/// The most samples one read gives: a minute.
const MAX_READ: u64 = 60 * SAMPLE_RATE as u64;

/// The directory of recordings. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recordings {
    dir: Arc<Path>,
    files: Arc<dyn Files>,
    bucket: Option<Bucket>,
    gate: Arc<Gate>,
    spool: Spool,
    sync_interval: Duration,
    clock: Clock,
}

/// A file in the directory, as the sweep sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, as in [`Conversation::audio_path`].
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
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
        let files = Arc::new(Disk(dir.clone().into()));
        let spool = Spool::open(state_dir)?;
        let gate = Arc::default();
        Ok(Self { dir: dir.into(), files, bucket: None, gate, spool, sync_interval, clock })
    }

    /// The same, where uploads leave `bytes` on the disk free.
    #[must_use]
    pub fn with_reserve(self, bytes: u64) -> Self {
        Self { spool: self.spool.leaving(bytes), ..self }
    }

    /// The directory itself, to measure its disk.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Uploaded files on their way here.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// The file name of a conversation's recording.
    pub fn file_name(
        started_at: Timestamp,
        client: &ClientId,
        id: &ConversationId,
        format: Format,
    ) -> String {
        format!("{}_{client}_{id}.{}", started_at.seconds(), format.extension())
    }

    /// Takes a file name apart; none when it is not one of ours.
    pub fn origin(name: &str) -> Option<Origin> {
        let extension = Format::of(name)?.extension();
        let (started_at, rest) =
            name.strip_suffix(extension)?.strip_suffix('.')?.split_once('_')?;
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

    /// Begins the recording of `conversation`, in the format that its file name
    /// tells: the file and its directory entry are on disk when this returns.
    ///
    /// # Errors
    /// `NoSpace`, `Unavailable` or `Storage`, or `NotFound` for a name that is
    /// none.
    pub async fn create(&self, conversation: &Conversation) -> Result<Recorder> {
        self.accepting()?;
        let track = self
            .on(&conversation.audio_path, |files, name, format| Track::create(files, name, format))
            .await;
        let track = self.gate.heed(track)?;
        Ok(Recorder::new(track, self.gate.clone(), self.sync_interval, self.clock.clone()))
    }

    /// Puts the end of a recording right, and its header: what a crash can leave
    /// behind is half a sample or a torn page. Returns its samples. Not for a
    /// file that is being recorded.
    ///
    /// # Errors
    /// `NotFound`, `Storage`, or `BadInput` when it is not a recording of ours.
    pub async fn repair(&self, name: &str) -> Result<u64> {
        self.on(name, |files, name, format| match format {
            Format::Wav => wav_file::repair(files, name),
            Format::Opus => opus_file::repair(files, name),
        })
        .await
    }

    /// The recordings there are, in the order of their names.
    ///
    /// # Errors
    /// `Storage` when the directory cannot be read.
    pub async fn scan(&self) -> Result<Vec<Found>> {
        let files = self.files.clone();
        blocking(move || {
            let mut found: Vec<Found> = list(files.as_ref())?
                .into_iter()
                .filter(|entry| Format::of(&entry.name).is_some())
                .map(|entry| Found {
                    name: entry.name,
                    bytes: entry.bytes,
                    modified: Timestamp::from_millis(entry.modified.saturating_mul(1000)),
                })
                .collect();
            found.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        })
        .await
    }

    /// Samples in a recording, by what is on disk or in the bucket.
    ///
    /// # Errors
    /// `NotFound` or `Storage`; of the bucket as [`crate::remote::Service::call`].
    pub async fn samples(&self, name: &str) -> Result<u64> {
        let shelf = self.shelf();
        self.on(name, move |_, name, format| {
            let file = shelf.open(name)?;
            match format {
                Format::Wav => file.len().map(wav_file::data_samples),
                Format::Opus => opus_file::samples(file.as_ref()),
            }
            .map_err(|error| failed("cannot read", name, error))
        })
        .await
    }

    /// The samples of `spans`, one after the other; at most a minute.
    ///
    /// # Errors
    /// As [`Recordings::samples`]; `TooLarge` for more than a minute; `BadInput`
    /// when the recording ends before the spans do.
    pub async fn read(&self, name: &str, spans: &[Span]) -> Result<Vec<i16>> {
        let total = spans.iter().fold(0u64, |sum, span| sum.saturating_add(span.len()));
        if total > MAX_READ {
            return Err(Error::new(Kind::TooLarge, "more than a minute of audio at once"));
        }
        let (shelf, spans) = (self.shelf(), spans.to_vec());
        self.on(name, move |_, name, format| {
            let file = shelf.open(name)?;
            let mut samples = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
            for span in spans {
                match format {
                    Format::Wav => wav_file::read(file.as_ref(), name, span, &mut samples)?,
                    Format::Opus => opus_file::read(file.as_ref(), name, span, &mut samples)?,
                }
            }
            Ok(samples)
        })
        .await
    }

    /// Deletes recordings, and what is being written under their names: that is
    /// never given its name then. One that cannot be deleted does not keep the
    /// others, and is not among the names that are returned.
    ///
    /// # Errors
    /// `Storage` when it is not certain that the disk has let go of them.
    pub async fn remove(&self, names: &[String]) -> Result<Removed> {
        let (files, names) = (self.files.clone(), names.to_vec());
        blocking(move || {
            let mut removed = Removed::default();
            for name in names {
                let bytes = files.open(&name, Use::Read).and_then(|file| file.len());
                let gone = check(&name)
                    .and_then(|()| remove(files.as_ref(), &part_of(&name)))
                    .and_then(|()| remove(files.as_ref(), &name));
                match gone {
                    Ok(()) => {
                        removed.bytes += bytes.unwrap_or(0);
                        removed.names.push(name);
                    }
                    Err(error) => {
                        tracing::error!("{name} is still there: {}", error.report());
                    }
                }
            }
            files.sync_names().map_err(|e| {
                Error::new(io_kind(&e), "cannot sync the recordings").with_source(e)
            })?;
            Ok(removed)
        })
        .await
    }

    /// Removes a recording that is to begin anew; none is no error.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn discard(&self, name: &str) -> Result<()> {
        self.on(name, |files, name, _| remove(files, name)).await
    }

    fn shelf(&self) -> Shelf {
        Shelf { files: self.files.clone(), bucket: self.bucket.clone() }
    }

    /// Does `work` on the recording of that name, off the async threads.
    async fn on<T, F>(&self, name: &str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Files, &str, Format) -> Result<T> + Send + 'static,
    {
        check(name)?;
        let format = Format::of(name).ok_or_else(no_recording)?;
        let (files, name) = (self.files.clone(), name.to_owned());
        blocking(move || work(files.as_ref(), &name, format)).await
    }
}

/// The name that the file `name` has while it is being written.
fn part_of(name: &str) -> String {
    format!(".{name}.part")
}

/// Whether a name is that of a file which is being written.
fn is_half_written(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".part")
}

/// Refuses a name that could lead elsewhere.
fn check(name: &str) -> Result<()> {
    let plain = !name.starts_with('.')
        && !name.is_empty()
        && name.len() <= 255
        && !name.contains(['/', '\\', '\0']);
    if plain { Ok(()) } else { Err(no_recording()) }
}

/// The files there are.
fn list(files: &dyn Files) -> Result<Vec<Entry>> {
    files.list().map_err(|error| {
        Error::new(io_kind(&error), "cannot list the recordings").with_source(error)
    })
}

/// Removes a file. One that is not there is removed already.
fn remove(files: &dyn Files, name: &str) -> Result<()> {
    match files.remove(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(failed("cannot remove", name, error))
        }
        _ => Ok(()),
    }
}

fn no_recording() -> Error {
    Error::new(Kind::NotFound, "no such recording")
}

/// An error of the file system, or of the bucket, that names what was being done to
/// which file.
fn failed(doing: &str, name: &str, error: std::io::Error) -> Error {
    let kind = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.kind(),
        None => io_kind(&error),
    };
    Error::new(kind, format!("{doing} {name}")).with_source(error)
}

/// There is less in a recording than was asked for.
fn too_short(name: &str) -> Error {
    Error::new(Kind::BadInput, format!("{name} is shorter than it should be"))
}

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod opus_tests;
#[cfg(test)]
mod tests;
