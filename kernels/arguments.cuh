// Generated from src/kernels/entry by `UPDATE_ARGUMENTS=1 cargo test --lib arguments`; do not edit.
#pragma once
#include <cstddef>
#include <cstdint>

constexpr int AXES = 12;

// Scalar functions.
enum Opcode : uint32_t {
    ROUND_F16 = 1,
    ROUND_BF16 = 2,
    SELECT = 3,
    LOAD = 4,
    CONSTANT = 5,
    CAST = 6,
    Neg = 16,
    Abs = 17,
    Sign = 18,
    Ceil = 19,
    Floor = 20,
    Round = 21,
    Sqrt = 22,
    Reciprocal = 23,
    Exp = 24,
    Log = 25,
    Sin = 26,
    Cos = 27,
    Tanh = 28,
    Erf = 29,
    Sigmoid = 30,
    Relu = 31,
    Gelu = 32,
    GeluTanh = 33,
    Silu = 34,
    Softplus = 35,
    Not = 36,
    IsNan = 37,
    IsInf = 38,
    Add = 64,
    Sub = 65,
    Mul = 66,
    Div = 67,
    Mod = 68,
    Fmod = 69,
    Pow = 70,
    Min = 71,
    Max = 72,
    And = 73,
    Or = 74,
    Xor = 75,
    Equal = 76,
    Less = 77,
    LessOrEqual = 78,
};

// Element types.
enum DType : uint32_t {
    F32_TYPE = 0,
    F16_TYPE = 1,
    BF16_TYPE = 2,
    I64_TYPE = 3,
    I32_TYPE = 4,
    I8_TYPE = 5,
    U8_TYPE = 6,
    BOOL_TYPE = 7,
};

struct Space {
    uint32_t rank;
    uint32_t count;
    uint32_t extents[12];
    uint32_t magics[12];
    uint32_t shifts[12];
};
static_assert(sizeof(Space) == 152);
static_assert(offsetof(Space, rank) == 0);
static_assert(offsetof(Space, count) == 4);
static_assert(offsetof(Space, extents) == 8);
static_assert(offsetof(Space, magics) == 56);
static_assert(offsetof(Space, shifts) == 104);

struct Operand {
    void* address;
    uint32_t dtype;
    int32_t strides[12];
};
static_assert(sizeof(Operand) == 64);
static_assert(offsetof(Operand, address) == 0);
static_assert(offsetof(Operand, dtype) == 8);
static_assert(offsetof(Operand, strides) == 12);

struct Instruction {
    uint32_t code;
    uint32_t slots;
    uint64_t value;
};
static_assert(sizeof(Instruction) == 16);
static_assert(offsetof(Instruction, code) == 0);
static_assert(offsetof(Instruction, slots) == 4);
static_assert(offsetof(Instruction, value) == 8);

struct Program {
    uint32_t count;
    uint32_t slots;
    Instruction instructions[96];
};
static_assert(sizeof(Program) == 1544);
static_assert(offsetof(Program, count) == 0);
static_assert(offsetof(Program, slots) == 4);
static_assert(offsetof(Program, instructions) == 8);

struct MapArguments {
    Space space;
    Operand output;
    uint32_t inputs;
    uint32_t vectors;
    Program program;
    Operand operands[16];
};
static_assert(sizeof(MapArguments) == 2792);
static_assert(offsetof(MapArguments, space) == 0);
static_assert(offsetof(MapArguments, output) == 152);
static_assert(offsetof(MapArguments, inputs) == 216);
static_assert(offsetof(MapArguments, vectors) == 220);
static_assert(offsetof(MapArguments, program) == 224);
static_assert(offsetof(MapArguments, operands) == 1768);

struct Stage {
    uint32_t op;
    uint32_t source;
    float constant;
};
static_assert(sizeof(Stage) == 12);
static_assert(offsetof(Stage, op) == 0);
static_assert(offsetof(Stage, source) == 4);
static_assert(offsetof(Stage, constant) == 8);

