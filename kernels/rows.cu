// Entries that work on rows: the end of split products, normalisation, softmax, reductions.
#include "finish.cuh"
#include <type_traits>

namespace {

template <class F> __device__ __forceinline__ float warp_all(float x, F combine) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = combine(x, __shfl_xor_sync(~0u, x, distance));
    return x;
}

__device__ __forceinline__ float sum_of(float a, float b) { return a + b; }
__device__ __forceinline__ float max_of(float a, float b) { return fmaxf(a, b); }

// The combination over all threads of a block, in an order that depends on nothing but the number of threads.
template <class F> __device__ __forceinline__ float block_all(float x, float neutral, F combine) {
    __shared__ float parts[32];
    x = warp_all(x, combine);
    // Nobody overwrites what another warp still reads from the call before.
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_all(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : neutral, combine);
}

// Two sums that are taken together.
struct Moments {
    float first, second;
};

// Their sums over all threads of a block, in an order that depends on nothing but the number of threads; `parts` is used once.
__device__ __forceinline__ Moments block_sums(Moments x, Moments* parts) {
    x = {warp_all(x.first, sum_of), warp_all(x.second, sum_of)};
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    bool exists = threadIdx.x % 32 < blockDim.x / 32;
    x = exists ? parts[threadIdx.x % 32] : Moments{0.0f, 0.0f};
    return {warp_all(x.first, sum_of), warp_all(x.second, sum_of)};
}

extern __shared__ float cached[];

constexpr int CACHED = 12 << 10;

// One row of a space whose last axes it runs over.
struct Row {
    const Space& space;
    int outer;
    uint32_t row;

    __device__ int64_t start(const Operand& operand) const { return position(space, operand.strides, row, 0, outer); }
    __device__ int64_t along(const Operand& operand, uint32_t element) const {
        return position(space, operand.strides, element, outer, space.rank);
    }
    __device__ void fetch(const Operand& operand, int64_t start, uint32_t element, int valid, float (&y)[4]) const {
        if (outer + 1 == int(space.rank)) {
            int32_t step = operand.strides[outer];
            return fetch_four(operand, start + int64_t(element) * step, step, valid, y);
        }
        // Rows over several axes are rare: one element after the other keeps their code short.
#pragma unroll 1
        for (int lane = 0; lane < 4; ++lane) {
            float value = lane < valid ? fetch_apart(operand.address, operand.dtype, start + along(operand, element + lane), 0, 1).x : 0.0f;
            y[0] = lane == 0 ? value : y[0], y[1] = lane == 1 ? value : y[1];
            y[2] = lane == 2 ? value : y[2], y[3] = lane == 3 ? value : y[3];
        }
    }
    __device__ void store(const Operand& operand, int64_t start, uint32_t element, int valid, const float (&x)[4]) const {
        if (outer + 1 == int(space.rank)) {
            int32_t step = operand.strides[outer];
            return store_four(operand, start + int64_t(element) * step, step, valid, x);
        }
#pragma unroll 1
        for (int lane = 0; lane < valid && lane < 4; ++lane) {
            float value = lane == 0 ? x[0] : lane == 1 ? x[1] : lane == 2 ? x[2] : x[3];
            store_apart(operand.address, operand.dtype, start + along(operand, element + lane), 0, 1, make_float4(value, 0.0f, 0.0f, 0.0f));
        }
    }
};

// Four neighbours of the sums over the parts of a split product.
__device__ __forceinline__ void sum_parts(const void* partials, uint32_t parts, int64_t stride, int64_t at, int valid, float (&x)[4]) {
    const float* part = static_cast<const float*>(partials) + at;
    bool together = valid >= 4 && reinterpret_cast<uint64_t>(part) % 16 == 0 && stride % 4 == 0;
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) x[lane] = 0.0f;
#pragma unroll 4
    for (uint32_t index = 0; index < parts; ++index, part += stride) {
        if (together) {
            float4 packed = *reinterpret_cast<const float4*>(part);
            x[0] += packed.x, x[1] += packed.y, x[2] += packed.z, x[3] += packed.w;
        } else {
#pragma unroll
            for (int lane = 0; lane < 4; ++lane)
                if (lane < valid) x[lane] += part[lane];
        }
    }
}

