//! Values were computed with numpy and ONNX Runtime beforehand.

use super::Instr::{Cast, Const, Input, Select};
use super::{Binary, Family, Instr, Map, Unary};
use crate::error::Status;
use crate::ir::{DType, Element, Scalar, Tensor};
use half::f16;

fn run<T: Element>(map: &Map, operands: &[Tensor]) -> Vec<T> {
    let types: Vec<_> = operands.iter().map(Tensor::ty).collect();
    let inferred = map.infer(&types).unwrap();
    let result = map.reference(operands).unwrap().swap_remove(0);
    assert_eq!(inferred, [result.ty()]);
    result.to_vec().unwrap()
}

fn unary(op: Unary, x: &[f32]) -> Vec<f32> {
    run(&Map::unary(op, DType::F32), &[Tensor::from_slice(&[x.len()], x)])
}

fn binary<T: Element>(op: Binary, a: &[T], b: &[T]) -> Vec<T> {
    run(&Map::binary(op, T::DTYPE), &[Tensor::from_slice(&[a.len()], a), Tensor::from_slice(&[b.len()], b)])
}

fn cast<A: Element, B: Element>(x: &[A]) -> Vec<B> {
    run(&Map::cast(A::DTYPE, B::DTYPE), &[Tensor::from_slice(&[x.len()], x)])
}

fn float(value: f64) -> Instr {
    Const(DType::F32, Scalar::Float(value))
}

#[test]
fn rounding_functions_keep_signs_and_ties() {
    assert_eq!(unary(Unary::Round, &[0.5, 1.5, 2.5, -0.5, -1.5, 2.4]), [0.0, 2.0, 2.0, -0.0, -2.0, 2.0]);
    assert_eq!(unary(Unary::Floor, &[-1.5, 1.5]), [-2.0, 1.0]);
    assert_eq!(unary(Unary::Ceil, &[-1.5, 1.5]), [-1.0, 2.0]);
    let sign = unary(Unary::Sign, &[-3.0, 0.0, f32::INFINITY, f32::NAN]);
    assert_eq!(sign[..3], [-1.0, 0.0, 1.0]);
    assert!(sign[3].is_nan());
}

#[test]
fn transcendental_functions_are_rounded_once() {
    assert_eq!(unary(Unary::Erf, &[0.5, -1.0, 3.0]), [0.520_499_9, -0.842_700_8, 0.999_977_9]);
    assert_eq!(unary(Unary::Gelu, &[1.0, -2.0]), [0.841_344_8, -0.045_500_264]);
    assert_eq!(unary(Unary::GeluTanh, &[1.0, -2.0]), [0.841_192, -0.045_402_307]);
    assert_eq!(unary(Unary::Silu, &[1.0, -2.0]), [0.731_058_6, -0.238_405_84]);
    assert_eq!(unary(Unary::Softplus, &[0.0, 100.0, -100.0]), [std::f32::consts::LN_2, 100.0, 3.8e-44]);
    assert_eq!(unary(Unary::Tanh, &[0.5]), [0.462_117_17]);
    assert!(unary(Unary::Softplus, &[f32::NAN])[0].is_nan());
}

#[test]
fn nan_passes_through_relu_and_extremes() {
    assert!(unary(Unary::Relu, &[f32::NAN])[0].is_nan());
    for op in [Binary::Min, Binary::Max] {
        assert!(binary(op, &[f32::NAN, 1.0], &[1.0, f32::NAN]).iter().all(|x| x.is_nan()), "{op:?}");
    }
    assert_eq!(binary(Binary::Max, &[1.0f32, 4.0], &[3.0, 2.0]), [3.0, 4.0]);
}

