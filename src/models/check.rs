//! Whether a file is the model that the catalog means.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::catalog::Entry;
use crate::base::error::{Error, Kind, Result, io_kind};

/// Whether `entry`'s file is in `dir` with the right size. Files are put there
/// only after their hash was checked, so this is enough to load one.
pub fn is_present(entry: &Entry, dir: &Path) -> bool {
    std::fs::metadata(dir.join(&entry.file))
        .is_ok_and(|meta| meta.is_file() && meta.len() == entry.bytes)
}

/// Reads `entry`'s file in `dir` through and compares its SHA-256. Blocks for
/// as long as reading the file takes.
///
/// # Errors
/// [`Kind::NotFound`] when it is not there, [`Kind::BadInput`] when it is
/// another file, [`Kind::Storage`] when it cannot be read.
pub fn verify(entry: &Entry, dir: &Path) -> Result<()> {
    check_file(entry, &dir.join(&entry.file))
}

/// As [`verify`], of the file at `path`.
pub(super) fn check_file(entry: &Entry, path: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(io_kind(&error), format!("cannot read {}", path.display())).with_source(error)
    };
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let wrong = |what: String| {
        Error::new(Kind::BadInput, format!("{} is not {}: {what}", path.display(), entry.name))
    };
    if bytes != entry.bytes {
        return Err(wrong(format!("{bytes} bytes instead of {}", entry.bytes)));
    }
    let actual = sha256(&mut file).map_err(failed)?;
    if actual != entry.sha256 {
        return Err(wrong(format!("its SHA-256 is {actual} instead of {}", entry.sha256)));
    }
    Ok(())
}

/// SHA-256 of everything that `input` has left, in lower-case hexadecimal.
pub(super) fn sha256(input: &mut impl Read) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(buffer.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_the_standard_says() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&mut &b"abc"[..]).unwrap(), expected);
    }
}