// An operand along one row, worked out once for a block.
struct Line {
    char* base;
    int32_t step;
    uint32_t dtype;
    // Whether four neighbours, from a multiple of four on, can be read or written together; whether the row has several axes.
    uint32_t together, deep;
};

// The operands of a normalisation: X, X's other place, scale, shift, result, then the chain's.
struct NormLines {
    static constexpr int INPUT = 0, SUM = 1, SCALE = 2, BIAS = 3, OUTPUT = 4, CHAIN = 5, COUNT = CHAIN + KEPT;

    const NormArguments& arguments;
    Row row;
    const Line* lines;

    static __device__ __forceinline__ const Operand& operand(const NormArguments& arguments, int index) {
        switch (index) {
        case INPUT: return arguments.input;
        case SUM: return arguments.sum;
        case SCALE: return arguments.scale;
        case BIAS: return arguments.bias;
        case OUTPUT: return arguments.output;
        default: return arguments.chain.operands[index - CHAIN];
        }
    }

    // Of this row. The threads that share it call it, `index` being the number of each among them, and come together before the first
    // element; there are at least COUNT of them.
    static __device__ __forceinline__ NormLines of(const NormArguments& arguments, uint32_t row_index, Line* lines, uint32_t index) {
        const Space& space = arguments.space;
        Row row = {space, int(space.rank - arguments.axes), row_index};
        if (index < COUNT) {
            const Operand& operand = NormLines::operand(apart(arguments), index);
            int bytes = bytes_of(operand.dtype);
            bool exists = operand.address != nullptr, deep = arguments.axes != 1;
            char* base = exists ? static_cast<char*>(operand.address) + row.start(operand) * bytes : nullptr;
            int32_t step = deep ? 0 : operand.strides[row.outer];
            bool together = step == 1 && is_float(operand.dtype) && (reinterpret_cast<uint64_t>(base) & (4 * bytes - 1)) == 0;
            lines[index] = {base, step, operand.dtype, together, deep};
        }
        return {arguments, row, lines};
    }

    __device__ bool has(int index) const { return lines[index].base != nullptr; }

    // Whether all rows are whole groups of four, of which every thread has at most one.
    __device__ bool are_whole() const {
        uint32_t extent = arguments.extent;
        bool whole = extent % 4 == 0 && extent <= 4 * blockDim.x && reinterpret_cast<uint64_t>(arguments.partials) % 16 == 0;
#pragma unroll
        for (int index = 0; index < COUNT; ++index) whole = whole && (lines[index].together != 0 || !has(index));
        return whole;
    }

    __device__ __forceinline__ void fetch(int index, uint32_t element, int valid, float (&y)[4]) const {
        const Line& line = lines[index];
        if (line.together && valid >= 4) return load_floats<true>(line.base, line.dtype, element, y);
        if (line.deep) return row.fetch(operand(arguments, index), row.start(operand(arguments, index)), element, valid, y);
        float4 x = fetch_apart(line.base, line.dtype, int64_t(element) * line.step, line.step, valid);
        y[0] = x.x, y[1] = x.y, y[2] = x.z, y[3] = x.w;
    }

    __device__ __forceinline__ void store(int index, uint32_t element, int valid, const float (&x)[4]) const {
        const Line& line = lines[index];
        if (line.together && valid >= 4) return store_floats(line.base, line.dtype, element, x);
        if (line.deep) return row.store(operand(arguments, index), row.start(operand(arguments, index)), element, valid, x);
        store_apart(line.base, line.dtype, int64_t(element) * line.step, line.step, valid, make_float4(x[0], x[1], x[2], x[3]));
    }

