//! A plan lowered for the host: plain data that can be printed, compared and hashed.

use super::{Depthwise, Elementwise, FusedAttention, Layout, Operand, Port, Product, Traits};
use crate::ir::Tensor;
use crate::kernels::Kernel;
use crate::plan::View;
use std::fmt::{self, Write};
use xxhash_rust::xxh3::Xxh3;

/// Everything that a context needs to replay one bucket of a model, but for the memory.
#[derive(Clone, Debug)]
pub struct Program {
    /// The machine that it was lowered for.
    pub traits: Traits,
    /// What is computed, in order.
    pub launches: Vec<Launch>,
    /// Constants that the launches read.
    pub constants: Vec<ConstantDef>,
    /// Model inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Model outputs, in the model's order.
    pub outputs: Vec<Port>,
    /// Bytes of intermediate tensors.
    pub arena_bytes: usize,
    /// Bytes of private working memory per worker.
    pub scratch_bytes: usize,
    /// Equal for equal launches, shapes, tactics, constants and machine traits; programs of equal fingerprint give
    /// bit-identical results.
    pub fingerprint: u128,
}

/// A constant and the form in which kernels read it.
#[derive(Clone, Debug)]
pub struct ConstantDef {
    /// Identifies content and layout: a store that has this key need not pack again.
    pub key: u128,
    /// How the elements are arranged.
    pub layout: Layout,
    /// Where the elements come from.
    pub source: Tensor,
    /// The elements of `source` that are kept, in row-major order; its tensor number means nothing.
    pub view: View,
    /// Bytes once packed.
    pub bytes: usize,
}

/// One kernel application. Every worker of the context runs every launch with its share of the work.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What is computed.
    pub op: Op,
    /// Operands, in the kernel's order.
    pub inputs: Vec<Operand>,
    /// Results, in the kernel's order.
    pub outputs: Vec<Operand>,
    /// The ONNX node that it came from.
    pub node: String,
    /// Too small to share: the first worker does it alone.
    pub alone: bool,
    /// All workers meet before it starts, because it touches what an earlier launch wrote or read.
    pub barrier: bool,
}

/// What a launch computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A scalar program over merged axes.
    Map(Elementwise),
    /// A matrix product, or a convolution as one.
    Product(Product),
    /// A convolution with one input channel per output channel.
    Depthwise(Depthwise),
    /// Scaled dot-product attention.
    Attention(FusedAttention),
    /// A kernel that needs no parameters beyond those of its family.
    Kernel(Kernel),
}

impl Op {
    /// The kind's name, for `inspect` and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Map(_) => "Map",
            Op::Product(product) => product.right.kernel_name(),
            Op::Depthwise(_) => "Conv",
            Op::Attention(_) => "Attention",
            Op::Kernel(kernel) => kernel.name(),
        }
    }
}

/// Feeds formatted text to a hash without keeping it.
struct HashWriter(Xxh3);

impl Write for HashWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Program {
    /// The fingerprint of what the program holds now.
    pub(super) fn compute_fingerprint(&self) -> u128 {
        let mut hash = HashWriter(Xxh3::new());
        let keys: Vec<u128> = self.constants.iter().map(|constant| constant.key).collect();
        write!(
            hash,
            "{} {:?} {:?} {:?} {:?} {keys:?}",
            env!("CARGO_PKG_VERSION"),
            self.traits,
            self.launches,
            self.inputs,
            self.outputs
        )
        .expect("hashing does not fail");
        hash.0.digest128()
    }

    /// Bytes of all constants once packed.
    pub fn constant_bytes(&self) -> usize {
        self.constants.iter().map(|constant| constant.bytes).sum()
    }
}
