//! A plan lowered for a GPU: plain data that can be printed, compared and hashed.

use crate::ir::DType;
use crate::kernels::entry::{Entry, Geometry};
use crate::lower::Precision;
pub use crate::lower::operand::{Port, Region};
use xxhash_rust::xxh3::Xxh3;

use super::constants::ConstantDef;

/// What lowering needs to know of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Traits {
    /// Multiprocessors that a launch may fill.
    pub multiprocessors: u32,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Most shared memory of a block in bytes.
    pub shared_bytes_max: u32,
}

impl Traits {
    /// Whether four warps multiply together, straight from shared memory: what the code for compute capability 9.0 alone does.
    pub fn has_warpgroups(&self) -> bool {
        self.capability == (9, 0)
    }
}

/// Everything that a context needs to replay one bucket of a model, but for the memory.
#[derive(Clone, Debug)]
pub struct Program {
    /// The GPU that it was lowered for.
    pub traits: Traits,
    /// Arithmetic and storage.
    pub precision: Precision,
    /// What is launched, in order.
    pub launches: Vec<Launch>,
    /// Constants that the launches read.
    pub constants: Vec<ConstantDef>,
    /// Model inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Model outputs, in the model's order.
    pub outputs: Vec<Port>,
    /// Bytes of intermediate tensors and working memory.
    pub arena_bytes: usize,
    /// Equal for equal launches, shapes, tactics, constants and traits; programs of equal fingerprint give bit-identical
    /// results.
    pub fingerprint: u128,
}

/// Where an operand begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Which memory.
    pub region: Region,
    /// Position of the first element.
    pub byte_offset: usize,
}

/// One kernel launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel.
    pub entry: Entry,
    /// The bytes of its argument struct. An address that is not 0 is a position in `operands`, counted from 1.
    pub arguments: Vec<u8>,
    /// What the addresses stand for.
    pub operands: Vec<Location>,
    /// Blocks and threads.
    pub geometry: Geometry,
    /// The ONNX node that it came from.
    pub node: String,
}

impl Program {
    /// The fingerprint of what the program holds now.
    pub(super) fn compute_fingerprint(&self) -> u128 {
        let mut hash = Xxh3::new();
        let mut text = |text: String| hash.update(text.as_bytes());
        text(format!("{} {:?} {:?}", env!("CARGO_PKG_VERSION"), self.traits, self.precision));
        text(format!("{:?} {:?}", self.inputs, self.outputs));
        for launch in &self.launches {
            text(format!("{} {:?} {:?} {:?}", launch.entry.name, launch.geometry, launch.operands, launch.arguments));
        }
        for constant in &self.constants {
            hash.update(&constant.key.to_le_bytes());
        }
        hash.digest128()
    }

    /// Bytes of all constants.
    pub fn constant_bytes(&self) -> usize {
        self.constants.iter().map(|constant| constant.bytes).sum()
    }
}

/// The 16-bit type that a precision stores tensors in, if there is one.
pub(super) fn half_of(precision: Precision) -> Option<DType> {
    match precision {
        Precision::Fp16 => Some(DType::F16),
        Precision::Bf16 => Some(DType::BF16),
        Precision::Fp32 | Precision::Tf32 => None,
    }
}
