//! ONNX operators in terms of views and steps. Each translation reads a node's operands and attributes and gives one
//! view per output; what is pure data movement becomes view arithmetic, what is constant folds on the way.

mod body;
mod call;
mod elementwise;

pub use call::Call;

use super::{Builder, View};
use crate::error::Result;

/// Translates one node: one view per output, in order; trailing optional ones may be left out.
pub type Translate = fn(&mut Builder, &Call<'_>) -> Result<Vec<View>>;

/// The translation of an operator, if it is supported.
pub fn lookup(domain: &str, op: &str) -> Option<Translate> {
    let table: &[(&str, Translate)] = match domain {
        "" | "ai.onnx" => DEFAULT,
        "ai.onnx.ml" => ML,
        _ => return None,
    };
    table.binary_search_by_key(&op, |(name, _)| name).ok().map(|index| table[index].1)
}

/// The default domain, sorted by name.
const DEFAULT: &[(&str, Translate)] = &[
    ("Abs", elementwise::abs),
    ("Add", elementwise::add),
    ("And", elementwise::and),
    ("Cast", elementwise::cast),
    ("CastLike", elementwise::cast_like),
    ("Ceil", elementwise::ceil),
    ("Clip", elementwise::clip),
    ("Cos", elementwise::cos),
    ("Div", elementwise::div),
    ("Dropout", elementwise::dropout),
    ("Equal", elementwise::equal),
    ("Erf", elementwise::erf),
    ("Exp", elementwise::exp),
    ("Floor", elementwise::floor),
    ("Greater", elementwise::greater),
    ("GreaterOrEqual", elementwise::greater_or_equal),
    ("Identity", elementwise::identity),
    ("IsInf", elementwise::is_inf),
    ("IsNaN", elementwise::is_nan),
    ("Less", elementwise::less),
    ("LessOrEqual", elementwise::less_or_equal),
    ("Log", elementwise::log),
    ("Max", elementwise::max),
    ("Mean", elementwise::mean),
    ("Min", elementwise::min),
    ("Mod", elementwise::modulo),
    ("Mul", elementwise::mul),
    ("Neg", elementwise::neg),
    ("Not", elementwise::not),
    ("Or", elementwise::or),
    ("Pow", elementwise::pow),
    ("Reciprocal", elementwise::reciprocal),
    ("Relu", elementwise::relu),
    ("Round", elementwise::round),
    ("Sigmoid", elementwise::sigmoid),
    ("Sign", elementwise::sign),
    ("Sin", elementwise::sin),
    ("Softplus", elementwise::softplus),
    ("Sqrt", elementwise::sqrt),
    ("Sub", elementwise::sub),
    ("Sum", elementwise::sum),
    ("Tanh", elementwise::tanh),
    ("Where", elementwise::select),
    ("Xor", elementwise::xor),
];

/// `ai.onnx.ml`.
const ML: &[(&str, Translate)] = &[("Scaler", elementwise::scaler)];

/// Positions of the operands whose values decide a shape (or a branch), so that they must be known while planning.
pub fn shape_operands(op: &str) -> &'static [usize] {
    match op {
        "Reshape" | "Expand" | "Tile" | "TopK" | "OneHot" | "Split" | "Squeeze" | "Unsqueeze" | "CumSum" | "Trilu" => {
            &[1]
        }
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" | "Upsample" => &[1],
        "Slice" => &[1, 2, 3, 4],
        "Range" => &[0, 1, 2],
        "Resize" => &[1, 2, 3],
        "Pad" => &[1, 3],
        "ConstantOfShape" | "If" => &[0],
        _ => &[],
    }
}
