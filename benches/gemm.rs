//! Matrix products with a constant right factor on one thread, against the `gemm` crate, at the shapes of transformer and
//! MLP layers. Throughput counts two operations per multiply-add.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use streaminfer::device::host::{LaneMemory, LoadedProgram, Replay, WeightStore, traits};
use streaminfer::ir::{DType, Tensor, TensorType};
use streaminfer::kernels::MatMul;
use streaminfer::lower::host::lower;
use streaminfer::plan::{Bucket, Builder, Origin};

const ROWS: [usize; 6] = [1, 8, 16, 128, 512, 1024];
const FACTORS: [(usize, usize); 9] =
    [(384, 384), (384, 1152), (384, 1536), (1536, 384), (768, 768), (768, 2304), (768, 3072), (3072, 768), (784, 512)];

/// A cache line, so that a vector of them is aligned like a context's memory.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "only its address is used")] [u8; 64]);

fn memory(bytes: usize) -> Vec<Line> {
    vec![Line([0; 64]); bytes.div_ceil(64) + 1]
}

/// Small reproducible values.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

/// A replay of one product, with the memory that it works in.
struct Product {
    replay: Replay,
    _memory: Vec<Vec<Line>>,
}

impl Product {
    fn new(rows: usize, depth: usize, columns: usize) -> Self {
        let mut builder = Builder::new(Bucket { shapes: vec![vec![rows, depth]], values: vec![None] });
        let left = TensorType { dtype: DType::F32, shape: vec![rows, depth] };
        let left = builder.tensor(left, Origin::Input(0));
        builder.plan.inputs.push(left.tensor);
        let right = builder.constant(Tensor::from_slice(&[depth, columns], &values(depth * columns)));
        let result = builder.emit1(MatMul { alpha: 1.0, epilogue: None }, &[left, right]).expect("a valid product");
        builder.plan.outputs.push(result.tensor);
        let program = lower(&builder.plan, &traits()).expect("a product can be lowered");
        let sizes = [program.inputs[0].bytes, program.outputs[0].bytes, program.arena_bytes, program.scratch_bytes];
        let mut memory: Vec<Vec<Line>> = sizes.into_iter().map(memory).collect();
        let address = |memory: &mut Vec<Line>| memory.as_mut_ptr().cast::<u8>();
        let loaded = LoadedProgram::load(program, &WeightStore::new()).expect("weights can be packed");
        let lane = LaneMemory {
            inputs: vec![address(&mut memory[0])],
            outputs: vec![address(&mut memory[1])],
            arena: address(&mut memory[2]),
            scratch: vec![address(&mut memory[3])],
        };
        let replay = loaded.replay(&lane).expect("the memory fits the program");
        Product { replay, _memory: memory }
    }

    fn run(&self) {
        self.replay.run(0, 1, &|| true);
    }
}

fn peer(rows: usize, depth: usize, columns: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    assert!(a.len() >= rows * depth && b.len() >= depth * columns && c.len() >= rows * columns);
    let (depth_step, column_step) = (depth as isize, columns as isize);
    // SAFETY: the slices hold the matrices.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            c.as_mut_ptr(),
            1,
            column_step,
            false,
            a.as_ptr(),
            1,
            depth_step,
            b.as_ptr(),
            1,
            column_step,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn products(criterion: &mut Criterion) {
    for rows in ROWS {
        for (depth, columns) in FACTORS {
            let mut group = criterion.benchmark_group(format!("{rows}x{depth}x{columns}"));
            group.throughput(Throughput::Elements(2 * (rows * depth * columns) as u64)).sample_size(20);
            let product = Product::new(rows, depth, columns);
            group.bench_function(BenchmarkId::from_parameter("streaminfer"), |bencher| bencher.iter(|| product.run()));
            let (a, b, mut c) = (values(rows * depth), values(depth * columns), vec![0.0; rows * columns]);
            group.bench_function(BenchmarkId::from_parameter("gemm"), |bencher| {
                bencher.iter(|| peer(rows, depth, columns, black_box(&a), black_box(&b), black_box(&mut c)));
            });
            group.finish();
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
