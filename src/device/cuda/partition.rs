//! Parts of a GPU's multiprocessors, one for each model that asks for some: green contexts.
//!
//! The driver splits the multiprocessors once, as finely as it can, and what one split gave can be put together again to partitions of
//! any size. So partitions never overlap, and one that is given back leaves room for others of any size. The kernels here form no
//! clusters, so that multiprocessors need not lie next to each other. Models without a partition run on all multiprocessors.

use super::gpu::{Current, Gpu};
use super::sys::{
    CuContext, CuGreen, CuResource, CuStream, GREEN_DEFAULT_STREAM, Green, NOT_SUPPORTED, RESOURCE_MULTIPROCESSORS,
    SPLIT_FINELY, STREAM_NON_BLOCKING,
};
use crate::device::host::process::Lock;
use crate::error::{Error, Result, Status, ensure, fail};
use std::ptr::null_mut;
use std::sync::Arc;

/// Some multiprocessors that the driver gives out together.
struct Piece {
    resource: CuResource,
    is_taken: bool,
}

/// What of a GPU is given out. Split when the first partition is asked for.
#[derive(Default)]
pub struct Partitions {
    pieces: Lock<Vec<Piece>>,
}

/// Multiprocessors for one model, given back when dropped.
pub struct Partition {
    gpu: Arc<Gpu>,
    green: CuGreen,
    context: CuContext,
    /// Positions in the GPU's pieces.
    pieces: Vec<usize>,
    multiprocessors: u32,
}

// SAFETY: handles that any thread may use; the context is never made a thread's current one.
unsafe impl Send for Partition {}
// SAFETY: as above.
unsafe impl Sync for Partition {}

fn count(pieces: &[Piece], indices: impl IntoIterator<Item = usize>) -> usize {
    indices.into_iter().map(|index| pieces[index].resource.multiprocessors as usize).sum()
}

/// The first free pieces that have so many multiprocessors together.
fn choose(pieces: &[Piece], wanted: usize) -> Result<Vec<usize>> {
    let free: Vec<usize> = (0..pieces.len()).filter(|&index| !pieces[index].is_taken).collect();
    let (left, all) = (count(pieces, free.iter().copied()), count(pieces, 0..pieces.len()));
    ensure!(
        wanted <= all,
        TooLarge,
        "{wanted} multiprocessors are asked for, and the GPU can give {all} to partitions"
    );
    ensure!(
        wanted <= left,
        LimitReached,
        "{wanted} multiprocessors are asked for, and {left} of {all} are left: other models have the rest"
    );
    let mut chosen = Vec::new();
    let mut room = 0;
    for index in free {
        if room >= wanted {
            break;
        }
        room += pieces[index].resource.multiprocessors as usize;
        chosen.push(index);
    }
    Ok(chosen)
}

/// The GPU's multiprocessors in the smallest groups that the driver makes.
fn split(gpu: &Gpu, current: &Current<'_>, green: &Green) -> Result<Vec<Piece>> {
    let mut all = CuResource::EMPTY;
    // SAFETY: the driver stores a description.
    let code = unsafe { green.device_resource(gpu.device(), &raw mut all, RESOURCE_MULTIPROCESSORS) };
    check(current, code, "cuDeviceGetDevResource")?;
    let mut groups = 0;
    // SAFETY: without a place for groups the driver only counts them.
    let code = unsafe { green.split(null_mut(), &raw mut groups, &raw const all, null_mut(), SPLIT_FINELY, 1) };
    check(current, code, "cuDevSmResourceSplitByCount")?;
    let mut resources = vec![CuResource::EMPTY; groups as usize];
    let mut rest = CuResource::EMPTY;
    // SAFETY: room for as many groups as said.
    let code = unsafe {
        let (out, rest) = (resources.as_mut_ptr(), &raw mut rest);
        green.split(out, &raw mut groups, &raw const all, rest, SPLIT_FINELY, 1)
    };
    check(current, code, "cuDevSmResourceSplitByCount")?;
    resources.truncate(groups as usize);
    resources.push(rest);
    let piece = |resource: CuResource| Piece { resource, is_taken: false };
    Ok(resources.into_iter().filter(|resource| resource.multiprocessors > 0).map(piece).collect())
}

/// As [`Current::check`]; what the GPU or its driver cannot do is `Unsupported`.
fn check(current: &Current<'_>, code: i32, what: &str) -> Result<()> {
    current.check(code, what).map_err(|error| {
        let status = if code == NOT_SUPPORTED { Status::Unsupported } else { error.status };
        Error { status, ..error }
    })
}

