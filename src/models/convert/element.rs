//! Numbers of a tensor, copied and converted in small pieces.

use std::io::{Read, Seek, SeekFrom, Write};

/// How a number is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
}

impl Element {
    pub(super) const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// A row of numbers in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Byte at which it starts.
    pub(super) offset: u64,
    /// How many numbers.
    pub(super) count: u64,
    pub(super) element: Element,
}

/// Calls `each` with the numbers of `run` as f32, in pieces of `piece` numbers;
/// the last may be shorter.
pub(super) fn for_each_piece<R: Read + Seek>(
    from: &mut R,
    run: Run,
    piece: usize,
    mut each: impl FnMut(&[f32]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    from.seek(SeekFrom::Start(run.offset))?;
    let width = run.element.bytes() as usize;
    let mut bytes = vec![0; piece * width];
    let mut numbers = Vec::with_capacity(piece);
    let mut left = run.count;
    while left > 0 {
        let now = usize::try_from(left).map_or(piece, |left| left.min(piece));
        bytes.truncate(now * width);
        from.read_exact(&mut bytes)?;
        numbers.clear();
        match run.element {
            Element::F32 => {
                numbers.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)))
            }
            Element::F16 => numbers
                .extend(bytes.as_chunks().0.iter().map(|b| f16_to_f32(u16::from_le_bytes(*b)))),
        }
        each(&numbers)?;
        left -= now as u64;
    }
    Ok(())
}

/// Writes the numbers of `run` as `to`.
pub(super) fn copy<R: Read + Seek, W: Write>(
    from: &mut R,
    run: Run,
    to: Element,
    out: &mut W,
) -> std::io::Result<()> {
    if run.element == to {
        from.seek(SeekFrom::Start(run.offset))?;
        let bytes = run.count.saturating_mul(to.bytes());
        return match std::io::copy(&mut from.take(bytes), out)? {
            copied if copied == bytes => Ok(()),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        };
    }
    for_each_piece(from, run, 16 << 10, |numbers| {
        numbers.iter().try_for_each(|&number| match to {
            Element::F32 => out.write_all(&number.to_le_bytes()),
            Element::F16 => out.write_all(&f32_to_f16(number).to_le_bytes()),
        })
    })
}

/// Exact: every binary16 is a binary32.
fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half) & 0x3ff;
    match exponent {
        // A subnormal counts units of 2^-24.
        0 => f32::from_bits((fraction as f32 / 16_777_216.0).to_bits() | sign),
        31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

/// To the nearest, ties to even, as IEEE 754 says.
pub(super) fn f32_to_f16(number: f32) -> u16 {
    let bits = number.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    let rounded = match magnitude {
        0x7f80_0001.. => 0x7e00,
        // From 65520 on, halfway to the next power of two, it is infinite.
        0x477f_f000.. => 0x7c00,
        // Normal: move the exponent's bias and round off 13 bits of fraction.
        0x3880_0000.. => round_off(magnitude - (112 << 23), 13),
        // Subnormal: a count of 2^-24; below half of one it is zero.
        0x3300_0000.. => {
            let exponent = magnitude >> 23;
            round_off((magnitude & 0x007f_ffff) | 0x0080_0000, 126 - exponent)
        }
        _ => 0,
    };
    sign | rounded as u16
}

/// `value` without its `bits` last bits, rounded to nearest, ties to even.
fn round_off(value: u32, bits: u32) -> u32 {
    let kept = value >> bits;
    let rest = value & ((1 << bits) - 1);
    let half = 1 << (bits - 1);
    if rest > half || (rest == half && kept & 1 == 1) { kept + 1 } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn every_half_survives_the_way_there_and_back() {
        for half in 0..=u16::MAX {
            let number = f16_to_f32(half);
            if number.is_nan() {
                assert_eq!(f32_to_f16(number) & 0x7fff, 0x7e00);
            } else {
                assert_eq!(f32_to_f16(number), half, "{half:#06x} is {number}");
            }
        }
    }

    #[test]
    fn halves_are_what_ieee_says() {
        assert_eq!(f16_to_f32(0x3c00), 1.0);
        assert_eq!(f16_to_f32(0x8001), -1.0 / 16_777_216.0);
        assert_eq!(f16_to_f32(0x7bff), 65504.0);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16(65519.996), 0x7bff);
        // Ties go to even: 2049 lies between 2048 and 2050, 2051 between 2050 and 2052.
        assert_eq!(f16_to_f32(f32_to_f16(2049.0)), 2048.0);
        assert_eq!(f16_to_f32(f32_to_f16(2051.0)), 2052.0);
        // Half of the smallest subnormal goes to zero, anything above to it.
        let tiny = 1.0 / 33_554_432.0_f32;
        assert_eq!(f32_to_f16(tiny), 0);
        assert_eq!(f32_to_f16(tiny.next_up()), 1);
        assert_eq!(f32_to_f16(-3.0 * tiny), 0x8002);
    }

    #[test]
    fn copies_across_pieces_and_reports_a_short_file() {
        let numbers: Vec<u8> = (0..40_000).flat_map(|n| (n as f32).to_le_bytes()).collect();
        let mut file = Cursor::new([b"head".to_vec(), numbers].concat());
        let run = Run { offset: 4, count: 40_000, element: Element::F32 };
        let mut out = Vec::new();
        copy(&mut file, run, Element::F16, &mut out).unwrap();
        assert_eq!(out.len(), 80_000);
        assert_eq!(out[2..4], 0x3c00_u16.to_le_bytes());
        for to in [Element::F32, Element::F16] {
            let run = Run { count: 40_001, ..run };
            let error = copy(&mut file, run, to, &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        }
    }
}
