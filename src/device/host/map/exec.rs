//! Executes the instructions of a compiled scalar program over one block: each is one loop, compiled once per level of
//! vector instructions.

use crate::device::host::simd;
use crate::ir::{DType, Scalar};
use crate::kernels::{Binary, Unary};
use crate::lower::host::{Code, CodeInstr, CodeOp, Simd};
use half::{bf16, f16};

/// Working memory of one execution.
#[derive(Clone, Copy)]
pub struct Frame {
    /// Per register, where its values are.
    values: *mut *mut u8,
    /// Per register, 8 bytes for a uniform value.
    uniforms: *mut u8,
    /// The block buffers.
    slots: *mut u8,
    slot_bytes: usize,
}

impl Frame {
    /// Divides scratch memory for `code`.
    ///
    /// # Safety
    /// `scratch` has [`Code::scratch_bytes`] bytes, aligned to 64, that nothing else uses while the frame does.
    pub unsafe fn new(code: &Code, scratch: *mut u8) -> Frame {
        // SAFETY: the caller's promise; the three parts are laid out as `Code::scratch_bytes` counts them.
        unsafe {
            Frame {
                values: scratch.cast(),
                uniforms: scratch.add(code.registers * 8),
                slots: scratch.add(code.slots_offset()),
                slot_bytes: code.slot_bytes,
            }
        }
    }

    /// Where the values of a register are.
    ///
    /// # Safety
    /// The register has been defined in this block.
    pub unsafe fn value(&self, register: usize) -> *mut u8 {
        // SAFETY: the register is one of the program's.
        unsafe { *self.values.add(register) }
    }

    /// Says where the values of a register are.
    ///
    /// # Safety
    /// The register is one of the program's.
    pub unsafe fn set(&self, register: usize, address: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { *self.values.add(register) = address }
    }

    /// The room for a register's values: its buffer, or that for one value.
    ///
    /// # Safety
    /// Register and buffer are the program's.
    pub unsafe fn room(&self, register: usize, slot: Option<usize>) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            match slot {
                Some(slot) => self.slots.add(slot * self.slot_bytes),
                None => self.uniforms.add(register * 8),
            }
        }
    }
}

/// Runs all instructions over `n` elements; the loads are done. If `result` is given, the last instruction, whose result
/// is not uniform, writes there.
///
/// # Safety
/// The frame is `code`'s, the loaded registers have `n` values (uniform ones 1), `n` is at most a block, `result` has room
/// for `n` values and overlaps no register. The machine has the instructions of `simd`.
pub unsafe fn execute(simd: Simd, code: &Code, frame: &Frame, n: usize, result: Option<*mut u8>) {
    let last = code.instrs.len().wrapping_sub(1);
    for (index, instr) in code.instrs.iter().enumerate() {
        let n = if instr.is_uniform() { 1 } else { n };
        // SAFETY: the caller's promise; operands are defined before they are used.
        unsafe {
            let to = match result {
                Some(result) if index == last => result,
                _ => frame.room(instr.register, instr.slot),
            };
            frame.set(instr.register, to);
            match simd {
                #[cfg(target_arch = "x86_64")]
                Simd::Avx512 => step_avx512(instr, frame, to, n),
                #[cfg(target_arch = "x86_64")]
                Simd::Avx2 => step_avx2(instr, frame, to, n),
                _ => step(Simd::Portable, instr, frame, to, n),
            }
        }
    }
}

/// # Safety
/// As [`execute`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn step_avx512(instr: &CodeInstr, frame: &Frame, to: *mut u8, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { step(Simd::Avx512, instr, frame, to, n) }
}

/// # Safety
/// As [`execute`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn step_avx2(instr: &CodeInstr, frame: &Frame, to: *mut u8, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { step(Simd::Avx2, instr, frame, to, n) }
}

/// One instruction over `n` elements.
///
/// # Safety
/// As [`execute`].
#[inline(always)]
unsafe fn step(simd: Simd, instr: &CodeInstr, frame: &Frame, to: *mut u8, n: usize) {
    // SAFETY: operands have as many values as their uniformity says, each register the type of its class.
    unsafe {
        match instr.op {
            CodeOp::Const(value) => constant(instr.class, value, to),
            CodeOp::Unary(op, a) => unary(simd, op, instr.from, to, frame.value(a), n),
            CodeOp::Binary(op, a, b) => {
                let operands =
                    Pair { a: frame.value(a), b: frame.value(b), uniform: [instr.uniform[0], instr.uniform[1]] };
                binary(op, instr.from, to, &operands, n);
            }
            CodeOp::Select(c, a, b) => {
                let values = [frame.value(c), frame.value(a), frame.value(b)];
                match instr.from.bytes() {
                    1 => select::<u8>(to, values, instr.uniform, n),
                    4 => select::<u32>(to, values, instr.uniform, n),
                    _ => select::<u64>(to, values, instr.uniform, n),
                }
            }
            CodeOp::Convert(a) => convert(instr.from, instr.class, to, frame.value(a), n),
            CodeOp::Round(DType::F16, a) => each(to, frame.value(a), n, |x: f32| f16::from_f32(x).to_f32()),
            CodeOp::Round(_, a) => each(to, frame.value(a), n, |x: f32| bf16::from_f32(x).to_f32()),
        }
    }
}

