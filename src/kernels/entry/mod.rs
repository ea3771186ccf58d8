//! The entry points of the CUDA device: argument structs, how they are launched, and what each computes.
//!
//! An entry takes one struct by value. Beside the struct stand its preconditions, the shape of its launch, and a *twin*: the same
//! result by the definition of [`super::Family::reference`], on any [`Memory`]. Twins are simple and slow; simulated
//! devices and tests run them. `kernels/*.cu` holds the device code, `kernels/arguments.cuh` the structs in C, generated from these.

mod attention;
mod chain;
mod conv;
mod direct;
mod gather;
mod layout;
mod map;
mod matmul;
mod memory;
mod opcode;
mod operand;
mod pool;
mod program;
mod recurrent;
mod resize;
mod rows;
mod scan;
mod scatter;
mod slide;
mod tma;
mod topk;
pub mod transfer;

pub use attention::{AttentionArguments, Extents};
pub use chain::{CHAIN_OPERANDS, Chain, STAGES, Stage};
pub use conv::{ConvArguments, Windowed, entry as conv_entry};
pub use direct::{CollectArguments, DirectArguments};
pub use gather::{Addressed, GatherArguments};
pub use layout::{Address, Arguments, Declarations, Field};
pub use map::{ChainArguments, CopyArguments, MapArguments, is_vector};
pub use matmul::{Arithmetic, MatMulArguments, Right, Tile, entry as matmul_entry};
pub use memory::Memory;
#[cfg(test)]
pub(crate) use memory::tests::Heap;
pub use operand::{AXES, Geometry, Operand, Space, code, divisor};
pub use pool::PoolArguments;
pub use program::{INSTRUCTIONS, Instruction, OPERANDS, Program};
pub use recurrent::{GateFunction, RecurrentArguments, RecurrentOperands};
pub use resize::ResizeArguments;
pub use rows::{NormArguments, ReduceArguments, SoftmaxArguments};
pub use scan::CumSumArguments;
pub use scatter::{ScatterArguments, Tuples};
pub use slide::{Quads, Slide, lifted, lifted_window, spatial_operand};
pub use tma::{BOX_ELEMENTS, BOX_LINES, MatrixMap, TensorMap, TmaArguments, TmaTile};
pub use topk::TopKArguments;

use crate::error::Result;
use crate::ir::DType;
use transfer::{Clock, Control, FetchArguments, FinishArguments};

/// Computes what a launch with these arguments does.
pub type Twin = fn(arguments: &[u8], memory: &mut dyn Memory) -> Result<()>;

/// An entry point.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The symbol in the image.
    pub name: &'static str,
    /// The image: `kernels/<family>.cu`.
    pub family: &'static str,
    /// Bytes of the argument struct.
    pub argument_bytes: usize,
    /// Positions of the addresses in the struct.
    pub addresses: fn() -> Vec<usize>,
    /// The matrices that the driver shall encode into a struct whose addresses are known.
    pub maps: fn(arguments: &[u8]) -> Vec<MatrixMap>,
    /// The most dynamic shared memory that a launch asks for, in bytes.
    pub shared_bytes_max: u32,
    /// The reference twin.
    pub twin: Twin,
}

const fn entry<T: Arguments>(family: &'static str, name: &'static str, shared_bytes_max: usize, twin: Twin) -> Entry {
    Entry {
        name,
        family,
        argument_bytes: T::BYTES,
        addresses: T::address_positions,
        maps: no_maps,
        shared_bytes_max: shared_bytes_max as u32,
        twin,
    }
}

fn no_maps(_: &[u8]) -> Vec<MatrixMap> {
    Vec::new()
}