    // Four elements of X: an operand, or sums with their chain.
    __device__ __forceinline__ void input(uint32_t element, int valid, float (&x)[4]) const {
        if (arguments.splits == 0) return fetch(INPUT, element, valid, x);
        int64_t at = int64_t(row.row) * arguments.extent + element;
        sum_parts(arguments.partials, arguments.splits, arguments.space.count, at, valid, x);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] *= arguments.alpha;
        apply_chain(arguments.chain, x, [&](uint32_t index, float (&y)[4]) { fetch(CHAIN + index, element, valid, y); });
    }
};

// What a softmax row needs of its elements.
template <class F> __device__ __forceinline__ void write_softmax(const SoftmaxArguments& arguments, F store, float x, float largest, float sum) {
    if (arguments.guard && largest == -INFINITY) store(0.0f);
    else store(arguments.log ? x - (largest + logf(sum)) : expf(x - largest) / sum);
}

// The state of a reduction over floats or over integers.
template <class T> struct Reduction {
    T value;
    int32_t index;

    static __device__ bool is_nan(float x) { return isnan(x); }
    static __device__ bool is_nan(int64_t) { return false; }
    static __device__ T limit(uint32_t dtype, bool greatest);

    static __device__ Reduction neutral(const ReduceArguments& arguments) {
        switch (arguments.op) {
        case 2: return {limit(arguments.input.dtype, false), 0};
        case 3: return {limit(arguments.input.dtype, true), 0};
        case 4: return {T(1), 0};
        default: return {T(0), -1};
        }
    }

    __device__ bool loses(const ReduceArguments& arguments, const Reduction& other) const {
        if (other.index < 0) return false;
        if (index < 0) return true;
        if (is_nan(value) || is_nan(other.value))
            return is_nan(value) && (!is_nan(other.value) || other.index < index);
        if (value == other.value) return arguments.last ? other.index > index : other.index < index;
        return arguments.op == 6 ? other.value > value : other.value < value;
    }

    __device__ void merge(const ReduceArguments& arguments, const Reduction& other) {
        switch (arguments.op) {
        case 2: value = other.value > value || is_nan(other.value) ? other.value : value; break;
        case 3: value = other.value < value || is_nan(other.value) ? other.value : value; break;
        case 4: value *= other.value; break;
        case 6:
        case 7:
            if (loses(arguments, other)) *this = other;
            break;
        default: value += other.value;
        }
    }

    // Elements `first`, `first + step`, .. of a result; four at a time are on their way.
    template <class M> __device__ __forceinline__ void add(const ReduceArguments& arguments, int64_t start, uint32_t first, uint32_t step) {
        constexpr int AHEAD = 4;
        const Operand& input = arguments.input;
        const M* base = static_cast<const M*>(input.address) + start;
#pragma unroll 1
        for (uint32_t element = first; element < arguments.extent; element += AHEAD * step) {
            M stored[AHEAD];
#pragma unroll
            for (int index = 0; index < AHEAD; ++index) {
                uint32_t own = element + index * step;
                if (own < arguments.extent) stored[index] = base[position(arguments.space, input.strides, own, arguments.kept, arguments.space.rank)];
            }
#pragma unroll
            for (int index = 0; index < AHEAD; ++index) {
                uint32_t own = element + index * step;
                T x = T(stored[index]);
                if (own < arguments.extent) merge(arguments, {arguments.op == 5 ? x * x : x, int32_t(own)});
            }
        }
    }

    __device__ void store(const ReduceArguments& arguments, uint32_t result) const;

    __device__ Reduction shuffled(int distance) const {
        return {__shfl_xor_sync(~0u, value, distance), __shfl_xor_sync(~0u, index, distance)};
    }
};