#[test]
fn remainders_follow_the_divisor_or_the_dividend() {
    assert_eq!(binary(Binary::Mod, &[-7i64, 7, -7, 7, 6], &[3, -3, -3, 3, 0]), [2, -2, -1, 1, 0]);
    assert_eq!(binary(Binary::Fmod, &[-7i64, 7, -7, 7, 6], &[3, -3, -3, 3, 0]), [-1, 1, -1, 1, 0]);
    assert_eq!(binary(Binary::Mod, &[-4.3f32, 7.2], &[2.1, -3.4]), [1.999_999_5, -3.000_000_5]);
    assert_eq!(binary(Binary::Fmod, &[-4.5f32, 7.0], &[2.0, -3.5]), [-0.5, 0.0]);
}

#[test]
fn integers_wrap_in_their_own_width() {
    assert_eq!(binary(Binary::Add, &[i32::MAX], &[1]), [i32::MIN]);
    assert_eq!(binary(Binary::Mul, &[100i8], &[3]), [44]);
    assert_eq!(binary(Binary::Sub, &[1u8], &[2]), [255]);
    assert_eq!(binary(Binary::Div, &[i64::MIN, 7, -7, 7], &[-1, 2, 2, 0]), [i64::MIN, 3, -3, 0]);
    assert_eq!(binary(Binary::Div, &[i8::MIN], &[-1]), [i8::MIN]);
    assert_eq!(
        binary(Binary::Pow, &[2i64, 2, -2, 0, -1, 3], &[3, -1, 3, 0, -3, 41]),
        [8, 0, -8, 1, -1, 3i64.wrapping_pow(41)]
    );
}

#[test]
fn casts_truncate_wrap_and_saturate() {
    assert_eq!(cast::<f32, i32>(&[1.9, -1.9, 1e10, f32::NAN]), [1, -1, i32::MAX, 0]);
    assert_eq!(cast::<f32, u8>(&[255.5, 256.7, 300.0, -1.0, -129.0]), [255, 0, 44, 255, 127]);
    assert_eq!(cast::<f32, i8>(&[255.5, 256.7, 300.0, -1.0, -129.0]), [-1, 0, 44, -1, 127]);
    assert_eq!(cast::<f32, bool>(&[0.0, -0.0, 0.3, f32::NAN]), [false, false, true, true]);
    assert_eq!(cast::<i64, i8>(&[300, -300]), [44, -44]);
    assert_eq!(cast::<i64, bool>(&[256, 0]), [true, false]);
    assert_eq!(cast::<bool, f32>(&[true, false]), [1.0, 0.0]);
    assert_eq!(cast::<i64, f32>(&[16_777_217]), [16_777_216.0]);
    assert_eq!(cast::<f32, f16>(&[1.0 + 1.0 / 2048.0, 65_520.0])[..], [f16::ONE, f16::INFINITY]);
}

#[test]
fn blocks_join_without_a_seam() {
    let x: Vec<i32> = (0..5000).collect();
    let squares: Vec<i32> = x.iter().map(|x| x * x).collect();
    assert_eq!(binary(Binary::Mul, &x, &x), squares);
    assert_eq!(binary::<f32>(Binary::Add, &[], &[]), [0.0f32; 0]);
}

#[test]
fn narrow_floats_compute_in_binary32() {
    // 2048 + 1 + 1 stays 2048 in binary16 arithmetic; the sum in binary32 is 2050.
    let map = Map {
        inputs: vec![DType::F16; 2],
        body: vec![Input(0), Input(1), Instr::Binary(Binary::Add, 0, 1), Instr::Binary(Binary::Add, 2, 1)],
        output: DType::F16,
    };
    let operands = [2048.0, 1.0].map(|x| Tensor::scalar(f16::from_f32(x)));
    assert_eq!(run::<f16>(&map, &operands), [f16::from_f32(2050.0)]);
    let mut rounded = map.clone();
    rounded.body.insert(3, Cast(DType::F16, 2));
    rounded.body[4] = Instr::Binary(Binary::Add, 3, 1);
    assert_eq!(run::<f16>(&rounded, &operands), [f16::from_f32(2048.0)]);
}

