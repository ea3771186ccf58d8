//! How windows slide, for kernels in which a thread walks the taps of one window for four channels.

use super::layout::{Address, arguments};
use super::operand::{AXES, Geometry, Operand, Space, small};
use crate::error::{Result, ensure, fail};
use crate::ir::DType;
use crate::kernels::Window;

/// Padded extents stay below this, so that every position of a tap fits into 31 bits.
const REACH_MAX: usize = 1 << 30;
/// Numbers of spatial axes for which there is code; axes that a window lacks have extent 1.
const RANKS: [usize; 3] = [2, 3, AXES - 2];

arguments! {
    /// A window over the spatial axes of an input. All lists but those of `kernel` are used as far as its rank.
    pub struct Slide {
        /// The taps.
        pub kernel: Space,
        /// Extents of the input.
        pub extents: [u32; AXES],
        /// Steps of the window.
        pub strides: [u32; AXES],
        /// Distances of the taps.
        pub dilations: [u32; AXES],
        /// Padding in front.
        pub pads: [u32; AXES],
    }
}

arguments! {
    /// Results in groups of four channels, one group a thread. Operands have the strides of image, channel and spatial axes, in this order,
    /// whatever the order of the space.
    pub struct Quads {
        /// Images, then spatial axes, then groups of four channels; or, without `channels_last`, the channels before the spatial axes.
        pub space: Space,
        /// Channels.
        pub channels: u32,
        /// Whether neighbouring threads have neighbouring channels, not neighbouring positions.
        pub channels_last: u32,
    }
}

/// Refuses a window whose positions are too large numbers for kernels.
pub(super) fn checked(window: &Window, input: &[usize], output: &[usize]) -> Result<()> {
    for (axis, (&extent, &out)) in input.iter().zip(output).enumerate() {
        let reach = window.reach("a window", axis)?;
        let padded = window.padded("a window", axis, extent)?;
        let last = window.strides[axis].checked_mul(out.max(1) - 1);
        let fits = reach < REACH_MAX && padded < REACH_MAX && last.is_some_and(|last| last < REACH_MAX);
        ensure!(fits, TooLarge, "the window along spatial axis {axis} reaches over {REACH_MAX} elements");
    }
    Ok(())
}

/// Steps of a window as far as they matter: one that nothing takes may be any number.
pub(super) fn counted(steps: &[usize], taken: impl Fn(usize) -> bool) -> Vec<usize> {
    steps.iter().enumerate().map(|(axis, &step)| if taken(axis) { step.min(REACH_MAX) } else { 1 }).collect()
}

/// The padding behind the input with which the window has `output` positions.
pub(super) fn overhang(window: &Window, input: &[usize], output: &[usize]) -> Vec<usize> {
    let behind = |(axis, (&extent, &out)): (usize, (&usize, &usize))| {
        let reach = (out - 1) * window.strides[axis] + window.dilations[axis] * (window.kernel[axis] - 1) + 1;
        reach.saturating_sub(extent + window.pads_begin[axis])
    };
    input.iter().zip(output).enumerate().map(behind).collect()
}

/// `values`, one per spatial axis, for as many axes as there is code for: `fill` comes in front.
pub fn lifted<T: Copy>(values: &[T], fill: T) -> Result<Vec<T>> {
    let rank = RANKS.into_iter().find(|&rank| rank >= values.len());
    let Some(rank) = rank else {
        return Err(fail!(TooLarge, "{} spatial axes are too many for the GPU", values.len()));
    };
    Ok([&vec![fill; rank - values.len()], values].concat())
}

/// A window of as many axes as there is code for.
pub fn lifted_window(window: &Window) -> Result<Window> {
    Ok(Window {
        kernel: lifted(&window.kernel, 1)?,
        strides: lifted(&window.strides, 1)?,
        dilations: lifted(&window.dilations, 1)?,
        pads_begin: lifted(&window.pads_begin, 0)?,
        pads_end: lifted(&window.pads_end, 0)?,
    })
}

impl Slide {
    /// The window over an input of these extents; all have been lifted.
    pub fn new(window: &Window, input: &[usize], output: &[usize]) -> Result<Slide> {
        checked(window, input, output)?;
        Slide::over(window, input)
    }

    /// The window of the convolution whose transpose makes `output` of `input`; all have been lifted.
    pub fn transposed(window: &Window, input: &[usize], output: &[usize]) -> Result<Slide> {
        checked(window, output, input)?;
        Slide::over(window, input)
    }