/// # Safety
/// `to` has room for one value of the class.
unsafe fn constant(class: DType, value: Scalar, to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        match class {
            DType::F32 => to.cast::<f32>().write(value.as_f64() as f32),
            DType::I64 => to.cast::<i64>().write(value.as_i64()),
            DType::I32 => to.cast::<i32>().write(value.as_i64() as i32),
            DType::Bool => to.write((value.as_i64() != 0).into()),
            _ => to.write(value.as_i64() as u8),
        }
    }
}

/// `to[i] = f(from[i])`.
///
/// # Safety
/// `n` values each, not overlapping.
#[inline(always)]
unsafe fn each<A: Copy, R>(to: *mut u8, from: *const u8, n: usize, f: impl Fn(A) -> R) {
    // SAFETY: the caller's promise; registers are aligned for their class.
    let (to, from) =
        unsafe { (std::slice::from_raw_parts_mut(to.cast::<R>(), n), std::slice::from_raw_parts(from.cast::<A>(), n)) };
    for (to, &from) in to.iter_mut().zip(from) {
        *to = f(from);
    }
}

/// Two operands of one class.
struct Pair {
    a: *const u8,
    b: *const u8,
    uniform: [bool; 2],
}

/// `to[i] = f(a[i], b[i])`, where a uniform operand stands still.
///
/// # Safety
/// `n` values each, or one if uniform; the result overlaps no operand.
#[inline(always)]
unsafe fn zip<A: Copy, R>(to: *mut u8, operands: &Pair, n: usize, f: impl Fn(A, A) -> R) {
    let (a, b) = (operands.a.cast::<A>(), operands.b.cast::<A>());
    // SAFETY: the caller's promise; registers are aligned for their class.
    unsafe {
        let to = std::slice::from_raw_parts_mut(to.cast::<R>(), n);
        match operands.uniform {
            [true, true] => to.fill_with(|| f(*a, *b)),
            [true, false] => {
                let (a, b) = (*a, std::slice::from_raw_parts(b, n));
                to.iter_mut().zip(b).for_each(|(to, &b)| *to = f(a, b));
            }
            [false, true] => {
                let (a, b) = (std::slice::from_raw_parts(a, n), *b);
                to.iter_mut().zip(a).for_each(|(to, &a)| *to = f(a, b));
            }
            [false, false] => {
                let (a, b) = (std::slice::from_raw_parts(a, n), std::slice::from_raw_parts(b, n));
                to.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (&a, &b))| *to = f(a, b));
            }
        }
    }
}

/// # Safety
/// As [`zip`], with `uniform` for condition, a and b.
#[inline(always)]
unsafe fn select<T: Copy>(to: *mut u8, [c, a, b]: [*mut u8; 3], uniform: [bool; 3], n: usize) {
    let step = uniform.map(|uniform| usize::from(!uniform));
    let (a, b, to) = (a.cast::<T>(), b.cast::<T>(), to.cast::<T>());
    // SAFETY: the caller's promise.
    unsafe {
        if uniform[0] {
            let (from, step) = if *c != 0 { (a, step[1]) } else { (b, step[2]) };
            (0..n).for_each(|i| *to.add(i) = *from.add(i * step));
            return;
        }
        let to = std::slice::from_raw_parts_mut(to, n);
        let c = std::slice::from_raw_parts(c, n);
        match (uniform[1], uniform[2]) {
            (false, false) => {
                let (a, b) = (std::slice::from_raw_parts(a, n), std::slice::from_raw_parts(b, n));
                (0..n).for_each(|i| to[i] = if c[i] != 0 { a[i] } else { b[i] });
            }
            (false, true) => {
                let (a, b) = (std::slice::from_raw_parts(a, n), *b);
                (0..n).for_each(|i| to[i] = if c[i] != 0 { a[i] } else { b });
            }
            (true, false) => {
                let (a, b) = (*a, std::slice::from_raw_parts(b, n));
                (0..n).for_each(|i| to[i] = if c[i] != 0 { a } else { b[i] });
            }
            (true, true) => {
                let (a, b) = (*a, *b);
                (0..n).for_each(|i| to[i] = if c[i] != 0 { a } else { b });
            }
        }
    }
}

