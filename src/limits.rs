//! Every bound of the library, named with its unit. Nothing in it grows without one of these.

/// Highest ONNX operator set whose semantics are implemented.
pub const OPSET_MAX: i64 = 21;
/// Lowest ONNX operator set whose semantics are implemented.
pub const OPSET_MIN: i64 = 7;
/// Nodes in one model, subgraphs and inlined functions included.
pub const NODES_MAX: usize = 200_000;
/// Protobuf fields in one model file, before anything is decoded.
pub const FIELDS_MAX: usize = 8_000_000;
/// Nesting of subgraphs.
pub const SUBGRAPH_DEPTH_MAX: usize = 16;
/// Nesting of calls of model-local functions.
pub const FUNCTION_DEPTH_MAX: usize = 64;
/// Bytes that importing may take beside the model file, whatever its size.
pub const IMPORT_BYTES_BASE: usize = 56 << 20;
/// Bytes that importing may take beside the model file, per byte of it.
pub const IMPORT_BYTES_PER_FILE_BYTE: usize = 3;
/// Nesting of protobuf messages.
pub const MESSAGE_DEPTH_MAX: usize = 64;
/// Rank of any tensor.
pub const RANK_MAX: usize = 12;
/// Bytes of any one tensor.
pub const TENSOR_BYTES_MAX: usize = 1 << 36;
/// Bytes that folded constants of one bucket may take, whatever the model's size; what does not fit becomes a step.
pub const FOLDED_BYTES_BASE: usize = 24 << 20;
/// Bytes that folded constants of one bucket may take per byte of initializers (int8 weights become float32).
pub const FOLDED_BYTES_PER_INITIALIZER_BYTE: usize = 4;
/// Part of [`FOLDED_BYTES_BASE`] kept for small constants, which shapes are computed from.
pub const FOLDED_BYTES_RESERVE: usize = 4 << 20;
/// Scalar operations that constant folding of one bucket may spend, whatever the model's size.
pub const FOLD_WORK_BASE: u64 = 1 << 26;
/// Scalar operations that constant folding of one bucket may spend per byte of initializers.
pub const FOLD_WORK_PER_INITIALIZER_BYTE: u64 = 8;
/// Bytes of an operand that decides a shape.
pub const SHAPE_OPERAND_BYTES_MAX: usize = 1 << 20;
/// Bytes of the model file itself: protobuf's own limit.
pub const MODEL_FILE_BYTES_MAX: u64 = 1 << 31;
/// Bytes of a model, external data included.
pub const MODEL_BYTES_MAX: u64 = 1 << 37;
/// Elements of an input whose values may be part of a bucket's key.
pub const SHAPE_INPUT_ELEMENTS_MAX: usize = 64;
/// Steps of one plan.
pub const STEPS_MAX: usize = 400_000;
/// Buckets of one model.
pub const BUCKETS_MAX: usize = 256;
/// Live handles of each noun (a handle's index has 16 bits).
pub const HANDLES_MAX: usize = 1 << 16;
/// Contexts of one engine.
pub const CONTEXTS_MAX: usize = 16_384;
/// Contexts of one engine whose options do not say.
pub const CONTEXTS_DEFAULT: usize = 4_096;
/// Contexts that one context may read from, and that may read from it.
pub const LINKS_MAX: usize = 12;
/// Events that one request may wait for.
pub const EVENT_WAITS_MAX: usize = 8;
/// Host threads that one context may compute with.
pub const CONTEXT_THREADS_MAX: usize = 64;
/// Contexts of one engine, freed last, whose inputs' and outputs' addresses nothing else gets.
pub const QUARANTINE_RANGES: usize = 1_024;
/// Bytes of such addresses, without memory behind them; beyond, they are of fewer contexts.
pub const QUARANTINE_BYTES_MAX: usize = 1 << 32;
/// Bytes of arena, inputs and outputs of one context.
pub const CONTEXT_BYTES_MAX: usize = 1 << 36;
/// Bytes of one memory that a host program takes or lends.
pub const MEMORY_BYTES_MAX: usize = 1 << 36;
/// Bytes of a row of device memory.
pub const ROW_BYTES_MAX: usize = 1 << 30;
/// Bytes from the start of a row to that of the next, in the host's memory: as far as copy engines go.
pub const ROW_PITCH_MAX: usize = i32::MAX as usize;
/// In such a memory, an input or output begins at a multiple of so many bytes.
pub const ATTACHMENT_ALIGNMENT: usize = 64;
/// Contexts of one batcher.
pub const BATCHER_CONTEXTS_MAX: usize = 64;
/// Contexts of a batcher whose options do not say: one batch forms while another runs.
pub const BATCHER_CONTEXTS_DEFAULT: usize = 2;
/// Slots of one batcher (a slot's index has 16 bits).
pub const BATCHER_SLOTS_MAX: usize = 1 << 16;
/// Paddable dimensions of a batcher's model, beside the batch.
pub const BATCHER_DIMENSIONS_MAX: usize = 8;
/// How long a batch waits for more requests where the options do not say, nanoseconds.
pub const BATCH_DELAY_NS_DEFAULT: u64 = 1_000_000;
/// How much earlier than its usual time a batch is closed for a deadline at least, so that the thread that closes it may wake,
/// nanoseconds.
pub const BATCH_WAKE_NS_MIN: u64 = 100_000;
/// The same at most, whatever that thread's lateness was, nanoseconds.
pub const BATCH_WAKE_NS_MAX: u64 = 5_000_000;
/// Pause before a batch that the device has refused is tried again, nanoseconds.
pub const BATCH_RETRY_NS: u64 = 200_000;
/// Bytes of an error message in the C struct, terminating zero included.
pub const ERROR_MESSAGE_BYTES: usize = 496;
