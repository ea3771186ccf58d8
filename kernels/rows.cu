// Entries that work on rows: the end of split products, normalisation, softmax, reductions.
#include "norm.cuh"
#include "reduce.cuh"

namespace {

// What a softmax row needs of its elements.
template <class F> __device__ __forceinline__ void write_softmax(const SoftmaxArguments& arguments, F store, float x, float largest, float sum) {
    if (arguments.guard && largest == -INFINITY) store(0.0f);
    else store(arguments.log ? x - (largest + logf(sum)) : expf(x - largest) / sum);
}

}  // namespace

ENTRY(combine, MatMulArguments, 128) {
    uint32_t quads = (arguments.n + 3) / 4, blocks = (arguments.m * quads + blockDim.x - 1) / blockDim.x;
    uint32_t batch = blockIdx.x / blocks, index = blockIdx.x % blocks * blockDim.x + threadIdx.x;
    Finish finish = Finish::of(arguments, batch);
    __syncthreads();
    begin();
    uint32_t row = index / quads, column = index % quads * 4;
    if (row >= arguments.m) return;
    int valid = int(arguments.n) - int(column);
    int64_t stride = int64_t(arguments.batch.count) * arguments.m * arguments.n;
    float x[1][4];
    sum_parts(arguments.partials, arguments.splits, stride, (int64_t(batch) * arguments.m + row) * arguments.n + column, valid, x[0]);
    finish.finish({int(row), 0, 1, int(column), valid}, x);
}

ENTRY(normalize, NormArguments, 512) {
    __shared__ Line operands[NormLines::COUNT];
    NormLines lines = NormLines::of(arguments, blockIdx.x, operands, threadIdx.x);
    __syncthreads();
    bool once = lines.are_whole();
    await_launch();
    if (once) normalize_at_once(arguments, lines);
    else normalize_in_turns(arguments, lines);
}

ENTRY_BLOCKS(normalize_warps, NormArguments, 128, 5) {
    constexpr int WARPS = 4;
    __shared__ Line operands[WARPS][NormLines::COUNT];
    uint32_t warp = threadIdx.x / 32, row = blockIdx.x * WARPS + warp;
    bool exists = uint64_t(row) * arguments.extent < arguments.space.count;
    NormLines lines = NormLines::of(arguments, exists ? row : 0, operands[warp], threadIdx.x % 32);
    __syncwarp();
    await_launch();
    if (exists) normalize_in_warp(arguments, lines);
}

ENTRY(softmax_warp, SoftmaxArguments, 128) {
    begin();
    constexpr int MOST = 32;
    uint32_t row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32, extent = arguments.extent;
    if (row * uint64_t(extent) >= arguments.space.count) return;
    int last = arguments.space.rank - 1;
    const Operand &input = arguments.input, &output = arguments.output;
    int64_t from = position(arguments.space, input.strides, row, 0, last), to = position(arguments.space, output.strides, row, 0, last);
    float x[MOST], largest = -INFINITY;
#pragma unroll
    for (int index = 0; index < MOST; ++index) {
        uint32_t element = index * 32 + lane;
        if (index * 32 >= extent) break;
        x[index] = element < extent ? load_float(input.address, input.dtype, from + int64_t(element) * input.strides[last]) : -INFINITY;
        largest = fmaxf(largest, x[index]);
    }
    largest = warp_all(largest, max_of);
    float sum = 0.0f;
#pragma unroll
    for (int index = 0; index < MOST; ++index) {
        if (index * 32 >= extent) break;
        if (index * 32 + lane < extent) sum += expf(x[index] - largest);
    }
    sum = warp_all(sum, sum_of);
#pragma unroll
    for (int index = 0; index < MOST; ++index) {
        uint32_t element = index * 32 + lane;
        if (index * 32 >= extent) break;
        if (element >= extent) continue;
        auto store = [&](float y) { store_float(output.address, output.dtype, to + int64_t(element) * output.strides[last], y); };
        write_softmax(arguments, store, x[index], largest, sum);
    }
}

ENTRY(softmax_block, SoftmaxArguments, 512) {
    begin();
    uint32_t extent = arguments.extent;
    int last = arguments.space.rank - 1;
    const Operand &input = arguments.input, &output = arguments.output;
    int64_t from = position(arguments.space, input.strides, blockIdx.x, 0, last);
    int64_t to = position(arguments.space, output.strides, blockIdx.x, 0, last);
    bool keep = extent <= CACHED;
    auto read = [&](uint32_t element) { return load_float(input.address, input.dtype, from + int64_t(element) * input.strides[last]); };
    float largest = -INFINITY, sum = 0.0f;
    for (uint32_t element = threadIdx.x; element < extent; element += blockDim.x) {
        float x = read(element);
        if (keep) cached[element] = x;
        largest = fmaxf(largest, x);
    }
    largest = block_all(largest, -INFINITY, max_of);
    for (uint32_t element = threadIdx.x; element < extent; element += blockDim.x)
        sum += expf((keep ? cached[element] : read(element)) - largest);
    sum = block_all(sum, 0.0f, sum_of);
    for (uint32_t element = threadIdx.x; element < extent; element += blockDim.x) {
        auto store = [&](float y) { store_float(output.address, output.dtype, to + int64_t(element) * output.strides[last], y); };
        write_softmax(arguments, store, keep ? cached[element] : read(element), largest, sum);
    }
}

ENTRY(reduce_threads, ReduceArguments, 128) {
    begin();
    if (is_float(arguments.input.dtype)) reduce_in_threads<float>(arguments);
    else reduce_in_threads<int64_t>(arguments);
}

ENTRY(reduce_warps, ReduceArguments, 128) {
    begin();
    if (is_float(arguments.input.dtype)) reduce_in_warps<float>(arguments);
    else reduce_in_warps<int64_t>(arguments);
}

ENTRY(reduce_columns, ReduceArguments, 256) {
    begin();
    if (is_float(arguments.input.dtype)) reduce_in_columns<float>(arguments);
    else reduce_in_columns<int64_t>(arguments);
}

ENTRY(reduce_blocks, ReduceArguments, 512) {
    begin();
    if (is_float(arguments.input.dtype)) reduce_in_blocks<float>(arguments);
    else reduce_in_blocks<int64_t>(arguments);
}