/// # Safety
/// As [`each`], with operands of type `class`.
#[inline(always)]
unsafe fn unary(simd: Simd, op: Unary, class: DType, to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: all of it is the caller's promise.
    unsafe {
        match (class, op) {
            (DType::F32, Unary::IsNan) => each(to, from, n, |x: f32| u8::from(x.is_nan())),
            (DType::F32, Unary::IsInf) => each(to, from, n, |x: f32| u8::from(x.is_infinite())),
            (DType::F32, Unary::Sign) => {
                each(to, from, n, |x: f32| {
                    if x > 0.0 {
                        1.0
                    } else if x < 0.0 {
                        -1.0
                    } else {
                        x
                    }
                });
            }
            (DType::F32, op) => simd::unary(simd, op, from.cast(), to.cast(), n),
            (DType::I64, op) => integer_unary::<i64>(op, to, from, n),
            (DType::I32, op) => integer_unary::<i32>(op, to, from, n),
            (DType::I8, op) => integer_unary::<i8>(op, to, from, n),
            (DType::Bool, _) => each(to, from, n, |x: u8| u8::from(x == 0)),
            (_, op) => integer_unary::<u8>(op, to, from, n),
        }
    }
}

/// # Safety
/// As [`zip`], with operands of type `class`.
#[inline(always)]
unsafe fn binary(op: Binary, class: DType, to: *mut u8, operands: &Pair, n: usize) {
    // SAFETY: all of it is the caller's promise.
    unsafe {
        match class {
            DType::F32 => float_binary(op, to, operands, n),
            DType::I64 => integer_binary::<i64>(op, to, operands, n),
            DType::I32 => integer_binary::<i32>(op, to, operands, n),
            DType::I8 => integer_binary::<i8>(op, to, operands, n),
            _ => integer_binary::<u8>(op, to, operands, n),
        }
    }
}

/// # Safety
/// As [`zip`].
#[inline(always)]
unsafe fn float_binary(op: Binary, to: *mut u8, operands: &Pair, n: usize) {
    // SAFETY: all of it is the caller's promise.
    unsafe {
        match op {
            Binary::Add => zip(to, operands, n, |a: f32, b| a + b),
            Binary::Sub => zip(to, operands, n, |a: f32, b| a - b),
            Binary::Mul => zip(to, operands, n, |a: f32, b| a * b),
            Binary::Div => zip(to, operands, n, |a: f32, b| a / b),
            Binary::Mod => zip(to, operands, n, |a: f32, b| {
                let remainder = a % b;
                if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) { remainder + b } else { remainder }
            }),
            Binary::Fmod => zip(to, operands, n, |a: f32, b| a % b),
            Binary::Pow => zip(to, operands, n, f32::powf),
            Binary::Min => zip(to, operands, n, |a: f32, b: f32| if (a < b) | a.is_nan() { a } else { b }),
            Binary::Max => zip(to, operands, n, |a: f32, b: f32| if (a > b) | a.is_nan() { a } else { b }),
            Binary::Equal => zip(to, operands, n, |a: f32, b| u8::from(a == b)),
            Binary::Less => zip(to, operands, n, |a: f32, b| u8::from(a < b)),
            Binary::LessOrEqual => zip(to, operands, n, |a: f32, b| u8::from(a <= b)),
            // The type rules give floats no logic.
            Binary::And | Binary::Or | Binary::Xor => {}
        }
    }
}

/// The integers of a map: they wrap, and division by zero gives 0.
trait Integer:
    Copy + Ord + std::ops::BitAnd<Output = Self> + std::ops::BitOr<Output = Self> + std::ops::BitXor<Output = Self>
{
    const ZERO: Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    fn rem(self, b: Self) -> Self;
    fn floor_rem(self, b: Self) -> Self;
    fn power(self, b: Self) -> Self;
    fn neg(self) -> Self;
    fn sign(self) -> Self;
}

