//! Fetching operands into registers and storing results, with the conversions and strides that this takes.

use crate::device::host::cursor::Cursor;
use crate::device::host::kernel::Span;
use crate::ir::DType;
use crate::lower::host::Code;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Copies `n` consecutive elements into a register, widening 16-bit floats. Answers the register.
///
/// # Safety
/// The elements are readable, the register has room, they do not overlap.
pub unsafe fn widen(dtype: DType, from: *const u8, register: *mut u8, n: usize) -> *mut u8 {
    // SAFETY: all of it is the caller's promise; elements and registers are aligned for their types.
    unsafe {
        match dtype {
            DType::F16 => {
                let from = std::slice::from_raw_parts(from.cast::<f16>(), n);
                from.convert_to_f32_slice(std::slice::from_raw_parts_mut(register.cast(), n));
            }
            DType::BF16 => {
                let from = std::slice::from_raw_parts(from.cast::<bf16>(), n);
                from.convert_to_f32_slice(std::slice::from_raw_parts_mut(register.cast(), n));
            }
            _ => std::ptr::copy_nonoverlapping(from, register, n * dtype.bytes()),
        }
    }
    register
}

/// As [`widen`] for elements that are `stride` apart.
///
/// # Safety
/// As [`widen`].
pub unsafe fn gather(dtype: DType, from: *const u8, stride: isize, register: *mut u8, n: usize) -> *mut u8 {
    // SAFETY: all of it is the caller's promise.
    unsafe {
        match dtype {
            DType::F16 => strided(from.cast::<f16>(), stride, register.cast(), 1, n, f16::to_f32),
            DType::BF16 => strided(from.cast::<bf16>(), stride, register.cast(), 1, n, bf16::to_f32),
            _ => match dtype.bytes() {
                1 => strided(from, stride, register, 1, n, |x: u8| x),
                4 => strided(from.cast(), stride, register.cast(), 1, n, |x: u32| x),
                _ => strided(from.cast(), stride, register.cast(), 1, n, |x: u64| x),
            },
        }
    }
    register
}

/// `to[i to_stride] = f(from[i stride])`.
///
/// # Safety
/// All positions are readable or writable.
#[inline(always)]
unsafe fn strided<A: Copy, R>(
    from: *const A,
    stride: isize,
    to: *mut R,
    to_stride: isize,
    n: usize,
    f: impl Fn(A) -> R,
) {
    for i in 0..n as isize {
        // SAFETY: the caller's promise.
        unsafe { to.offset(i * to_stride).write(f(from.offset(i * stride).read())) };
    }
}

/// Gathers `n` elements that follow the cursor in row-major order.
///
/// # Safety
/// As [`gather`].
pub unsafe fn gather_rows(span: &Span, cursor: &Cursor, register: *mut u8, n: usize) -> *mut u8 {
    let size = if span.dtype.is_float() { 4 } else { span.dtype.bytes() };
    let mut cursor = cursor.clone();
    let mut done = 0;
    while done < n {
        let run = cursor.row_left().min(n - done);
        let from = span.element(cursor.offset(&span.strides));
        // SAFETY: the run lies within the `n` elements.
        unsafe { gather(span.dtype, from, span.inner_stride(), register.add(done * size), run) };
        cursor.advance(run);
        done += run;
    }
    register
}

/// Stores the result of a block: `n` values, or one that stands for all.
///
/// # Safety
/// The values are `code`'s result, and the result's `n` elements from the cursor on are writable.
pub unsafe fn store(code: &Code, values: *const u8, output: &Span, cursor: &Cursor, flat: bool, n: usize) {
    let step = isize::from(!code.uniform);
    let size = code.class.bytes();
    let mut cursor = cursor.clone();
    let mut done = 0;
    while done < n {
        let run = if flat { cursor.row_left().min(n - done) } else { n };
        let to = output.element(cursor.offset(&output.strides));
        let from = if code.uniform { values } else { values.wrapping_add(done * size) };
        // SAFETY: the run lies within the `n` elements.
        unsafe { store_run(code, from, step, to, output.inner_stride(), run) };
        cursor.advance(run);
        done += run;
    }
}

/// # Safety
/// As [`store`], for one run along the innermost axis.
pub unsafe fn store_run(code: &Code, from: *const u8, step: isize, to: *mut u8, stride: isize, n: usize) {
    // SAFETY: all of it is the caller's promise.
    unsafe {
        match code.output {
            DType::F16 => strided(from.cast::<f32>(), step, to.cast(), stride, n, f16::from_f32),
            DType::BF16 => strided(from.cast::<f32>(), step, to.cast(), stride, n, bf16::from_f32),
            dtype => match dtype.bytes() {
                _ if step == 1 && stride == 1 => std::ptr::copy_nonoverlapping(from, to, n * dtype.bytes()),
                1 => strided(from, step, to, stride, n, |x: u8| x),
                4 => strided(from.cast(), step, to.cast(), stride, n, |x: u32| x),
                _ => strided(from.cast(), step, to.cast(), stride, n, |x: u64| x),
            },
        }
    }
}
