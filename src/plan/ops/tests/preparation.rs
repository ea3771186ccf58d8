//! Preparation of features; the expected values are ONNX Runtime's.

use super::{floats, integers, node, ramp};
use crate::error::Status::{Malformed, ShapeMismatch, Unsupported};
use crate::ir::Tensor;

#[test]
fn columns_are_extracted() {
    let extract = |x: Tensor, columns: Tensor| node("ai.onnx.ml.ArrayFeatureExtractor").of(x).of(columns);
    let columns = Tensor::from_slice(&[1, 2], &[3i64, 0]);
    extract(ramp(&[2, 4]), columns).gives(&[(&[2, 2], &[1.25, -1.25, 0.0, 0.25])]);
    extract(ramp(&[4]), integers(&[1, 1])).gives(&[(&[1, 2], &[0.5, 0.5])]);
    extract(ramp(&[4]), integers(&[4])).refused(Malformed, "index 4");
    extract(Tensor::scalar(1f32), integers(&[0])).refused(ShapeMismatch, "scalar");
}

#[test]
fn scales_features() {
    let x = Tensor::from_slice(&[2, 2], &[1i64, 2, 3, 4]);
    node("ai.onnx.ml.Scaler")
        .opset(3)
        .of(x)
        .floats("offset", &[1.0, 2.0])
        .floats("scale", &[0.5, 2.0])
        .gives(&[(&[2, 2], &[0.0, 0.0, 1.0, 4.0])]);
}

#[test]
fn rows_are_normalised() {
    let rows = Tensor::from_slice(&[3, 3], &[1f32, -3.0, 2.0, 0.0, 0.0, 0.0, -2.0, -4.0, -1.0]);
    let normalizer = |norm: &str| node("ai.onnx.ml.Normalizer").of(rows.clone()).text("norm", norm);
    normalizer("MAX").gives(&[(&[3, 3], &[0.5, -1.5, 1.0, 0.0, 0.0, 0.0, 2.0, 4.0, 1.0])]);
    normalizer("L1").gives(&[(&[3, 3], &[0.166667, -0.5, 0.333333, 0.0, 0.0, 0.0, -0.285714, -0.571429, -0.142857])]);
    normalizer("L2")
        .gives(&[(&[3, 3], &[0.267261, -0.801784, 0.534522, 0.0, 0.0, 0.0, -0.436436, -0.872872, -0.218218])]);
    normalizer("L3").refused(Unsupported, "L3");
}

#[test]
fn missing_values_are_imputed() {
    // By the specification: without an attribute, NaN is replaced.
    let gaps = Tensor::from_slice(&[2, 2], &[1f32, f32::NAN, f32::NAN, 4.0]);
    let imputer =
        |x: &Tensor, values: &[f32]| node("ai.onnx.ml.Imputer").of(x.clone()).floats("imputed_value_floats", values);
    imputer(&gaps, &[7.0, 8.0]).gives(&[(&[2, 2], &[1.0, 8.0, 7.0, 4.0])]);
    let marked = Tensor::from_slice(&[2, 2], &[1f32, -1.0, -1.0, 4.0]);
    imputer(&marked, &[9.0]).float("replaced_value_float", -1.0).gives(&[(&[2, 2], &[1.0, 9.0, 9.0, 4.0])]);
    imputer(&gaps, &[1.0, 2.0, 3.0]).refused(ShapeMismatch, "imputed_value_floats");
    node("ai.onnx.ml.Imputer").of(integers(&[1])).refused(Unsupported, "int64");
    node("ai.onnx.ml.Imputer").of(floats(&[1.0])).refused(Malformed, "imputed_value_floats");
}

#[test]
fn thresholds_are_exclusive() {
    let x = floats(&[-1.0, 0.5, 0.6, 2.0]);
    node("ai.onnx.ml.Binarizer").of(x).float("threshold", 0.5).gives(&[(&[4], &[0.0, 0.0, 1.0, 1.0])]);
}
