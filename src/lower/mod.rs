//! Plan to program: layouts, tactics, packed constants, memory. Pure functions; nothing here touches a device.

pub mod arena;
mod bias;
pub mod cuda;
pub mod host;
mod nest;
pub mod operand;
mod places;
mod uniform;

/// Arithmetic and storage of the floating-point steps of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// IEEE 754 binary32 throughout.
    #[default]
    Fp32,
    /// TensorFloat-32 products, the rest binary32.
    Tf32,
    /// binary16 storage, binary32 accumulation.
    Fp16,
    /// bfloat16 storage, binary32 accumulation.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 4] = [Precision::Fp32, Precision::Tf32, Precision::Fp16, Precision::Bf16];

    /// The name used on the command line and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
        }
    }

    /// How far results may be from exact ones: the greatest ||a - b|| / ||b||.
    pub const fn tolerance(self) -> f64 {
        match self {
            Precision::Fp32 => 1e-4,
            Precision::Tf32 => 2e-3,
            Precision::Fp16 => 1e-2,
            Precision::Bf16 => 3e-2,
        }
    }
}
