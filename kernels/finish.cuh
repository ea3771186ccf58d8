// What happens to sums: results of a product take their factor and chain, four neighbours at a time, and are stored.
#pragma once
#include "chain.cuh"
#include "walk.cuh"

// Whether four neighbours of a strided operand can be read or written together.
__device__ __forceinline__ bool four_together(const Operand& operand, int64_t at, int32_t step, int valid) {
    int bytes = bytes_of(operand.dtype);
    return valid >= 4 && step == 1 && ((reinterpret_cast<uint64_t>(operand.address) + at * bytes) & (4 * bytes - 1)) == 0;
}

// The paths below that are rarely taken are called, not inlined: a launch waits for every instruction that it jumps over to be
// fetched, and most launches run through their code once.
static __device__ __noinline__ float4 fetch_apart(const void* base, uint32_t dtype, int64_t at, int32_t step, int valid) {
    float y[4];
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) y[lane] = lane < valid ? load_float(base, dtype, at + int64_t(lane) * step) : 0.0f;
    return make_float4(y[0], y[1], y[2], y[3]);
}

static __device__ __noinline__ void store_apart(void* base, uint32_t dtype, int64_t at, int32_t step, int valid, float4 x) {
    float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int lane = 0; lane < 4; ++lane)
        if (lane < valid) store_float(base, dtype, at + int64_t(lane) * step, values[lane]);
}

// Up to four elements, `step` apart; the rest become zeros.
__device__ __forceinline__ void fetch_four(const Operand& operand, int64_t at, int32_t step, int valid, float (&y)[4]) {
    if (is_float(operand.dtype) && four_together(operand, at, step, valid)) return load_floats<true>(operand.address, operand.dtype, at, y);
    float4 x = fetch_apart(operand.address, operand.dtype, at, step, valid);
    y[0] = x.x, y[1] = x.y, y[2] = x.z, y[3] = x.w;
}

__device__ __forceinline__ void store_four(const Operand& operand, int64_t at, int32_t step, int valid, const float (&x)[4]) {
    if (four_together(operand, at, step, valid)) return store_floats(operand.address, operand.dtype, at, x);
    store_apart(operand.address, operand.dtype, at, step, valid, make_float4(x[0], x[1], x[2], x[3]));
}

// Where values lie in a matrix: four neighbours, of which `valid` exist, in each of so many rows, `pass` apart.
struct Spot {
    int row, pass, rows, column, valid;
};

// An operand of one matrix of the batch, worked out once for a block.
struct Plane {
    char* base;
    int32_t row_step, column_step;
    uint32_t dtype;
    // Whether four neighbours, from a multiple of four on, can be read or written together.
    uint32_t together;

    __device__ __forceinline__ int64_t at(const Spot& spot) const { return int64_t(spot.row) * row_step + int64_t(spot.column) * column_step; }

    template <int Q> __device__ __forceinline__ void fetch(const Spot& spot, float (&y)[Q][4]) const {
        int64_t first = at(spot), step = int64_t(spot.pass) * row_step;
        if (together != 0 && spot.valid >= 4) {
            return with_float_type(base, dtype, [&](const auto* typed) {
#pragma unroll
                for (int q = 0; q < Q; ++q)
                    if (q < spot.rows) load_four(typed + first + q * step, y[q]);
            });
        }
#pragma unroll
        for (int q = 0; q < Q; ++q) {
            float4 x = fetch_apart(base, dtype, first + q * step, column_step, q < spot.rows ? spot.valid : 0);
            y[q][0] = x.x, y[q][1] = x.y, y[q][2] = x.z, y[q][3] = x.w;
        }
    }

    template <int Q> __device__ __forceinline__ void store(const Spot& spot, const float (&x)[Q][4]) const {
        int64_t first = at(spot), step = int64_t(spot.pass) * row_step;
        if (together != 0 && spot.valid >= 4) {
            return with_float_type(base, dtype, [&](auto* typed) {
#pragma unroll
                for (int q = 0; q < Q; ++q)
                    if (q < spot.rows) store_four(typed + first + q * step, x[q]);
            });
        }
#pragma unroll
        for (int q = 0; q < Q; ++q) {
            float4 packed = make_float4(x[q][0], x[q][1], x[q][2], x[q][3]);
            store_apart(base, dtype, first + q * step, column_step, q < spot.rows ? spot.valid : 0, packed);
        }
    }
};

// Results of one matrix of the batch: factor, chain and store.
struct Finish {
    static constexpr int PLANES = 1 + KEPT;

    const MatMulArguments& arguments;
    // Of the result, then of the chain's operands.
    const Plane* planes;

    // All threads of the block call it, and come together before the first result.
    static __device__ __forceinline__ Finish of(const MatMulArguments& arguments, uint32_t batch) {
        __shared__ Plane planes[PLANES];
        if (threadIdx.x < PLANES) {
            const MatMulArguments& own = apart(arguments);
            const Operand& operand = threadIdx.x == 0 ? own.c : own.chain.operands[threadIdx.x - 1];
            int32_t row_step = operand.strides[AXES - 2], column_step = operand.strides[AXES - 1];
            int bytes = bytes_of(operand.dtype);
            char* base = static_cast<char*>(operand.address) + int64_t(position(arguments.batch, operand, batch)) * bytes;
            bool whole = (reinterpret_cast<uint64_t>(base) & (4 * bytes - 1)) == 0 && row_step % 4 == 0;
            planes[threadIdx.x] = {base, row_step, column_step, operand.dtype, is_float(operand.dtype) && whole && column_step == 1};
        }
        return {arguments, planes};
    }

    // The columns begin at a multiple of four.
    template <int Q> __device__ __forceinline__ void finish(const Spot& spot, float (&x)[Q][4]) const {
#pragma unroll
        for (int lane = 0; lane < 4 * Q; ++lane) x[lane / 4][lane % 4] *= arguments.alpha;
        apply_chain(arguments.chain, x, [&](uint32_t index, float (&y)[Q][4]) { planes[1 + index].fetch(spot, y); });
        planes[0].store(spot, x);
    }
};
