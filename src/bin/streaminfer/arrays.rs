//! Tensors in `.npz` files.

use npyz::npz::{NpzArchive, NpzWriter};
use npyz::zip::write::FileOptions;
use npyz::{DType as NpyType, NpyFile, Order, WriterBuilder};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::Path;
use streaminfer::error::{Error, Result, Status};
use streaminfer::ir::{DType, Element, Shape, Tensor, TensorType};

/// The archive at `path`.
pub struct Arrays {
    path: String,
    archive: NpzArchive<BufReader<File>>,
}

impl Arrays {
    /// Opens an archive.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let failed = |error: &std::io::Error| {
            let status = match error.kind() {
                std::io::ErrorKind::NotFound => Status::NotFound,
                std::io::ErrorKind::InvalidData => Status::Malformed,
                _ => Status::Io,
            };
            Error::io(status, &shown, error)
        };
        let file = File::open(path).map_err(|error| failed(&error))?;
        let archive = NpzArchive::new(BufReader::new(file)).map_err(|error| failed(&error))?;
        Ok(Arrays { path: shown, archive })
    }

    /// The array `name`, whose elements must be `dtype`.
    pub fn read(&mut self, name: &str, dtype: DType) -> Result<Tensor> {
        let names = self.names().join(", ");
        let place = |error: Error| error.within(format_args!("{}: array '{name}'", self.path));
        let bad = |error: std::io::Error| place(Error::io(Status::Malformed, "it is no array", &error));
        match self.archive.by_name(name).map_err(bad)? {
            Some(array) => decode(array, dtype).map_err(place),
            None => {
                let text = format!("{} has no array '{name}'; it has {names}", self.path);
                Err(Error::new(Status::InvalidArgument, text))
            }
        }
    }

    /// The names of all arrays.
    pub fn names(&self) -> Vec<String> {
        self.archive.array_names().map(str::to_owned).collect()
    }
}

/// Whether numpy's type string stands for elements of `dtype`. numpy has no bfloat16: its bits come as two opaque bytes
/// or as uint16.
fn is_type(text: &str, dtype: DType) -> bool {
    match dtype {
        DType::F32 => text == "<f4",
        DType::F16 => text == "<f2",
        DType::BF16 => matches!(text, "<u2" | "|V2" | "<V2"),
        DType::I64 => text == "<i8",
        DType::I32 => text == "<i4",
        DType::I8 => text == "|i1",
        DType::U8 => text == "|u1",
        DType::Bool => text == "|b1",
    }
}

fn decode<R: Read>(array: NpyFile<R>, dtype: DType) -> Result<Tensor> {
    let found = match array.dtype() {
        NpyType::Plain(text) => text.to_string(),
        _ => "a structure".into(),
    };
    if !is_type(&found, dtype) {
        return Err(Error::new(Status::ShapeMismatch, format!("its elements are {found}, not {dtype}")));
    }
    let extent = |&extent: &u64| usize::try_from(extent).unwrap_or(usize::MAX);
    let shape: Shape = array.shape().iter().map(extent).collect();
    let order = array.order();
    let bytes = TensorType::new(dtype, shape.clone())?.bytes();
    let mut data = Vec::new();
    let reader = array.into_inner().take(bytes as u64);
    { reader }.read_to_end(&mut data).map_err(|error| Error::io(Status::Malformed, "it cannot be read", &error))?;
    let data = if order == Order::Fortran { row_major(&data, &shape, dtype.bytes()) } else { data };
    Tensor::new(dtype, shape, data.into())
}

/// Reorders elements that lie first axis fastest.
fn row_major(data: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..data.len() / size {
        let position = index.iter().zip(shape).rev().fold(0, |position, (&at, &extent)| position * extent + at);
        out.extend_from_slice(data.get(position * size..(position + 1) * size).unwrap_or_default());
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// Writes tensors to a new archive, uncompressed.
pub fn write(path: &Path, arrays: &[(String, Tensor)]) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(Status::Io, path.display(), &error);
    let mut archive = NpzWriter::new(BufWriter::new(File::create(path).map_err(failed)?));
    for (name, tensor) in arrays {
        write_array(&mut archive, name, tensor).map_err(failed)?;
    }
    archive
        .zip_writer()
        .finish()
        .and_then(|mut file| Ok(std::io::Write::flush(&mut file)?))
        .map_err(|error| failed(error.into()))
}

type Archive = NpzWriter<BufWriter<File>>;

fn write_array(archive: &mut Archive, name: &str, tensor: &Tensor) -> std::io::Result<()> {
    match tensor.dtype() {
        DType::F32 => write_as(archive, name, tensor, |value: f32| value),
        DType::F16 => write_as(archive, name, tensor, |value: half::f16| value),
        DType::BF16 => write_as(archive, name, tensor, half::bf16::to_bits),
        DType::I64 => write_as(archive, name, tensor, |value: i64| value),
        DType::I32 => write_as(archive, name, tensor, |value: i32| value),
        DType::I8 => write_as(archive, name, tensor, |value: i8| value),
        DType::U8 => write_as(archive, name, tensor, |value: u8| value),
        DType::Bool => write_as(archive, name, tensor, |value: bool| value),
    }
}

fn write_as<T: Element, N: npyz::AutoSerialize>(
    archive: &mut Archive,
    name: &str,
    tensor: &Tensor,
    stored: impl Fn(T) -> N,
) -> std::io::Result<()> {
    let shape: Vec<u64> = tensor.shape().iter().map(|&extent| extent as u64).collect();
    let options = FileOptions::default().large_file(true);
    let mut writer = archive.array(name, options)?.default_dtype().shape(&shape).begin_nd()?;
    writer.extend(tensor.to_vec::<T>().unwrap_or_default().into_iter().map(stored))?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_every_type_survive_a_round_trip() {
        let path = std::env::temp_dir().join(format!("streaminfer-arrays-{}.npz", std::process::id()));
        let all = [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I8, DType::U8, DType::Bool];
        let tensor = |dtype| Tensor::from_scalars(dtype, &[2, 1], [0, 1].map(streaminfer::ir::Scalar::Int));
        let mut arrays: Vec<_> = all.iter().map(|&dtype| (format!("of/{dtype}"), tensor(dtype))).collect();
        arrays.push(("scalar".into(), Tensor::scalar(0.5f32)));
        write(&path, &arrays).unwrap();
        let mut archive = Arrays::open(&path).unwrap();
        for (name, tensor) in &arrays {
            assert_eq!(archive.read(name, tensor.dtype()).unwrap(), *tensor, "{name}");
        }
        let wrong = archive.read("of/float32", DType::I64).unwrap_err();
        assert_eq!(wrong.status, Status::ShapeMismatch);
        assert!(archive.read("absent", DType::F32).unwrap_err().message.contains("'absent'"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        assert_eq!(row_major(&[0, 3, 1, 4, 2, 5], &[2, 3], 1), [0, 1, 2, 3, 4, 5]);
        assert_eq!(row_major(&[1, 2, 3, 4], &[2], 2), [1, 2, 3, 4]);
    }
}