struct Chain {
    uint32_t count;
    uint32_t keep;
    Stage stages[8];
    Operand operands[4];
};
static_assert(sizeof(Chain) == 360);
static_assert(offsetof(Chain, count) == 0);
static_assert(offsetof(Chain, keep) == 4);
static_assert(offsetof(Chain, stages) == 8);
static_assert(offsetof(Chain, operands) == 104);

struct ChainArguments {
    Space space;
    Operand input;
    Operand output;
    uint32_t vectors;
    Chain chain;
};
static_assert(sizeof(ChainArguments) == 648);
static_assert(offsetof(ChainArguments, space) == 0);
static_assert(offsetof(ChainArguments, input) == 152);
static_assert(offsetof(ChainArguments, output) == 216);
static_assert(offsetof(ChainArguments, vectors) == 280);
static_assert(offsetof(ChainArguments, chain) == 288);

struct CopyArguments {
    Space space;
    Operand input;
    Operand output;
    uint32_t bytes;
};
static_assert(sizeof(CopyArguments) == 288);
static_assert(offsetof(CopyArguments, space) == 0);
static_assert(offsetof(CopyArguments, input) == 152);
static_assert(offsetof(CopyArguments, output) == 216);
static_assert(offsetof(CopyArguments, bytes) == 280);

struct MatMulArguments {
    uint32_t m;
    uint32_t n;
    uint32_t k;
    uint32_t splits;
    uint32_t depth;
    uint32_t a_vectors;
    uint32_t b_vectors;
    uint32_t b_constant;
    float alpha;
    uint32_t reserved;
    Operand a;
    Operand b;
    Operand c;
    void* partials;
    Space batch;
    Chain chain;
};
static_assert(sizeof(MatMulArguments) == 752);
static_assert(offsetof(MatMulArguments, m) == 0);
static_assert(offsetof(MatMulArguments, n) == 4);
static_assert(offsetof(MatMulArguments, k) == 8);
static_assert(offsetof(MatMulArguments, splits) == 12);
static_assert(offsetof(MatMulArguments, depth) == 16);
static_assert(offsetof(MatMulArguments, a_vectors) == 20);
static_assert(offsetof(MatMulArguments, b_vectors) == 24);
static_assert(offsetof(MatMulArguments, b_constant) == 28);
static_assert(offsetof(MatMulArguments, alpha) == 32);
static_assert(offsetof(MatMulArguments, reserved) == 36);
static_assert(offsetof(MatMulArguments, a) == 40);
static_assert(offsetof(MatMulArguments, b) == 104);
static_assert(offsetof(MatMulArguments, c) == 168);
static_assert(offsetof(MatMulArguments, partials) == 232);
static_assert(offsetof(MatMulArguments, batch) == 240);
static_assert(offsetof(MatMulArguments, chain) == 392);

struct alignas(64) TensorMap {
    uint64_t words[16];
};

struct TmaArguments {
    TensorMap left;
    TensorMap right;
    MatMulArguments product;
};
static_assert(sizeof(TmaArguments) == 1024);
static_assert(offsetof(TmaArguments, left) == 0);
static_assert(offsetof(TmaArguments, right) == 128);
static_assert(offsetof(TmaArguments, product) == 256);

struct NormArguments {
    Space space;
    uint32_t extent;
    uint32_t axes;
    uint32_t centered;
    float epsilon;
    uint32_t splits;
    float alpha;
    void* partials;
    Operand input;
    Operand sum;
    Operand scale;
    Operand bias;
    Operand output;
    Chain chain;
};
static_assert(sizeof(NormArguments) == 864);
static_assert(offsetof(NormArguments, space) == 0);
static_assert(offsetof(NormArguments, extent) == 152);
static_assert(offsetof(NormArguments, axes) == 156);
static_assert(offsetof(NormArguments, centered) == 160);
static_assert(offsetof(NormArguments, epsilon) == 164);
static_assert(offsetof(NormArguments, splits) == 168);
static_assert(offsetof(NormArguments, alpha) == 172);
static_assert(offsetof(NormArguments, partials) == 176);
static_assert(offsetof(NormArguments, input) == 184);
static_assert(offsetof(NormArguments, sum) == 248);
static_assert(offsetof(NormArguments, scale) == 312);
static_assert(offsetof(NormArguments, bias) == 376);
static_assert(offsetof(NormArguments, output) == 440);
static_assert(offsetof(NormArguments, chain) == 504);

