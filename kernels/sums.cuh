// The sums of a product in registers, by each kind of arithmetic.
#pragma once
#include "shape.cuh"

extern __shared__ uint4 pipeline[];

// What lies in shared memory `offset` bytes behind the pipeline's begin.
template <class T> __device__ __forceinline__ const T* stage_elements(uint32_t offset) {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(pipeline) + offset);
}

// The sums of one warp, in the layout of the instructions that make them.
template <class S, Kind KIND = S::KIND> struct Sums;

// Tensor cores: fragments of 16 x 8, of which a lane holds columns 2 (l % 4) + {0, 1} of rows l / 4 + {0, 8}.
template <class S> struct TensorSums {
    using T = typename S::T;
    static constexpr int M = S::WARP_ROWS / 16, N = S::WARP_COLUMNS / 8;
    float sums[M][N][4];

    __device__ void clear() {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int part = 0; part < 4; ++part) sums[m][n][part] = 0.0f;
    }

    // Writes the sums to the block's tile in shared memory.
    __device__ __forceinline__ void store(float* tile, int row, int column) const {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n) {
                float* at = tile + (row + m * 16 + lane / 4) * S::SUMS_PITCH + column + n * 8 + lane % 4 * 2;
                *reinterpret_cast<float2*>(at) = make_float2(sums[m][n][0], sums[m][n][1]);
                *reinterpret_cast<float2*>(at + 8 * S::SUMS_PITCH) = make_float2(sums[m][n][2], sums[m][n][3]);
            }
    }
};

template <class S> struct Sums<S, Kind::Half> : TensorSums<S> {
    using T = typename S::T;
    using TensorSums<S>::M;
    using TensorSums<S>::N;

    // Where in a stage this lane's rows of the matrices begin that make up the fragments, in bytes.
    uint32_t left_place, right_place;

    // The results of the warp begin at `row` and `column`, its terms at `depth` of each stage.
    __device__ __forceinline__ Sums(int row, int column, int depth) {
        int lane = threadIdx.x % 32;
        left_place = ((row + lane % 16) * S::A_PITCH + depth + lane / 16 * 8) * sizeof(T);
        // Matrices: columns 0-7 of k 0-7 and k 8-15, then columns 8-15.
        int right = S::RIGHT == Right::Columns ? (column + lane / 16 * 8 + lane % 8) * S::B_PITCH + depth + lane / 8 % 2 * 8
                                               : (depth + lane / 8 % 2 * 8 + lane % 8) * S::B_PITCH + column + lane / 16 * 8;
        right_place = (S::A_ELEMENTS + right) * sizeof(T);
        this->clear();
    }

    // Adds the product of the stage at this address.
    __device__ __forceinline__ void add(uint32_t stage) {
        uint32_t a = stage + left_place, b = stage + right_place;
#pragma unroll
        for (int k = 0; k < S::GROUP_DEPTH; k += 16) {
            uint32_t left[M][4], right[N / 2][4];
#pragma unroll
            for (int m = 0; m < M; ++m) load_matrices(left[m], a + (m * 16 * S::A_PITCH + k) * sizeof(T));
#pragma unroll
            for (int n = 0; n < N / 2; ++n) {
                if (S::RIGHT == Right::Columns) load_matrices(right[n], b + (n * 16 * S::B_PITCH + k) * sizeof(T));
                else load_matrices_transposed(right[n], b + (k * S::B_PITCH + n * 16) * sizeof(T));
            }
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n)
                    multiply<T>(this->sums[m][n], left[m], right[n / 2][n % 2 * 2], right[n / 2][n % 2 * 2 + 1]);
        }
    }
};

#if HAS_WARPGROUPS
// Warpgroups: a warp has 16 of the 64 rows and all columns, in the fragments of the other tensor cores.
template <class S> struct Sums<S, Kind::Wide> {
    using T = typename S::T;
    static constexpr bool TRANSPOSED = S::RIGHT == Right::Rows;
    float sums[S::COLUMNS / 8][4];
    // Where in a stage this warpgroup's rows and its terms begin.
    uint32_t left_place, right_place;
    int row;

    __device__ __forceinline__ Sums(int, int, int depth) : row(threadIdx.x / 32 % S::WARPS_M * 16) {
        constexpr uint32_t B = S::A_ELEMENTS * sizeof(T);
        left_place = row / S::WARP_ROWS * S::WARP_ROWS * WIDE_LINE + depth * sizeof(T);
        right_place = B + depth * (TRANSPOSED ? WIDE_LINE : sizeof(T));
#pragma unroll
        for (int part = 0; part < S::COLUMNS / 2; ++part) sums[part / 4][part % 4] = 0.0f;
    }

    // Adds the product of the stage at this address; its place is free again afterwards.
    __device__ __forceinline__ void add(uint32_t stage) {
        // Columns side by side lie in blocks of as many as a line has.
        constexpr uint32_t BLOCK = TRANSPOSED ? S::DEPTH * WIDE_LINE : 16;
        begin_wide();
#pragma unroll
        for (int k = 0; k < S::GROUP_DEPTH; k += 16) {
            uint64_t a = wide_matrix(stage + left_place + k * sizeof(T), 16);
            uint64_t b = wide_matrix(stage + right_place + k * (TRANSPOSED ? WIDE_LINE : sizeof(T)), BLOCK);
            multiply_wide<T, S::COLUMNS, TRANSPOSED>(sums, a, b);
        }
        end_wide();
    }

    __device__ __forceinline__ void store(float* tile, int, int) const {
        int lane = threadIdx.x % 32;
        float* from = tile + (row + lane / 4) * S::SUMS_PITCH + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < S::COLUMNS / 8; ++n) {
            *reinterpret_cast<float2*>(from + n * 8) = make_float2(sums[n][0], sums[n][1]);
            *reinterpret_cast<float2*>(from + n * 8 + 8 * S::SUMS_PITCH) = make_float2(sums[n][2], sums[n][3]);
        }
    }
};
#endif

