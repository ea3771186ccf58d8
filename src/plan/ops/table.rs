//! Every operator that is supported: its translation, its attributes and the operands whose values decide a shape.

use super::{Call, Translate};
use super::{
    activation, attention, contraction, convolution, einsum, elementwise, fused, indexing, movement, normalization,
    pooling, preparation, qlinear, quantization, recurrent, reduction, resample, shape,
};
use crate::error::{Result, ensure, fail};
use crate::ir::Node;
use crate::plan::{Builder, View};

/// What is known of one operator.
#[derive(Clone, Copy, Debug)]
pub struct Operator {
    name: &'static str,
    translate: Translate,
    attributes: &'static [&'static str],
    shape_operands: &'static [usize],
}

impl Operator {
    /// Translates one node: one view per output, in order; trailing optional ones may be left out.
    ///
    /// # Errors
    /// `Unsupported` for an attribute that the operator does not have in any supported version, or a value of one;
    /// `UnsupportedDynamic` where a shape depends on data; `Malformed`, `ShapeMismatch` and `TooLarge` as they say.
    pub fn translate(&self, b: &mut Builder, call: &Call<'_>) -> Result<Vec<View>> {
        let unknown = self.unknown_attributes(call.node).next();
        ensure!(unknown.is_none(), Unsupported, "attribute '{}' is not supported", unknown.unwrap_or_default());
        (self.translate)(b, call)
    }

    /// Attributes of a node that the operator does not have in any supported version.
    pub fn unknown_attributes<'a>(&self, node: &'a Node) -> impl Iterator<Item = &'a str> {
        let known = self.attributes;
        node.attributes.keys().map(String::as_str).filter(move |name| !known.contains(name))
    }

    const fn shaped_by(self, shape_operands: &'static [usize]) -> Self {
        Operator { shape_operands, ..self }
    }
}

/// The operator, if it is supported.
pub fn lookup(domain: &str, op: &str) -> Option<&'static Operator> {
    let table = match domain {
        "" | "ai.onnx" => DEFAULT,
        "ai.onnx.ml" => ML,
        "com.microsoft" => MICROSOFT,
        _ => return None,
    };
    table.binary_search_by_key(&op, |operator| operator.name).ok().map(|index| &table[index])
}

/// Positions of a node's operands whose values decide a shape, or which branch of an `If` is taken: what must be known
/// while planning.
pub fn shape_operands(node: &Node) -> &'static [usize] {
    match lookup(&node.domain, &node.op) {
        Some(operator) => operator.shape_operands,
        None if node.op == "If" => &[0],
        None => &[],
    }
}

const fn op(name: &'static str, translate: Translate, attributes: &'static [&'static str]) -> Operator {
    Operator { name, translate, attributes, shape_operands: &[] }
}

const CONV: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
const NORM: &[&str] = &["axis", "epsilon", "stash_type"];
const REDUCTION: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];