    fn over(window: &Window, input: &[usize]) -> Result<Slide> {
        let list = |values: &[usize], fill: u32| -> Result<[u32; AXES]> {
            let mut list = [fill; AXES];
            for (narrow, &value) in list.iter_mut().zip(values) {
                *narrow = small(value)?;
            }
            Ok(list)
        };
        Ok(Slide {
            kernel: Space::new(&window.kernel)?,
            extents: list(input, 1)?,
            strides: list(&counted(&window.strides, |_| true), 1)?,
            dilations: list(&counted(&window.dilations, |axis| window.kernel[axis] > 1), 1)?,
            pads: list(&window.pads_begin, 0)?,
        })
    }

    /// Whether there is code for just this number of axes; else the entries called `_any` are used.
    pub(super) fn has_few_axes(&self) -> bool {
        self.kernel.rank < 4
    }

    /// Extents of the input.
    pub(super) fn input(&self) -> Vec<usize> {
        self.list(&self.extents)
    }

    fn list(&self, values: &[u32; AXES]) -> Vec<usize> {
        values[..self.kernel.rank as usize].iter().map(|&value| value as usize).collect()
    }

    /// The window that has `output` positions.
    pub(super) fn window(&self, output: &[usize]) -> Window {
        let mut window = Window {
            kernel: self.kernel.shape(),
            strides: self.list(&self.strides),
            dilations: self.list(&self.dilations),
            pads_begin: self.list(&self.pads),
            pads_end: vec![0; output.len()],
        };
        window.pads_end = overhang(&window, &self.input(), output);
        window
    }
}

impl Quads {
    /// The results `[images, channels, spatial..]`, whose spatial axes have been lifted.
    pub fn new(images: usize, channels: usize, spatial: &[usize], channels_last: bool) -> Result<Quads> {
        let quads = channels.div_ceil(4);
        let shape =
            if channels_last { [&[images], spatial, &[quads]].concat() } else { [&[images, quads], spatial].concat() };
        // Elements are counted in 31 bits, too.
        small(shape.iter().fold(4usize, |count, &extent| count.saturating_mul(extent)))?;
        Ok(Quads { space: Space::new(&shape)?, channels: small(channels)?, channels_last: channels_last.into() })
    }

    /// `[images, channels, spatial..]`.
    pub(super) fn shape(&self) -> Vec<usize> {
        let shape = self.space.shape();
        let spatial = if self.channels_last == 0 { &shape[2..] } else { &shape[1..shape.len() - 1] };
        [&[shape[0], self.channels as usize], spatial].concat()
    }

    /// One thread a group.
    pub fn launch(&self) -> Geometry {
        Geometry::line((self.space.count as usize).div_ceil(128), 128)
    }
}

/// An operand with the strides of image, channel and spatial axes; axes that it lacks are put in front of the spatial ones.
pub fn spatial_operand(address: Address, dtype: DType, strides: &[isize]) -> Result<Operand> {
    let spatial = lifted(&strides[2..], 0)?;
    Operand::new(address, dtype, &[&strides[..2], &spatial[..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    fn window(kernel: &[usize], stride: usize, pad: usize) -> Window {
        let all = |value| vec![value; kernel.len()];
        Window {
            kernel: kernel.to_vec(),
            strides: all(stride),
            dilations: all(1),
            pads_begin: all(pad),
            pads_end: all(0),
        }
    }

    #[test]
    fn windows_have_as_many_axes_as_there_is_code_for() {
        assert_eq!(lifted(&[7], 1).unwrap(), [1, 7]);
        assert_eq!(lifted(&[7, 8], 1).unwrap(), [7, 8]);
        assert_eq!(lifted(&[2; 4], 1).unwrap(), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(lifted(&[2; 11], 1).unwrap_err().status, Status::TooLarge);
        let operand = spatial_operand(Address(8), DType::F32, &[60, 20, 1]).unwrap();
        assert_eq!(operand.strides[..4], [60, 20, 0, 1]);
    }

    #[test]
    fn the_padding_behind_follows_from_the_result() {
        let slide = Slide::new(&window(&[3, 2], 2, 1), &[5, 4], &[3, 2]).unwrap();
        let window = slide.window(&[3, 2]);
        assert_eq!(window.pads_end, [1, 0], "the last column that no window sees is no padding");
        assert_eq!(window.out_extents("test", &[5, 4]).unwrap(), [3, 2]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |window: Window| Slide::new(&window, &[4, 4], &[1, 1]).unwrap_err().status;
        assert_eq!(refused(window(&[2, 2], 1, 1 << 30)), Status::TooLarge);
        assert_eq!(refused(Window { dilations: vec![1 << 30; 2], ..window(&[2, 2], 1, 0) }), Status::TooLarge);
        assert_eq!(Quads::new(1 << 20, 5, &[1, 1 << 9], true).unwrap_err().status, Status::TooLarge);
        assert_eq!(Quads::new(2, 5, &[3, 4], true).unwrap().shape(), [2, 5, 3, 4]);
        assert_eq!(Quads::new(2, 5, &[3, 4], false).unwrap().shape(), [2, 5, 3, 4]);
    }
}
