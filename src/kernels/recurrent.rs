//! LSTM and GRU over a whole sequence.

/// The cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// Hochreiter and Schmidhuber, 1997, with peepholes as in ONNX; gates in the order i, o, f, c.
    Lstm {
        /// Whether the forget gate is `1 - i`.
        input_forget: bool,
    },
    /// Cho et al., 2014; gates in the order z, r, h.
    Gru {
        /// Whether the reset gate is applied after the recurrent product (as cuDNN and PyTorch do).
        linear_before_reset: bool,
    },
}

/// The way through the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// First step to last.
    Forward,
    /// Last step to first.
    Reverse,
    /// Both, as two directions of the result.
    Bidirectional,
}

/// A gate's function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// max(x, 0)
    Relu,
    /// clamp(alpha x + beta, 0, 1)
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
}

/// ONNX `LSTM` and `GRU`, layout 0. With T steps, batch B, input size I, hidden size H, D directions and G gates (4 or
/// 3): operands X `[T, B, I]`, W `[D, G H, I]`, R `[D, G H, H]`, bias `[D, 2 G H]`, lengths `[B]` (`I32`), initial h `[D, B, H]`,
/// and for LSTM initial c `[D, B, H]` and peepholes `[D, 3 H]` (order i, o, f). Results: Y `[T, D, B, H]`, last h
/// `[D, B, H]`, and for LSTM last c `[D, B, H]`. Floats of one type; the state is binary32. Steps at or beyond a row's length give zeros
/// in Y and leave the state alone; a reverse direction begins at the row's own last step.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// LSTM or GRU.
    pub cell: Cell,
    /// Direction(s).
    pub direction: Direction,
    /// H.
    pub hidden: usize,
    /// Gate functions per direction: LSTM f, g, h (gates, cell input, output); GRU f, g.
    pub activations: Vec<Activation>,
    /// Bound on the gate inputs' magnitude, if any.
    pub clip: Option<f32>,
}
