// Attention in one pass over the keys (Dao et al., 2022): scores stay in registers, the greatest score and the sum of the weights run
// along with the result. A warp has 16 queries; the block's warps share tiles of keys and values.
//
// Where there are few queries, four warps have the same ones, each a quarter of a tile's keys, and add up what they have found.
#pragma once
#include "product.cuh"

namespace {

constexpr int WARP_ROWS = 16;

// The tiles of one type and head size. Rows in shared memory are 16 bytes longer than their elements, so that those of a fragment come
// from different banks. GROUPS warps share queries; each has KEYS of a tile's keys.
template <class T_, int DEPTH_, int GROUPS_> struct Tiles {
    using T = T_;
    static constexpr int DEPTH = DEPTH_, GROUPS = GROUPS_, CHUNK = 16 / sizeof(T), PITCH = DEPTH + CHUNK;
    static constexpr int TILE = sizeof(T) == 4 && DEPTH > 64 ? 32 : GROUPS > 1 && sizeof(T) == 2 && DEPTH <= 64 ? 128 : 64;
    static constexpr int KEYS = TILE / GROUPS;
    static constexpr int STAGE = TILE * PITCH;
};

// The two rows of queries of which a lane holds elements: `l / 4` and eight further down.
template <class T> struct Queries {
    const T* rows[2];
    int32_t step;
    int depth;
    bool inside[2];

    __device__ __forceinline__ Queries(const AttentionArguments& arguments, const T* base, int row) {
        const Operand& q = arguments.q;
        step = q.strides[AXES - 1], depth = arguments.depth;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            inside[half] = row + 8 * half < int(arguments.queries);
            rows[half] = base + (inside[half] ? int64_t(row + 8 * half) * q.strides[AXES - 2] : 0);
        }
    }

    // Whether two neighbours can be read together, of rows that are `size` long.
    __device__ __forceinline__ bool pairs(int size) const {
        uint64_t addresses = reinterpret_cast<uint64_t>(rows[0]) | reinterpret_cast<uint64_t>(rows[1]);
        return inside[0] && inside[1] && step == 1 && depth == size && addresses % (2 * sizeof(T)) == 0;
    }

    __device__ __forceinline__ T at(int half, int k) const {
        return inside[half] && k < depth ? rows[half][int64_t(k) * step] : from_float<T>(0.0f);
    }
};

// 16-bit floats: a lane holds, of every 16 x 8 scores or results, columns 2 (l % 4) + {0, 1} of rows l / 4 + {0, 8}.
template <class S, class T = typename S::T> struct Warp {
    static constexpr int STEPS = S::DEPTH / 16;
    uint32_t queries[STEPS][4];

    __device__ __forceinline__ void load(const Queries<T>& from) {
        int k = threadIdx.x % 4 * 2;
        if (from.pairs(S::DEPTH)) {
#pragma unroll
            for (int step = 0; step < STEPS; ++step)
#pragma unroll
                for (int part = 0; part < 4; ++part)
                    queries[step][part] = *reinterpret_cast<const uint32_t*>(from.rows[part % 2] + step * 16 + k + part / 2 * 8);
            return;
        }
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
#pragma unroll
            for (int part = 0; part < 4; ++part) {
                int at = step * 16 + k + part / 2 * 8;
                T pair[2] = {from.at(part % 2, at), from.at(part % 2, at + 1)};
                queries[step][part] = reinterpret_cast<uint32_t&>(pair);
            }
    }

    // scores[16 x KEYS] += queries keys^T; the keys are at this offset of shared memory.
    __device__ __forceinline__ void score(float (&scores)[S::KEYS / 8][4], uint32_t offset) const {
        int lane = threadIdx.x % 32;
        uint32_t keys = shared_address(pipeline) + offset + ((lane / 16 * 8 + lane % 8) * S::PITCH + lane / 8 % 2 * 8) * sizeof(T);
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
#pragma unroll
            for (int pair = 0; pair < S::KEYS / 16; ++pair) {
                uint32_t right[4];
                load_matrices(right, keys + (pair * 16 * S::PITCH + step * 16) * sizeof(T));
                multiply<T>(scores[2 * pair], queries[step], right[0], right[1]);
                multiply<T>(scores[2 * pair + 1], queries[step], right[2], right[3]);
            }
    }

    static __device__ uint32_t packed(float a, float b) {
        T pair[2] = {from_float<T>(a), from_float<T>(b)};
        return reinterpret_cast<uint32_t&>(pair);
    }

    // results[16 x DEPTH] += weights values
    static __device__ __forceinline__ void weigh(float (&results)[S::DEPTH / 8][4], const float (&weights)[S::KEYS / 8][4], uint32_t offset) {
        int lane = threadIdx.x % 32;
        uint32_t values = shared_address(pipeline) + offset + ((lane / 8 % 2 * 8 + lane % 8) * S::PITCH + lane / 16 * 8) * sizeof(T);
#pragma unroll
        for (int step = 0; step < S::KEYS / 16; ++step) {
            const float(&low)[4] = weights[2 * step], (&high)[4] = weights[2 * step + 1];
            const uint32_t left[4] = {packed(low[0], low[1]), packed(low[2], low[3]), packed(high[0], high[1]), packed(high[2], high[3])};
#pragma unroll
            for (int pair = 0; pair < S::DEPTH / 16; ++pair) {
                uint32_t right[4];
                load_matrices_transposed(right, values + (step * 16 * S::PITCH + pair * 16) * sizeof(T));
                multiply<T>(results[2 * pair], left, right[0], right[1]);
                multiply<T>(results[2 * pair + 1], left, right[2], right[3]);
            }
        }
    }
};