#[test]
fn ill_typed_programs_are_refused() {
    let status = |inputs: &[DType], body: &[Instr], output| {
        Map { inputs: inputs.to_vec(), body: body.to_vec(), output }.register_types().map_err(|error| error.status)
    };
    let (f32s, i64s) = ([DType::F32], [DType::I64]);
    assert_eq!(status(&f32s, &[], DType::F32), Err(Status::Internal));
    assert_eq!(status(&f32s, &[Input(1)], DType::F32), Err(Status::Internal));
    assert_eq!(status(&f32s, &[Input(0), Instr::Unary(Unary::Neg, 1)], DType::F32), Err(Status::Internal));
    assert_eq!(status(&f32s, &[Input(0)], DType::I64), Err(Status::Internal));
    assert_eq!(status(&i64s, &[Input(0), Instr::Unary(Unary::Exp, 0)], DType::I64), Err(Status::Unsupported));
    assert_eq!(status(&f32s, &[Input(0), Instr::Unary(Unary::Not, 0)], DType::F32), Err(Status::Unsupported));
    let mixed = [DType::F32, DType::I64];
    let sum = [Input(0), Input(1), Instr::Binary(Binary::Add, 0, 1)];
    assert_eq!(status(&mixed, &sum, DType::F32), Err(Status::ShapeMismatch));
    assert_eq!(status(&f32s, &[Input(0), Select(0, 0, 0)], DType::F32), Err(Status::Unsupported));
    let map = Map::binary(Binary::Add, DType::F32);
    let (a, b) = (Tensor::from_slice(&[2], &[1f32; 2]), Tensor::from_slice(&[1], &[1f32]));
    assert_eq!(map.infer(&[a.ty(), b.ty()]).unwrap_err().status, Status::ShapeMismatch);
    assert_eq!(map.infer(&[a.ty()]).unwrap_err().status, Status::InvalidArgument);
}

#[test]
fn a_spliced_producer_gives_what_two_steps_gave() {
    let (f16s, f32s) = (DType::F16, DType::F32);
    let producer = Map::binary(Binary::Div, f16s);
    let consumer = Map {
        inputs: vec![f32s, f16s, f32s],
        body: vec![Input(0), Input(2), Instr::Binary(Binary::Sub, 0, 1), Input(1), Instr::Binary(Binary::Mul, 2, 3)],
        output: f32s,
    };
    let joined = consumer.splice(1, &producer);
    assert_eq!(joined.inputs, [f32s, f32s, f16s, f16s]);
    let [a, c] = [5.0f32, 1.25].map(Tensor::scalar);
    let [n, d] = [1.0, 3.0].map(|x| Tensor::scalar(f16::from_f32(x)));
    let quotient = producer.reference(&[n.clone(), d.clone()]).unwrap().swap_remove(0);
    let expected: Vec<f32> = run(&consumer, &[a.clone(), quotient, c.clone()]);
    assert_eq!(run::<f32>(&joined, &[a, c, n, d]), expected);
}

#[test]
fn a_value_spliced_into_a_program_that_returns_it_early_is_still_the_result() {
    let early = Map { inputs: vec![DType::I32; 2], body: vec![Input(1), Input(0)], output: DType::I32 };
    let joined = early.splice(0, &Map::unary(Unary::Neg, DType::I32));
    let operands = [7, 9].map(|x: i32| Tensor::scalar(x));
    assert_eq!(run::<i32>(&joined, &operands), [-9]);
    let (simple, kept) = joined.simplified();
    assert_eq!(kept, [1]);
    assert_eq!(simple, Map::unary(Unary::Neg, DType::I32));
}

#[test]
fn rewiring_merges_operands() {
    let square = Map::binary(Binary::Mul, DType::F32).rewired(&[0, 0]);
    assert_eq!(square.inputs, [DType::F32]);
    assert_eq!(run::<f32>(&square, &[Tensor::scalar(3f32)]), [9.0]);
}

