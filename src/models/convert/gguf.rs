//! The GGUF container, version 3, as llama.cpp reads it, and its q8_0 numbers.

use std::io::Write;

use super::element::f32_to_f16;

/// Tensors start at multiples of this many bytes.
const ALIGNMENT: u64 = 32;

/// Numbers of a q8_0 block: one f16 scale and as many signed bytes.
pub(super) const BLOCK: usize = 32;

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TensorType {
    F32,
    Q8_0,
}

impl TensorType {
    const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Q8_0 => 8,
        }
    }

    /// Bytes of `count` numbers, which for q8_0 must be whole blocks.
    const fn bytes(self, count: u64) -> u64 {
        match self {
            Self::F32 => count * 4,
            Self::Q8_0 => count / BLOCK as u64 * (2 + BLOCK as u64),
        }
    }
}

/// The keys and values before the tensors, in the order they are added.
#[derive(Default)]
pub(super) struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

impl Metadata {
    fn key(&mut self, key: &str, value_type: u32) {
        self.count += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend(value_type.to_le_bytes());
    }

    pub(super) fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_text(&mut self.bytes, value);
    }

    pub(super) fn texts(&mut self, key: &str, values: &[String]) {
        self.key(key, 9);
        self.bytes.extend(8_u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        for value in values {
            put_text(&mut self.bytes, value);
        }
    }

    pub(super) fn i32s(&mut self, key: &str, values: &[i32]) {
        self.key(key, 9);
        self.bytes.extend(5_u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// A tensor that the file will hold.
pub(super) struct TensorInfo {
    pub(super) name: String,
    /// Outermost dimension first.
    pub(super) shape: Vec<u64>,
    pub(super) count: u64,
    pub(super) stored: TensorType,
}

impl TensorInfo {
    fn bytes(&self) -> u64 {
        self.stored.bytes(self.count)
    }
}

/// Writes everything that comes before the first tensor's data.
pub(super) fn write_head(
    out: &mut impl Write,
    metadata: &Metadata,
    tensors: &[TensorInfo],
) -> std::io::Result<()> {
    let mut head = b"GGUF".to_vec();
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend(metadata.count.to_le_bytes());
    head.extend(&metadata.bytes);
    let mut offset = 0_u64;
    for tensor in tensors {
        put_text(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        // The file counts from the innermost dimension.
        head.extend(tensor.shape.iter().rev().flat_map(|dim| dim.to_le_bytes()));
        head.extend(tensor.stored.id().to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&head)
}

/// Writes what comes between the data of `tensor` and the next one's.
pub(super) fn write_padding(out: &mut impl Write, tensor: &TensorInfo) -> std::io::Result<()> {
    let bytes = tensor.bytes();
    let padding = (bytes.next_multiple_of(ALIGNMENT) - bytes) as usize;
    out.write_all([0; ALIGNMENT as usize].get(..padding).unwrap_or_default())
}

/// Writes one block, at most [`BLOCK`] numbers, as q8_0: the largest magnitude
/// becomes 127, and halves round away from zero.
pub(super) fn write_q8_0(out: &mut impl Write, numbers: &[f32]) -> std::io::Result<()> {
    let scale = numbers.iter().fold(0.0_f32, |most, number| most.max(number.abs())) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut block = [0; 2 + BLOCK];
    let (head, body) = block.split_at_mut(2);
    head.copy_from_slice(&f32_to_f16(scale).to_le_bytes());
    for (byte, number) in body.iter_mut().zip(numbers) {
        *byte = ((number * inverse).round() as i8).cast_unsigned();
    }
    out.write_all(&block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_a_scale_and_rounds_halves_away_from_zero() {
        let mut numbers = [0.0; BLOCK];
        numbers[..4].copy_from_slice(&[127.0, -2.5, 2.5, -0.4]);
        let mut out = Vec::new();
        write_q8_0(&mut out, &numbers).unwrap();
        assert_eq!(out.len(), 34);
        assert_eq!(out[..6], [0x00, 0x3c, 127, 253, 3, 0]);
        out.clear();
        write_q8_0(&mut out, &[0.0; BLOCK]).unwrap();
        assert_eq!(out, [0; 34]);
    }

    #[test]
    fn tensors_are_aligned() {
        let mut metadata = Metadata::default();
        metadata.text("k", "v");
        let info = |count: u64| TensorInfo {
            name: "t".into(),
            shape: vec![count],
            count,
            stored: TensorType::F32,
        };
        let mut out = Vec::new();
        write_head(&mut out, &metadata, &[info(3), info(8)]).unwrap();
        assert_eq!(out.len() % 32, 0);
        // The second tensor's offset is the last number before the padding.
        let end = out.iter().rposition(|b| *b != 0).unwrap();
        assert_eq!(out[end], 32);
        out.clear();
        write_padding(&mut out, &info(3)).unwrap();
        assert_eq!(out.len(), 20);
        out.clear();
        write_padding(&mut out, &info(8)).unwrap();
        assert!(out.is_empty());
    }
}
