//! WAV files as we write them: 16 kHz mono s16le behind the plain 44-byte header.

use crate::domain::conversation::SAMPLE_RATE;

/// Bytes before the first sample.
pub const HEADER: usize = 44;

/// The header of a file with `samples` samples.
pub fn header(samples: u64) -> [u8; HEADER] {
    // 37 hours fit; a longer file plays its first 37 hours.
    let data = u32::try_from(samples.saturating_mul(2)).unwrap_or(u32::MAX) & !1;
    let data = data.min(u32::MAX - 1 - HEADER as u32);
    let mut bytes = *b"RIFF----WAVEfmt \x10\0\0\0\x01\0\x01\0rateb/s.\x02\0\x10\0data----";
    let mut put = |at: usize, value: u32| {
        if let Some(field) = bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    };
    put(4, data + HEADER as u32 - 8);
    put(24, SAMPLE_RATE);
    put(28, SAMPLE_RATE * 2);
    put(40, data);
    bytes
}

/// A whole file.
pub fn file(samples: &[i16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + samples.len() * 2);
    bytes.extend_from_slice(&header(samples.len() as u64));
    samples.iter().for_each(|sample| bytes.extend_from_slice(&sample.to_le_bytes()));
    bytes
}