#[test]
fn simplification_folds_shares_and_drops() {
    let map = Map {
        inputs: vec![DType::F32; 3],
        body: vec![
            Input(2),
            float(3.0),
            float(2.0),
            Instr::Binary(Binary::Sub, 1, 2),
            Instr::Binary(Binary::Mul, 0, 3),
            Input(1),
            Input(2),
            Cast(DType::F32, 6),
            Instr::Binary(Binary::Add, 4, 7),
            Instr::Binary(Binary::Pow, 8, 2),
        ],
        output: DType::F32,
    };
    let (simple, kept) = map.simplified();
    assert_eq!(kept, [2]);
    let expected = vec![Input(0), Instr::Binary(Binary::Add, 0, 0), Instr::Binary(Binary::Mul, 1, 1)];
    assert_eq!(simple, Map { inputs: vec![DType::F32], body: expected, output: DType::F32 });
}

#[test]
fn simplification_keeps_roundings_and_signed_zeros() {
    let rounds = Map {
        inputs: vec![DType::F32],
        body: vec![Input(0), Cast(DType::F16, 0), Cast(DType::F16, 1)],
        output: DType::F32,
    };
    assert_eq!(rounds.simplified().0.body, [Input(0), Cast(DType::F16, 0)]);
    let plus_zero = Map {
        inputs: vec![DType::F32],
        body: vec![Input(0), float(0.0), Instr::Binary(Binary::Add, 0, 1)],
        output: DType::F32,
    };
    assert_eq!(plus_zero.simplified().0, plus_zero);
}

/// Builds a program instruction by instruction.
struct Program(Vec<Instr>);

impl Program {
    fn new() -> Self {
        Program(vec![Input(0)])
    }
    fn add(&mut self, instr: Instr) -> usize {
        self.0.push(instr);
        self.0.len() - 1
    }
    fn two(&mut self, op: Binary, a: usize, b: usize) -> usize {
        self.add(Instr::Binary(op, a, b))
    }
    fn with(&mut self, op: Binary, a: usize, constant: f64) -> usize {
        let constant = self.add(float(constant));
        self.two(op, a, constant)
    }
    fn one(&mut self, op: Unary, x: usize) -> usize {
        self.add(Instr::Unary(op, x))
    }
    /// Checks that the program is `op`, in value and in kind.
    fn is(self, op: Unary) {
        let map = Map { inputs: vec![DType::F32], body: self.0, output: DType::F32 };
        assert_eq!(map.recognized(), Map::unary(op, DType::F32));
        let x = Tensor::from_slice(&[5], &[-3.0f32, -0.7, 0.0, 0.4, 2.5]);
        let (written, whole) = (run::<f32>(&map, std::slice::from_ref(&x)), run::<f32>(&map.recognized(), &[x]));
        assert!(written.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5), "{written:?} {whole:?}");
    }
}

#[test]
fn gelu_by_erf_is_recognized_in_every_order() {
    for order in 0..4 {
        let mut p = Program::new();
        let scaled =
            if order % 2 == 0 { p.with(Binary::Div, 0, 2f64.sqrt()) } else { p.with(Binary::Mul, 0, 0.70710677) };
        let erf = p.one(Unary::Erf, scaled);
        let sum = p.with(Binary::Add, erf, 1.0);
        match order {
            0 => {
                let product = p.two(Binary::Mul, 0, sum);
                p.with(Binary::Mul, product, 0.5)
            }
            1 => {
                let half = p.with(Binary::Mul, 0, 0.5);
                p.two(Binary::Mul, half, sum)
            }
            2 => {
                let half = p.with(Binary::Mul, sum, 0.5);
                p.two(Binary::Mul, half, 0)
            }
            _ => {
                let half = p.with(Binary::Div, 0, 2.0);
                p.two(Binary::Mul, sum, half)
            }
        };
        p.is(Unary::Gelu);
    }
}