macro_rules! integer {
    ($type:ty) => {
        impl Integer for $type {
            const ZERO: Self = 0;
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self.wrapping_add(b)
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self.wrapping_sub(b)
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                self.wrapping_mul(b)
            }
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                if b == 0 { 0 } else { self.wrapping_div(b) }
            }
            #[inline(always)]
            fn rem(self, b: Self) -> Self {
                if b == 0 { 0 } else { self.wrapping_rem(b) }
            }
            #[inline(always)]
            #[allow(unused_comparisons, reason = "one source for signed and unsigned types")]
            fn floor_rem(self, b: Self) -> Self {
                let remainder = Integer::rem(self, b);
                if remainder != 0 && (remainder < 0) != (b < 0) { remainder.wrapping_add(b) } else { remainder }
            }
            #[allow(unused_comparisons, reason = "one source for signed and unsigned types")]
            fn power(self, b: Self) -> Self {
                if b < 0 {
                    let one = if b % 2 == 0 { 1 } else { self };
                    let unit = self == 1 || self.wrapping_add(1) == 0;
                    return if unit { one } else { 0 };
                }
                let (mut base, mut exponent, mut power) = (self, b, 1 as $type);
                while exponent > 0 {
                    if exponent & 1 == 1 {
                        power = power.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    exponent >>= 1;
                }
                power
            }
            #[inline(always)]
            fn neg(self) -> Self {
                self.wrapping_neg()
            }
            #[inline(always)]
            #[allow(unused_comparisons, reason = "one source for signed and unsigned types")]
            fn sign(self) -> Self {
                if self > 0 {
                    1
                } else if self < 0 {
                    (0 as $type).wrapping_sub(1)
                } else {
                    0
                }
            }
        }
    };
}

integer!(i64);
integer!(i32);
integer!(i8);
integer!(u8);

/// # Safety
/// As [`each`].
#[inline(always)]
unsafe fn integer_unary<T: Integer>(op: Unary, to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: all of it is the caller's promise.
    unsafe {
        match op {
            Unary::Neg => each(to, from, n, T::neg),
            Unary::Abs => each(to, from, n, |x: T| if x < T::ZERO { x.neg() } else { x }),
            Unary::Sign => each(to, from, n, T::sign),
            Unary::Relu => each(to, from, n, |x: T| x.max(T::ZERO)),
            // The type rules give integers no other function; a whole number is its own ceiling.
            _ => each(to, from, n, |x: T| x),
        }
    }
}

/// # Safety
/// As [`zip`].
#[inline(always)]
unsafe fn integer_binary<T: Integer>(op: Binary, to: *mut u8, operands: &Pair, n: usize) {
    // SAFETY: all of it is the caller's promise.
    unsafe {
        match op {
            Binary::Add => zip(to, operands, n, T::add),
            Binary::Sub => zip(to, operands, n, T::sub),
            Binary::Mul => zip(to, operands, n, T::mul),
            Binary::Div => zip(to, operands, n, T::div),
            Binary::Mod => zip(to, operands, n, T::floor_rem),
            Binary::Fmod => zip(to, operands, n, T::rem),
            Binary::Pow => zip(to, operands, n, T::power),
            Binary::Min => zip(to, operands, n, |a: T, b| a.min(b)),
            Binary::Max => zip(to, operands, n, |a: T, b| a.max(b)),
            Binary::And => zip(to, operands, n, |a: T, b| a & b),
            Binary::Or => zip(to, operands, n, |a: T, b| a | b),
            Binary::Xor => zip(to, operands, n, |a: T, b| a ^ b),
            Binary::Equal => zip(to, operands, n, |a: T, b| u8::from(a == b)),
            Binary::Less => zip(to, operands, n, |a: T, b| u8::from(a < b)),
            Binary::LessOrEqual => zip(to, operands, n, |a: T, b| u8::from(a <= b)),
        }
    }
}

/// Conversion between register types as [`crate::kernels::Instr::Cast`] defines it.
///
/// # Safety
/// As [`each`], with values of the types `from` and `class`.
#[inline(always)]
unsafe fn convert(source: DType, class: DType, to: *mut u8, from: *const u8, n: usize) {
    macro_rules! to_class {
        ($from:ty, $byte:expr) => {
            match class {
                DType::F32 => each(to, from, n, |x: $from| x as f32),
                DType::I64 => each(to, from, n, |x: $from| x as i64),
                DType::I32 => each(to, from, n, |x: $from| x as i32),
                DType::Bool => each(to, from, n, |x: $from| u8::from(x != (0 as $from))),
                _ => each(to, from, n, $byte),
            }
        };
    }
    // SAFETY: all of it is the caller's promise.
    unsafe {
        match source {
            DType::F32 => to_class!(f32, |x: f32| x as i32 as u8),
            DType::I64 => to_class!(i64, |x: i64| x as u8),
            DType::I32 => to_class!(i32, |x: i32| x as u8),
            DType::I8 => to_class!(i8, |x: i8| x as u8),
            DType::Bool => to_class!(u8, |x: u8| u8::from(x != 0)),
            _ => to_class!(u8, |x: u8| x),
        }
    }
}