// TensorFloat-32. The weights lie in their lanes as the scores came: the terms of the second product are taken in the order 0, 2, 4, 6,
// 1, 3, 5, 7 of every eight keys, of weights and values alike.
template <class S> struct Warp<S, float> {
    static constexpr int STEPS = S::DEPTH / 8;
    uint32_t queries[STEPS][4];

    __device__ __forceinline__ void load(const Queries<float>& from) {
        int k = threadIdx.x % 4;
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
#pragma unroll
            for (int part = 0; part < 4; ++part)
                queries[step][part] = to_tf32(from.at(part % 2, step * 8 + k + part / 2 * 4));
    }

    __device__ __forceinline__ void score(float (&scores)[S::KEYS / 8][4], uint32_t offset) const {
        const float* keys = stage_elements<float>(offset);
        int group = threadIdx.x % 32 / 4, inner = threadIdx.x % 4;
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
#pragma unroll
            for (int tile = 0; tile < S::KEYS / 8; ++tile) {
                const float* at = keys + (tile * 8 + group) * S::PITCH + step * 8 + inner;
                multiply_tf32(scores[tile], queries[step], to_tf32(at[0]), to_tf32(at[4]));
            }
    }

    static __device__ __forceinline__ void weigh(float (&results)[S::DEPTH / 8][4], const float (&weights)[S::KEYS / 8][4], uint32_t offset) {
        const float* values = stage_elements<float>(offset);
        int group = threadIdx.x % 32 / 4, inner = threadIdx.x % 4;
#pragma unroll
        for (int step = 0; step < S::KEYS / 8; ++step) {
            const float(&own)[4] = weights[step];
            const uint32_t left[4] = {to_tf32(own[0]), to_tf32(own[2]), to_tf32(own[1]), to_tf32(own[3])};
#pragma unroll
            for (int tile = 0; tile < S::DEPTH / 8; ++tile) {
                const float* at = values + (step * 8 + 2 * inner) * S::PITCH + tile * 8 + group;
                multiply_tf32(results[tile], left, to_tf32(at[0]), to_tf32(at[S::PITCH]));
            }
        }
    }
};

// The matrices of one element of the batch.
struct Head {
    const AttentionArguments& arguments;
    uint32_t batch;

    __device__ int64_t start(const Operand& operand) const { return position(arguments.batch, operand, batch); }
    template <class T> __device__ Rows<T> rows(const Operand& operand, uint32_t count, uint32_t vectors) const {
        const T* base = static_cast<const T*>(operand.address) + start(operand);
        int32_t step = operand.strides[AXES - 1];
        return {base, operand.strides[AXES - 2], step, int(count), vectors != 0 && step == 1};
    }
};

