//! `TensorProto` to [`Tensor`].

use super::budget::Budget;
use super::file::Directory;
use super::proto::{self, decode, element_type_name};
use crate::error::{Error, Result, Status, ensure, fail};
use crate::ir::{DType, Shape, Tensor, TensorType};
use bytes::Bytes;

/// A constant that may not be needed. What is wrong with a tensor is said at once, what is only unsupported, or lies
/// in another file, waits until something turns out to read it.
#[derive(Debug)]
pub enum Constant {
    /// In memory.
    Ready(Tensor),
    /// In a file of the model's directory.
    External { name: String, ty: TensorType, wide: bool, location: String, offset: u64 },
    /// Of a kind that the library does not have.
    Unsupported(Error),
}

impl Constant {
    /// The tensor itself, read now if it is in another file.
    pub fn resolve(self, directory: &mut Option<Directory>) -> Result<Tensor> {
        match self {
            Constant::Ready(tensor) => Ok(tensor),
            Constant::Unsupported(error) => Err(error),
            Constant::External { name, ty, wide, location, offset } => {
                let Some(directory) = directory else {
                    return Err(fail!(
                        ForbiddenPath,
                        "tensor '{name}': a model loaded from memory has no directory for external data '{location}'"
                    ));
                };
                let data =
                    directory.read(&location, offset, stored_bytes(&ty, wide)).map_err(|error| within(&name, error))?;
                let data = if wide { narrow(&data) } else { data };
                dense(ty, data).map_err(|error| within(&name, error))
            }
        }
    }
}

fn within(name: &str, error: Error) -> Error {
    error.within(format_args!("tensor '{name}'"))
}

/// Decodes a tensor; `label` names it if it has no name of its own. Gives its name, too.
pub fn constant(bytes: &Bytes, label: &str, budget: &mut Budget) -> Result<(String, Constant)> {
    let mut tensor: proto::Tensor = decode(bytes, label)?;
    let name = std::mem::take(&mut tensor.name);
    let shown = if name.is_empty() { label } else { &name };
    let constant = match build(tensor, shown, budget) {
        Ok(constant) => constant,
        Err(error) if error.status == Status::Unsupported => Constant::Unsupported(within(shown, error)),
        Err(error) => return Err(within(shown, error)),
    };
    Ok((name, constant))
}

fn build(tensor: proto::Tensor, name: &str, budget: &mut Budget) -> Result<Constant> {
    let shape = tensor
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim).map_err(|_| fail!(Malformed, "dimension {dim} is negative")))
        .collect::<Result<Shape>>()?;
    let wide = tensor.data_type == DType::FLOAT64;
    let Some(dtype) = DType::computed_from_onnx(tensor.data_type) else {
        return Err(fail!(Unsupported, "element type {} is not supported", element_type_name(tensor.data_type)));
    };
    ensure!(tensor.segment.is_none(), Unsupported, "tensors in segments are not supported");
    let ty = TensorType::new(dtype, shape)?;
    if tensor.data_location == 1 {
        return external(&tensor, ty, wide, name);
    }
    let data = match &tensor.raw_data {
        Some(raw) if !raw.is_empty() && wide => {
            let (stored, expected) = (raw.len(), stored_bytes(&ty, wide));
            ensure!(stored == expected, Malformed, "the tensor needs {expected} bytes and has {stored}");
            budget.charge(ty.bytes())?;
            narrow(raw)
        }
        Some(raw) if !raw.is_empty() => raw.clone(),
        _ if wide => {
            budget.charge(tensor.double_data.len() * DType::F32.bytes())?;
            tensor.double_data.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect()
        }
        _ => typed_data(&tensor, dtype, budget)?,
    };
    dense(ty, data).map(Constant::Ready)
}

/// Bytes in the file of a tensor of type `ty`; `wide` if it is float64 there.
fn stored_bytes(ty: &TensorType, wide: bool) -> usize {
    ty.bytes().saturating_mul(if wide { 2 } else { 1 })
}

/// float64 elements in binary32.
fn narrow(data: &[u8]) -> Bytes {
    let values = data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32);
    values.flat_map(f32::to_le_bytes).collect()
}

