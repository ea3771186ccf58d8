// Products of int32 matrices, wrapping.
#include "finish.cuh"

namespace {

constexpr int TILE = 64, DEPTH = 16, THREADS = 128;

__device__ __forceinline__ int32_t element(const Operand& operand, int64_t at) {
    return static_cast<const int32_t*>(operand.address)[at];
}

// An element of an operand that lies as a matrix.
__device__ __forceinline__ int64_t place(const Operand& operand, int64_t start, int row, int column) {
    return start + int64_t(row) * operand.strides[AXES - 2] + int64_t(column) * operand.strides[AXES - 1];
}

}  // namespace

ENTRY(matmul_i32, MatMulArguments, THREADS) {
    begin();
    __shared__ int32_t left[TILE][DEPTH + 1], right[DEPTH][TILE];
    uint32_t rows = (arguments.m + TILE - 1) / TILE, columns = (arguments.n + TILE - 1) / TILE;
    uint32_t tile = blockIdx.x % (rows * columns), batch = blockIdx.x / (rows * columns);
    int first_row = tile % rows * TILE, first_column = tile / rows * TILE;
    Finish finish = Finish::of(arguments, batch);
    const Operand &a = arguments.a, &b = arguments.b, &c = arguments.c;
    int64_t a_start = position(arguments.batch, a, batch), b_start = position(arguments.batch, b, batch);
    int64_t c_start = position(arguments.batch, c, batch);
    // A thread computes rows thread / 16 + 8 i and columns thread % 16 * 4 + j.
    int thread = threadIdx.x, row = thread / 16, column = thread % 16 * 4;
    int32_t sums[8][4] = {};
    // Also without any term the planes are in place before the results.
    __syncthreads();
    for (int k = 0; k < int(arguments.k); k += DEPTH) {
        __syncthreads();
        for (int index = thread; index < TILE * DEPTH; index += THREADS) {
            int m = index / DEPTH, at = index % DEPTH;
            bool inside = first_row + m < int(arguments.m) && k + at < int(arguments.k);
            left[m][at] = inside ? element(a, place(a, a_start, first_row + m, k + at)) : 0;
            int n = index % TILE;
            at = index / TILE;
            inside = first_column + n < int(arguments.n) && k + at < int(arguments.k);
            right[at][n] = inside ? element(b, place(b, b_start, k + at, first_column + n)) : 0;
        }
        __syncthreads();
#pragma unroll
        for (int at = 0; at < DEPTH; ++at)
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] += left[row + 8 * i][at] * right[at][column + j];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        int m = first_row + row + 8 * i, n = first_column + column, valid = int(arguments.n) - n;
        if (m >= int(arguments.m) || valid <= 0) continue;
        if (is_float(c.dtype)) {
            float x[1][4];
#pragma unroll
            for (int j = 0; j < 4; ++j) x[0][j] = __int2float_rn(sums[i][j]);
            finish.finish({m, 0, 1, n, valid}, x);
            continue;
        }
#pragma unroll
        for (int j = 0; j < 4; ++j)
            if (j < valid) store_integer(c.address, c.dtype, place(c, c_start, m, n + j), sums[i][j]);
    }
}
