//! The sliding window of convolutions and pooling.

use crate::error::{Result, ensure, fail};

/// A sliding window over the spatial dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Extent of the kernel.
    pub kernel: Vec<usize>,
    /// Step from one output to the next; never 0.
    pub strides: Vec<usize>,
    /// Distance of neighbouring kernel elements; never 0.
    pub dilations: Vec<usize>,
    /// Padding before the first element.
    pub pads_begin: Vec<usize>,
    /// Padding after the last element.
    pub pads_end: Vec<usize>,
}

impl Window {
    /// Checks that there is one parameter of each kind for each of `dims` spatial dimensions, and none is 0 that must not
    /// be.
    pub(super) fn check(&self, family: &str, dims: usize) -> Result<()> {
        let counts =
            [&self.kernel, &self.strides, &self.dilations, &self.pads_begin, &self.pads_end].map(|list| list.len());
        ensure!(
            counts == [dims; 5],
            InvalidArgument,
            "{family}: {counts:?} extents, strides, dilations and paddings for {dims} spatial dimensions"
        );
        for (what, list) in [("kernel", &self.kernel), ("stride", &self.strides), ("dilation", &self.dilations)] {
            ensure!(!list.contains(&0), InvalidArgument, "{family}: a {what} of 0 in {list:?}");
        }
        Ok(())
    }

    /// Elements that the kernel covers along a dimension: `dilation (kernel - 1) + 1`.
    pub fn reach(&self, family: &str, axis: usize) -> Result<usize> {
        let reach = self.dilations[axis].checked_mul(self.kernel[axis] - 1).and_then(|reach| reach.checked_add(1));
        match reach {
            Some(reach) if isize::try_from(reach).is_ok() => Ok(reach),
            _ => Err(fail!(TooLarge, "{family}: the kernel's reach along spatial dimension {axis} overflows")),
        }
    }

    /// Elements of a dimension of `extent` with its padding; they can be counted in an `isize`.
    pub fn padded(&self, family: &str, axis: usize, extent: usize) -> Result<usize> {
        let pads = self.pads_begin[axis].checked_add(self.pads_end[axis]);
        match pads.and_then(|pads| pads.checked_add(extent)) {
            Some(padded) if isize::try_from(padded).is_ok() => Ok(padded),
            _ => Err(fail!(TooLarge, "{family}: the padding of spatial dimension {axis} overflows")),
        }
    }

    /// Extents of the result over an input of extents `spatial`, partial windows left out.
    pub fn out_extents(&self, family: &str, spatial: &[usize]) -> Result<Vec<usize>> {
        let extent = |(axis, &extent): (usize, &usize)| {
            let (padded, reach) = (self.padded(family, axis, extent)?, self.reach(family, axis)?);
            ensure!(
                reach <= padded,
                ShapeMismatch,
                "{family}: the kernel covers {reach} elements, but spatial dimension {axis} has {padded} with padding"
            );
            Ok((padded - reach) / self.strides[axis] + 1)
        };
        spatial.iter().enumerate().map(extent).collect()
    }

    /// The elements of the window at output `at` that fall inside an input of extents `spatial`, as row-major positions
    /// in the kernel and in the input.
    pub(super) fn taps(&self, spatial: &[usize], at: &[usize]) -> Vec<(usize, usize)> {
        let mut taps = vec![(0, 0)];
        for (axis, &extent) in spatial.iter().enumerate() {
            let (dilation, pad) = (self.dilations[axis], self.pads_begin[axis]);
            // Positions are counted from the start of the padding.
            let start = at[axis] * self.strides[axis];
            let first = pad.saturating_sub(start).div_ceil(dilation);
            let end = (pad + extent).saturating_sub(start).div_ceil(dilation).min(self.kernel[axis]);
            let along = |&(kernel, input): &(usize, usize)| {
                let (kernel, input) = (kernel * self.kernel[axis], input * extent);
                (first..end).map(move |index| (kernel + index, input + start + index * dilation - pad))
            };
            taps = taps.iter().flat_map(along).collect();
        }
        taps
    }

    /// Elements of the kernel.
    pub(super) fn volume(&self) -> u64 {
        self.kernel.iter().fold(1, |volume: u64, &extent| volume.saturating_mul(extent as u64))
    }
}