/// Wraps the bytes; truth values become 0 or 1.
fn dense(ty: TensorType, data: Bytes) -> Result<Tensor> {
    let normal = ty.dtype != DType::Bool || data.iter().all(|&byte| byte <= 1);
    let data = if normal { data } else { data.iter().map(|&byte| u8::from(byte != 0)).collect() };
    Tensor::new(ty.dtype, ty.shape, data)
}

fn external(tensor: &proto::Tensor, ty: TensorType, wide: bool, name: &str) -> Result<Constant> {
    let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    let number = |key: &str| {
        let value = entry(key)
            .map(|text| text.parse::<u64>().map_err(|_| fail!(Malformed, "external data with the {key} '{text}'")));
        value.transpose()
    };
    let Some(location) = entry("location") else { return Err(fail!(Malformed, "external data without a location")) };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    if let Some(length) = length {
        let expected = stored_bytes(&ty, wide);
        ensure!(
            length == expected as u64,
            Malformed,
            "external data has {length} bytes where a {} tensor of shape {:?} needs {expected}",
            ty.dtype,
            ty.shape
        );
    }
    Ok(Constant::External { name: name.to_owned(), ty, wide, location: location.clone(), offset })
}

/// The elements of a tensor that has them in one of the typed fields, as little-endian bytes.
fn typed_data(tensor: &proto::Tensor, dtype: DType, budget: &mut Budget) -> Result<Bytes> {
    let count = match dtype {
        DType::F32 => tensor.float_data.len(),
        DType::I64 => tensor.int64_data.len(),
        _ => tensor.int32_data.len(),
    };
    budget.charge(count * dtype.bytes())?;
    let mut data = Vec::with_capacity(count * dtype.bytes());
    match dtype {
        DType::F32 => tensor.float_data.iter().for_each(|value| data.extend_from_slice(&value.to_le_bytes())),
        DType::I64 => tensor.int64_data.iter().for_each(|value| data.extend_from_slice(&value.to_le_bytes())),
        _ => {
            for &value in &tensor.int32_data {
                let bytes = value.to_le_bytes();
                let fits = match dtype {
                    DType::I8 => i8::try_from(value).is_ok(),
                    DType::U8 => u8::try_from(value).is_ok(),
                    // The bits of a half; a sign extension is somebody's cast of them.
                    DType::F16 | DType::BF16 => u16::try_from(value).is_ok() || i16::try_from(value).is_ok(),
                    _ => true,
                };
                ensure!(fits, Malformed, "element {value} is no {dtype}");
                match dtype {
                    DType::Bool => data.push(u8::from(value != 0)),
                    _ => data.extend_from_slice(&bytes[..dtype.bytes()]),
                }
            }
        }
    }
    Ok(data.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn import(tensor: proto::Tensor) -> Result<Tensor> {
        let bytes = Bytes::from(tensor.encode_to_vec());
        constant(&bytes, "t", &mut Budget::new(0))?.1.resolve(&mut None)
    }

    fn typed(dtype: DType, dims: &[i64]) -> proto::Tensor {
        proto::Tensor { data_type: dtype.to_onnx(), dims: dims.to_vec(), ..Default::default() }
    }

    #[test]
    fn raw_data_is_a_slice_of_the_file() {
        let raw = Bytes::from(vec![7u8; 4096]);
        let file = Bytes::from(proto::Tensor { raw_data: Some(raw), ..typed(DType::U8, &[64, 64]) }.encode_to_vec());
        let tensor = constant(&file, "t", &mut Budget::new(0)).unwrap().1.resolve(&mut None).unwrap();
        let inside = file.as_ptr_range();
        assert!(inside.contains(&tensor.data().as_ptr()));
    }

    #[test]
    fn typed_fields_hold_every_type() {
        let floats = proto::Tensor { float_data: vec![1.5, -2.0], ..typed(DType::F32, &[2]) };
        assert_eq!(import(floats).unwrap().to_f64s(), [1.5, -2.0]);
        let longs = proto::Tensor { int64_data: vec![i64::MIN, 3], ..typed(DType::I64, &[2]) };
        assert_eq!(import(longs).unwrap().to_i64s(), [i64::MIN, 3]);
        let in_int32 = |dtype, values: &[i32]| {
            import(proto::Tensor { int32_data: values.to_vec(), ..typed(dtype, &[values.len() as i64]) })
        };
        assert_eq!(in_int32(DType::I32, &[-1, 7]).unwrap().to_i64s(), [-1, 7]);
        assert_eq!(in_int32(DType::I8, &[-128, 127]).unwrap().to_i64s(), [-128, 127]);
        assert_eq!(in_int32(DType::U8, &[0, 255]).unwrap().to_i64s(), [0, 255]);
        assert_eq!(in_int32(DType::Bool, &[0, 2]).unwrap().to_i64s(), [0, 1]);
        assert_eq!(in_int32(DType::F16, &[0x3e00, 0xc000]).unwrap().to_f64s(), [1.5, -2.0]);
        assert_eq!(in_int32(DType::BF16, &[0x3fc0, 0xc000]).unwrap().to_f64s(), [1.5, -2.0]);
        assert_eq!(in_int32(DType::I8, &[128]).unwrap_err().status, Status::Malformed);
        assert_eq!(in_int32(DType::F16, &[0x10000]).unwrap_err().status, Status::Malformed);
    }

    #[test]
    fn float64_is_narrowed_to_binary32() {
        let wide = |count| proto::Tensor { data_type: DType::FLOAT64, ..typed(DType::F32, &[count]) };
        let values = [0.1f64, -2.0, f64::MAX];
        let narrowed = [0.1f32.into(), -2.0, f64::INFINITY];
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let raw = |count| import(proto::Tensor { raw_data: Some(raw.clone().into()), ..wide(count) });
        assert_eq!(raw(3).unwrap().to_f64s(), narrowed);
        let short = raw(4).unwrap_err();
        assert_eq!(short.status, Status::Malformed);
        assert!(short.message.contains("needs 32 bytes and has 24"), "{short}");
        let listed = |count| import(proto::Tensor { double_data: values.to_vec(), ..wide(count) });
        assert_eq!(listed(3).unwrap().to_f64s(), narrowed);
        assert_eq!(listed(2).unwrap_err().status, Status::Malformed);
    }

    #[test]
    fn raw_truth_values_become_0_or_1() {
        let raw = proto::Tensor { raw_data: Some(vec![0, 1, 255].into()), ..typed(DType::Bool, &[3]) };
        assert_eq!(*import(raw).unwrap().data(), [0, 1, 1][..]);
    }

    #[test]
    fn bad_tensors_are_malformed_and_named() {
        let named = |tensor: proto::Tensor| import(proto::Tensor { name: "weight".into(), ..tensor }).unwrap_err();
        let short = named(proto::Tensor { raw_data: Some(vec![0; 7].into()), ..typed(DType::F32, &[2]) });
        assert_eq!(short.status, Status::Malformed);
        assert!(short.message.contains("'weight'") && short.message.contains("needs 8 bytes and has 7"), "{short}");
        assert_eq!(named(typed(DType::F32, &[-1])).status, Status::Malformed);
        assert_eq!(named(typed(DType::F32, &[1 << 40, 1 << 40])).status, Status::TooLarge);
        assert_eq!(named(typed(DType::F32, &[1; 13])).status, Status::TooLarge);
        let word = named(proto::Tensor { data_type: 12, ..typed(DType::F32, &[1]) });
        assert_eq!(word.status, Status::Unsupported);
        assert!(word.message.contains("uint32"), "{word}");
    }

    #[test]
    fn external_entries_are_checked_before_any_file_is_opened() {
        let external = |entries: &[(&str, &str)]| {
            let entry = |&(key, value): &(&str, &str)| proto::StringEntry { key: key.into(), value: value.into() };
            let external_data = entries.iter().map(entry).collect();
            import(proto::Tensor { data_location: 1, external_data, ..typed(DType::F32, &[2]) }).unwrap_err()
        };
        assert!(external(&[]).message.contains("without a location"));
        assert!(external(&[("location", "w"), ("offset", "-1")]).message.contains("offset '-1'"));
        assert!(external(&[("location", "w"), ("length", "1125899906842624")]).message.contains("1125899906842624"));
        assert_eq!(external(&[("location", "w"), ("length", "8")]).status, Status::ForbiddenPath);
    }
}
