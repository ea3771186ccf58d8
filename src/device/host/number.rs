//! Arithmetic on the element types that kernels compute with, so that one loop serves them all.

/// A number as it lies in memory. Integers wrap in their own width.
pub trait Number: Copy + PartialOrd + Default + Send + Sync + 'static {
    /// Sum.
    fn add(self, other: Self) -> Self;
    /// Product.
    fn mul(self, other: Self) -> Self;
    /// The greater; NaN if either is.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if (self > other) | self.is_nan() { self } else { other }
    }
    /// The smaller; NaN if either is.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if (self < other) | self.is_nan() { self } else { other }
    }
    /// Whether this is not a number.
    #[inline(always)]
    fn is_nan(self) -> bool {
        false
    }
    /// The least value: nothing is below it.
    const LEAST: Self;
}

impl Number for f32 {
    const LEAST: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn add(self, other: f32) -> f32 {
        self + other
    }
    #[inline(always)]
    fn mul(self, other: f32) -> f32 {
        self * other
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
}

macro_rules! integer {
    ($($type:ty),*) => {
        $(impl Number for $type {
            const LEAST: $type = <$type>::MIN;
            #[inline(always)]
            fn add(self, other: $type) -> $type {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn mul(self, other: $type) -> $type {
                self.wrapping_mul(other)
            }
        })*
    };
}

integer!(i64, i32, i8, u8);

/// Evaluates an expression with `$t` standing for the Rust type that stores elements of `$dtype`; 16-bit floats have been
/// legalised away, a truth value is a byte.
macro_rules! with_number {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::ir::DType::I64 => {
                type $t = i64;
                $body
            }
            $crate::ir::DType::I32 => {
                type $t = i32;
                $body
            }
            $crate::ir::DType::I8 => {
                type $t = i8;
                $body
            }
            $crate::ir::DType::U8 | $crate::ir::DType::Bool => {
                type $t = u8;
                $body
            }
            _ => {
                type $t = f32;
                $body
            }
        }
    };
}

pub(super) use with_number;
