//! The header of a safetensors file: which tensors it has and where. Data stays
//! in the file.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use serde::Deserialize;

use super::{bad, failed};
use crate::base::error::{Context, Kind, Result};

/// Longest header read, in bytes; a model of hundreds of tensors has tens of
/// thousands.
const MAX_HEADER: u64 = 4 << 20;

/// A tensor of f32 numbers in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Outermost dimension first.
    pub(super) shape: Vec<u64>,
    /// Byte of the file at which its data starts.
    pub(super) offset: u64,
    /// How many numbers.
    pub(super) count: u64,
}

#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The f32 tensors of `file` by name, in order of their names.
///
/// # Errors
/// `BadInput` when this is not such a file or it ends early.
pub(super) fn read_header<R: Read + Seek>(file: &mut R) -> Result<BTreeMap<String, Tensor>> {
    const WHAT: &str = "the safetensors file";
    let length = file.seek(SeekFrom::End(0)).map_err(failed(WHAT))?;
    file.seek(SeekFrom::Start(0)).map_err(failed(WHAT))?;
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(failed(WHAT))?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER || size > length.saturating_sub(8) {
        return Err(bad("this is not a safetensors file: its header is too long"));
    }
    let mut header = Vec::new();
    file.take(size).read_to_end(&mut header).map_err(failed(WHAT))?;
    let described: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
        .context(Kind::BadInput, "the safetensors file's header is damaged")?;
    let data = 8 + size;
    let mut tensors = BTreeMap::new();
    for (name, value) in described {
        if name == "__metadata__" {
            continue;
        }
        let wrong = || bad(format!("the tensor {name} is damaged"));
        let Described { dtype, shape, data_offsets: (start, end) } =
            serde_json::from_value(value).map_err(|_| wrong())?;
        if start > end || end > length - data {
            return Err(wrong());
        }
        if dtype != "F32" {
            continue;
        }
        let count = shape.iter().try_fold(1_u64, |n, dim| n.checked_mul(*dim)).ok_or_else(wrong)?;
        if count.checked_mul(4) != Some(end - start) {
            return Err(wrong());
        }
        tensors.insert(name, Tensor { shape, offset: data + start, count });
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let size = (header.len() as u64).to_le_bytes();
        [&size, header.as_bytes(), &vec![0; data]].concat()
    }

    fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
        read_header(&mut Cursor::new(bytes))
    }

    const SAMPLE: &str = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},
        "a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;

    #[test]
    fn finds_the_f32_tensors() {
        let tensors = read(&file(SAMPLE, 32)).unwrap();
        let offset = 8 + SAMPLE.len() as u64 + 8;
        let b = Tensor { shape: vec![2, 3], offset, count: 6 };
        assert_eq!(tensors, BTreeMap::from([("b".into(), b)]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(read(&file(SAMPLE, 31)).is_err());
        assert!(read(&u64::MAX.to_le_bytes()).is_err());
        assert!(read(b"short").is_err());
        let huge = r#"{"b":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
        assert!(read(&file(huge, 0)).is_err());
        let backwards = r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#;
        assert!(read(&file(backwards, 8)).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_a_list(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_damaged_header_never_points_outside_the_file(at in 8..8 + SAMPLE.len(), value in 32_u8..127) {
            let mut bytes = file(SAMPLE, 32);
            bytes[at] = value;
            if let Ok(tensors) = read(&bytes) {
                for tensor in tensors.values() {
                    prop_assert!(tensor.offset + tensor.count * 4 <= bytes.len() as u64);
                }
            }
        }
    }
}
