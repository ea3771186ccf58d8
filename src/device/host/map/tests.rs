use super::RowMap;
use crate::device::host::kernel::Span;
use crate::device::host::testing::{Random, check, check_views, levels};
use crate::ir::{DType, Scalar, Tensor};
use crate::kernels::{Binary, Family, Instr, Map, Unary};
use crate::lower::host::{Access, Code};

const UNARY: [Unary; 23] = [
    Unary::Neg,
    Unary::Abs,
    Unary::Sign,
    Unary::Ceil,
    Unary::Floor,
    Unary::Round,
    Unary::Sqrt,
    Unary::Reciprocal,
    Unary::Exp,
    Unary::Log,
    Unary::Sin,
    Unary::Cos,
    Unary::Tanh,
    Unary::Erf,
    Unary::Sigmoid,
    Unary::Relu,
    Unary::Gelu,
    Unary::GeluTanh,
    Unary::Silu,
    Unary::Softplus,
    Unary::Not,
    Unary::IsNan,
    Unary::IsInf,
];

const BINARY: [Binary; 15] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Mod,
    Binary::Fmod,
    Binary::Pow,
    Binary::Min,
    Binary::Max,
    Binary::And,
    Binary::Or,
    Binary::Xor,
    Binary::Equal,
    Binary::Less,
    Binary::LessOrEqual,
];

const TYPES: [DType; 8] =
    [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I8, DType::U8, DType::Bool];

fn well_typed(map: &Map) -> bool {
    let types: Vec<_> = map.inputs.iter().map(|&dtype| crate::ir::TensorType { dtype, shape: vec![1] }).collect();
    map.infer(&types).is_ok()
}

fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 1.5e-3,
        DType::BF16 => 1e-2,
        _ => 1e-5,
    }
}

#[test]
fn every_function_of_every_type_agrees_with_the_reference() {
    let mut random = Random::new(1);
    let mut checked = 0;
    for dtype in TYPES {
        let (a, b) = (random.tensor(dtype, &[3, 201], 5), random.tensor(dtype, &[3, 201], 3));
        for map in UNARY.map(|op| Map::unary(op, dtype)) {
            if well_typed(&map) {
                check(map, std::slice::from_ref(&a), tolerance(dtype));
                checked += 1;
            }
        }
        for map in BINARY.map(|op| Map::binary(op, dtype)) {
            if well_typed(&map) {
                check(map, &[a.clone(), b.clone()], tolerance(dtype));
                checked += 1;
            }
        }
        for map in TYPES.map(|to| Map::cast(dtype, to)) {
            check(map, std::slice::from_ref(&a), tolerance(dtype));
            checked += 1;
        }
    }
    assert!(checked > 150, "only {checked} functions were checked");
}

#[test]
fn special_floats_follow_the_reference() {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e30, -1e30, 100.0, -100.0, 1e-40, 3e9, -3e9];
    let n = special.len();
    let a: Vec<f32> = (0..n * n).map(|i| special[i / n]).collect();
    let b: Vec<f32> = (0..n * n).map(|i| special[i % n]).collect();
    let (a, b) = (Tensor::from_slice(&[n * n], &a), Tensor::from_slice(&[n * n], &b));
    for op in UNARY.into_iter().filter(|&op| op != Unary::Not) {
        // At -inf the products 0 inf of these have a limit, which the fast functions give.
        let has_limit = matches!(op, Unary::Gelu | Unary::GeluTanh | Unary::Silu);
        let x = if has_limit {
            Map::unary(Unary::Abs, DType::F32).reference(std::slice::from_ref(&a)).unwrap().remove(0)
        } else {
            a.clone()
        };
        check(Map::unary(op, DType::F32), &[x], 1e-5);
    }
    for op in [Binary::Add, Binary::Div, Binary::Min, Binary::Max, Binary::Equal, Binary::Less, Binary::LessOrEqual] {
        check(Map::binary(op, DType::F32), &[a.clone(), b.clone()], 1e-5);
    }
    for to in TYPES {
        check(Map::cast(DType::F32, to), std::slice::from_ref(&a), 1e-5);
    }
}

#[test]
fn integer_division_by_zero_and_overflow_are_defined() {
    let a = Tensor::from_slice(&[6], &[i32::MIN, 7, -7, 0, i32::MIN, 7]);
    let b = Tensor::from_slice(&[6], &[-1i32, 0, 0, 0, 0, -2]);
    for op in [Binary::Div, Binary::Mod, Binary::Fmod, Binary::Pow] {
        check(Map::binary(op, DType::I32), &[a.clone(), b.clone()], 0.0);
    }
}

#[test]
fn broadcast_transposed_reversed_and_sliced_operands_are_found() {
    let mut random = Random::new(2);
    let map = || {
        let mut map = Map::binary(Binary::Sub, DType::F32);
        map.body.push(Instr::Unary(Unary::Tanh, 2));
        map
    };
    for shape in [[5, 7, 3], [2, 65, 130], [4, 1, 700], [1, 1, 1], [33, 2, 5]] {
        let [a, b, c] = shape;
        let (x, y) = (random.floats(&shape), random.floats(&shape));
        check(map(), &[x.clone(), y], 1e-5);
        // The second operand transposed, the first reversed.
        let y = random.floats(&[c, a, b]);
        check_views(map(), &[x.clone(), y], 1e-5, |index, view| match index {
            0 => view.slice(1, b - 1, b, -1),
            _ => view.permute(&[1, 2, 0]),
        });
        for broadcast in [[a, 1, 1], [1, b, 1], [1, 1, c], [a, 1, c], [1, 1, 1]] {
            let y = random.floats(&broadcast);
            check_views(map(), &[x.clone(), y], 1e-5, |_, view| view.broadcast(&shape).unwrap());
        }
    }
}

