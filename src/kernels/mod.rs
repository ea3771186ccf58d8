//! The step kinds: what a device can be asked to compute.
//!
//! One family a file. Each kind is a small struct of parameters with two functions: `infer` checks the operands and
//! gives the types of the results, `reference` computes them the simple and slow way, in double precision where the
//! element type is a float. The reference is the definition: constant folding evaluates it, every fast kernel is
//! tested against it. Operands are dense tensors here; in a plan they are views, so that transposition, slicing,
//! broadcasting and reshaping cost no step.

mod attention;
mod conv;
mod conv_transpose;
pub mod entry;
#[cfg(test)]
pub(crate) mod evaluation;
mod gather;
#[cfg(test)]
mod hostility;
mod map;
mod matmul;
mod norm;
mod operands;
mod pool;
mod recurrent;
mod reduce;
mod resize;
mod scan;
mod scatter;
mod softmax;
mod topk;
mod walk;
mod window;

pub use attention::Attention;
pub use conv::Conv;
pub use conv_transpose::ConvTranspose;
pub use gather::{Gather, GatherElements, GatherNd};
pub use map::{Binary, Instr, Map, Reg, Unary};
pub use matmul::MatMul;
pub use norm::{Norm, NormKind};
pub use pool::{Pool, PoolKind};
pub use recurrent::{Activation, Cell, Direction, Recurrent};
pub use reduce::{Reduce, ReduceOp};
pub use resize::{AxisTaps, Resize};
pub use scan::CumSum;
pub use scatter::{ScatterNd, ScatterOp};
pub use softmax::Softmax;
pub use topk::TopK;
pub use window::Window;

use crate::error::Result;
use crate::ir::{Tensor, TensorType};

/// What every family defines.
pub trait Family {
    /// Checks the operands' types and gives those of the results.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>>;
    /// Computes the results by definition. The operands satisfy [`Family::infer`]; data-dependent faults (an index out
    /// of range) are errors.
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>>;
    /// Roughly how many scalar operations one evaluation takes.
    fn work(&self, inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        let elements = inputs.iter().chain(outputs).map(|ty| ty.count() as u64);
        elements.fold(0, u64::saturating_add)
    }
}

macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        /// A step kind with its parameters.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Kernel {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name)),*
        }

        impl Kernel {
            /// The family's definition.
            pub fn family(&self) -> &dyn Family {
                match self {
                    $(Kernel::$name(kernel) => kernel),*
                }
            }

            /// The kind's name, for `inspect` and messages.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Kernel::$name(_) => stringify!($name)),*
                }
            }
        }

        $(impl From<$name> for Kernel {
            fn from(kernel: $name) -> Kernel {
                Kernel::$name(kernel)
            }
        })*
    };
}

kernels!(
    Map,
    MatMul,
    Attention,
    Conv,
    ConvTranspose,
    Pool,
    Reduce,
    Softmax,
    Norm,
    Gather,
    GatherElements,
    GatherNd,
    ScatterNd,
    Recurrent,
    CumSum,
    TopK,
    Resize,
);