__device__ __forceinline__ int64_t place(const Operand& operand, int64_t start, int row, int column) {
    return start + int64_t(row) * operand.strides[AXES - 2] + int64_t(column) * operand.strides[AXES - 1];
}

// Copies a tile of keys or values, of which rows have `width` elements, to this offset of shared memory.
template <class S> __device__ __forceinline__ void fetch_tile(uint32_t offset, const Rows<typename S::T>& rows, int first, int width) {
    using T = typename S::T;
    constexpr int CHUNKS = S::DEPTH / S::CHUNK;
    int line = threadIdx.x / CHUNKS, element = threadIdx.x % CHUNKS * S::CHUNK, pass = blockDim.x / CHUNKS;
    const T* from = rows.base + int64_t(first + line) * rows.row_step + int64_t(element) * rows.step;
    int64_t stride = int64_t(pass) * rows.row_step;
    uint32_t shared = shared_address(pipeline) + offset + (line * S::PITCH + element) * sizeof(T);
    int live = element < width ? rows.rows - first : 0;
    if (rows.vectors) {
#pragma unroll 4
        for (; line < S::TILE; line += pass, from += stride, shared += pass * S::PITCH * sizeof(T)) copy_async(shared, from, line < live);
    } else {
#pragma unroll 1
        for (; line < S::TILE; line += pass, from += stride, shared += pass * S::PITCH * sizeof(T))
            fetch_elements(shared, from, rows.step, line < live ? width - element : 0);
    }
}

// The elements of an operand of the score map that belong to a lane's scores; `row` and `key` are those of the first.
template <class M, int TILES>
__device__ __forceinline__ void fetch_mask(const AttentionArguments& arguments, const Operand& operand, int64_t start, int row, int key, float (&y)[TILES][4]) {
    const M* base = static_cast<const M*>(operand.address) + start;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        bool inside = row + 8 * half < int(arguments.queries);
        const M* from = base + int64_t(row + 8 * half) * operand.strides[AXES - 2];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
            for (int part = 0; part < 2; ++part) {
                int column = key + tile * 8 + part;
                bool exists = inside && column < int(arguments.keys);
                y[tile][2 * half + part] = exists ? float(from[int64_t(column) * operand.strides[AXES - 1]]) : 0.0f;
            }
    }
}

// Operands of the score map whose rows are all the same, such as masks of padding: the elements of a tile of keys.
template <class S> struct Masks {
    alignas(8) float rows[KEPT][S::TILE];

    static __device__ bool holds(const Operand& operand) { return operand.strides[AXES - 2] == 0; }

    // All threads of the block call it, and come together before they read.
    __device__ __forceinline__ void fetch(const Head& head, int first) {
        const AttentionArguments& arguments = head.arguments;
#pragma unroll 1
        for (uint32_t index = 0; index < KEPT; ++index) {
            const Operand& operand = arguments.chain.operands[index];
            if (operand.address == nullptr || !holds(operand)) continue;
            int64_t start = head.start(operand);
#pragma unroll 1
            for (int key = threadIdx.x; key < S::TILE; key += blockDim.x) {
                bool inside = first + key < int(arguments.keys);
                rows[index][key] = inside ? load_float(operand.address, operand.dtype, place(operand, start, 0, first + key)) : 0.0f;
            }
        }
    }
};

// The functions that score maps are made of, see AttentionArguments::takes.
template <int TILES>
__device__ __forceinline__ void apply_mask(uint32_t op, bool left, float constant, float (&x)[TILES][4], const float (&y)[TILES][4]) {
    switch (op) {
#define PARTS(expression) \
    _Pragma("unroll") for (int part = 0; part < 4 * TILES; ++part) { \
        float a = x[part / 4][part % 4], b = y[part / 4][part % 4]; \
        x[part / 4][part % 4] = (expression); \
    } \
    break;
    case Add: PARTS(a + b)
    case Mul: PARTS(a * b)
    case Sub: PARTS(left ? b - a : a - b)
    case Min: PARTS(left ? lesser(b, a) : lesser(a, b))
    case Max: PARTS(left ? greater(b, a) : greater(a, b))
    default: PARTS((b != 0.0f) != left ? a : constant)
#undef PARTS
    }
}

