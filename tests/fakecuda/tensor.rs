//! Tensor maps: what the simulated driver writes into them, and that launches carry those of their operands.

use crate::driver::{Code, Driver, fault};
use crate::{call, give};
use std::ffi::{c_int, c_uint, c_void};
use streaminfer::ir::DType;
use streaminfer::kernels::entry::{BOX_ELEMENTS, BOX_LINES, Entry, MatrixMap, TensorMap, code};

const INVALID_VALUE: Code = 1;
/// The first word of every map.
const MARK: u64 = 0x7465_6e73_6f72_6d61;

fn encoded(address: u64, dtype: c_int, extents: [u64; 2], stride: u64, extents_of_box: [c_uint; 2]) -> TensorMap {
    let mut map = TensorMap::default();
    let [width, height] = extents_of_box.map(u64::from);
    let words = [MARK, address, dtype as u64, extents[0], extents[1], stride, width, height];
    map.0[..words.len()].copy_from_slice(&words);
    map
}

/// Ends the process if the arguments of a launch do not carry the maps of their operands.
pub fn check(entry: &Entry, arguments: &[u8]) {
    for map in (entry.maps)(arguments) {
        let MatrixMap { position, address, dtype, lines, elements, line_bytes } = map;
        let dtype = if dtype == code(DType::F16) { 6 } else { 9 };
        let extents = [elements, lines].map(u64::from);
        let wanted = encoded(address, dtype, extents, line_bytes, [BOX_ELEMENTS, BOX_LINES]);
        let words = arguments[position..].chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        if !words.take(wanted.0.len()).eq(wanted.0) {
            fault(&format!("{} has a tensor map that is not its operand's", entry.name));
        }
    }
}

/// What the driver's manual asks for, of matrices in lines of 128 bytes.
fn is_valid(address: u64, [elements, lines]: [u64; 2], stride: u64, [width, height]: [c_uint; 2]) -> bool {
    address.is_multiple_of(16)
        && [elements, lines].iter().all(|extent| (1..=1 << 32).contains(extent))
        && stride.is_multiple_of(16)
        && (elements * 2..1 << 40).contains(&stride)
        && (1..=64).contains(&width)
        && (1..=256).contains(&height)
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the driver's own signature")]
pub unsafe extern "C" fn cuTensorMapEncodeTiled(
    out: *mut TensorMap,
    dtype: c_int,
    rank: c_uint,
    address: *mut c_void,
    extents: *const u64,
    strides: *const u64,
    extents_of_box: *const c_uint,
    steps: *const c_uint,
    interleave: c_int,
    swizzle: c_int,
    promotion: c_int,
    fill: c_int,
) -> c_int {
    call("cuTensorMapEncodeTiled", |driver: &Driver| {
        if driver.options.capability.0 < 9 {
            return Err(801);
        }
        let known = rank == 2
            && matches!(dtype, 6 | 9)
            && (interleave, swizzle, promotion, fill) == (0, 3, 3, 0)
            && (out as usize).is_multiple_of(64);
        if !known {
            return Err(INVALID_VALUE);
        }
        // SAFETY: arrays of as many numbers as the rank says, one less of strides.
        let (extents, extents_of_box, steps, stride) = unsafe {
            (*extents.cast::<[u64; 2]>(), *extents_of_box.cast::<[c_uint; 2]>(), *steps.cast::<[c_uint; 2]>(), *strides)
        };
        if steps != [1, 1] || !is_valid(address as u64, extents, stride, extents_of_box) {
            return Err(INVALID_VALUE);
        }
        unsafe { give(out, encoded(address as u64, dtype, extents, stride, extents_of_box)) };
        Ok(())
    })
}
