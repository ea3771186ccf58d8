// Products in tiles: a pipeline from global to shared memory, warps that multiply, and what happens to the sums.
//
// Used by matrix products and by convolutions, which differ in where the rows of the left factor come from.
#pragma once
#include "finish.cuh"
#include "tiles.cuh"

enum class Kind { Float, Tf32, Half };
enum class Right { Rows, Columns };

// The shape of a block's work. ROWS x COLUMNS results by WARPS_M x WARPS_N warps, K in steps of DEPTH.
template <class T_, Kind KIND_, int ROWS_, int COLUMNS_, int WARPS_M_, int WARPS_N_, int STAGE_BYTES, Right RIGHT_> struct Shape {
    using T = T_;
    static constexpr Kind KIND = KIND_;
    static constexpr Right RIGHT = RIGHT_;
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr int THREADS = WARPS_M * WARPS_N * 32;
    static constexpr int STAGES = 4;
    static constexpr int CHUNK = 16 / sizeof(T);
    static constexpr int DEPTH = STAGE_BYTES / sizeof(T);
    // Rows in shared memory are longer than their elements so that the rows of a fragment come from different banks.
    static constexpr int A_PITCH = DEPTH + CHUNK;
    static constexpr int B_PITCH = RIGHT == Right::Columns ? A_PITCH : COLUMNS + 8;
    static constexpr int B_ROWS = RIGHT == Right::Columns ? COLUMNS : DEPTH;
    static constexpr int A_ELEMENTS = ROWS * A_PITCH, B_ELEMENTS = B_ROWS * B_PITCH;
    static constexpr int SUMS_PITCH = COLUMNS + 4;
    static constexpr int WARP_ROWS = ROWS / WARPS_M, WARP_COLUMNS = COLUMNS / WARPS_N;
};

// 16 bytes of a row that begins at `row`, from element `k` on; `valid` elements of them exist.
template <class T> __device__ __forceinline__ void fetch_chunk(T* shared, const T* row, int32_t step, int valid, bool vectors) {
    constexpr int CHUNK = 16 / sizeof(T);
    valid = valid < 0 ? 0 : valid > CHUNK ? CHUNK : valid;
    if (vectors) return copy_async(shared, row, valid * sizeof(T));
    T elements[CHUNK];
#pragma unroll
    for (int index = 0; index < CHUNK; ++index) elements[index] = index < valid ? row[int64_t(index) * step] : T(0.0f);
    *reinterpret_cast<uint4*>(shared) = reinterpret_cast<uint4&>(elements);
}

// Rows of a matrix, or columns of one that is read as its transpose.
template <class T> struct Rows {
    const T* base;
    int32_t row_step, step, rows;
    bool vectors;

    __device__ void fetch(T* shared, int row, int k, int end) const {
        bool inside = row < rows;
        const T* start = base + (inside ? int64_t(row) * row_step + int64_t(k) * step : 0);
        fetch_chunk(shared, start, step, inside ? end - k : 0, vectors);
    }
};

// The left factor of a matrix product: the rows of a block.
template <class S> struct LeftRows {
    using T = typename S::T;
    Rows<T> rows;
    int first_row;

    // Copies one stage, the terms from `k` on; those from `end` on are zeros.
    __device__ __forceinline__ void stage(T* shared, int k, int end) const {
        constexpr int CHUNKS = S::DEPTH / S::CHUNK, PASS = S::THREADS / CHUNKS;
        int row = threadIdx.x / CHUNKS, at = threadIdx.x % CHUNKS * S::CHUNK;
#pragma unroll
        for (int pass = 0; pass < (S::ROWS + PASS - 1) / PASS; ++pass, row += PASS)
            if (S::ROWS % PASS == 0 || row < S::ROWS) rows.fetch(shared + row * S::A_PITCH + at, first_row + row, k + at, end);
    }
};

