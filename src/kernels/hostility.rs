//! Whatever numbers a model file has, a kernel answers with types or an error: random parameters and shapes, extreme ones
//! among them, through every family. The test profile checks for overflow.

use super::*;
use crate::ir::{DType, Scalar};

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }
    /// Mostly a number that fits, sometimes one that nothing fits.
    fn number(&mut self) -> usize {
        const HOSTILE: [usize; 6] = [1 << 31, 1 << 33, 1 << 47, 1 << 62, isize::MAX as usize, usize::MAX];
        if self.below(12) == 0 { HOSTILE[self.below(HOSTILE.len())] } else { self.below(5) }
    }
    fn numbers(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.number()).collect()
    }
    fn dtype(&mut self) -> DType {
        use DType::{BF16, Bool, F16, F32, I8, I32, I64, U8};
        [F32, F32, F32, I32, F16, BF16, I64, I8, U8, Bool][self.below(10)]
    }
    fn window(&mut self) -> Window {
        let dims = 1 + self.below(2);
        let mut list = || self.numbers(dims);
        Window { kernel: list(), strides: list(), dilations: list(), pads_begin: list(), pads_end: list() }
    }
    fn map(&mut self) -> Option<Map> {
        let body = vec![Instr::Input(self.below(2)), Instr::Unary(Unary::Abs, self.below(2))];
        (self.below(4) == 0).then(|| Map { inputs: vec![self.dtype()], body, output: self.dtype() })
    }
}

fn kernel(dice: &mut Dice) -> Kernel {
    let axis = dice.number();
    match dice.below(17) {
        0 => dice.map().unwrap_or(Map::copy(DType::F32)).into(),
        1 => MatMul { alpha: dice.below(2) as f32, epilogue: dice.map() }.into(),
        2 => Attention { scale: 1.0, score: dice.map(), guard_empty_rows: dice.flag() }.into(),
        3 => Conv { groups: dice.number(), window: dice.window(), epilogue: dice.map() }.into(),
        4 => {
            let (groups, window) = (dice.number(), dice.window());
            ConvTranspose { groups, output_padding: dice.numbers(window.kernel.len()), window }.into()
        }
        5 => {
            let kind = [PoolKind::Max, PoolKind::Average, PoolKind::AverageIncludingPads][dice.below(3)];
            let window = dice.window();
            let indices = dice.flag().then(|| dice.flag());
            Pool { kind, out: dice.numbers(window.kernel.len()), window, indices }.into()
        }
        6 => {
            let op = [ReduceOp::Mean, ReduceOp::L2, ReduceOp::Max, ReduceOp::ArgMin { last: true }][dice.below(4)];
            let count = dice.below(3);
            Reduce { op, axes: dice.numbers(count) }.into()
        }
        7 => Softmax { log: dice.flag() }.into(),
        8 => Norm { kind: NormKind::Layer, axes: axis, epsilon: 0.0 }.into(),
        9 => Gather { axis }.into(),
        10 => GatherElements { axis }.into(),
        11 => GatherNd { batch_dims: axis }.into(),
        12 => ScatterNd { op: ScatterOp::Add }.into(),
        13 => Recurrent {
            cell: if dice.flag() {
                Cell::Lstm { input_forget: false }
            } else {
                Cell::Gru { linear_before_reset: false }
            },
            direction: Direction::Forward,
            hidden: dice.number(),
            activations: vec![Activation::Tanh; 2 + dice.below(2)],
            clip: None,
        }
        .into(),
        14 => CumSum { axis, exclusive: dice.flag(), reverse: dice.flag() }.into(),
        15 => TopK { axis, k: dice.number(), largest: dice.flag() }.into(),
        _ => {
            let (out, taps, count) = (dice.number(), dice.number(), dice.below(5));
            let index = dice.numbers(count).into_iter().map(|index| index as u32).collect();
            let axes = vec![AxisTaps { axis, out, taps, index, weights: vec![1.0; count] }];
            Resize { axes, outside: None }.into()
        }
    }
}

/// Operands that fit now and then: equal shapes, chained extents, or anything.
fn operands(dice: &mut Dice) -> Vec<TensorType> {
    let count = 1 + dice.below(8);
    let rank = dice.below(5);
    let dtype = dice.dtype();
    let shape = dice.numbers(rank);
    let alike = dice.flag();
    let operand = |dice: &mut Dice| {
        let rank = if dice.flag() { rank } else { dice.below(5) };
        let shape = if alike { shape.clone() } else { dice.numbers(rank) };
        TensorType { dtype: if dice.below(4) == 0 { DType::I64 } else { dtype }, shape }
    };
    (0..count).map(|_| operand(dice)).filter(|ty| TensorType::new(ty.dtype, ty.shape.clone()).is_ok()).collect()
}

#[test]
fn no_parameters_make_a_kernel_panic() {
    let mut dice = Dice(0x5EED);
    let mut accepted = [0usize; 2];
    for _ in 0..400_000 {
        let (kernel, types) = (kernel(&mut dice), operands(&mut dice));
        if types.is_empty() {
            continue;
        }
        let Ok(results) = kernel.family().infer(&types) else { continue };
        accepted[0] += 1;
        let bytes = types.iter().chain(&results).map(TensorType::bytes).fold(0, usize::saturating_add);
        if kernel.family().work(&types, &results) > 100_000 || bytes > 100_000 {
            continue;
        }
        let inputs: Vec<Tensor> = types
            .iter()
            .map(|ty| Tensor::from_scalars(ty.dtype, &ty.shape, vec![Scalar::Int(dice.below(2) as i64); ty.count()]))
            .collect();
        // An index out of range is an error of the data; anything else is as inferred.
        if let Ok(tensors) = kernel.family().reference(&inputs) {
            accepted[1] += 1;
            assert_eq!(tensors.iter().map(Tensor::ty).collect::<Vec<_>>(), results, "{kernel:?}");
        }
    }
    assert!(accepted[0] > 1000 && accepted[1] > 1000, "{accepted:?}");
}
