//! WAV recordings on disk: 16 kHz mono s16le behind the plain 44-byte header.

use super::failed;
use super::files::{Files, Handle, Use};
pub(super) use crate::audio::wav::{HEADER, header};
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::Span;

/// Samples in a recording whose file has `bytes` bytes.
pub(super) fn data_samples(bytes: u64) -> u64 {
    bytes.saturating_sub(HEADER as u64) / 2
}

/// Makes the header fit the length of a file, and drops a torn sample. Returns
/// its samples.
pub(super) fn repair(files: &dyn Files, name: &str) -> Result<u64> {
    let cannot = |error| failed("cannot repair", name, error);
    let file = files.open(name, Use::Repair).map_err(cannot)?;
    let length = file.len().map_err(cannot)?;
    let samples = data_samples(length);
    let wanted = header(samples);
    let mut found = [0; HEADER];
    let present = file.read_at(&mut found, 0).map_err(cannot)?;
    // A file that was being made may have less, or zeros where nothing arrived.
    let blank = found.iter().all(|byte| *byte == 0);
    if !blank && !is_header(found.get(..present).unwrap_or_default()) {
        return Err(Error::new(Kind::BadInput, format!("{name} is not a recording made here")));
    }
    let exact = HEADER as u64 + samples * 2;
    if found != wanted || length != exact {
        file.set_len(exact).map_err(cannot)?;
        file.write_at(&wanted, 0).map_err(cannot)?;
    }
    // Always: a process that was killed may have left bytes that no disk has yet.
    file.sync().map_err(cannot)?;
    Ok(samples)
}

/// Whether a file that begins with those bytes is one of ours, as far as they go:
/// all but the two sizes is the same in each.
pub(super) fn is_header(found: &[u8]) -> bool {
    let size = |at: usize| (4..8).contains(&at) || (40..44).contains(&at);
    let pairs = found.iter().zip(header(0)).enumerate();
    pairs.into_iter().all(|(at, (found, wanted))| size(at) || *found == wanted)
}

/// Appends the samples of `span` to `out`.
pub(super) fn read(file: &dyn Handle, name: &str, span: Span, out: &mut Vec<i16>) -> Result<()> {
    let mut bytes = vec![0; usize::try_from(span.len().saturating_mul(2)).unwrap_or_default()];
    let at = span.start.saturating_mul(2).saturating_add(HEADER as u64);
    let count = file.read_at(&mut bytes, at).map_err(|error| failed("cannot read", name, error))?;
    if count < bytes.len() {
        return Err(super::too_short(name));
    }
    out.extend(bytes.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b)));
    Ok(())
}