/// The entries besides the products.
const OTHERS: &[Entry] = &[
    entry::<MapArguments>("map", "map_narrow", 96 << 10, map::map_twin),
    entry::<MapArguments>("map", "map_wide", 96 << 10, map::map_twin),
    entry::<ChainArguments>("map", "map_chain", 0, map::chain_twin),
    entry::<CopyArguments>("map", "copy", 0, map::copy_twin),
    entry::<MatMulArguments>("integers", "matmul_i32", 0, matmul::matmul_twin),
    entry::<MatMulArguments>("rows", "combine", 0, matmul::combine_twin),
    entry::<NormArguments>("rows", "normalize", 48 << 10, rows::norm_twin),
    entry::<NormArguments>("rows", "normalize_warps", 0, rows::norm_twin),
    entry::<SoftmaxArguments>("rows", "softmax_warp", 0, rows::softmax_twin),
    entry::<SoftmaxArguments>("rows", "softmax_block", 48 << 10, rows::softmax_twin),
    entry::<ReduceArguments>("rows", "reduce_threads", 0, rows::reduce_twin),
    entry::<ReduceArguments>("rows", "reduce_columns", 0, rows::reduce_twin),
    entry::<ReduceArguments>("rows", "reduce_warps", 0, rows::reduce_twin),
    entry::<ReduceArguments>("rows", "reduce_blocks", 0, rows::reduce_twin),
    entry::<GatherArguments>("gather", "gather", 0, gather::gather_twin),
    entry::<DirectArguments>("direct", "conv_direct_f32", 0, direct::direct_twin),
    entry::<DirectArguments>("direct", "conv_direct_f32_any", 0, direct::direct_twin),
    entry::<DirectArguments>("direct", "conv_direct_f16", 0, direct::direct_twin),
    entry::<DirectArguments>("direct", "conv_direct_f16_any", 0, direct::direct_twin),
    entry::<DirectArguments>("direct", "conv_direct_bf16", 0, direct::direct_twin),
    entry::<DirectArguments>("direct", "conv_direct_bf16_any", 0, direct::direct_twin),
    entry::<DirectArguments>("direct", "conv_direct_i32", 0, direct::direct_twin),
    entry::<DirectArguments>("direct", "conv_direct_i32_any", 0, direct::direct_twin),
    entry::<CollectArguments>("window", "collect", 0, direct::collect_twin),
    entry::<CollectArguments>("window", "collect_any", 0, direct::collect_twin),
    entry::<PoolArguments>("window", "pool", 0, pool::pool_twin),
    entry::<PoolArguments>("window", "pool_any", 0, pool::pool_twin),
    entry::<ResizeArguments>("resize", "resize", 0, resize::resize_twin),
    entry::<RecurrentArguments>("recurrent", "recurrent_scan", recurrent::SHARED_BYTES_MAX, recurrent::recurrent_twin),
    entry::<RecurrentArguments>("recurrent", "recurrent_step", 0, recurrent::recurrent_twin),
    entry::<ScatterArguments>("scatter", "scatter_index", 0, scatter::index_twin),
    entry::<ScatterArguments>("scatter", "scatter_apply", 0, scatter::apply_twin),
    entry::<CumSumArguments>("scan", "cumsum_threads", 0, scan::cumsum_twin),
    entry::<CumSumArguments>("scan", "cumsum_blocks", 0, scan::cumsum_twin),
    entry::<TopKArguments>("topk", "topk_select", 0, topk::select_twin),
    entry::<TopKArguments>("topk", "topk_rank", 0, topk::rank_twin),
    entry::<FetchArguments>("transfer", "transfer_fetch", 0, transfer::fetch_twin),
    entry::<FinishArguments>("transfer", "transfer_finish", 0, transfer::finish_twin),
];

