//! One model of a case: its nodes, and what its inputs are filled with.

use crate::wire::{Message, ints, message, node, opset};
use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use streaminfer::ir::{DType, Scalar, Tensor};

/// How a case's operands lie, so that one case proves a kernel on dense and on strided views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As the model's inputs and outputs lie, in binary32.
    Dense,
    /// With the axes in reverse order.
    Reversed,
    /// Every second element of a row, one in from each border.
    Sliced,
    /// Between two elementwise steps, so that floats are stored as the precision says.
    Inner,
}

impl Layout {
    pub const ALL: [Layout; 4] = [Layout::Dense, Layout::Reversed, Layout::Sliced, Layout::Inner];
    /// Those that move values and never round them.
    pub const EXACT: [Layout; 3] = [Layout::Dense, Layout::Reversed, Layout::Sliced];

    pub fn name(self) -> &'static str {
        match self {
            Layout::Dense => "dense",
            Layout::Reversed => "reversed",
            Layout::Sliced => "sliced",
            Layout::Inner => "inner",
        }
    }
}

/// What an input's elements are drawn from.
#[derive(Clone, Copy, Debug)]
pub enum Draw {
    /// A standard normal distribution.
    Normal,
    /// Uniformly from here up to, not including, there. Integers are rounded down.
    Within(f64, f64),
    /// Floats with their worst cases: infinities, NaN, zeros of both signs, the least and the greatest.
    Special,
}

const SPECIAL: [f32; 12] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    0.0,
    -0.0,
    1e-42,
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    88.9,
    -104.0,
    0.5,
];

fn normal(random: &mut Xoshiro256PlusPlus) -> f64 {
    // Box and Muller, 1958.
    let (radius, angle): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - radius).ln()).sqrt() * (angle * std::f64::consts::TAU).cos()
}

fn draw(random: &mut Xoshiro256PlusPlus, dtype: DType, draw: Draw) -> Scalar {
    let value = match draw {
        Draw::Normal => normal(random),
        Draw::Within(low, high) => random.random_range(low..high),
        Draw::Special if random.random_bool(0.5) => f64::from(SPECIAL[random.random_range(0..SPECIAL.len())]),
        Draw::Special => normal(random),
    };
    if dtype.is_float() { Scalar::Float(value) } else { Scalar::Int(value.floor() as i64) }
}

/// A model input as it is declared.
struct Port {
    dtype: DType,
    shape: Vec<usize>,
    draw: Draw,
}

/// A model in the making.
pub struct Net {
    layout: Layout,
    random: Xoshiro256PlusPlus,
    nodes: Vec<Message>,
    weights: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
    ports: Vec<Port>,
}

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&extent| extent as i64).collect()
}

impl Net {
    pub fn new(layout: Layout, seed: u64) -> Self {
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let (nodes, weights, inputs, outputs, ports) = Default::default();
        Net { layout, random, nodes, weights, inputs, outputs, ports }
    }

    /// A random extent, both bounds included.
    pub fn extent(&mut self, least: usize, most: usize) -> usize {
        self.random.random_range(least..=most)
    }

    fn fresh(&self) -> String {
        format!("v{}", self.nodes.len() + self.weights.len() + self.inputs.len())
    }

    /// An input of any type, seen as the layout says.
    pub fn input(&mut self, dtype: DType, shape: &[usize], draw: Draw) -> String {
        let rank = shape.len();
        let mut stored = shape.to_vec();
        match self.layout {
            Layout::Reversed => stored.reverse(),
            Layout::Sliced if rank > 0 => {
                stored.iter_mut().for_each(|extent| *extent += 2);
                stored[rank - 1] = 2 * shape[rank - 1] + 1;
            }
            _ => {}
        }
        let (name, stored_row) = (self.fresh(), stored.last().copied().unwrap_or(1));
        self.inputs.push(crate::wire::value(&name, dtype.to_onnx().into(), &dims(&stored)));
        self.ports.push(Port { dtype, shape: stored, draw });
        match self.layout {
            Layout::Reversed if rank > 1 => self.op("Transpose", &[&name], []),
            Layout::Sliced if rank > 0 => {
                let (mut ends, mut steps) = (dims(shape), vec![1; rank]);
                ends.iter_mut().for_each(|end| *end += 1);
                (ends[rank - 1], steps[rank - 1]) = (stored_row as i64, 2);
                let axes: Vec<i64> = (0..rank as i64).collect();
                let [starts, ends, axes, steps] = [vec![1; rank], ends, axes, steps].map(|values| self.longs(&values));
                self.op("Slice", &[&name, &starts, &ends, &axes, &steps], [])
            }
            Layout::Inner if dtype == DType::F32 => {
                // Keeps the sign, and values below 4 nearly as they are.
                let kind = if matches!(draw, Draw::Normal) { "Tanh" } else { "Abs" };
                self.op(kind, &[&name], [])
            }
            _ => name,
        }
    }

