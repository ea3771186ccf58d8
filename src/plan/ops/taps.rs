//! The weights of resampling along one axis (ONNX `Resize`, section "Attributes"; the onnx package's reference
//! implementation where the text leaves a choice).

use super::call::Call;
use crate::error::{Result, ensure, fail};
use crate::ir::{DType, TensorType};
use crate::kernels::AxisTaps;
use crate::plan::Builder;

/// Which inputs make an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Filter {
    /// One.
    Nearest(Rounding),
    /// The two neighbours.
    Linear,
    /// Four, by the cubic with this coefficient (Keys, 1981).
    Cubic(f64),
}

/// How the nearest input is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, halves down.
    PreferFloor,
    /// To nearest, halves up.
    PreferCeil,
    /// Down.
    Floor,
    /// Up.
    Ceil,
    /// Up when shrinking, else down: the rule before opset 11.
    Simple,
}

/// How an output position becomes an input position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// Pixel centres at halves.
    HalfPixel,
    /// As `HalfPixel`, but about the centre of the axis.
    HalfPixelSymmetric,
    /// As `HalfPixel`, but 0 for a single output.
    PytorchHalfPixel,
    /// First to first, last to last.
    AlignCorners,
    /// Multiples of the inverse scale.
    Asymmetric,
    /// `(x + 0.5) / scale`, for nearest.
    TfHalfPixelForNn,
    /// `AlignCorners` within the region of interest.
    CropAndResize,
}

/// Everything that decides the weights but the axis.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Which inputs.
    pub filter: Filter,
    /// Where.
    pub coordinates: Coordinates,
    /// Whether a filter widens when shrinking.
    pub antialias: bool,
    /// Whether inputs beyond the border get no weight, instead of standing for the border.
    pub exclude_outside: bool,
}

/// One axis to be resampled.
#[derive(Clone, Copy, Debug)]
pub struct AxisScale {
    /// The axis.
    pub axis: usize,
    /// Extent of the operand.
    pub input: usize,
    /// Extent of the result.
    pub out: usize,
    /// Outputs per input.
    pub scale: f32,
    /// Region of interest, as fractions of the axis.
    pub roi: (f32, f32),
}

impl Sampling {
    /// Reads the attributes of `Resize` or `Upsample`.
    pub fn from_attributes(call: &Call<'_>) -> Result<Self> {
        let old = call.opset < 11 || call.node.op == "Upsample";
        let rounding = match call.string("nearest_mode", "round_prefer_floor")? {
            _ if old => Rounding::Simple,
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(fail!(Unsupported, "attribute 'nearest_mode' is '{other}'")),
        };
        let filter = match call.string("mode", "nearest")? {
            "nearest" => Filter::Nearest(rounding),
            "linear" | "bilinear" => Filter::Linear,
            "cubic" => Filter::Cubic(call.float("cubic_coeff_a", -0.75)?.into()),
            other => return Err(fail!(Unsupported, "attribute 'mode' is '{other}'")),
        };
        let coordinates = match call.string("coordinate_transformation_mode", "half_pixel")? {
            _ if old => Coordinates::Asymmetric,
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNn,
            "tf_crop_and_resize" => Coordinates::CropAndResize,
            other => return Err(fail!(Unsupported, "attribute 'coordinate_transformation_mode' is '{other}'")),
        };
        Ok(Sampling {
            filter,
            coordinates,
            antialias: call.flag("antialias", false)?,
            exclude_outside: call.flag("exclude_outside", false)?,
        })
    }

    /// Whether every output along the axis is the input at its own position.
    pub fn is_identity(&self, axis: &AxisScale) -> bool {
        let whole = self.coordinates != Coordinates::CropAndResize || axis.roi == (0.0, 1.0);
        axis.input == axis.out && axis.scale == 1.0 && whole
    }

