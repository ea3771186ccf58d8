//! Arrays in `.npy` files.

use npyz::NpyFile;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use streaminfer::error::{Error, Result, Status};
use streaminfer::ir::{DType, Tensor};
use streaminfer::runtime::{Bucket, InputInfo};

fn malformed(path: &Path, text: impl std::fmt::Display) -> Error {
    Error::new(Status::Malformed, format!("{}: {text}", path.display()))
}

fn dtype(text: &str) -> Option<DType> {
    Some(match text {
        "<f4" => DType::F32,
        "<f2" => DType::F16,
        "<i8" => DType::I64,
        "<i4" => DType::I32,
        "|i1" => DType::I8,
        "|u1" => DType::U8,
        "|b1" => DType::Bool,
        _ => return None,
    })
}

fn array(path: &Path) -> Result<Tensor> {
    let failed = |error: std::io::Error| malformed(path, error);
    let file = NpyFile::new(BufReader::new(File::open(path).map_err(failed)?)).map_err(failed)?;
    let text = match file.dtype() {
        npyz::DType::Plain(text) => text.to_string(),
        _ => "a structure".into(),
    };
    let dtype = dtype(&text).ok_or_else(|| malformed(path, format_args!("elements of type {text}")))?;
    // One axis has no order.
    if file.order() != npyz::Order::C && file.shape().len() > 1 {
        return Err(malformed(path, "column-major order"));
    }
    let shape = file.shape().iter().map(|&extent| extent as usize).collect();
    let mut data = Vec::new();
    file.into_inner().read_to_end(&mut data).map_err(failed)?;
    Tensor::new(dtype, shape, data.into())
}

/// The arrays `stem_0.npy`, `stem_1.npy`, ... of a folder.
pub fn arrays(folder: &Path, stem: &str) -> Result<Vec<Tensor>> {
    let paths = (0..).map(|index| folder.join(format!("{stem}_{index}.npy")));
    paths.take_while(|path| path.exists()).map(|path| array(&path)).collect()
}

/// The bucket that takes these values.
pub fn bucket(inputs: &[InputInfo], feed: &[Tensor]) -> Bucket {
    let values = feed.iter().enumerate().filter(|(index, _)| inputs[*index].is_shape_input);
    Bucket {
        shapes: feed.iter().map(|tensor| tensor.shape().to_vec()).collect(),
        values: values.map(|(index, tensor)| (index, tensor.data().to_vec())).collect(),
    }
}