#[test]
fn gelu_by_tanh_is_recognized_with_pow_and_with_products() {
    for by_power in [true, false] {
        let mut p = Program::new();
        let inner = if by_power {
            let cube = p.with(Binary::Pow, 0, 3.0);
            let term = p.with(Binary::Mul, cube, 0.044715);
            let sum = p.two(Binary::Add, 0, term);
            p.with(Binary::Mul, sum, 0.797_884_560_802_865_4)
        } else {
            let square = p.two(Binary::Mul, 0, 0);
            let term = p.with(Binary::Mul, square, 0.044715);
            let sum = p.with(Binary::Add, term, 1.0);
            let slope = p.with(Binary::Mul, 0, 0.7978845608);
            p.two(Binary::Mul, slope, sum)
        };
        let tanh = p.one(Unary::Tanh, inner);
        let sum = p.with(Binary::Add, tanh, 1.0);
        let half = p.with(Binary::Mul, 0, 0.5);
        p.two(Binary::Mul, half, sum);
        p.is(Unary::GeluTanh);
    }
}

#[test]
fn logistic_forms_are_recognized() {
    let denominator = |p: &mut Program| {
        let negated = p.one(Unary::Neg, 0);
        let exp = p.one(Unary::Exp, negated);
        p.with(Binary::Add, exp, 1.0)
    };
    let mut p = Program::new();
    let below = denominator(&mut p);
    p.one(Unary::Reciprocal, below);
    p.is(Unary::Sigmoid);
    let mut p = Program::new();
    let below = denominator(&mut p);
    p.two(Binary::Div, 0, below);
    p.is(Unary::Silu);
    let mut p = Program::new();
    let sigmoid = p.one(Unary::Sigmoid, 0);
    p.two(Binary::Mul, sigmoid, 0);
    p.is(Unary::Silu);
    let mut p = Program::new();
    let exp = p.one(Unary::Exp, 0);
    let sum = p.with(Binary::Add, exp, 1.0);
    p.one(Unary::Log, sum);
    p.is(Unary::Softplus);
    let mut p = Program::new();
    p.with(Binary::Max, 0, 0.0);
    p.is(Unary::Relu);
}

#[test]
fn an_activation_is_recognized_through_roundings_and_of_a_product() {
    let mut p = Program::new();
    let x = p.with(Binary::Mul, 0, 3.0);
    let x = p.add(Cast(DType::F16, x));
    let scaled = p.with(Binary::Div, x, f16::from_f64(2f64.sqrt()).to_f64());
    let scaled = p.add(Cast(DType::F16, scaled));
    let erf = p.one(Unary::Erf, scaled);
    let sum = p.with(Binary::Add, erf, 1.0);
    let sum = p.add(Cast(DType::F16, sum));
    let half = p.with(Binary::Mul, x, 0.5);
    p.two(Binary::Mul, half, sum);
    let map = Map { inputs: vec![DType::F32], body: p.0, output: DType::F32 };
    let expected = vec![Input(0), float(3.0), Instr::Binary(Binary::Mul, 0, 1), Instr::Unary(Unary::Gelu, 2)];
    assert_eq!(map.recognized().body, expected);
}

#[test]
fn look_alikes_are_left_alone() {
    // x sigmoid(1.702 x), and a GELU of another factor.
    let mut p = Program::new();
    let scaled = p.with(Binary::Mul, 0, 1.702);
    let sigmoid = p.one(Unary::Sigmoid, scaled);
    p.two(Binary::Mul, 0, sigmoid);
    let quick = Map { inputs: vec![DType::F32], body: p.0, output: DType::F32 };
    assert_eq!(quick.recognized(), quick);
    let mut p = Program::new();
    let scaled = p.with(Binary::Mul, 0, 0.7);
    let erf = p.one(Unary::Erf, scaled);
    let sum = p.with(Binary::Add, erf, 1.0);
    let half = p.with(Binary::Mul, 0, 0.5);
    p.two(Binary::Mul, half, sum);
    let other = Map { inputs: vec![DType::F32], body: p.0, output: DType::F32 };
    assert_eq!(other.recognized(), other);
}

#[test]
fn a_power_tower_does_not_blow_up() {
    let mut p = Program::new();
    let mut top = 0;
    for _ in 0..60 {
        top = p.two(Binary::Mul, top, top);
    }
    let tower = Map { inputs: vec![DType::F32], body: p.0, output: DType::F32 };
    assert_eq!(tower.recognized(), tower);
}
