// What happens to sums: four neighbouring results of a product take their factor and chain, and are stored.
#pragma once
#include "chain.cuh"
#include "walk.cuh"

// Whether four neighbours of a strided operand can be read or written together.
__device__ __forceinline__ bool four_together(const Operand& operand, int64_t at, int32_t step, int valid) {
    int bytes = bytes_of(operand.dtype);
    return valid >= 4 && step == 1 && (reinterpret_cast<uint64_t>(operand.address) + at * bytes) % (4 * bytes) == 0;
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

// An operand of one matrix of the batch, worked out once for a block.
struct Plane {
    char* base;
    int32_t row_step, column_step;
    uint32_t dtype;
    // Whether four neighbours, from a multiple of four on, can be read or written together.
    uint32_t together;

    __device__ int64_t at(int row, int column) const { return int64_t(row) * row_step + int64_t(column) * column_step; }

    __device__ __forceinline__ void fetch(int row, int column, int valid, float (&y)[4]) const {
        if (together != 0 && valid >= 4) return load_floats<true>(base, dtype, at(row, column), y);
        float4 x = fetch_apart(base, dtype, at(row, column), column_step, valid);
        y[0] = x.x, y[1] = x.y, y[2] = x.z, y[3] = x.w;
    }

    __device__ __forceinline__ void store(int row, int column, int valid, const float (&x)[4]) const {
        if (together != 0 && valid >= 4) return store_floats(base, dtype, at(row, column), x);
        store_apart(base, dtype, at(row, column), column_step, valid, make_float4(x[0], x[1], x[2], x[3]));
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
            const Operand& operand = threadIdx.x == 0 ? arguments.c : arguments.chain.operands[threadIdx.x - 1];
            int32_t row_step = operand.strides[AXES - 2], column_step = operand.strides[AXES - 1];
            int bytes = bytes_of(operand.dtype);
            char* base = static_cast<char*>(operand.address) + int64_t(position(arguments.batch, operand, batch)) * bytes;
            bool whole = reinterpret_cast<uint64_t>(base) % (4 * bytes) == 0 && row_step % 4 == 0;
            planes[threadIdx.x] = {base, row_step, column_step, operand.dtype, is_float(operand.dtype) && whole && column_step == 1};
        }
        return {arguments, planes};
    }

    // Four neighbours; `column` is a multiple of four.
    __device__ __forceinline__ void finish(int row, int column, int valid, float (&x)[4]) const {
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] *= arguments.alpha;
        apply_chain(arguments.chain, x, [&](uint32_t index, float (&y)[4]) { planes[1 + index].fetch(row, column, valid, y); });
        planes[0].store(row, column, valid, x);
    }
};