template <> __device__ float Reduction<float>::limit(uint32_t, bool greatest) { return greatest ? INFINITY : -INFINITY; }
template <> __device__ int64_t Reduction<int64_t>::limit(uint32_t dtype, bool greatest) {
    switch (dtype) {
    case I32_TYPE: return greatest ? INT32_MAX : INT32_MIN;
    case I8_TYPE: return greatest ? INT8_MAX : INT8_MIN;
    case U8_TYPE: return greatest ? UINT8_MAX : 0;
    case BOOL_TYPE: return greatest;
    default: return greatest ? INT64_MAX : INT64_MIN;
    }
}
template <> __device__ void Reduction<float>::store(const ReduceArguments& arguments, uint32_t result) const {
    const Operand& output = arguments.output;
    int64_t at = position(arguments.space, output.strides, result, 0, arguments.kept);
    if (arguments.op >= 6) return store_integer(output.address, output.dtype, at, index);
    float x = arguments.op == 1 ? value / float(arguments.extent) : arguments.op == 5 ? sqrtf(value) : value;
    store_float(output.address, output.dtype, at, x);
}
template <> __device__ void Reduction<int64_t>::store(const ReduceArguments& arguments, uint32_t result) const {
    const Operand& output = arguments.output;
    int64_t at = position(arguments.space, output.strides, result, 0, arguments.kept);
    int64_t x = value;
    if (arguments.op == 1) x /= max(arguments.extent, 1u);
    if (arguments.op == 5) x = static_cast<int64_t>(sqrt(static_cast<double>(value)));
    store_integer(output.address, output.dtype, at, arguments.op >= 6 ? index : x);
}

__device__ __forceinline__ uint32_t results(const ReduceArguments& arguments) {
    uint32_t count = 1;
    for (uint32_t axis = 0; axis < arguments.kept; ++axis) count *= arguments.space.extents[axis];
    return count;
}

// Elements `first`, `first + step`, .. of one result.
template <class T> __device__ __forceinline__ Reduction<T> partly(const ReduceArguments& arguments, uint32_t result, uint32_t first, uint32_t step) {
    Reduction<T> state = Reduction<T>::neutral(arguments);
    int64_t start = position(arguments.space, arguments.input.strides, result, 0, arguments.kept);
    auto add = [&](auto stored) { state.template add<decltype(stored)>(arguments, start, first, step); };
    if constexpr (sizeof(T) == sizeof(float)) {
        with_float_type(nullptr, arguments.input.dtype, [&](auto* typed) { add(std::remove_pointer_t<decltype(typed)>()); });
    } else {
        switch (arguments.input.dtype) {
        case I64_TYPE: add(int64_t()); break;
        case I32_TYPE: add(int32_t()); break;
        case I8_TYPE: add(int8_t()); break;
        default: add(uint8_t());
        }
    }
    return state;
}

template <class T> __device__ __forceinline__ void warp_merge(const ReduceArguments& arguments, Reduction<T>& state) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) state.merge(arguments, state.shuffled(distance));
}

template <class T> __device__ __forceinline__ void reduce_in_threads(const ReduceArguments& arguments) {
    uint32_t result = blockIdx.x * blockDim.x + threadIdx.x;
    if (result < results(arguments)) partly<T>(arguments, result, 0, 1).store(arguments, result);
}

template <class T> __device__ __forceinline__ void reduce_in_warps(const ReduceArguments& arguments) {
    uint32_t result = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (result >= results(arguments)) return;
    Reduction<T> state = partly<T>(arguments, result, threadIdx.x % 32, 32);
    warp_merge(arguments, state);
    if (threadIdx.x % 32 == 0) state.store(arguments, result);
}

// 32 neighbouring results a block, so that what its warps read lies side by side; each warp has a part of the elements.
template <class T> __device__ __forceinline__ void reduce_in_columns(const ReduceArguments& arguments) {
    constexpr int PARTS = 8;
    __shared__ T values[PARTS][32];
    __shared__ int32_t indices[PARTS][32];
    uint32_t lane = threadIdx.x % 32, part = threadIdx.x / 32, result = blockIdx.x * 32 + lane;
    bool exists = result < results(arguments);
    if (exists) {
        Reduction<T> state = partly<T>(arguments, result, part, PARTS);
        values[part][lane] = state.value, indices[part][lane] = state.index;
    }
    __syncthreads();
    if (part != 0 || !exists) return;
    Reduction<T> state = {values[0][lane], indices[0][lane]};
#pragma unroll 1
    for (int other = 1; other < PARTS; ++other) state.merge(arguments, {values[other][lane], indices[other][lane]});
    state.store(arguments, result);
}

