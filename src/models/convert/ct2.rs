//! The container of CTranslate2's models (`model.bin`, versions 4 to 6): a list
//! of named variables. Only the list is read; data stays in the file.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Seek, SeekFrom};

use super::element::{Element, Run};
use super::{bad, failed};
use crate::base::error::Result;

/// More dimensions than any model's variable has.
const MAX_RANK: u8 = 8;

/// The variables of a file.
#[derive(Debug)]
pub(super) struct Variables(BTreeMap<String, Variable>);

#[derive(Debug)]
struct Variable {
    dims: Vec<u64>,
    data_type: DataType,
    offset: u64,
    /// The value of a scalar that is a whole number.
    scalar: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataType {
    Float(Element),
    /// A whole number of so many bytes.
    Int(u64),
}

impl DataType {
    fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Float(Element::F32)),
            1 => Some(Self::Int(1)),
            2 => Some(Self::Int(2)),
            3 => Some(Self::Int(4)),
            4 => Some(Self::Float(Element::F16)),
            _ => None,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Float(element) => element.bytes(),
            Self::Int(bytes) => bytes,
        }
    }
}

/// A tensor of floating-point numbers.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// Outermost first.
    pub(super) dims: Vec<u64>,
    pub(super) run: Run,
}

impl Tensor {
    /// The rows from `start` to `end` of the outermost dimension.
    pub(super) fn rows(&self, start: u64, end: u64) -> Option<Self> {
        let (rows, inner) = self.dims.split_first()?;
        if start > end || end > *rows {
            return None;
        }
        let width: u64 = inner.iter().product();
        let mut dims = self.dims.clone();
        *dims.first_mut()? = end - start;
        let offset = self.run.offset + start * width * self.run.element.bytes();
        Some(Self { dims, run: Run { offset, count: (end - start) * width, ..self.run } })
    }
}

impl Variables {
    /// Reads the list.
    ///
    /// # Errors
    /// `BadInput` when this is not such a file or it ends early.
    pub(super) fn read<R: BufRead + Seek>(file: &mut R) -> Result<Self> {
        let fail = failed("the CTranslate2 model");
        let length = file.seek(SeekFrom::End(0)).map_err(&fail)?;
        file.seek(SeekFrom::Start(0)).map_err(&fail)?;
        let version = u32(file)?;
        if !(4..=6).contains(&version) {
            return Err(bad(format!("not a CTranslate2 model of version 4 to 6, but {version}")));
        }
        let _specification = text(file)?;
        let _revision = u32(file)?;
        let count = u32(file)?;
        let mut variables = BTreeMap::new();
        for _ in 0..count {
            let name = text(file)?;
            let variable = Variable::read(file, length, &name)?;
            variables.insert(name, variable);
        }
        Ok(Self(variables))
    }

    /// The tensor called `name`, which must have `rank` dimensions.
    pub(super) fn tensor(&self, name: &str, rank: usize) -> Result<Tensor> {
        match self.0.get(name) {
            Some(Variable { dims, data_type: DataType::Float(element), offset, .. })
                if dims.len() == rank =>
            {
                let run = Run { offset: *offset, count: dims.iter().product(), element: *element };
                Ok(Tensor { dims: dims.clone(), run })
            }
            _ => Err(bad(format!("the model has no tensor {name} of {rank} dimensions"))),
        }
    }

    /// The whole number called `name`.
    pub(super) fn int(&self, name: &str) -> Result<i64> {
        let variable = self.0.get(name);
        variable
            .and_then(|v| v.scalar)
            .ok_or_else(|| bad(format!("the model has no number {name}")))
    }

    /// How many layers there are whose variables start with `PREFIX0/`.
    pub(super) fn layers(&self, prefix: &str) -> u32 {
        let is_there = |layer: &u32| {
            let start = format!("{prefix}{layer}/");
            self.0.range(start.clone()..).next().is_some_and(|(name, _)| name.starts_with(&start))
        };
        (0..).take_while(is_there).count() as u32
    }
}

impl Variable {
    /// Reads one and steps over its data.
    fn read<R: BufRead + Seek>(file: &mut R, length: u64, name: &str) -> Result<Self> {
        let fail = failed("the CTranslate2 model");
        let wrong = || bad(format!("the model's variable {name} is damaged"));
        let [rank] = array(file)?;
        if rank > MAX_RANK {
            return Err(wrong());
        }
        let mut dims = Vec::new();
        for _ in 0..rank {
            dims.push(u64::from(u32(file)?));
        }
        let [id] = array(file)?;
        let data_type = DataType::from_id(id).ok_or_else(wrong)?;
        let bytes = u64::from(u32(file)?);
        let expected = dims.iter().try_fold(data_type.bytes(), |n, dim| n.checked_mul(*dim));
        let offset = file.stream_position().map_err(&fail)?;
        let end = offset.saturating_add(bytes);
        if expected != Some(bytes) || end > length {
            return Err(wrong());
        }
        let scalar = match (data_type, rank) {
            (DataType::Int(1), 0) => Some(i64::from(i8::from_le_bytes(array(file)?))),
            (DataType::Int(2), 0) => Some(i64::from(i16::from_le_bytes(array(file)?))),
            (DataType::Int(4), 0) => Some(i64::from(i32::from_le_bytes(array(file)?))),
            _ => None,
        };
        file.seek(SeekFrom::Start(end)).map_err(&fail)?;
        Ok(Self { dims, data_type, offset, scalar })
    }
}