// The score map on a warp's scores; `row` and `column` are those of the lane's first element in the tile, whose keys are from `first` on.
template <class S>
__device__ __forceinline__ void map_scores(const Head& head, const Masks<S>& masks, float (&scores)[S::KEYS / 8][4], int row, int first, int column) {
    constexpr int TILES = S::KEYS / 8;
    const AttentionArguments& arguments = head.arguments;
    int key = first + column;
#pragma unroll
    for (int part = 0; part < 4 * TILES; ++part) scores[part / 4][part % 4] *= arguments.scale;
#pragma unroll 1
    for (uint32_t index = 0; index < arguments.chain.count; ++index) {
        const Stage& stage = arguments.chain.stages[index];
        bool fetches = stage.source >= 3, left = stage.source >= 2 && stage.source % 2 == 0;
        uint32_t number = fetches ? (stage.source - 3) / 2 : 0;
        const Operand& operand = arguments.chain.operands[number];
        float y[TILES][4];
        if (!fetches) {
#pragma unroll
            for (int part = 0; part < 4 * TILES; ++part) y[part / 4][part % 4] = stage.constant;
        } else if (Masks<S>::holds(operand)) {
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile) {
                float2 pair = *reinterpret_cast<const float2*>(masks.rows[number] + tile * 8 + column);
                y[tile][0] = y[tile][2] = pair.x, y[tile][1] = y[tile][3] = pair.y;
            }
        } else {
            int64_t start = head.start(operand);
            switch (operand.dtype) {
            case F32_TYPE: fetch_mask<float>(arguments, operand, start, row, key, y); break;
            case F16_TYPE: fetch_mask<__half>(arguments, operand, start, row, key, y); break;
            case BF16_TYPE: fetch_mask<__nv_bfloat16>(arguments, operand, start, row, key, y); break;
            default: fetch_mask<uint8_t>(arguments, operand, start, row, key, y);
            }
        }
        apply_mask(stage.op, left, stage.constant, scores, y);
    }
    if (first + S::TILE <= int(arguments.keys)) return;
    // What lies behind the last key weighs nothing.
#pragma unroll
    for (int part = 0; part < 4 * TILES; ++part)
        if (key + part / 4 * 8 + part % 2 >= int(arguments.keys)) scores[part / 4][part % 4] = -INFINITY;
}

// The combination over the four lanes that share a row.
template <class F> __device__ __forceinline__ float quad_all(float x, F combine) {
    x = combine(x, __shfl_xor_sync(~0u, x, 1));
    return combine(x, __shfl_xor_sync(~0u, x, 2));
}

// The greatest score so far and the sum of the weights, of the lane's two rows.
struct Softmax {
    float greatest[2] = {-INFINITY, -INFINITY}, sums[2] = {0.0f, 0.0f};

    // Scores become weights; what has been summed is scaled to the new greatest score.
    template <int TILES, int RESULTS> __device__ void weigh(float (&scores)[TILES][4], float (&results)[RESULTS][4]) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float most = greatest[half];
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile) most = fmaxf(most, fmaxf(scores[tile][2 * half], scores[tile][2 * half + 1]));
            most = quad_all(most, [](float a, float b) { return fmaxf(a, b); });
            // Nothing but -inf so far: weights of 0.
            float base = most == -INFINITY ? 0.0f : most, shrink = __expf(greatest[half] - base), sum = 0.0f;
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
                for (int part = 2 * half; part < 2 * half + 2; ++part) {
                    scores[tile][part] = __expf(scores[tile][part] - base);
                    sum += scores[tile][part];
                }
            sums[half] = sums[half] * shrink + sum;
            greatest[half] = most;
#pragma unroll
            for (int tile = 0; tile < RESULTS; ++tile) results[tile][2 * half] *= shrink, results[tile][2 * half + 1] *= shrink;
        }
    }

    // What the results of each row are multiplied by.
    __device__ float factor(int half, bool guard) const {
        float sum = quad_all(sums[half], [](float a, float b) { return a + b; });
        return guard && greatest[half] == -INFINITY && sum == 0.0f ? 0.0f : 1.0f / sum;
    }
};

// A row of results.
struct Results {
    char* base;
    uint32_t dtype;
    int32_t step;
    int width;
    bool pairs;

