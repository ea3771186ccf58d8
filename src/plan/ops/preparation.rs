//! Preparation of features, as classic pipelines of `ai.onnx.ml` put it in front of a network. All results are binary32.

use super::body::Body;
use super::call::Call;
use super::reduction::keep_axes;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, Tensor};
use crate::kernels::{Binary, Instr, Reduce, ReduceOp, Unary};
use crate::plan::{Builder, View};

/// `Scaler` of `ai.onnx.ml`: `(x - offset) * scale` along the last axis.
pub fn scaler(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let columns = x.shape.last().copied().unwrap_or(1);
    let mut operands = vec![x.clone()];
    for (name, neutral) in [("offset", 0.0), ("scale", 1.0)] {
        operands.push(per_column(b, name, call.floats(name)?, neutral, columns)?);
    }
    let body = vec![
        Instr::Input(0),
        Instr::Cast(DType::F32, 0),
        Instr::Input(1),
        Instr::Binary(Binary::Sub, 1, 2),
        Instr::Input(2),
        Instr::Binary(Binary::Mul, 3, 4),
    ];
    Ok(vec![b.map(&operands.iter().collect::<Vec<_>>(), body, DType::F32)?])
}

/// A constant with a value for every column, or one for all; `neutral` if the attribute has none.
fn per_column(b: &mut Builder, name: &str, values: &[f32], neutral: f32, columns: usize) -> Result<View> {
    let fits = values.len() <= 1 || values.len() == columns;
    ensure!(fits, ShapeMismatch, "attribute '{name}' has {} values for {columns} columns", values.len());
    let values = if values.is_empty() { &[neutral] } else { values };
    Ok(b.constant(Tensor::from_slice(&[values.len()], values)))
}

/// `Binarizer`: 1 above the threshold, else 0.
pub fn binarizer(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let mut body = Body::with_inputs(1);
    let value = body.cast(DType::F32, 0);
    let threshold = body.float(call.float("threshold", 0.0)?);
    let above = body.binary(Binary::Less, threshold, value);
    body.cast(DType::F32, above);
    Ok(vec![b.map(&[call.input(0)?], body.finish(), DType::F32)?])
}

/// `Imputer` of floats: a column's own value stands in for the one to replace, NaN by default.
pub fn imputer(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = call.input(0)?;
    let dtype = b.dtype(x);
    ensure!(dtype == DType::F32, Unsupported, "element type {dtype} is not supported");
    let values = call.floats("imputed_value_floats")?;
    ensure!(!values.is_empty(), Malformed, "attribute 'imputed_value_floats' is missing");
    let replaced = call.float("replaced_value_float", f32::NAN)?;
    let columns = x.shape.last().copied().unwrap_or(1);
    let imputed = per_column(b, "imputed_value_floats", values, 0.0, columns)?;
    let mut body = Body::with_inputs(2);
    let missing = if replaced.is_nan() {
        body.unary(Unary::IsNan, 0)
    } else {
        let replaced = body.float(replaced);
        body.binary(Binary::Equal, 0, replaced)
    };
    body.select(missing, 1, 0);
    Ok(vec![b.map(&[x, &imputed], body.finish(), DType::F32)?])
}

/// `Normalizer`: every row divided by its norm. A row whose norm is 0 stays as it is.
pub fn normalizer(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let x = b.cast(call.input(0)?, DType::F32)?;
    ensure!(matches!(x.rank(), 1 | 2), ShapeMismatch, "the operand has rank {}, not 1 or 2", x.rank());
    let axis = x.rank() - 1;
    let (op, operand) = match call.string("norm", "MAX")? {
        "MAX" => (ReduceOp::Max, x.clone()),
        "L1" => (ReduceOp::Sum, b.unary(Unary::Abs, &x)?),
        "L2" => (ReduceOp::L2, x.clone()),
        other => return Err(fail!(Unsupported, "attribute 'norm' is '{other}'")),
    };
    let norm = keep_axes(b.emit1(Reduce { op, axes: vec![axis] }, &[operand])?, &[axis]);
    let mut body = Body::with_inputs(2);
    let (zero, one) = (body.float(0.0), body.float(1.0));
    let flat = body.binary(Binary::Equal, 1, zero);
    let divisor = body.select(flat, one, 1);
    body.binary(Binary::Div, 0, divisor);
    Ok(vec![b.map(&[&x, &norm], body.finish(), DType::F32)?])
}