template <class T> __device__ __forceinline__ void reduce_in_blocks(const ReduceArguments& arguments) {
    __shared__ T values[32];
    __shared__ int32_t indices[32];
    if (blockIdx.x >= results(arguments)) return;
    Reduction<T> state = partly<T>(arguments, blockIdx.x, threadIdx.x, blockDim.x);
    warp_merge(arguments, state);
    if (threadIdx.x % 32 == 0) values[threadIdx.x / 32] = state.value, indices[threadIdx.x / 32] = state.index;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    state = Reduction<T>::neutral(arguments);
    if (threadIdx.x < blockDim.x / 32) state = {values[threadIdx.x], indices[threadIdx.x]};
    warp_merge(arguments, state);
    if (threadIdx.x == 0) state.store(arguments, blockIdx.x);
}

// What is taken from the elements of a row, and what they are multiplied by.
struct Scaling {
    float mean, factor;

    // Of rows far from zero the mean has the rounding of large sums: what the differences add up to mends it.
    __device__ __forceinline__ Scaling(const NormArguments& arguments, float mean, Moments moments) : mean(mean) {
        float count = float(arguments.extent), variance = moments.second / count;
        if (arguments.centered) {
            float drift = moments.first / count;
            this->mean += drift;
            variance = fmaxf(variance - drift * drift, 0.0f);
        }
        factor = 1.0f / sqrtf(variance + arguments.epsilon);
    }

    __device__ __forceinline__ float of(float x) const { return (x - mean) * factor; }
};

// Four neighbours of a float type as they lie in memory, so that many can be on their way before the first is used.
struct Packed {
    uint4 bits;

    __device__ __forceinline__ void fetch(const Line& line, uint32_t element) {
        if (line.dtype == F32_TYPE) {
            bits = reinterpret_cast<const uint4*>(line.base)[element / 4];
        } else {
            uint2 half = reinterpret_cast<const uint2*>(line.base)[element / 4];
            bits.x = half.x, bits.y = half.y;
        }
    }

    __device__ __forceinline__ void unpack(uint32_t dtype, float (&x)[4]) const { load_floats<true>(&bits, dtype, 0, x); }
};

// Rows of whole groups of four elements, a group a thread: everything that a thread needs is fetched before any of it is used.
__device__ __forceinline__ void normalize_at_once(const NormArguments& arguments, const NormLines& lines) {
    uint32_t element = threadIdx.x * 4;
    bool works = element < arguments.extent;
    Packed packed[NormLines::COUNT];
    float x[4] = {};
    if (works) {
#pragma unroll
        for (int index = 0; index < NormLines::COUNT; ++index) {
            bool reads = index != NormLines::SUM && index != NormLines::OUTPUT;
            if (reads && lines.has(index)) packed[index].fetch(lines.lines[index], element);
        }
        if (arguments.splits == 0) {
            packed[NormLines::INPUT].unpack(lines.lines[NormLines::INPUT].dtype, x);
        } else {
            int64_t at = int64_t(lines.row.row) * arguments.extent + element;
            sum_parts(arguments.partials, arguments.splits, arguments.space.count, at, 4, x);
#pragma unroll
            for (int lane = 0; lane < 4; ++lane) x[lane] *= arguments.alpha;
            apply_chain(arguments.chain, x, [&](uint32_t operand, float (&y)[4]) {
                Packed chosen = packed[NormLines::CHAIN];
#pragma unroll
                for (int other = 1; other < int(KEPT); ++other)
                    if (operand == other) chosen = packed[NormLines::CHAIN + other];
                chosen.unpack(lines.lines[NormLines::CHAIN + operand].dtype, y);
            });
        }
        if (lines.has(NormLines::SUM)) lines.store(NormLines::SUM, element, 4, x);
    }
    __shared__ Moments parts[2][32];
    float total = x[0] + x[1] + (x[2] + x[3]), count = float(arguments.extent);
    float mean = arguments.centered ? block_sums({total, 0.0f}, parts[0]).first / count : 0.0f;
    Moments moments = {0.0f, 0.0f};
    if (works) {
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) moments.first += x[lane] - mean, moments.second += (x[lane] - mean) * (x[lane] - mean);
    }
    release_launch();
    Scaling scaling(arguments, mean, block_sums(moments, parts[1]));
    if (!works) return;
    float factor[4], shift[4] = {};
    packed[NormLines::SCALE].unpack(lines.lines[NormLines::SCALE].dtype, factor);
    if (lines.has(NormLines::BIAS)) packed[NormLines::BIAS].unpack(lines.lines[NormLines::BIAS].dtype, shift);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) x[lane] = scaling.of(x[lane]) * factor[lane] + shift[lane];
    lines.store(NormLines::OUTPUT, element, 4, x);
}