    __device__ __forceinline__ Results(const AttentionArguments& arguments, int64_t at) {
        const Operand& output = arguments.output;
        dtype = output.dtype, step = output.strides[AXES - 1], width = arguments.width;
        int bytes = bytes_of(dtype);
        base = static_cast<char*>(output.address) + at * bytes;
        pairs = step == 1 && width % 2 == 0 && (reinterpret_cast<uint64_t>(base) & (2 * bytes - 1)) == 0;
    }

    // Two neighbours, of which those behind the end are dropped.
    __device__ __forceinline__ void store(int column, float a, float b) const {
        if (column >= width) return;
        if (!pairs) return store_apart(base, dtype, int64_t(column) * step, step, min(2, width - column), make_float4(a, b, 0.0f, 0.0f));
        if (dtype == F16_TYPE) reinterpret_cast<__half2*>(base)[column / 2] = __floats2half2_rn(a, b);
        else if (dtype == BF16_TYPE) reinterpret_cast<__nv_bfloat162*>(base)[column / 2] = __floats2bfloat162_rn(a, b);
        else reinterpret_cast<float2*>(base)[column / 2] = make_float2(a, b);
    }
};

// Where a block works, and which part of its tiles a warp has.
template <class S> struct Share {
    Head head;
    // The first query of the warp, and its first key in every tile.
    int row, key;

    __device__ __forceinline__ Share(const AttentionArguments& arguments) : head{arguments, 0} {
        int warp = threadIdx.x / 32, block_rows = blockDim.x / 32 / S::GROUPS * WARP_ROWS;
        int parts = (int(arguments.queries) + block_rows - 1) / block_rows;
        head.batch = blockIdx.x / parts;
        row = int(blockIdx.x % parts) * block_rows + warp / S::GROUPS * WARP_ROWS;
        key = warp % S::GROUPS * S::KEYS;
    }
};

// Writes what a warp has found on its own.
template <class S>
__device__ __forceinline__ void write_results(const AttentionArguments& arguments, const Softmax& softmax, int64_t start, int row, const float (&results)[S::DEPTH / 8][4]) {
    int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float factor = softmax.factor(half, arguments.guard != 0);
        if (row + 8 * half >= int(arguments.queries)) continue;
        Results to(arguments, place(arguments.output, start, row + 8 * half, 0));
#pragma unroll
        for (int tile = 0; tile < S::DEPTH / 8; ++tile)
            to.store(tile * 8 + column, results[tile][2 * half] * factor, results[tile][2 * half + 1] * factor);
    }
}

// Adds up what the warps of a block have found for the same 16 queries, and writes it. The tiles' memory is free by now.
template <class S>
__device__ __forceinline__ void join_results(const AttentionArguments& arguments, const Softmax& softmax, int64_t start, int first_row, float (&results)[S::DEPTH / 8][4]) {
    constexpr int PITCH = S::DEPTH + 4;
    __shared__ float2 seen[S::GROUPS][WARP_ROWS];
    float* parts = reinterpret_cast<float*>(pipeline);
    int group = threadIdx.x / 32, lane = threadIdx.x % 32, column = lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = quad_all(softmax.sums[half], [](float a, float b) { return a + b; });
        if (lane % 4 == 0) seen[group][lane / 4 + 8 * half] = make_float2(softmax.greatest[half], sum);
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int row = lane / 4 + 8 * half;
        float most = -INFINITY, sum = 0.0f;
#pragma unroll
        for (int other = 0; other < S::GROUPS; ++other) most = fmaxf(most, seen[other][row].x);
        float base = most == -INFINITY ? 0.0f : most;
#pragma unroll
        for (int other = 0; other < S::GROUPS; ++other) sum += seen[other][row].y * __expf(seen[other][row].x - base);
        bool nothing = arguments.guard != 0 && most == -INFINITY && sum == 0.0f;
        float factor = nothing ? 0.0f : __expf(softmax.greatest[half] - base) / sum;
        float* to = parts + (group * WARP_ROWS + row) * PITCH + column;
#pragma unroll
        for (int tile = 0; tile < S::DEPTH / 8; ++tile)
            *reinterpret_cast<float2*>(to + tile * 8) = make_float2(results[tile][2 * half] * factor, results[tile][2 * half + 1] * factor);
    }
    __syncthreads();
    constexpr int THREADS = 32 * S::GROUPS / WARP_ROWS;
    int row = threadIdx.x / THREADS;
    if (first_row + row >= int(arguments.queries)) return;
    Results to(arguments, place(arguments.output, start, first_row + row, 0));
