//! ONNX operators in terms of views and steps. Each translation reads a node's operands and attributes and gives one
//! view per output; what is pure data movement becomes view arithmetic, what is constant folds on the way.

mod activation;
mod body;
mod call;
mod contraction;
mod convolution;
mod einsum;
mod elementwise;
mod indexing;
mod movement;
mod normalization;
mod pooling;
mod quantization;
mod recurrent;
mod reduction;
mod resample;
mod shape;
mod taps;
mod window;

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
    ("ArgMax", reduction::arg_max),
    ("ArgMin", reduction::arg_min),
    ("AveragePool", pooling::average_pool),
    ("BatchNormalization", normalization::batch_normalization),
    ("Cast", elementwise::cast),
    ("CastLike", elementwise::cast_like),
    ("Ceil", elementwise::ceil),
    ("Clip", elementwise::clip),
    ("Concat", movement::concat),
    ("ConstantOfShape", shape::constant_of_shape),
    ("Conv", convolution::conv),
    ("ConvInteger", quantization::conv_integer),
    ("ConvTranspose", convolution::conv_transpose),
    ("Cos", elementwise::cos),
    ("CumSum", reduction::cum_sum),
    ("DepthToSpace", movement::depth_to_space),
    ("DequantizeLinear", quantization::dequantize_linear),
    ("Div", elementwise::div),
    ("Dropout", elementwise::dropout),
    ("DynamicQuantizeLinear", quantization::dynamic_quantize_linear),
    ("Einsum", einsum::einsum),
    ("Elu", activation::elu),
    ("Equal", elementwise::equal),
    ("Erf", elementwise::erf),
    ("Exp", elementwise::exp),
    ("Expand", shape::expand),
    ("Flatten", shape::flatten),
    ("Floor", elementwise::floor),
    ("GRU", recurrent::gru),
    ("Gather", indexing::gather),
    ("GatherElements", indexing::gather_elements),
    ("GatherND", indexing::gather_nd),
    ("Gelu", activation::gelu),
    ("Gemm", contraction::gemm),
    ("GlobalAveragePool", reduction::global_average_pool),
    ("GlobalMaxPool", reduction::global_max_pool),
    ("Greater", elementwise::greater),
    ("GreaterOrEqual", elementwise::greater_or_equal),
    ("GroupNormalization", normalization::group_normalization),
    ("HardSigmoid", activation::hard_sigmoid),
    ("HardSwish", activation::hard_swish),
    ("Identity", elementwise::identity),
    ("InstanceNormalization", normalization::instance_normalization),
    ("IsInf", elementwise::is_inf),
    ("IsNaN", elementwise::is_nan),
    ("LSTM", recurrent::lstm),
    ("LayerNormalization", normalization::layer_normalization),
    ("LeakyRelu", activation::leaky_relu),
    ("Less", elementwise::less),
    ("LessOrEqual", elementwise::less_or_equal),
    ("Log", elementwise::log),
    ("LogSoftmax", activation::log_softmax),
    ("MatMul", contraction::matmul),
    ("MatMulInteger", quantization::matmul_integer),
    ("Max", elementwise::max),
    ("MaxPool", pooling::max_pool),
    ("Mean", elementwise::mean),
    ("Min", elementwise::min),
    ("Mod", elementwise::modulo),
    ("Mul", elementwise::mul),
    ("Neg", elementwise::neg),
    ("Not", elementwise::not),
    ("OneHot", indexing::one_hot),
    ("Or", elementwise::or),
    ("PRelu", activation::p_relu),
    ("Pad", movement::pad),
    ("Pow", elementwise::pow),
    ("QLinearConv", quantization::qlinear_conv),
    ("QLinearMatMul", quantization::qlinear_matmul),
    ("QuantizeLinear", quantization::quantize_linear),
    ("RMSNormalization", normalization::rms_normalization),
    ("Range", shape::range),
    ("Reciprocal", elementwise::reciprocal),
    ("ReduceL1", reduction::l1),
    ("ReduceL2", reduction::l2),
    ("ReduceLogSum", reduction::log_sum),
    ("ReduceLogSumExp", reduction::log_sum_exp),
    ("ReduceMax", reduction::max),
    ("ReduceMean", reduction::mean),
    ("ReduceMin", reduction::min),
    ("ReduceProd", reduction::prod),
    ("ReduceSum", reduction::sum),
    ("ReduceSumSquare", reduction::sum_square),
    ("Relu", elementwise::relu),
    ("Reshape", shape::reshape),
    ("Resize", resample::resize),
    ("Round", elementwise::round),
    ("ScatterND", indexing::scatter_nd),
    ("Selu", activation::selu),
    ("Shape", shape::shape),
    ("Sigmoid", elementwise::sigmoid),
    ("Sign", elementwise::sign),
    ("Sin", elementwise::sin),
    ("Size", shape::size),
    ("Slice", movement::slice),
    ("Softmax", activation::softmax),
    ("Softplus", elementwise::softplus),
    ("Softsign", activation::softsign),
    ("SpaceToDepth", movement::space_to_depth),
    ("Split", movement::split),
    ("Sqrt", elementwise::sqrt),
    ("Squeeze", shape::squeeze),
    ("Sub", elementwise::sub),
    ("Sum", elementwise::sum),
    ("Tanh", elementwise::tanh),
    ("ThresholdedRelu", activation::thresholded_relu),
    ("Tile", movement::tile),
    ("TopK", reduction::top_k),
    ("Transpose", movement::transpose),
    ("Trilu", indexing::trilu),
    ("Unsqueeze", shape::unsqueeze),
    ("Upsample", resample::upsample),
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
        "Dropout" => &[1, 2],
        _ => &[],
    }
}