struct SoftmaxArguments {
    Space space;
    uint32_t extent;
    uint32_t log;
    uint32_t guard;
    Operand input;
    Operand output;
};
static_assert(sizeof(SoftmaxArguments) == 296);
static_assert(offsetof(SoftmaxArguments, space) == 0);
static_assert(offsetof(SoftmaxArguments, extent) == 152);
static_assert(offsetof(SoftmaxArguments, log) == 156);
static_assert(offsetof(SoftmaxArguments, guard) == 160);
static_assert(offsetof(SoftmaxArguments, input) == 168);
static_assert(offsetof(SoftmaxArguments, output) == 232);

struct ReduceArguments {
    Space space;
    uint32_t kept;
    uint32_t extent;
    uint32_t op;
    uint32_t last;
    Operand input;
    Operand output;
};
static_assert(sizeof(ReduceArguments) == 296);
static_assert(offsetof(ReduceArguments, space) == 0);
static_assert(offsetof(ReduceArguments, kept) == 152);
static_assert(offsetof(ReduceArguments, extent) == 156);
static_assert(offsetof(ReduceArguments, op) == 160);
static_assert(offsetof(ReduceArguments, last) == 164);
static_assert(offsetof(ReduceArguments, input) == 168);
static_assert(offsetof(ReduceArguments, output) == 232);

struct GatherArguments {
    Space space;
    uint32_t bytes;
    uint32_t depth;
    int32_t index_step;
    Operand data;
    Operand index;
    Operand output;
    uint32_t extents[12];
    int32_t steps[12];
};
static_assert(sizeof(GatherArguments) == 456);
static_assert(offsetof(GatherArguments, space) == 0);
static_assert(offsetof(GatherArguments, bytes) == 152);
static_assert(offsetof(GatherArguments, depth) == 156);
static_assert(offsetof(GatherArguments, index_step) == 160);
static_assert(offsetof(GatherArguments, data) == 168);
static_assert(offsetof(GatherArguments, index) == 232);
static_assert(offsetof(GatherArguments, output) == 296);
static_assert(offsetof(GatherArguments, extents) == 360);
static_assert(offsetof(GatherArguments, steps) == 408);

struct ConvArguments {
    MatMulArguments product;
    Space rows;
    Space terms;
    uint32_t extents[3];
    int32_t steps[3];
    uint32_t strides[3];
    uint32_t dilations[3];
    uint32_t pads[3];
};
static_assert(sizeof(ConvArguments) == 1120);
static_assert(offsetof(ConvArguments, product) == 0);
static_assert(offsetof(ConvArguments, rows) == 752);
static_assert(offsetof(ConvArguments, terms) == 904);
static_assert(offsetof(ConvArguments, extents) == 1056);
static_assert(offsetof(ConvArguments, steps) == 1068);
static_assert(offsetof(ConvArguments, strides) == 1080);
static_assert(offsetof(ConvArguments, dilations) == 1092);
static_assert(offsetof(ConvArguments, pads) == 1104);

struct Quads {
    Space space;
    uint32_t channels;
    uint32_t channels_last;
};
static_assert(sizeof(Quads) == 160);
static_assert(offsetof(Quads, space) == 0);
static_assert(offsetof(Quads, channels) == 152);
static_assert(offsetof(Quads, channels_last) == 156);

struct Slide {
    Space kernel;
    uint32_t extents[12];
    uint32_t strides[12];
    uint32_t dilations[12];
    uint32_t pads[12];
};
static_assert(sizeof(Slide) == 344);
static_assert(offsetof(Slide, kernel) == 0);
static_assert(offsetof(Slide, extents) == 152);
static_assert(offsetof(Slide, strides) == 200);
static_assert(offsetof(Slide, dilations) == 248);
static_assert(offsetof(Slide, pads) == 296);