#pragma unroll
    for (int pair = 0; pair < S::DEPTH / (2 * THREADS); ++pair) {
        int own = (pair * THREADS + threadIdx.x % THREADS) * 2;
        float2 total = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int other = 0; other < S::GROUPS; ++other) {
            float2 part = *reinterpret_cast<const float2*>(parts + (other * WARP_ROWS + row) * PITCH + own);
            total.x += part.x, total.y += part.y;
        }
        to.store(own, total.x, total.y);
    }
}

template <class S> __device__ __forceinline__ void attend(const AttentionArguments& arguments) {
    using T = typename S::T;
    // Two stages of keys, then two of values.
    constexpr uint32_t STAGE = S::STAGE * sizeof(T);
    Share<S> share(arguments);
    const Head& head = share.head;
    Rows<T> keys = head.rows<T>(arguments.k, arguments.keys, arguments.k_vectors);
    Rows<T> values = head.rows<T>(arguments.v, arguments.keys, arguments.v_vectors);
    int count = (int(arguments.keys) + S::TILE - 1) / S::TILE;
    auto fetch = [&](int tile) {
        if (tile < count) {
            fetch_tile<S>(tile % 2 * STAGE, keys, tile * S::TILE, arguments.depth);
            fetch_tile<S>((2 + tile % 2) * STAGE, values, tile * S::TILE, arguments.width);
        }
        commit_copies();
    };
    const T* base = static_cast<const T*>(arguments.q.address) + head.start(arguments.q);
    int row = share.row + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    uint32_t part = share.key * S::PITCH * sizeof(T);
    Queries<T> queries(arguments, base, row);
    int64_t start = head.start(arguments.output);
    await_launch();
    fetch(0);
    __shared__ Masks<S> masks;
    Warp<S> warp;
    warp.load(queries);
    Softmax softmax;
    float results[S::DEPTH / 8][4] = {};
#pragma unroll 1
    for (int tile = 0; tile < count; ++tile) {
        fetch(tile + 1);
        masks.fetch(head, tile * S::TILE);
        await_copies<1>();
        // Everyone's copies of this tile have arrived.
        __syncthreads();
        float scores[S::KEYS / 8][4] = {};
        warp.score(scores, tile % 2 * STAGE + part);
        map_scores<S>(head, masks, scores, row, tile * S::TILE, share.key + column);
        softmax.weigh(scores, results);
        Warp<S>::weigh(results, scores, (2 + tile % 2) * STAGE + part);
        // Everyone is done with the stage that is fetched next.
        __syncthreads();
    }
    release_launch();
    if constexpr (S::GROUPS == 1) write_results<S>(arguments, softmax, start, row, results);
    else join_results<S>(arguments, softmax, start, share.row, results);
}

}  // namespace

// The entries of one arithmetic: for many queries, of which so many blocks share a multiprocessor by size of heads, and for few.
#define ATTENTIONS(name, T, blocks_32, blocks_64) \
    ENTRY_BLOCKS(attention_##name##_32, AttentionArguments, 128, blocks_32) { attend<Tiles<T, 32, 1>>(arguments); } \
    ENTRY_BLOCKS(attention_##name##_64, AttentionArguments, 128, blocks_64) { attend<Tiles<T, 64, 1>>(arguments); } \
    ENTRY(attention_##name##_128, AttentionArguments, 128) { attend<Tiles<T, 128, 1>>(arguments); } \
    ENTRY(attention_##name##_32_few, AttentionArguments, 128) { attend<Tiles<T, 32, 4>>(arguments); } \
    ENTRY(attention_##name##_64_few, AttentionArguments, 128) { attend<Tiles<T, 64, 4>>(arguments); } \
    ENTRY(attention_##name##_128_few, AttentionArguments, 128) { attend<Tiles<T, 128, 4>>(arguments); }