// Copies one stage of the right factor.
template <class S>
__device__ __forceinline__ void fetch_right(typename S::T* shared, const Rows<typename S::T>& right, int first_column, int k, int end) {
    if (S::RIGHT == Right::Columns) {
        constexpr int CHUNKS = S::DEPTH / S::CHUNK, PASS = S::THREADS / CHUNKS;
        int column = threadIdx.x / CHUNKS, at = threadIdx.x % CHUNKS * S::CHUNK;
#pragma unroll
        for (int pass = 0; pass < (S::COLUMNS + PASS - 1) / PASS; ++pass, column += PASS)
            if (S::COLUMNS % PASS == 0 || column < S::COLUMNS)
                right.fetch(shared + column * S::B_PITCH + at, first_column + column, k + at, end);
    } else {
        // Here the rows that are fetched run along N, and there are as many as there is depth.
        constexpr int CHUNKS = S::COLUMNS / S::CHUNK, PASS = S::THREADS / CHUNKS;
        int row = threadIdx.x / CHUNKS, at = threadIdx.x % CHUNKS * S::CHUNK;
#pragma unroll
        for (int pass = 0; pass < (S::DEPTH + PASS - 1) / PASS; ++pass, row += PASS) {
            if (S::DEPTH % PASS != 0 && row >= S::DEPTH) break;
            Rows<typename S::T> rows = right;
            rows.rows = end;
            rows.fetch(shared + row * S::B_PITCH + at, k + row, first_column + at, right.rows);
        }
    }
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
    __device__ void store(float* tile, int row, int column) const {
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

    // Adds the product of one stage; `row` and `column` are where the warp's results begin.
    __device__ void add(const T* a, const T* b, int row, int column) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < S::DEPTH; k += 16) {
            uint32_t left[M][4], right[N / 2][4];
#pragma unroll
            for (int m = 0; m < M; ++m) load_matrices(left[m], a + (row + m * 16 + lane % 16) * S::A_PITCH + k + lane / 16 * 8);
#pragma unroll
            for (int n = 0; n < N / 2; ++n) {
                // Matrices: columns 0-7 of k 0-7 and k 8-15, then columns 8-15.
                int pair = column + n * 16;
                if (S::RIGHT == Right::Columns)
                    load_matrices(right[n], b + (pair + lane / 16 * 8 + lane % 8) * S::B_PITCH + k + lane / 8 % 2 * 8);
                else
                    load_matrices_transposed(right[n], b + (k + lane / 8 % 2 * 8 + lane % 8) * S::B_PITCH + pair + lane / 16 * 8);
            }
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int n = 0; n < N; ++n)
                    multiply<T>(this->sums[m][n], left[m], right[n / 2][n % 2 * 2], right[n / 2][n % 2 * 2 + 1]);
        }
    }
};