template <class S> struct Sums<S, Kind::Tf32> : TensorSums<S> {
    using TensorSums<S>::M;
    using TensorSums<S>::N;

    int row, column, depth;

    __device__ __forceinline__ Sums(int row, int column, int depth) : row(row), column(column), depth(depth) { this->clear(); }

    __device__ __forceinline__ void add(uint32_t stage) {
        const float* a = stage_elements<float>(stage) + depth;
        const float* b = stage_elements<float>(stage) + S::A_ELEMENTS + depth * (S::RIGHT == Right::Columns ? 1 : S::B_PITCH);
        int lane = threadIdx.x % 32, group = lane / 4, inner = lane % 4;
#pragma unroll
        for (int k = 0; k < S::GROUP_DEPTH; k += 8) {
            uint32_t left[M][4], right[N][2];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int part = 0; part < 4; ++part)
                    left[m][part] = to_tf32(a[(row + m * 16 + group + part % 2 * 8) * S::A_PITCH + k + inner + part / 2 * 4]);
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int part = 0; part < 2; ++part) {
                    int at_k = k + inner + part * 4, at_n = column + n * 8 + group;
                    right[n][part] = to_tf32(S::RIGHT == Right::Columns ? b[at_n * S::B_PITCH + at_k] : b[at_k * S::B_PITCH + at_n]);
                }
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n) multiply_tf32(this->sums[m][n], left[m], right[n][0], right[n][1]);
        }
    }
};

// Plain arithmetic: lane l holds rows l / 4 + 8 m, and of every 16 columns four.
template <class S> struct Sums<S, Kind::Float> {
    static constexpr int M = S::WARP_ROWS / 8, N = S::WARP_COLUMNS / 16;
    float sums[M][N][4];
    int row, column, depth;

    __device__ __forceinline__ Sums(int row, int column, int depth) : row(row), column(column), depth(depth) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int part = 0; part < 4; ++part) sums[m][n][part] = 0.0f;
    }

    // Which of every 16 columns are this lane's: neighbours where they are read together.
    static __device__ int column_of(int part) {
        int lane = threadIdx.x % 32;
        return S::RIGHT == Right::Columns ? lane % 4 + 4 * part : lane % 4 * 4 + part;
    }

    __device__ __forceinline__ void add(uint32_t stage) {
        const float* a = stage_elements<float>(stage) + depth;
        const float* b = stage_elements<float>(stage) + S::A_ELEMENTS + depth * (S::RIGHT == Right::Columns ? 1 : S::B_PITCH);
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < S::GROUP_DEPTH; k += 4) {
            float4 left[M];
#pragma unroll
            for (int m = 0; m < M; ++m)
                left[m] = *reinterpret_cast<const float4*>(a + (row + lane / 4 + 8 * m) * S::A_PITCH + k);
#pragma unroll
            for (int n = 0; n < N; ++n) {
                // right[part] has four terms of column `part`, or four columns of term `part`.
                float4 right[4];
#pragma unroll
                for (int part = 0; part < 4; ++part)
                    right[part] = *reinterpret_cast<const float4*>(
                        S::RIGHT == Right::Columns ? b + (column + 16 * n + column_of(part)) * S::B_PITCH + k
                                                   : b + (k + part) * S::B_PITCH + column + 16 * n + column_of(0));
#pragma unroll
                for (int m = 0; m < M; ++m) add_terms(sums[m][n], left[m], right);
            }
        }
    }

    static __device__ __forceinline__ void add_terms(float (&sums)[4], const float4& left, const float4 (&right)[4]) {
        const float terms[4] = {left.x, left.y, left.z, left.w};
#pragma unroll
        for (int term = 0; term < 4; ++term)
#pragma unroll
            for (int part = 0; part < 4; ++part) {
                const float4& packed = right[S::RIGHT == Right::Columns ? part : term];
                int index = S::RIGHT == Right::Columns ? term : part;
                float other = index == 0 ? packed.x : index == 1 ? packed.y : index == 2 ? packed.z : packed.w;
                sums[part] = fmaf(terms[term], other, sums[part]);
            }
    }

    __device__ void store(float* tile, int row, int column) const {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int part = 0; part < 4; ++part)
                    tile[(row + lane / 4 + 8 * m) * S::SUMS_PITCH + column + 16 * n + column_of(part)] = sums[m][n][part];
    }
};