fn array<const N: usize>(file: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes).map_err(failed("the CTranslate2 model"))?;
    Ok(bytes)
}

fn u32(file: &mut impl Read) -> Result<u32> {
    Ok(u32::from_le_bytes(array(file)?))
}

/// A length of two bytes, then text that ends in a zero byte.
fn text(file: &mut impl Read) -> Result<String> {
    let mut bytes = vec![0; usize::from(u16::from_le_bytes(array(file)?))];
    file.read_exact(&mut bytes).map_err(failed("the CTranslate2 model"))?;
    if bytes.pop() != Some(0) {
        return Err(bad("the model has a name without an end"));
    }
    String::from_utf8(bytes).map_err(|_| bad("the model has a name that is not UTF-8"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// A file in the making.
    pub(in crate::models::convert) struct Builder(Vec<u8>, u32);

    impl Builder {
        pub(in crate::models::convert) fn new() -> Self {
            Self(Vec::new(), 0)
        }

        fn add(mut self, name: &str, dims: &[u32], id: u8, data: &[u8]) -> Self {
            self.0.extend((name.len() as u16 + 1).to_le_bytes());
            self.0.extend(name.as_bytes());
            self.0.extend([0, dims.len() as u8]);
            self.0.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
            self.0.push(id);
            self.0.extend((data.len() as u32).to_le_bytes());
            self.0.extend(data);
            self.1 += 1;
            self
        }

        pub(in crate::models::convert) fn f32s(
            self,
            name: &str,
            dims: &[u32],
            data: &[f32],
        ) -> Self {
            let data: Vec<_> = data.iter().flat_map(|n| n.to_le_bytes()).collect();
            self.add(name, dims, 0, &data)
        }

        pub(in crate::models::convert) fn i16(self, name: &str, value: i16) -> Self {
            self.add(name, &[], 2, &value.to_le_bytes())
        }

        pub(in crate::models::convert) fn finish(self) -> Vec<u8> {
            let mut file = 6_u32.to_le_bytes().to_vec();
            file.extend(b"\x0c\x00WhisperSpec\0");
            file.extend(3_u32.to_le_bytes());
            file.extend(self.1.to_le_bytes());
            file.extend(self.0);
            // No aliases.
            file.extend(0_u32.to_le_bytes());
            file
        }
    }

    fn sample() -> Vec<u8> {
        Builder::new()
            .i16("encoder/num_heads", 8)
            .f32s("encoder/layer_0/w", &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
            .f32s("encoder/layer_1/w", &[1], &[7.0])
            .finish()
    }

    #[test]
    fn finds_variables_and_slices_rows() {
        let bytes = sample();
        let variables = Variables::read(&mut Cursor::new(&bytes)).unwrap();
        assert_eq!(variables.int("encoder/num_heads").unwrap(), 8);
        assert_eq!(variables.layers("encoder/layer_"), 2);
        let tensor = variables.tensor("encoder/layer_0/w", 2).unwrap();
        let last = tensor.rows(1, 3).unwrap();
        assert_eq!((last.dims.as_slice(), last.run.count), (&[2, 2][..], 4));
        let at = last.run.offset as usize;
        assert_eq!(bytes[at..at + 4], 2.0_f32.to_le_bytes());
        assert!(tensor.rows(2, 4).is_none());
        assert!(variables.tensor("encoder/layer_0/w", 1).is_err());
        assert!(variables.int("encoder/layer_0/w").is_err());
    }

    #[test]
    fn a_variable_longer_than_the_file_is_refused() {
        let mut bytes = sample();
        let cut = bytes.len() - 6;
        assert!(Variables::read(&mut Cursor::new(&bytes[..cut])).is_err());
        bytes[0] = 3;
        assert!(
            Variables::read(&mut Cursor::new(&bytes)).unwrap_err().message().contains("version")
        );
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_a_list(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Variables::read(&mut Cursor::new(&bytes));
        }

        #[test]
        fn a_damaged_file_never_points_outside_itself(
            at in 0_usize..120, value: u8,
        ) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(variables) = Variables::read(&mut Cursor::new(&bytes)) {
                for variable in variables.0.values() {
                    let count: u64 = variable.dims.iter().product();
                    let end = variable.offset + count * variable.data_type.bytes();
                    prop_assert!(end <= bytes.len() as u64);
                }
            }
        }
    }
}
