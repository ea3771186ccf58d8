//! Declared inputs and outputs.

use super::proto::{self, decode, element_type_name};
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Input, Output, ValueId, element_count};
use crate::limits::RANK_MAX;
use bytes::Bytes;

/// Decodes a declaration, which must have a name.
pub fn declaration(bytes: &Bytes, what: &str) -> Result<proto::ValueInfo> {
    let info: proto::ValueInfo = decode(bytes, what)?;
    ensure!(!info.name.is_empty(), Malformed, "an {what} has no name");
    Ok(info)
}

/// The input that a declaration describes.
pub fn input(info: proto::ValueInfo, value: ValueId) -> Result<Input> {
    let name = info.name;
    let ty = info.r#type.unwrap_or_default();
    if let Some(kind) = other_kind(&ty) {
        return Err(fail!(Unsupported, "input '{name}' is {kind}; only dense tensors are supported"));
    }
    let Some(tensor) = ty.tensor else { return Err(fail!(Malformed, "input '{name}' has no type")) };
    let Some(dtype) = DType::from_onnx(tensor.elem_type) else {
        let element = element_type_name(tensor.elem_type);
        return Err(fail!(Unsupported, "input '{name}' has element type {element}, which is not supported"));
    };
    let Some(shape) = tensor.shape else {
        return Ok(Input { value, name, dtype, dims: None, dim_names: Vec::new() });
    };
    ensure!(
        shape.dim.len() <= RANK_MAX,
        TooLarge,
        "input '{name}' has rank {}, above the limit of {RANK_MAX}",
        shape.dim.len()
    );
    // Exporters write 0 and -1, too, for a dimension that is open.
    let extent = |dim: &proto::Dimension| usize::try_from(dim.dim_value).ok().filter(|&extent| extent > 0);
    let dims: Vec<Option<usize>> = shape.dim.iter().map(extent).collect();
    let least: Vec<usize> = dims.iter().map(|dim| dim.unwrap_or(1)).collect();
    element_count(&least).map_err(|error| error.within(format_args!("input '{name}'")))?;
    // A placeholder such as '?' stands for different extents in different places, so it names nothing.
    let is_name = |text: &str| text.chars().any(char::is_alphanumeric) && text.parse::<i64>().is_err();
    let dim_names = shape.dim.into_iter().map(|dim| Some(dim.dim_param).filter(|text| is_name(text))).collect();
    Ok(Input { value, name, dtype, dims: Some(dims), dim_names })
}

/// The output that a declaration describes.
pub fn output(info: proto::ValueInfo, value: ValueId) -> Result<Output> {
    let name = info.name;
    let ty = info.r#type.unwrap_or_default();
    if let Some(kind) = other_kind(&ty) {
        return Err(fail!(Unsupported, "output '{name}' is {kind}; only dense tensors are supported"));
    }
    let code = ty.tensor.map(|tensor| tensor.elem_type);
    ensure!(
        code != Some(DType::FLOAT64),
        Unsupported,
        "output '{name}' has element type float64, which is not supported"
    );
    let dtype = code.and_then(DType::from_onnx);
    Ok(Output { value, name, dtype })
}

fn other_kind(ty: &proto::Type) -> Option<&'static str> {
    let kinds = [
        (ty.sequence.is_some(), "a sequence"),
        (ty.map.is_some(), "a map"),
        (ty.sparse_tensor.is_some(), "a sparse tensor"),
        (ty.optional.is_some(), "an optional"),
    ];
    kinds.into_iter().find(|(there, _)| *there).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    fn info(elem_type: i32, dims: &[(i64, &str)]) -> proto::ValueInfo {
        let dim = |&(dim_value, name): &(i64, &str)| proto::Dimension { dim_value, dim_param: name.into() };
        let shape = Some(proto::TensorShape { dim: dims.iter().map(dim).collect() });
        let tensor = Some(proto::TensorType { elem_type, shape });
        proto::ValueInfo { name: "x".into(), r#type: Some(proto::Type { tensor, ..Default::default() }) }
    }

    #[test]
    fn dimensions_without_a_positive_extent_are_open() {
        let dims = [(3, ""), (0, ""), (-1, ""), (0, "batch"), (0, "?"), (0, "-1")];
        let input = input(info(1, &dims), ValueId(0)).unwrap();
        assert_eq!(input.dims.unwrap(), [Some(3), None, None, None, None, None]);
        assert_eq!(input.dim_names, [None, None, None, Some("batch".into()), None, None]);
    }

    #[test]
    fn inputs_of_other_kinds_are_unsupported_and_named() {
        let double = input(info(11, &[]), ValueId(0)).unwrap_err();
        assert_eq!(double.status, Status::Unsupported);
        assert!(double.message.contains("'x'") && double.message.contains("float64"), "{double}");
        let double = output(info(11, &[]), ValueId(0)).unwrap_err();
        assert_eq!(double.status, Status::Unsupported);
        assert!(double.message.contains("'x'") && double.message.contains("float64"), "{double}");
        let ty = proto::Type { sequence: Some(Bytes::new()), ..Default::default() };
        let sequence = proto::ValueInfo { name: "s".into(), r#type: Some(ty) };
        assert!(input(sequence.clone(), ValueId(0)).unwrap_err().message.contains("a sequence"));
        assert!(output(sequence, ValueId(0)).unwrap_err().message.contains("a sequence"));
        let untyped = proto::ValueInfo { name: "u".into(), r#type: None };
        assert_eq!(input(untyped.clone(), ValueId(0)).unwrap_err().status, Status::Malformed);
        assert_eq!(output(untyped, ValueId(0)).unwrap().dtype, None);
    }

    #[test]
    fn declared_extents_must_not_overflow() {
        assert_eq!(input(info(1, &[(1 << 40, ""), (1 << 40, "")]), ValueId(0)).unwrap_err().status, Status::TooLarge);
        assert_eq!(input(info(1, &[(1, ""); 13]), ValueId(0)).unwrap_err().status, Status::TooLarge);
    }
}