/// The default domain, sorted by name. Attributes are those of all versions from opset 7 on.
const DEFAULT: &[Operator] = &[
    op("Abs", elementwise::abs, &[]),
    op("Add", elementwise::add, &[]),
    op("And", elementwise::and, &[]),
    op("ArgMax", reduction::arg_max, &["axis", "keepdims", "select_last_index"]),
    op("ArgMin", reduction::arg_min, &["axis", "keepdims", "select_last_index"]),
    op(
        "AveragePool",
        pooling::average_pool,
        &["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"],
    ),
    op("BatchNormalization", normalization::batch_normalization, &["epsilon", "momentum", "spatial", "training_mode"]),
    op("Cast", elementwise::cast, &["round_mode", "saturate", "to"]),
    op("CastLike", elementwise::cast_like, &["round_mode", "saturate"]),
    op("Ceil", elementwise::ceil, &[]),
    op("Celu", activation::celu, &["alpha"]),
    op("Clip", elementwise::clip, &["max", "min"]),
    op("Concat", movement::concat, &["axis"]),
    op("ConstantOfShape", shape::constant_of_shape, &["value"]).shaped_by(&[0]),
    op("Conv", convolution::conv, CONV),
    op("ConvInteger", quantization::conv_integer, CONV),
    op(
        "ConvTranspose",
        convolution::conv_transpose,
        &["auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads", "strides"],
    ),
    op("Cos", elementwise::cos, &[]),
    op("CumSum", reduction::cum_sum, &["exclusive", "reverse"]).shaped_by(&[1]),
    op("DepthToSpace", movement::depth_to_space, &["blocksize", "mode"]),
    op("DequantizeLinear", quantization::dequantize_linear, &["axis", "block_size", "output_dtype"]),
    op("Div", elementwise::div, &[]),
    op("Dropout", elementwise::dropout, &["ratio", "seed"]).shaped_by(&[1, 2]),
    op("DynamicQuantizeLinear", quantization::dynamic_quantize_linear, &[]),
    op("Einsum", einsum::einsum, &["equation"]),
    op("Elu", activation::elu, &["alpha"]),
    op("Equal", elementwise::equal, &[]),
    op("Erf", elementwise::erf, &[]),
    op("Exp", elementwise::exp, &[]),
    op("Expand", shape::expand, &[]).shaped_by(&[1]),
    op("EyeLike", indexing::eye_like, &["dtype", "k"]),
    op("Flatten", shape::flatten, &["axis"]),
    op("Floor", elementwise::floor, &[]),
    op(
        "GRU",
        recurrent::gru,
        &[
            "activation_alpha",
            "activation_beta",
            "activations",
            "clip",
            "direction",
            "hidden_size",
            "layout",
            "linear_before_reset",
        ],
    ),
    op("Gather", indexing::gather, &["axis"]),
    op("GatherElements", indexing::gather_elements, &["axis"]),
    op("GatherND", indexing::gather_nd, &["batch_dims"]),
    op("Gelu", activation::gelu, &["approximate"]),
    op("Gemm", contraction::gemm, &["alpha", "beta", "transA", "transB"]),
    op("GlobalAveragePool", reduction::global_average_pool, &[]),
    op("GlobalMaxPool", reduction::global_max_pool, &[]),
    op("Greater", elementwise::greater, &[]),
    op("GreaterOrEqual", elementwise::greater_or_equal, &[]),
    op("GroupNormalization", normalization::group_normalization, &["epsilon", "num_groups", "stash_type"]),
    op("HardSigmoid", activation::hard_sigmoid, &["alpha", "beta"]),
    op("HardSwish", activation::hard_swish, &[]),
    op("Identity", elementwise::identity, &[]),
    op("InstanceNormalization", normalization::instance_normalization, &["epsilon"]),
    op("IsInf", elementwise::is_inf, &["detect_negative", "detect_positive"]),
    op("IsNaN", elementwise::is_nan, &[]),
    op("LRN", normalization::local_response, &["alpha", "beta", "bias", "size"]),
    op(
        "LSTM",
        recurrent::lstm,
        &[
            "activation_alpha",
            "activation_beta",
            "activations",
            "clip",
            "direction",
            "hidden_size",
            "input_forget",
            "layout",
        ],
    ),
    op("LayerNormalization", normalization::layer_normalization, NORM),
    op("LeakyRelu", activation::leaky_relu, &["alpha"]),
    op("Less", elementwise::less, &[]),
    op("LessOrEqual", elementwise::less_or_equal, &[]),
    op("Log", elementwise::log, &[]),
    op("LogSoftmax", activation::log_softmax, &["axis"]),
    op("LpNormalization", normalization::lp_normalization, &["axis", "p"]),
    op("MatMul", contraction::matmul, &[]),
    op("MatMulInteger", quantization::matmul_integer, &[]),
    op("Max", elementwise::max, &[]),
    op(
        "MaxPool",
        pooling::max_pool,
        &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"],
    ),
    op("Mean", elementwise::mean, &[]),
    op("Min", elementwise::min, &[]),
    op("Mish", activation::mish, &[]),
    op("Mod", elementwise::modulo, &["fmod"]),
    op("Mul", elementwise::mul, &[]),
    op("Neg", elementwise::neg, &[]),
    op("NonZero", indexing::non_zero, &[]).shaped_by(&[0]),
    op("Not", elementwise::not, &[]),
    op("OneHot", indexing::one_hot, &["axis"]).shaped_by(&[1]),
    op("Or", elementwise::or, &[]),
    op("PRelu", activation::p_relu, &[]),
    op("Pad", movement::pad, &["mode", "pads", "value"]).shaped_by(&[1, 3]),
    op("Pow", elementwise::pow, &[]),
    op("QLinearConv", quantization::qlinear_conv, CONV),
    op("QLinearMatMul", quantization::qlinear_matmul, &[]),
    op(
        "QuantizeLinear",
        quantization::quantize_linear,
        &["axis", "block_size", "output_dtype", "precision", "saturate"],
    ),
    op("RMSNormalization", normalization::rms_normalization, NORM),
    op("Range", shape::range, &["stash_type"]).shaped_by(&[0, 1, 2]),
    op("Reciprocal", elementwise::reciprocal, &[]),
    op("ReduceL1", reduction::l1, REDUCTION).shaped_by(&[1]),
    op("ReduceL2", reduction::l2, REDUCTION).shaped_by(&[1]),
    op("ReduceLogSum", reduction::log_sum, REDUCTION).shaped_by(&[1]),
    op("ReduceLogSumExp", reduction::log_sum_exp, REDUCTION).shaped_by(&[1]),
    op("ReduceMax", reduction::max, REDUCTION).shaped_by(&[1]),
    op("ReduceMean", reduction::mean, REDUCTION).shaped_by(&[1]),
    op("ReduceMin", reduction::min, REDUCTION).shaped_by(&[1]),
    op("ReduceProd", reduction::prod, REDUCTION).shaped_by(&[1]),
    op("ReduceSum", reduction::sum, REDUCTION).shaped_by(&[1]),
    op("ReduceSumSquare", reduction::sum_square, REDUCTION).shaped_by(&[1]),
    op("Relu", elementwise::relu, &[]),
    op("Reshape", shape::reshape, &["allowzero"]).shaped_by(&[1]),
    op(
        "Resize",
        resample::resize,
        &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
    )
    .shaped_by(&[1, 2, 3]),
    op("ReverseSequence", indexing::reverse_sequence, &["batch_axis", "time_axis"]),
    op("Round", elementwise::round, &[]),
    op("Scatter", indexing::scatter_elements, &["axis"]),
    op("ScatterElements", indexing::scatter_elements, &["axis", "reduction"]),
    op("ScatterND", indexing::scatter_nd, &["reduction"]),
    op("Selu", activation::selu, &["alpha", "gamma"]),
    op("Shape", shape::shape, &["end", "start"]),
    op("Sigmoid", elementwise::sigmoid, &[]),
    op("Sign", elementwise::sign, &[]),
    op("SimplifiedLayerNormalization", normalization::rms_normalization, NORM),
    op("Sin", elementwise::sin, &[]),
    op("Size", shape::size, &[]),
    op("Slice", movement::slice, &["axes", "ends", "starts"]).shaped_by(&[1, 2, 3, 4]),
    op("Softmax", activation::softmax, &["axis"]),
    op("Softplus", elementwise::softplus, &[]),
    op("Softsign", activation::softsign, &[]),
    op("SpaceToDepth", movement::space_to_depth, &["blocksize", "mode"]),
    op("Split", movement::split, &["axis", "num_outputs", "split"]).shaped_by(&[1]),
    op("Sqrt", elementwise::sqrt, &[]),
    op("Squeeze", shape::squeeze, &["axes"]).shaped_by(&[1]),
    op("Sub", elementwise::sub, &[]),
    op("Sum", elementwise::sum, &[]),
    op("Tanh", elementwise::tanh, &[]),
    op("ThresholdedRelu", activation::thresholded_relu, &["alpha"]),
    op("Tile", movement::tile, &[]).shaped_by(&[1]),
    op("TopK", reduction::top_k, &["axis", "k", "largest", "sorted"]).shaped_by(&[1]),
    op("Transpose", movement::transpose, &["perm"]),
    op("Trilu", indexing::trilu, &["upper"]).shaped_by(&[1]),
    op("Unsqueeze", shape::unsqueeze, &["axes"]).shaped_by(&[1]),
    op("Upsample", resample::upsample, &["mode", "scales"]).shaped_by(&[1]),
    op("Where", elementwise::select, &[]),
    op("Xor", elementwise::xor, &[]),
];

