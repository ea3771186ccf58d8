// What happens to sums: four neighbouring results of a product take their factor and chain, and are stored.
#pragma once
#include "chain.cuh"
#include "walk.cuh"

// Whether four neighbours of a strided operand can be read or written together.
__device__ __forceinline__ bool four_together(const Operand& operand, int64_t at, int32_t step, int valid) {
    int bytes = bytes_of(operand.dtype);
    return valid >= 4 && step == 1 && (reinterpret_cast<uint64_t>(operand.address) + at * bytes) % (4 * bytes) == 0;
}

// Up to four elements, `step` apart; the rest become zeros.
__device__ __forceinline__ void fetch_four(const Operand& operand, int64_t at, int32_t step, int valid, float (&y)[4]) {
    if (four_together(operand, at, step, valid)) return load_floats(operand.address, operand.dtype, at, y);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane)
        y[lane] = lane < valid ? load_float(operand.address, operand.dtype, at + int64_t(lane) * step) : 0.0f;
}

__device__ __forceinline__ void store_four(const Operand& operand, int64_t at, int32_t step, int valid, const float (&x)[4]) {
    if (four_together(operand, at, step, valid)) return store_floats(operand.address, operand.dtype, at, x);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane)
        if (lane < valid) store_float(operand.address, operand.dtype, at + int64_t(lane) * step, x[lane]);
}

// Results of one matrix of the batch.
struct Finish {
    const MatMulArguments& arguments;
    uint32_t batch;

    __device__ int64_t place(const Operand& operand, int row, int column) const {
        return int64_t(position(arguments.batch, operand, batch)) + int64_t(row) * operand.strides[AXES - 2] +
               int64_t(column) * operand.strides[AXES - 1];
    }

    // Factor, chain and store.
    __device__ void finish(int row, int column, int valid, float (&x)[4]) const {
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] *= arguments.alpha;
        apply_chain(arguments.chain, x, [&](uint32_t index, float (&y)[4]) {
            const Operand& operand = arguments.chain.operands[index];
            fetch_four(operand, place(operand, row, column), operand.strides[AXES - 1], valid, y);
        });
        store_four(arguments.c, place(arguments.c, row, column), arguments.c.strides[AXES - 1], valid, x);
    }
};