/// All entries.
pub fn entries() -> impl Iterator<Item = Entry> {
    let arithmetics = [Arithmetic::F32, Arithmetic::Tf32, Arithmetic::F16, Arithmetic::BF16].into_iter();
    let tiles = arithmetics.flat_map(|arithmetic| Tile::ALL.map(|tile| (arithmetic, tile)));
    let products = tiles.clone().flat_map(|(arithmetic, tile)| {
        [Right::Rows, Right::Columns].map(|right| {
            let shared = matmul::shared_bytes(arithmetic.storage(), tile, right, true);
            entry::<MatMulArguments>(
                arithmetic.family(),
                matmul::entry(arithmetic, tile, right),
                shared,
                matmul::matmul_twin,
            )
        })
    });
    let convolutions = tiles.map(|(arithmetic, tile)| {
        let shared = matmul::shared_bytes(arithmetic.storage(), tile, Right::Rows, true);
        entry::<ConvArguments>(conv::family(arithmetic), conv::entry(arithmetic, tile), shared, conv::conv_twin)
    });
    let attentions = attention::entries()
        .map(|(family, name, shared)| entry::<AttentionArguments>(family, name, shared, attention::attention_twin));
    let brought = tma::entries().map(|(family, name, shared)| Entry {
        maps: tma::maps,
        ..entry::<TmaArguments>(family, name, shared, tma::tma_twin)
    });
    OTHERS.iter().copied().chain(products).chain(convolutions).chain(attentions).chain(brought)
}

/// The entry of this name.
pub fn find(name: &str) -> Option<Entry> {
    entries().find(|entry| entry.name == name)
}

/// The text of `kernels/arguments.cuh`.
pub fn declarations() -> String {
    let mut declarations = Declarations::default();
    declarations.text.push_str(
        "// Generated from src/kernels/entry by `UPDATE_ARGUMENTS=1 cargo test --lib arguments`; do not edit.\n\
         #pragma once\n#include <cstddef>\n#include <cstdint>\n\n",
    );
    declarations
        .text
        .push_str(&format!("constexpr int AXES = {AXES};\n\n// Scalar functions.\nenum Opcode : uint32_t {{\n"));
    opcode::declare(&mut declarations);
    declarations.text.push_str("};\n\n// Element types.\nenum DType : uint32_t {\n");
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I8, DType::U8, DType::Bool] {
        declarations.text.push_str(&format!("    {dtype:?}_TYPE = {},\n", code(dtype)).replace("Bool", "BOOL"));
    }
    declarations.text.push_str("};\n");
    declare_all(&mut declarations);
    declarations.text
}

fn declare_all(declarations: &mut Declarations) {
    MapArguments::declare(declarations);
    ChainArguments::declare(declarations);
    CopyArguments::declare(declarations);
    MatMulArguments::declare(declarations);
    TmaArguments::declare(declarations);
    NormArguments::declare(declarations);
    SoftmaxArguments::declare(declarations);
    ReduceArguments::declare(declarations);
    GatherArguments::declare(declarations);
    ConvArguments::declare(declarations);
    DirectArguments::declare(declarations);
    CollectArguments::declare(declarations);
    PoolArguments::declare(declarations);
    ResizeArguments::declare(declarations);
    RecurrentArguments::declare(declarations);
    AttentionArguments::declare(declarations);
    ScatterArguments::declare(declarations);
    CumSumArguments::declare(declarations);
    TopKArguments::declare(declarations);
    FetchArguments::declare(declarations);
    FinishArguments::declare(declarations);
    Control::declare(declarations);
    Clock::declare(declarations);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_arguments_in_c_are_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/arguments.cuh");
        let text = declarations();
        if std::env::var_os("UPDATE_ARGUMENTS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == text, "kernels/arguments.cuh is stale: run UPDATE_ARGUMENTS=1 cargo test --lib arguments");
    }

    #[test]
    fn arguments_fit_into_a_launch() {
        let mut names = HashSet::new();
        for entry in entries() {
            assert!(names.insert(entry.name), "{} twice", entry.name);
            assert!(entry.argument_bytes <= 4096, "{} takes {} bytes", entry.name, entry.argument_bytes);
            assert!(entry.shared_bytes_max <= 99 << 10, "{}", entry.name);
            assert!((entry.addresses)().iter().all(|at| at % 8 == 0 && at + 8 <= entry.argument_bytes));
            assert_eq!(find(entry.name).map(|found| found.argument_bytes), Some(entry.argument_bytes));
        }
        assert!(find("no such entry").is_none());
    }
}