struct DirectArguments {
    Quads quads;
    Slide slide;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t x_vectors;
    uint32_t w_vectors;
    Operand x;
    Operand w;
    Operand output;
    Chain chain;
};
static_assert(sizeof(DirectArguments) == 1072);
static_assert(offsetof(DirectArguments, quads) == 0);
static_assert(offsetof(DirectArguments, slide) == 160);
static_assert(offsetof(DirectArguments, inputs) == 504);
static_assert(offsetof(DirectArguments, outputs) == 508);
static_assert(offsetof(DirectArguments, x_vectors) == 512);
static_assert(offsetof(DirectArguments, w_vectors) == 516);
static_assert(offsetof(DirectArguments, x) == 520);
static_assert(offsetof(DirectArguments, w) == 584);
static_assert(offsetof(DirectArguments, output) == 648);
static_assert(offsetof(DirectArguments, chain) == 712);

struct CollectArguments {
    Quads quads;
    Slide slide;
    int32_t tap_step;
    Operand columns;
    Operand output;
    Chain chain;
};
static_assert(sizeof(CollectArguments) == 1000);
static_assert(offsetof(CollectArguments, quads) == 0);
static_assert(offsetof(CollectArguments, slide) == 160);
static_assert(offsetof(CollectArguments, tap_step) == 504);
static_assert(offsetof(CollectArguments, columns) == 512);
static_assert(offsetof(CollectArguments, output) == 576);
static_assert(offsetof(CollectArguments, chain) == 640);

struct PoolArguments {
    Quads quads;
    Slide slide;
    uint32_t kind;
    uint32_t column_major;
    uint32_t padded[12];
    Operand input;
    Operand output;
    Operand indices;
};
static_assert(sizeof(PoolArguments) == 752);
static_assert(offsetof(PoolArguments, quads) == 0);
static_assert(offsetof(PoolArguments, slide) == 160);
static_assert(offsetof(PoolArguments, kind) == 504);
static_assert(offsetof(PoolArguments, column_major) == 508);
static_assert(offsetof(PoolArguments, padded) == 512);
static_assert(offsetof(PoolArguments, input) == 560);
static_assert(offsetof(PoolArguments, output) == 624);
static_assert(offsetof(PoolArguments, indices) == 688);

struct ResizeArguments {
    Space space;
    Space taps;
    uint32_t axes[12];
    uint32_t starts[12];
    uint32_t extents[12];
    int32_t steps[12];
    float outside;
    void* positions;
    void* weights;
    Operand input;
    Operand output;
};
static_assert(sizeof(ResizeArguments) == 648);
static_assert(offsetof(ResizeArguments, space) == 0);
static_assert(offsetof(ResizeArguments, taps) == 152);
static_assert(offsetof(ResizeArguments, axes) == 304);
static_assert(offsetof(ResizeArguments, starts) == 352);
static_assert(offsetof(ResizeArguments, extents) == 400);
static_assert(offsetof(ResizeArguments, steps) == 448);
static_assert(offsetof(ResizeArguments, outside) == 496);
static_assert(offsetof(ResizeArguments, positions) == 504);
static_assert(offsetof(ResizeArguments, weights) == 512);
static_assert(offsetof(ResizeArguments, input) == 520);
static_assert(offsetof(ResizeArguments, output) == 584);

struct GateFunction {
    uint32_t kind;
    float alpha;
    float beta;
};
static_assert(sizeof(GateFunction) == 12);
static_assert(offsetof(GateFunction, kind) == 0);
static_assert(offsetof(GateFunction, alpha) == 4);
static_assert(offsetof(GateFunction, beta) == 8);

