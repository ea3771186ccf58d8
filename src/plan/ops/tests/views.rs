//! What costs no step, and what folds.

use super::{Sample, floats, integers, node, ramp};
use crate::ir::Tensor;

fn steps(sample: Sample) -> usize {
    sample.translate().unwrap().0.plan.steps.len()
}

#[test]
fn data_movement_is_view_arithmetic() {
    let x = || node("Transpose").unknown(&[2, 3, 4]);
    let with = |op: &str| {
        let mut sample = x();
        sample.node.op = op.into();
        sample
    };
    assert_eq!(steps(x().ints("perm", &[2, 0, 1])), 0);
    assert_eq!(steps(with("Reshape").of(integers(&[0, -1]))), 0);
    assert_eq!(steps(with("Flatten")), 0);
    assert_eq!(steps(with("Unsqueeze").of(integers(&[0, -1]))), 0);
    assert_eq!(steps(with("Expand").of(integers(&[5, 1, 3, 1]))), 0);
    assert_eq!(
        steps(with("Slice").of(integers(&[-1])).of(integers(&[i64::MIN])).of(integers(&[2])).of(integers(&[-2]))),
        0
    );
    assert_eq!(steps(with("Split").outputs(2).of(integers(&[1, 2])).int("axis", 1)), 0);
    assert_eq!(steps(with("Gather").of(Tensor::scalar(-1i64)).int("axis", 1)), 0);
    assert_eq!(steps(with("Gather").of(integers(&[3, 1])).int("axis", 2)), 0);
    assert_eq!(steps(with("Identity")), 0);
    assert_eq!(steps(with("Dropout").outputs(2)), 0);
    assert_eq!(steps(with("Einsum").text("equation", "abc->cab")), 0);
}

#[test]
fn movement_that_views_cannot_express_takes_one_copy_for_each_piece() {
    assert_eq!(steps(node("Concat").unknown(&[2, 3]).unknown(&[2, 1]).int("axis", 1)), 2);
    assert_eq!(steps(node("Concat").unknown(&[2, 3]).unknown(&[2, 0]).int("axis", 1)), 0);
    assert_eq!(steps(node("Tile").unknown(&[2, 3]).of(integers(&[2, 2]))), 1);
    assert_eq!(steps(node("Tile").unknown(&[1, 3]).of(integers(&[5, 1]))), 0);
    // The operand, and a slab of padding on three sides.
    assert_eq!(steps(node("Pad").unknown(&[2, 3]).of(integers(&[1, 1, 0, 2]))), 4);
    assert_eq!(steps(node("Gather").unknown(&[5]).of(integers(&[0, 1, 3]))), 1);
}

#[test]
fn leading_dimensions_become_rows_of_one_product() {
    let (builder, views) = node("MatMul").unknown(&[2, 5, 3]).of(ramp(&[3, 4])).translate().unwrap();
    assert_eq!(builder.plan.steps[0].inputs[0].shape, [10, 3]);
    assert_eq!(views[0].shape, [2, 5, 4]);
    let (builder, _) = node("MatMul").unknown(&[2, 5, 3]).of(ramp(&[2, 3, 4])).translate().unwrap();
    assert_eq!(builder.plan.steps[0].inputs[0].shape, [2, 5, 3]);
}

#[test]
fn elementwise_work_on_a_broadcast_view_is_done_once() {
    let (mut builder, views) = node("Expand").unknown(&[1, 3]).of(integers(&[1000, 3])).translate().unwrap();
    let result = builder.unary(crate::kernels::Unary::Exp, &views[0]).unwrap();
    assert_eq!(builder.plan.steps[0].outputs[0].shape, [1, 3]);
    assert_eq!(result.shape, [1000, 3]);
}

#[test]
fn huge_constants_stay_views() {
    let (builder, views) = node("ConstantOfShape").of(integers(&[1 << 20, 1 << 10])).translate().unwrap();
    assert_eq!(views[0].shape, [1 << 20, 1 << 10]);
    assert_eq!(builder.plan.tensor(views[0].tensor).ty.count(), 1);
    let (builder, views) = node("Trilu").unknown(&[1 << 12, 1 << 12]).translate().unwrap();
    assert_eq!(views[0].shape, [1 << 12, 1 << 12]);
    assert!(builder.plan.tensors.iter().all(|def| def.ty.count() == 1 << 24 || def.ty.count() < 1 << 14));
}

#[test]
fn batch_normalization_folds_its_statistics() {
    let channels = || floats(&[1.0, 2.0, 3.0]);
    let sample =
        node("BatchNormalization").unknown(&[2, 3, 4, 4]).of(channels()).of(channels()).of(channels()).of(channels());
    let (builder, _) = sample.translate().unwrap();
    assert_eq!(builder.plan.steps.len(), 1);
    assert_eq!(builder.plan.steps[0].inputs.len(), 3);
}