// Rows of any length and kind, in as many turns as they take.
__device__ __forceinline__ void normalize_in_turns(const NormArguments& arguments, const NormLines& lines) {
    uint32_t extent = arguments.extent, first = threadIdx.x * 4, step = blockDim.x * 4;
    bool keep = extent <= CACHED;
    // Every thread reads only what it has kept itself.
    auto value = [&](uint32_t element, int valid, float (&x)[4]) {
        if (!keep) return lines.input(element, valid, x);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] = lane < valid ? cached[element + lane] : 0.0f;
    };
    float total = 0.0f;
#pragma unroll 1
    for (uint32_t element = first; element < extent; element += step) {
        int valid = int(extent - element);
        float x[4];
        lines.input(element, valid, x);
        if (lines.has(NormLines::SUM)) lines.store(NormLines::SUM, element, valid, x);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {
            if (lane >= valid) continue;
            total += x[lane];
            if (keep) cached[element + lane] = x[lane];
        }
    }
    __shared__ Moments parts[2][32];
    float mean = arguments.centered ? block_sums({total, 0.0f}, parts[0]).first / float(extent) : 0.0f;
    // Of rows far from zero the mean has the rounding of large sums: what the differences add up to mends it.
    Moments moments = {0.0f, 0.0f};
#pragma unroll 1
    for (uint32_t element = first; element < extent; element += step) {
        int valid = int(extent - element);
        float x[4];
        value(element, valid, x);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane)
            if (lane < valid) moments.first += x[lane] - mean, moments.second += (x[lane] - mean) * (x[lane] - mean);
    }
    release_launch();
    Scaling scaling(arguments, mean, block_sums(moments, parts[1]));
#pragma unroll 1
    for (uint32_t element = first; element < extent; element += step) {
        int valid = int(extent - element);
        float x[4], factor[4], shift[4] = {};
        value(element, valid, x);
        lines.fetch(NormLines::SCALE, element, valid, factor);
        if (lines.has(NormLines::BIAS)) lines.fetch(NormLines::BIAS, element, valid, shift);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] = scaling.of(x[lane]) * factor[lane] + shift[lane];
        lines.store(NormLines::OUTPUT, element, valid, x);
    }
}

// The groups of four elements that a lane has of its warp's row: every 32nd. Those behind the row's end are zeros, and not addressed.
struct Groups {
    static constexpr int COUNT = 8;

    uint32_t first, extent;

    __device__ __forceinline__ explicit Groups(uint32_t extent) : first(threadIdx.x % 32 * 4), extent(extent) {}
    __device__ __forceinline__ uint32_t element(int group) const { return group * 128 + first; }
    __device__ __forceinline__ bool has(int group) const { return element(group) < extent; }