struct RecurrentArguments {
    uint32_t cell;
    uint32_t hidden;
    uint32_t steps;
    uint32_t batch;
    uint32_t directions;
    uint32_t reverse;
    uint32_t first;
    uint32_t count;
    uint32_t rows;
    float clip;
    GateFunction functions[6];
    Operand products;
    Operand weights;
    Operand bias;
    Operand lengths;
    Operand peepholes;
    Operand h;
    Operand c;
    Operand y;
    Operand last_h;
    Operand last_c;
    void* work;
};
static_assert(sizeof(RecurrentArguments) == 760);
static_assert(offsetof(RecurrentArguments, cell) == 0);
static_assert(offsetof(RecurrentArguments, hidden) == 4);
static_assert(offsetof(RecurrentArguments, steps) == 8);
static_assert(offsetof(RecurrentArguments, batch) == 12);
static_assert(offsetof(RecurrentArguments, directions) == 16);
static_assert(offsetof(RecurrentArguments, reverse) == 20);
static_assert(offsetof(RecurrentArguments, first) == 24);
static_assert(offsetof(RecurrentArguments, count) == 28);
static_assert(offsetof(RecurrentArguments, rows) == 32);
static_assert(offsetof(RecurrentArguments, clip) == 36);
static_assert(offsetof(RecurrentArguments, functions) == 40);
static_assert(offsetof(RecurrentArguments, products) == 112);
static_assert(offsetof(RecurrentArguments, weights) == 176);
static_assert(offsetof(RecurrentArguments, bias) == 240);
static_assert(offsetof(RecurrentArguments, lengths) == 304);
static_assert(offsetof(RecurrentArguments, peepholes) == 368);
static_assert(offsetof(RecurrentArguments, h) == 432);
static_assert(offsetof(RecurrentArguments, c) == 496);
static_assert(offsetof(RecurrentArguments, y) == 560);
static_assert(offsetof(RecurrentArguments, last_h) == 624);
static_assert(offsetof(RecurrentArguments, last_c) == 688);
static_assert(offsetof(RecurrentArguments, work) == 752);

struct AttentionArguments {
    Space batch;
    uint32_t queries;
    uint32_t keys;
    uint32_t depth;
    uint32_t width;
    float scale;
    uint32_t guard;
    uint32_t k_vectors;
    uint32_t v_vectors;
    Operand q;
    Operand k;
    Operand v;
    Operand output;
    Chain chain;
};
static_assert(sizeof(AttentionArguments) == 800);
static_assert(offsetof(AttentionArguments, batch) == 0);
static_assert(offsetof(AttentionArguments, queries) == 152);
static_assert(offsetof(AttentionArguments, keys) == 156);
static_assert(offsetof(AttentionArguments, depth) == 160);
static_assert(offsetof(AttentionArguments, width) == 164);
static_assert(offsetof(AttentionArguments, scale) == 168);
static_assert(offsetof(AttentionArguments, guard) == 172);
static_assert(offsetof(AttentionArguments, k_vectors) == 176);
static_assert(offsetof(AttentionArguments, v_vectors) == 180);
static_assert(offsetof(AttentionArguments, q) == 184);
static_assert(offsetof(AttentionArguments, k) == 248);
static_assert(offsetof(AttentionArguments, v) == 312);
static_assert(offsetof(AttentionArguments, output) == 376);
static_assert(offsetof(AttentionArguments, chain) == 440);

struct ScatterArguments {
    Space space;
    Space tuples;
    uint32_t op;
    uint32_t depth;
    int32_t index_step;
    Operand index;
    Operand data;
    Operand updates;
    int32_t steps[12];
    Operand output;
    Operand marks;
    void* counts;
    void* positions;
};
static_assert(sizeof(ScatterArguments) == 704);
static_assert(offsetof(ScatterArguments, space) == 0);
static_assert(offsetof(ScatterArguments, tuples) == 152);
static_assert(offsetof(ScatterArguments, op) == 304);
static_assert(offsetof(ScatterArguments, depth) == 308);
static_assert(offsetof(ScatterArguments, index_step) == 312);
static_assert(offsetof(ScatterArguments, index) == 320);
static_assert(offsetof(ScatterArguments, data) == 384);
static_assert(offsetof(ScatterArguments, updates) == 448);
static_assert(offsetof(ScatterArguments, steps) == 512);
static_assert(offsetof(ScatterArguments, output) == 560);
static_assert(offsetof(ScatterArguments, marks) == 624);
static_assert(offsetof(ScatterArguments, counts) == 688);
static_assert(offsetof(ScatterArguments, positions) == 696);