    /// A float input from a standard normal distribution.
    pub fn floats(&mut self, shape: &[usize]) -> String {
        self.input(DType::F32, shape, Draw::Normal)
    }

    /// A float input above zero.
    pub fn positive(&mut self, shape: &[usize]) -> String {
        self.input(DType::F32, shape, Draw::Within(0.2, 3.0))
    }

    /// An input of indices below `end`, and not below `start`.
    pub fn indices(&mut self, dtype: DType, shape: &[usize], start: i64, end: i64) -> String {
        let layout = std::mem::replace(&mut self.layout, Layout::Dense);
        let name = self.input(dtype, shape, Draw::Within(start as f64, end as f64));
        self.layout = layout;
        name
    }

    fn initializer(&mut self, tensor: &Tensor) -> String {
        let name = self.fresh();
        let def = crate::wire::tensor(&name, tensor.dtype().to_onnx().into(), &dims(tensor.shape()));
        self.weights.push(def.put(9, tensor.data()));
        name
    }

    /// Constant floats from a normal distribution of this deviation.
    pub fn weight(&mut self, shape: &[usize], deviation: f64) -> String {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| (normal(&mut self.random) * deviation) as f32).collect();
        self.initializer(&Tensor::from_slice(shape, &values))
    }

    /// Constant floats.
    pub fn constant(&mut self, shape: &[usize], values: &[f32]) -> String {
        self.initializer(&Tensor::from_slice(shape, values))
    }

    /// Constant integers of rank 1.
    pub fn longs(&mut self, values: &[i64]) -> String {
        self.initializer(&Tensor::from_slice(&[values.len()], values))
    }

    /// Constants of any type, drawn.
    pub fn drawn(&mut self, dtype: DType, shape: &[usize], from: Draw) -> String {
        let values: Vec<Scalar> = (0..shape.iter().product()).map(|_| draw(&mut self.random, dtype, from)).collect();
        self.initializer(&Tensor::from_scalars(dtype, shape, values))
    }

    /// A node with one result.
    pub fn op<const N: usize>(&mut self, kind: &str, inputs: &[&str], attributes: [Message; N]) -> String {
        let name = self.fresh();
        self.nodes.push(node(kind, inputs, &[&name]).all(5, attributes));
        name
    }

    /// A node with several results.
    pub fn ops<const N: usize>(
        &mut self,
        kind: &str,
        inputs: &[&str],
        count: usize,
        attributes: [Message; N],
    ) -> Vec<String> {
        let first = self.fresh();
        let names: Vec<String> = (0..count).map(|index| format!("{first}_{index}")).collect();
        let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
        self.nodes.push(node(kind, inputs, &outputs).all(5, attributes));
        names
    }

    /// Makes a value an output of the model.
    pub fn output(&mut self, value: &str, dtype: DType) {
        let name = format!("out{}", self.outputs.len());
        let is_inner = self.layout == Layout::Inner && dtype == DType::F32;
        let kind = if is_inner { "LeakyRelu" } else { "Identity" };
        self.nodes.push(node(kind, &[value], &[&name]));
        let ty = message().put(1, message().int(1, dtype.to_onnx().into()));
        self.outputs.push(message().put(1, name).put(2, ty));
    }

    /// Makes a float value an output of the model.
    pub fn result(&mut self, value: &str) {
        self.output(value, DType::F32);
    }

    /// The shapes of the inputs.
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        self.ports.iter().map(|port| port.shape.clone()).collect()
    }

    /// Fresh values for the inputs.
    pub fn feed(&mut self) -> Vec<Tensor> {
        let random = &mut self.random;
        let one = |port: &Port| {
            let count = port.shape.iter().product();
            let values: Vec<Scalar> = (0..count).map(|_| draw(random, port.dtype, port.draw)).collect();
            Tensor::from_scalars(port.dtype, &port.shape, values)
        };
        self.ports.iter().map(one).collect()
    }

    /// The file.
    pub fn bytes(&self) -> Bytes {
        let graph = message()
            .put(2, "case")
            .all(1, &self.nodes)
            .all(5, &self.weights)
            .all(11, &self.inputs)
            .all(12, &self.outputs);
        Bytes::from(message().int(1, 10).put(8, opset("", 20)).put(7, graph).0)
    }
}

/// The attributes of a window.
pub fn window(strides: &[i64], pads: &[i64], dilations: &[i64]) -> [Message; 3] {
    [ints("strides", strides), ints("pads", pads), ints("dilations", dilations)]
}