    /// The taps along one axis, and which outputs lie outside the input.
    pub fn taps(&self, b: &mut Builder, axis: &AxisScale) -> Result<(AxisTaps, Vec<bool>)> {
        ensure!(axis.input > 0 || axis.out == 0, ShapeMismatch, "axis {} is empty", axis.axis);
        ensure!(u32::try_from(axis.input).is_ok(), TooLarge, "axis {} has {}", axis.axis, axis.input);
        let (below, taps) = self.support(axis.scale.into());
        let bytes = TensorType::new(DType::I64, vec![axis.out, taps])?.bytes();
        b.charge(bytes, (axis.out as u64).saturating_mul(taps as u64))?;
        let mut result = AxisTaps { axis: axis.axis, out: axis.out, taps, index: Vec::new(), weights: Vec::new() };
        let mut outside = Vec::new();
        for position in 0..axis.out {
            let source = self.source(axis, position);
            let last = axis.input as f64 - 1.0;
            outside.push(self.coordinates == Coordinates::CropAndResize && !(0.0..=last).contains(&source));
            let first = source.floor();
            let mut weights = self.weights(source - first, axis.scale.into(), below, taps);
            let positions = (0..taps).map(|tap| first + tap as f64 - below as f64);
            let positions: Vec<f64> = positions.collect();
            if self.exclude_outside && taps > 1 {
                exclude(&mut weights, &positions, last);
            }
            result.index.extend(positions.iter().map(|position| position.clamp(0.0, last) as u32));
            result.weights.extend(weights.iter().map(|&weight| weight as f32));
        }
        // A nearest input above the floor is the floor's neighbour.
        if let Filter::Nearest(rounding) = self.filter {
            result.index = (0..axis.out).map(|position| nearest(self.source(axis, position), rounding, axis)).collect();
        }
        Ok((result, outside))
    }

    /// How many taps lie below the floor of a source position, and how many there are.
    fn support(&self, scale: f64) -> (usize, usize) {
        let reach = match self.filter {
            Filter::Nearest(_) => return (0, 1),
            Filter::Linear => 1.0,
            Filter::Cubic(_) => 2.0,
        };
        let widened = if self.antialias { reach / scale.min(1.0) } else { reach };
        let above = widened.ceil() as usize;
        (above.saturating_sub(1), above.saturating_mul(2))
    }

    /// The weights of the taps for a source position that is `ratio` above its floor.
    fn weights(&self, ratio: f64, scale: f64, below: usize, taps: usize) -> Vec<f64> {
        let stretch = if self.antialias { scale.min(1.0) } else { 1.0 };
        let distances = (0..taps).map(|tap| ((tap as f64 - below as f64 - ratio) * stretch).abs());
        let mut weights: Vec<f64> = match self.filter {
            Filter::Nearest(_) => return vec![1.0],
            Filter::Linear => distances.map(|distance| (1.0 - distance).max(0.0)).collect(),
            Filter::Cubic(a) => distances.map(|distance| cubic(distance, a)).collect(),
        };
        if self.antialias {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        weights
    }

    /// The input position that an output position is taken from. In binary32 and in this order of operations, as runtimes
    /// do it: which neighbour is nearest, or whether a position is a whole number, hangs on the last bit.
    fn source(&self, axis: &AxisScale, position: usize) -> f64 {
        let (x, scale) = (position as f32, axis.scale);
        let (input, out) = (axis.input as f32, axis.out as f32);
        let (last, last_out) = (input - 1.0, out - 1.0);
        let half_pixel = (x + 0.5) / scale - 0.5;
        let source = match self.coordinates {
            Coordinates::PytorchHalfPixel if axis.out == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => half_pixel,
            Coordinates::HalfPixelSymmetric => input / 2.0 * (1.0 - out / (scale * input)) + half_pixel,
            Coordinates::AlignCorners if axis.out == 1 => 0.0,
            Coordinates::AlignCorners => x * last / last_out,
            Coordinates::Asymmetric => x / scale,
            Coordinates::TfHalfPixelForNn => (x + 0.5) / scale,
            Coordinates::CropAndResize if axis.out == 1 => 0.5 * (axis.roi.0 + axis.roi.1) * last,
            Coordinates::CropAndResize => axis.roi.0 * last + x * (axis.roi.1 - axis.roi.0) * last / last_out,
        };
        source.into()
    }
}

fn nearest(source: f64, rounding: Rounding, axis: &AxisScale) -> u32 {
    let position = match rounding {
        Rounding::PreferFloor => (source - 0.5).ceil(),
        Rounding::PreferCeil => (source + 0.5).floor(),
        Rounding::Ceil => source.ceil(),
        Rounding::Simple if axis.scale < 1.0 => source.ceil(),
        Rounding::Floor | Rounding::Simple => source.floor(),
    };
    position.clamp(0.0, axis.input as f64 - 1.0) as u32
}

/// Keys' cubic convolution kernel at a distance of at least 0.
fn cubic(distance: f64, a: f64) -> f64 {
    if distance <= 1.0 {
        ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
    } else if distance < 2.0 {
        ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a
    } else {
        0.0
    }
}

/// Takes the weight from positions outside `0..=last` and scales the rest up to 1.
fn exclude(weights: &mut [f64], positions: &[f64], last: f64) {
    for (weight, position) in weights.iter_mut().zip(positions) {
        if !(0.0..=last).contains(position) {
            *weight = 0.0;
        }
    }
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
}