    __device__ __forceinline__ void fetch(const Line& line, float (&x)[COUNT][4]) const {
        with_float_type(line.base, line.dtype, [&](auto* typed) {
#pragma unroll
            for (int group = 0; group < COUNT; ++group)
                if (has(group)) load_four(typed + element(group), x[group]);
        });
    }

    __device__ __forceinline__ void store(const Line& line, const float (&x)[COUNT][4]) const {
        with_float_type(line.base, line.dtype, [&](auto* typed) {
#pragma unroll
            for (int group = 0; group < COUNT; ++group)
                if (has(group)) store_four(typed + element(group), x[group]);
        });
    }

    // Adds up the parts of a split product, in their order.
    __device__ __forceinline__ void add_parts(const NormArguments& arguments, uint32_t row, float (&x)[COUNT][4]) const {
        const float* part = static_cast<const float*>(arguments.partials) + int64_t(row) * extent;
#pragma unroll 1
        for (uint32_t index = 0; index < arguments.splits; ++index, part += arguments.space.count) {
            float y[COUNT][4] = {};
            fetch({const_cast<char*>(reinterpret_cast<const char*>(part)), 1, F32_TYPE, 1, 0}, y);
#pragma unroll
            for (int lane = 0; lane < 4 * COUNT; ++lane) x[lane / 4][lane % 4] += y[lane / 4][lane % 4];
        }
    }
};

// A row a warp. Rows are whole groups of four elements, and so are those of all operands (NormArguments::launch).
__device__ __forceinline__ void normalize_in_warp(const NormArguments& arguments, const NormLines& lines) {
    constexpr int COUNT = Groups::COUNT;
    Groups groups(arguments.extent);
    float x[COUNT][4] = {};
    if (arguments.splits == 0) groups.fetch(lines.lines[NormLines::INPUT], x);
    else groups.add_parts(arguments, lines.row.row, x);
    if (arguments.splits != 0) {
#pragma unroll
        for (int lane = 0; lane < 4 * COUNT; ++lane) x[lane / 4][lane % 4] *= arguments.alpha;
        apply_chain(arguments.chain, x, [&](uint32_t operand, float (&y)[COUNT][4]) { groups.fetch(lines.lines[NormLines::CHAIN + operand], y); });
    }
    if (lines.has(NormLines::SUM)) groups.store(lines.lines[NormLines::SUM], x);
    float total = 0.0f, mean = 0.0f;
#pragma unroll
    for (int group = 0; group < COUNT; ++group)
        if (groups.has(group)) total += x[group][0] + x[group][1] + (x[group][2] + x[group][3]);
    if (arguments.centered) mean = warp_all(total, sum_of) / float(arguments.extent);
    Moments moments = {0.0f, 0.0f};
#pragma unroll
    for (int lane = 0; lane < 4 * COUNT; ++lane) {
        float difference = x[lane / 4][lane % 4] - mean;
        if (groups.has(lane / 4)) moments.first += difference, moments.second += difference * difference;
    }
    release_launch();
    Scaling scaling(arguments, mean, {warp_all(moments.first, sum_of), warp_all(moments.second, sum_of)});
    // All rows have the same scale and shift, mostly: they are near, and come late so that fewer registers are held.
    float y[COUNT][4] = {};
    groups.fetch(lines.lines[NormLines::SCALE], y);
#pragma unroll
    for (int lane = 0; lane < 4 * COUNT; ++lane) x[lane / 4][lane % 4] = scaling.of(x[lane / 4][lane % 4]) * y[lane / 4][lane % 4];
    if (lines.has(NormLines::BIAS)) {
        groups.fetch(lines.lines[NormLines::BIAS], y);
#pragma unroll
        for (int lane = 0; lane < 4 * COUNT; ++lane) x[lane / 4][lane % 4] += y[lane / 4][lane % 4];
    }
    groups.store(lines.lines[NormLines::OUTPUT], x);
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
