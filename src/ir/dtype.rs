//! Element types.

use half::{bf16, f16};
use std::fmt;

/// The element type of a tensor. Values are stored little-endian; a `Bool` is one byte, 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Truth value.
    Bool,
}

impl DType {
    /// The `TensorProto.DataType` number of float64, which is computed in binary32 inside a model.
    pub const FLOAT64: i32 = 11;

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }

    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Whether this is an integer type; `Bool` is none.
    pub const fn is_integer(self) -> bool {
        matches!(self, DType::I64 | DType::I32 | DType::I8 | DType::U8)
    }

    /// The name used in messages, on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::I64 => "int64",
            DType::I32 => "int32",
            DType::I8 => "int8",
            DType::U8 => "uint8",
            DType::Bool => "bool",
        }
    }

    /// The type that `TensorProto.DataType` number `code` stands for, if it is one of ours.
    pub const fn from_onnx(code: i32) -> Option<DType> {
        Some(match code {
            1 => DType::F32,
            2 => DType::U8,
            3 => DType::I8,
            6 => DType::I32,
            7 => DType::I64,
            9 => DType::Bool,
            10 => DType::F16,
            16 => DType::BF16,
            _ => return None,
        })
    }

    /// The type in which values of `TensorProto.DataType` number `code` are computed: their own, binary32 for float64.
    pub const fn computed_from_onnx(code: i32) -> Option<DType> {
        match code {
            Self::FLOAT64 => Some(DType::F32),
            _ => Self::from_onnx(code),
        }
    }

    /// The `TensorProto.DataType` number.
    pub const fn to_onnx(self) -> i32 {
        match self {
            DType::F32 => 1,
            DType::U8 => 2,
            DType::I8 => 3,
            DType::I32 => 6,
            DType::I64 => 7,
            DType::Bool => 9,
            DType::F16 => 10,
            DType::BF16 => 16,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value wide enough for every element type without loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// A value of a floating-point type.
    Float(f64),
    /// A value of an integer type or a truth value (0 or 1).
    Int(i64),
}

impl Scalar {
    /// The value as a float; integers are rounded to nearest.
    pub fn as_f64(self) -> f64 {
        match self {
            Scalar::Float(value) => value,
            Scalar::Int(value) => value as f64,
        }
    }

    /// The value as an integer; floats are truncated and saturate.
    pub fn as_i64(self) -> i64 {
        match self {
            Scalar::Float(value) => value as i64,
            Scalar::Int(value) => value,
        }
    }
}

/// A Rust type that stores the elements of one [`DType`].
pub trait Element: Copy + Send + Sync + PartialOrd + fmt::Debug + 'static {
    /// The element type stored.
    const DTYPE: DType;
    /// Reads one element from its little-endian bytes, which must be exactly [`DType::bytes`] long.
    fn read_le(bytes: &[u8]) -> Self;
    /// Appends the element's little-endian bytes.
    fn push_le(self, out: &mut Vec<u8>);
    /// Widens without loss.
    fn to_scalar(self) -> Scalar;
    /// Narrows: floats round to nearest even, integers wrap, floats to integers truncate.
    fn from_scalar(scalar: Scalar) -> Self;
}

macro_rules! element {
    ($type:ty, $dtype:ident, $to:expr, $from:expr) => {
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            fn read_le(bytes: &[u8]) -> Self {
                <$type>::from_le_bytes(bytes.try_into().expect("one element"))
            }
            fn push_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn to_scalar(self) -> Scalar {
                ($to)(self)
            }
            fn from_scalar(scalar: Scalar) -> Self {
                ($from)(scalar)
            }
        }
    };
}

element!(f32, F32, |v: f32| Scalar::Float(v.into()), |s: Scalar| s.as_f64() as f32);
element!(f16, F16, |v: f16| Scalar::Float(v.to_f64()), |s: Scalar| f16::from_f64(s.as_f64()));
element!(bf16, BF16, |v: bf16| Scalar::Float(v.to_f64()), |s: Scalar| bf16::from_f64(s.as_f64()));
element!(i64, I64, Scalar::Int, |s: Scalar| s.as_i64());
element!(i32, I32, |v: i32| Scalar::Int(v.into()), |s: Scalar| s.as_i64() as i32);
element!(i8, I8, |v: i8| Scalar::Int(v.into()), |s: Scalar| s.as_i64() as i8);
element!(u8, U8, |v: u8| Scalar::Int(v.into()), |s: Scalar| s.as_i64() as u8);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn read_le(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
    fn push_le(self, out: &mut Vec<u8>) {
        out.push(self.into());
    }
    fn to_scalar(self) -> Scalar {
        Scalar::Int(self.into())
    }
    fn from_scalar(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Float(value) => value != 0.0,
            Scalar::Int(value) => value != 0,
        }
    }
}