impl Partition {
    /// Takes at least so many multiprocessors of what is left.
    pub fn take(gpu: &Arc<Gpu>, wanted: usize) -> Result<Self> {
        let current = gpu.enter()?;
        let green = current.table().green()?;
        // Held until the green context is there or is not: two partitions do not get the same pieces.
        let mut pieces = gpu.partitions.pieces.lock()?;
        if pieces.is_empty() {
            *pieces = split(gpu, &current, green)?;
        }
        let chosen = choose(&pieces, wanted)?;
        let mut resources: Vec<CuResource> = chosen.iter().map(|&index| pieces[index].resource).collect();
        let (mut description, mut handle, mut context) = (null_mut(), null_mut(), null_mut());
        // SAFETY: groups of one split of this device; the driver stores a handle, which lives as long as the process.
        let code =
            unsafe { green.describe_resources(&raw mut description, resources.as_mut_ptr(), resources.len() as u32) };
        check(&current, code, "cuDevResourceGenerateDesc")?;
        // SAFETY: the driver stores a handle.
        let code = unsafe { green.green_new(&raw mut handle, description, gpu.device(), GREEN_DEFAULT_STREAM) };
        check(&current, code, "cuGreenCtxCreate")?;
        // SAFETY: the driver stores a handle.
        let code = unsafe { green.green_context(&raw mut context, handle) };
        if let Err(error) = check(&current, code, "cuCtxFromGreenCtx") {
            // SAFETY: made above, and nothing is in it.
            let _ = current.check(unsafe { green.green_free(handle) }, "cuGreenCtxDestroy");
            return Err(error);
        }
        chosen.iter().for_each(|&index| pieces[index].is_taken = true);
        let multiprocessors = count(&pieces, chosen.iter().copied()) as u32;
        Ok(Partition { gpu: gpu.clone(), green: handle, context, pieces: chosen, multiprocessors })
    }

    /// How many there are.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// The context that graphs name, to run there.
    pub(super) fn context(&self) -> CuContext {
        self.context
    }

    /// A stream in the partition.
    pub(super) fn stream(&self, current: &Current<'_>, priority: i32) -> Result<CuStream> {
        let mut handle = null_mut();
        let green = current.table().green()?;
        // SAFETY: the green context lives; the driver stores a handle.
        let code = unsafe { green.green_stream(&raw mut handle, self.green, STREAM_NON_BLOCKING, priority) };
        current.check(code, "cuGreenCtxStreamCreate").map(|()| handle)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let Ok(current) = self.gpu.enter() else { return };
        let Ok(green) = current.table().green() else { return };
        let Ok(mut pieces) = self.gpu.partitions.pieces.lock() else { return };
        // SAFETY: made here; the streams in it, and the graphs that name it, are gone.
        let code = unsafe { green.green_free(self.green) };
        // What the driver did not take back must not be given out again.
        if current.check(code, "cuGreenCtxDestroy").is_ok() {
            self.pieces.iter().for_each(|&index| pieces[index].is_taken = false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(sizes: &[u32], taken: &[usize]) -> Vec<Piece> {
        let piece = |(index, &multiprocessors)| Piece {
            resource: CuResource { multiprocessors, ..CuResource::EMPTY },
            is_taken: taken.contains(&index),
        };
        sizes.iter().enumerate().map(piece).collect()
    }

    #[test]
    fn a_partition_is_at_least_as_large_as_asked_for_and_takes_what_is_free() {
        assert_eq!(choose(&pieces(&[8; 4], &[]), 9).unwrap(), [0, 1]);
        assert_eq!(choose(&pieces(&[8; 4], &[0, 2]), 16).unwrap(), [1, 3]);
        assert_eq!(choose(&pieces(&[2; 66], &[]), 44).unwrap().len(), 22);
        assert_eq!(choose(&pieces(&[8, 8, 4], &[0]), 10).unwrap(), [1, 2]);
    }

    #[test]
    fn what_is_too_much_is_said_with_what_is_left() {
        let most = choose(&pieces(&[8; 4], &[1]), 33).unwrap_err();
        assert!(most.status == Status::TooLarge && most.message.contains("32"), "{most}");
        let left = choose(&pieces(&[8; 4], &[1]), 25).unwrap_err();
        assert!(left.status == Status::LimitReached && left.message.contains("24 of 32"), "{left}");
    }
}