struct CumSumArguments {
    Space space;
    uint32_t extent;
    uint32_t exclusive;
    uint32_t reverse;
    Operand input;
    Operand output;
};
static_assert(sizeof(CumSumArguments) == 296);
static_assert(offsetof(CumSumArguments, space) == 0);
static_assert(offsetof(CumSumArguments, extent) == 152);
static_assert(offsetof(CumSumArguments, exclusive) == 156);
static_assert(offsetof(CumSumArguments, reverse) == 160);
static_assert(offsetof(CumSumArguments, input) == 168);
static_assert(offsetof(CumSumArguments, output) == 232);

struct TopKArguments {
    Space space;
    uint32_t extent;
    uint32_t k;
    uint32_t largest;
    Operand input;
    Operand values;
    Operand indices;
    void* candidates;
};
static_assert(sizeof(TopKArguments) == 368);
static_assert(offsetof(TopKArguments, space) == 0);
static_assert(offsetof(TopKArguments, extent) == 152);
static_assert(offsetof(TopKArguments, k) == 156);
static_assert(offsetof(TopKArguments, largest) == 160);
static_assert(offsetof(TopKArguments, input) == 168);
static_assert(offsetof(TopKArguments, values) == 232);
static_assert(offsetof(TopKArguments, indices) == 296);
static_assert(offsetof(TopKArguments, candidates) == 360);

struct Segment {
    void* from;
    void* to;
    uint64_t bytes;
};
static_assert(sizeof(Segment) == 24);
static_assert(offsetof(Segment, from) == 0);
static_assert(offsetof(Segment, to) == 8);
static_assert(offsetof(Segment, bytes) == 16);

struct FetchArguments {
    Segment segments[16];
    void* control;
    void* clock;
    void* submit_ns;
    uint32_t count;
    uint32_t reserved;
};
static_assert(sizeof(FetchArguments) == 416);
static_assert(offsetof(FetchArguments, segments) == 0);
static_assert(offsetof(FetchArguments, control) == 384);
static_assert(offsetof(FetchArguments, clock) == 392);
static_assert(offsetof(FetchArguments, submit_ns) == 400);
static_assert(offsetof(FetchArguments, count) == 408);
static_assert(offsetof(FetchArguments, reserved) == 412);

struct FinishArguments {
    Segment segments[16];
    void* control;
    void* record;
    uint32_t count;
    uint32_t reserved;
};
static_assert(sizeof(FinishArguments) == 408);
static_assert(offsetof(FinishArguments, segments) == 0);
static_assert(offsetof(FinishArguments, control) == 384);
static_assert(offsetof(FinishArguments, record) == 392);
static_assert(offsetof(FinishArguments, count) == 400);
static_assert(offsetof(FinishArguments, reserved) == 404);

struct Control {
    uint64_t ordinal;
    uint64_t start_ns;
    uint64_t inputs_ns;
    uint64_t offset_ns;
    uint32_t arrived;
    uint32_t reserved;
};
static_assert(sizeof(Control) == 40);
static_assert(offsetof(Control, ordinal) == 0);
static_assert(offsetof(Control, start_ns) == 8);
static_assert(offsetof(Control, inputs_ns) == 16);
static_assert(offsetof(Control, offset_ns) == 24);
static_assert(offsetof(Control, arrived) == 32);
static_assert(offsetof(Control, reserved) == 36);

struct Clock {
    uint64_t offset_ns;
    uint64_t lowered_ns;
};
static_assert(sizeof(Clock) == 16);
static_assert(offsetof(Clock, offset_ns) == 0);
static_assert(offsetof(Clock, lowered_ns) == 8);