template <class S> struct Sums<S, Kind::Tf32> : TensorSums<S> {
    using TensorSums<S>::M;
    using TensorSums<S>::N;

    __device__ void add(const float* a, const float* b, int row, int column) {
        int lane = threadIdx.x % 32, group = lane / 4, inner = lane % 4;
#pragma unroll
        for (int k = 0; k < S::DEPTH; k += 8) {
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

    __device__ void clear() {
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

    __device__ void add(const float* a, const float* b, int row, int column) {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < S::DEPTH; k += 4) {
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

// Which results a block computes, and which terms of their sums.
struct Portion {
    int row, column;
    uint32_t batch, split;

    template <class S> static __device__ Portion of(const MatMulArguments& arguments) {
        uint32_t rows = (arguments.m + S::ROWS - 1) / S::ROWS, columns = (arguments.n + S::COLUMNS - 1) / S::COLUMNS;
        uint32_t tile = blockIdx.x % (rows * columns), rest = blockIdx.x / (rows * columns);
        // Neighbouring blocks share the columns: the right factor, mostly the weights, is read once.
        return {int(tile % rows) * S::ROWS, int(tile / rows) * S::COLUMNS, rest % arguments.batch.count, rest / arguments.batch.count};
    }
};

// Sums in shared memory become results, or partial results.
template <class S>
__device__ __forceinline__ void finish_tile(const MatMulArguments& arguments, const Portion& portion, const Finish& finish, const float* tile) {
    int64_t partial = (int64_t(portion.split) * arguments.batch.count + portion.batch) * arguments.m;
#pragma unroll 1
    for (int index = threadIdx.x; index < S::ROWS * S::COLUMNS / 4; index += S::THREADS) {
        int row = index / (S::COLUMNS / 4), column = index % (S::COLUMNS / 4) * 4;
        int m = portion.row + row, n = portion.column + column, valid = int(arguments.n) - n;
        if (m >= int(arguments.m) || valid <= 0) continue;
        float4 packed = *reinterpret_cast<const float4*>(tile + row * S::SUMS_PITCH + column);
        float x[4] = {packed.x, packed.y, packed.z, packed.w};
        if (arguments.splits == 1) {
            finish.finish(m, n, valid, x);
            continue;
        }
        float* at = static_cast<float*>(arguments.partials) + (partial + m) * arguments.n + n;
        if (valid >= 4 && arguments.n % 4 == 0) {
            *reinterpret_cast<float4*>(at) = packed;
        } else {
#pragma unroll
            for (int lane = 0; lane < 4; ++lane)
                if (lane < valid) at[lane] = x[lane];
        }
    }
}

extern __shared__ uint4 pipeline[];

// The whole of a block's work: stages are fetched STAGES - 1 steps ahead of the products. A right factor that no request changes
// is fetched while the launch before still runs; nothing else is touched before `begin`.
template <class S, class Left>
__device__ __forceinline__ void multiply_tiles(const MatMulArguments& arguments, const Portion& portion, const Left& left,
                                               const Rows<typename S::T>& right) {
    using T = typename S::T;
    T* a = reinterpret_cast<T*>(pipeline);
    T* b = a + S::STAGES * S::A_ELEMENTS;
    int start = portion.split * arguments.depth;
    int end = arguments.splits == 1 ? arguments.k : min(arguments.k, start + arguments.depth);
    int steps = (end - start + S::DEPTH - 1) / S::DEPTH;
    auto fetch_a = [&](int step) {
        if (step < steps) left.stage(a + step % S::STAGES * S::A_ELEMENTS, start + step * S::DEPTH, end);
    };
    auto fetch_b = [&](int step) {
        if (step < steps) fetch_right<S>(b + step % S::STAGES * S::B_ELEMENTS, right, portion.column, start + step * S::DEPTH, end);
    };
    int warp = threadIdx.x / 32;
    int row = warp % S::WARPS_M * S::WARP_ROWS, column = warp / S::WARPS_M * S::WARP_COLUMNS;
    Finish finish = Finish::of(arguments, portion.batch);
    Sums<S> sums;
    sums.clear();
    bool early = arguments.b_constant != 0;
    if (early) {
#pragma unroll
        for (int step = 0; step < S::STAGES - 1; ++step) fetch_b(step);
    }
    begin();
#pragma unroll
    for (int step = 0; step < S::STAGES - 1; ++step) {
        fetch_a(step);
        if (!early) fetch_b(step);
        commit_copies();
    }
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        await_copies<S::STAGES - 2>();
        // Everyone's copies have arrived, and everyone is done with the stage that is fetched next.
        __syncthreads();
        fetch_a(step + S::STAGES - 1);
        fetch_b(step + S::STAGES - 1);
        commit_copies();
        int stage = step % S::STAGES;
        sums.add(a + stage * S::A_ELEMENTS, b + stage * S::B_ELEMENTS, row, column);
    }
    await_copies<0>();
    __syncthreads();
    float* tile = reinterpret_cast<float*>(pipeline);
    sums.store(tile, row, column);
    __syncthreads();
    finish_tile<S>(arguments, portion, finish, tile);
}

// Columns of the right factor for a block.
template <class S> __device__ __forceinline__ Rows<typename S::T> right_factor(const MatMulArguments& arguments, const Portion& portion) {
    using T = typename S::T;
    const Operand& b = arguments.b;
    const T* base = static_cast<const T*>(b.address) + position(arguments.batch, b, portion.batch);
    int32_t k_step = b.strides[AXES - 2], n_step = b.strides[AXES - 1];
    constexpr bool COLUMNS = S::RIGHT == Right::Columns;
    int32_t step = COLUMNS ? k_step : n_step;
    return {base, COLUMNS ? n_step : k_step, step, int(arguments.n), arguments.b_vectors != 0 && step == 1};
}

template <class S> __device__ __forceinline__ void matmul(const MatMulArguments& arguments) {
    using T = typename S::T;
    Portion portion = Portion::of<S>(arguments);
    const Operand& a = arguments.a;
    const T* base = static_cast<const T*>(a.address) + position(arguments.batch, a, portion.batch);
    Rows<T> rows = {base, a.strides[AXES - 2], a.strides[AXES - 1], int(arguments.m),
                    arguments.a_vectors != 0 && a.strides[AXES - 1] == 1};
    LeftRows<S> left = {rows, portion.row};
    multiply_tiles<S>(arguments, portion, left, right_factor<S>(arguments, portion));
}

// The three tiles of src/kernels/entry/matmul.rs.
template <class T, Kind KIND, Right RIGHT> using Large = Shape<T, KIND, 128, 128, 2, 4, 64, RIGHT>;
template <class T, Kind KIND, Right RIGHT> using Medium = Shape<T, KIND, 64, 64, 2, 2, 128, RIGHT>;
template <class T, Kind KIND, Right RIGHT> using Flat = Shape<T, KIND, 32, 64, 1, 4, 128, RIGHT>;
