// Normalisation of rows: by a block in one turn or several, or by a warp.
#pragma once
#include "rows.cuh"

namespace {

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