/// `ai.onnx.ml`, sorted by name.
const ML: &[Operator] = &[
    op("ArrayFeatureExtractor", indexing::array_feature_extractor, &[]),
    op("Binarizer", preparation::binarizer, &["threshold"]),
    op(
        "Imputer",
        preparation::imputer,
        &["imputed_value_floats", "imputed_value_int64s", "replaced_value_float", "replaced_value_int64"],
    ),
    op("Normalizer", preparation::normalizer, &["norm"]),
    op("Scaler", preparation::scaler, &["offset", "scale"]),
];

const QLINEAR_POOL: &[&str] =
    &["auto_pad", "ceil_mode", "channels_last", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"];

const FUSED_MATMUL: &[&str] = &["alpha", "transA", "transB", "transBatchA", "transBatchB"];

/// Operators that ONNX Runtime's quantiser and optimiser write, sorted by name.
const MICROSOFT: &[Operator] = &[
    op(
        "Attention",
        attention::attention,
        &[
            "do_rotary",
            "mask_filter_value",
            "num_heads",
            "past_present_share_buffer",
            "qkv_hidden_sizes",
            "rotary_embedding_dim",
            "scale",
            "unidirectional",
        ],
    ),
    op("BiasGelu", fused::gelu, &[]),
    op(
        "DynamicQuantizeLSTM",
        qlinear::dynamic_quantize_lstm,
        &["activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget"],
    ),
    op("DynamicQuantizeMatMul", fused::dynamic_quantize_matmul, &[]),
    op("EmbedLayerNormalization", fused::embed_layer_normalization, &["epsilon", "mask_index_type"]),
    op("FastGelu", fused::fast_gelu, &[]),
    op(
        "FusedConv",
        fused::conv,
        &["activation", "activation_params", "auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"],
    ),
    op(
        "FusedGemm",
        fused::gemm,
        &["activation", "activation_alpha", "activation_beta", "activation_gamma", "alpha", "beta", "transA", "transB"],
    ),
    op("FusedMatMul", fused::matmul, FUSED_MATMUL),
    op("Gelu", fused::gelu, &[]),
    op("MatMulIntegerToFloat", fused::matmul_integer_to_float, &[]),
    op(
        "MultiHeadAttention",
        attention::multi_head_attention,
        &["mask_filter_value", "num_heads", "scale", "unidirectional"],
    ),
    op("QGemm", qlinear::gemm, &["alpha", "transA", "transB"]),
    op("QLinearAdd", qlinear::add, &[]),
    op("QLinearAveragePool", qlinear::average_pool, QLINEAR_POOL),
    op("QLinearConcat", qlinear::concat, &["axis"]),
    op("QLinearGlobalAveragePool", qlinear::global_average_pool, &["channels_last"]),
    op("QLinearLeakyRelu", qlinear::leaky_relu, &["alpha"]),
    op("QLinearMul", qlinear::mul, &[]),
    op("QLinearSigmoid", qlinear::sigmoid, &[]),
    op("QLinearSoftmax", qlinear::softmax, &["axis", "opset"]),
    op("QLinearWhere", qlinear::select, &[]),
    op("QuickGelu", fused::quick_gelu, &["alpha"]),
    op("SkipLayerNormalization", fused::skip_layer_normalization, &["epsilon"]),
    op("SkipSimplifiedLayerNormalization", fused::skip_rms_normalization, &["epsilon"]),
    op("TransposeMatMul", fused::matmul, FUSED_MATMUL),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_every_operator_is_found() {
        for (domain, table) in [("", DEFAULT), ("ai.onnx.ml", ML), ("com.microsoft", MICROSOFT)] {
            for operator in table {
                assert!(lookup(domain, operator.name).is_some(), "{} is not found", operator.name);
            }
        }
        assert!(lookup("", "Scaler").is_none());
        assert!(lookup("com.microsoft", "Add").is_none());
    }
}
