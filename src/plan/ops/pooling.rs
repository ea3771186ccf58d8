//! Windowed pooling.

use super::call::Call;
use super::window;
use crate::error::{Result, ensure, fail};
use crate::kernels::{Pool, PoolKind};
use crate::plan::{Builder, View};

fn pool(b: &mut Builder, call: &Call<'_>, kind: PoolKind, indices: Option<bool>) -> Result<Vec<View>> {
    let x = call.input(0)?.clone();
    ensure!(x.rank() >= 3, ShapeMismatch, "the operand has rank {}, not 3 or more", x.rank());
    let kernel = window::extents(call, "kernel_shape", x.rank() - 2, 1)?;
    let kernel = kernel.ok_or_else(|| fail!(Malformed, "attribute 'kernel_shape' is missing"))?;
    let window = window::window(call, &kernel, &x.shape[2..])?;
    let out = window::out_extents(&window, &x.shape[2..], call.flag("ceil_mode", false)?)?;
    b.emit(Pool { kind, window, out, indices }, &[x])
}

/// `MaxPool`, with the maxima's positions if the node wants them.
pub fn max_pool(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let column_major = call.flag("storage_order", false)?;
    pool(b, call, PoolKind::Max, call.outputs_wanted(1).then_some(column_major))
}

/// `AveragePool`.
pub fn average_pool(b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
    let pads = call.flag("count_include_pad", false)?;
    pool(b, call, if pads { PoolKind::AverageIncludingPads } else { PoolKind::Average }, None)
}