#[test]
fn copies_of_every_size_follow_any_view() {
    let mut random = Random::new(3);
    for dtype in TYPES {
        let x = random.tensor(dtype, &[6, 35, 50], 100);
        let inputs = std::slice::from_ref(&x);
        check_views(Map::copy(dtype), inputs, 0.0, |_, view| view);
        check_views(Map::copy(dtype), inputs, 0.0, |_, view| view.permute(&[0, 2, 1]));
        check_views(Map::copy(dtype), inputs, 0.0, |_, view| view.permute(&[2, 1, 0]));
        check_views(Map::copy(dtype), inputs, 0.0, |_, view| view.permute(&[1, 0, 2]));
        check_views(Map::copy(dtype), inputs, 0.0, |_, view| view.slice(2, 49, 25, -2).swap(0, 1));
        check_views(Map::copy(dtype), inputs, 0.0, |_, view| view.slice(2, 3, 1, 1).broadcast(&[6, 35, 9]).unwrap());
    }
}

#[test]
fn constants_selections_and_mixed_types_run_in_one_program() {
    let mut random = Random::new(4);
    // select(x < 3, x / 2 as i64 as f32, -y as f16)
    let body = vec![
        Instr::Input(0),
        Instr::Const(DType::I64, Scalar::Int(3)),
        Instr::Binary(Binary::Less, 0, 1),
        Instr::Const(DType::I64, Scalar::Int(2)),
        Instr::Binary(Binary::Div, 0, 3),
        Instr::Cast(DType::F32, 4),
        Instr::Input(1),
        Instr::Unary(Unary::Neg, 6),
        Instr::Cast(DType::F16, 7),
        Instr::Cast(DType::F32, 8),
        Instr::Select(2, 5, 9),
    ];
    let map = Map { inputs: vec![DType::I64, DType::F32], body, output: DType::F32 };
    for shape in [[3, 1000], [100, 7]] {
        let x = random.tensor(DType::I64, &shape, 9);
        let y = random.floats(&shape);
        check(map.clone(), &[x, y], 1e-6);
    }
    for uniform in 0..3 {
        let body = (0..3).map(Instr::Input).chain([Instr::Select(0, 1, 2)]).collect();
        let map = Map { inputs: vec![DType::Bool, DType::I32, DType::I32], body, output: DType::I32 };
        let shapes: Vec<[usize; 2]> = (0..3).map(|operand| [4, if operand == uniform { 1 } else { 70 }]).collect();
        let dtypes = [DType::Bool, DType::I32, DType::I32];
        let inputs: Vec<Tensor> = (0..3).map(|i| random.tensor(dtypes[i], &shapes[i], 50)).collect();
        check_views(map, &inputs, 0.0, |_, view| view.broadcast(&[4, 70]).unwrap());
    }
}

#[test]
fn a_map_without_operands_fills_and_an_empty_one_does_nothing() {
    let fill = Map {
        inputs: vec![DType::F32],
        body: vec![Instr::Const(DType::BF16, Scalar::Float(1.0 / 3.0))],
        output: DType::BF16,
    };
    check(fill, &[Random::new(5).floats(&[3, 45])], 0.0);
    check(Map::unary(Unary::Exp, DType::F32), &[Random::new(5).floats(&[3, 0, 4])], 0.0);
}

#[test]
fn row_segments_are_mapped_in_place_and_elsewhere() {
    // tanh(acc + bias[column]) * scale[row]
    let body = vec![
        Instr::Input(0),
        Instr::Input(1),
        Instr::Binary(Binary::Add, 0, 1),
        Instr::Unary(Unary::Tanh, 2),
        Instr::Input(2),
        Instr::Binary(Binary::Mul, 3, 4),
    ];
    let map = Map { inputs: vec![DType::F32; 3], body, output: DType::F32 };
    let code = Code::compile(&map, &[Access::Unit, Access::Unit, Access::Uniform]);
    let (rows, columns) = (3usize, 700usize);
    let mut bias: Vec<f32> = (0..columns).map(|i| i as f32 * 0.01).collect();
    let mut scale = [0.5f32, 2.0, -1.0];
    let shape = vec![rows, columns];
    let span = |address: *mut f32, strides: [isize; 2]| Span {
        address: address.cast(),
        dtype: DType::F32,
        shape: shape.clone(),
        strides: strides.to_vec(),
    };
    let operands = [span(bias.as_mut_ptr(), [0, 1]), span(scale.as_mut_ptr(), [1, 0])];
    for simd in levels() {
        let rowmap = RowMap::new(&code, &operands, &shape, simd);
        let mut scratch = vec![0u64; rowmap.scratch_bytes() / 8 + 8];
        let aligned = scratch.as_mut_ptr().cast::<u8>();
        let aligned = aligned.wrapping_add(aligned.align_offset(64));
        let source: Vec<f32> = (0..600).map(|i| (i as f32 - 300.0) * 0.002).collect();
        let mut elsewhere = vec![f32::NAN; 600];
        let mut in_place = source.clone();
        // SAFETY: segment and operands are as long as said, the level is one that this machine has.
        unsafe {
            rowmap.run(2, 50, source.as_ptr().cast(), elsewhere.as_mut_ptr().cast(), 600, aligned);
            rowmap.run(2, 50, in_place.as_ptr().cast(), in_place.as_mut_ptr().cast(), 600, aligned);
        }
        assert_eq!(elsewhere, in_place);
        for (i, &value) in elsewhere.iter().enumerate() {
            let expected = (source[i] + bias[50 + i]).tanh() * scale[2];
            assert!((value - expected).abs() < 1e-5, "{simd:?} {i}: {value} {expected}");
        }
    }
}
