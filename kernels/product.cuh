// Products in tiles: a pipeline from global to shared memory, warps that multiply, and what happens to the sums.
//
// Used by matrix products and by convolutions, which differ in where the rows of the left factor come from.
#pragma once
#include "copies.cuh"
#include "finish.cuh"
#include "sums.cuh"

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

    // The terms of its sums.
    __device__ __forceinline__ int start(const MatMulArguments& arguments) const { return split * arguments.depth; }
    __device__ __forceinline__ int end(const MatMulArguments& arguments) const {
        return arguments.splits == 1 ? arguments.k : min(arguments.k, (split + 1) * arguments.depth);
    }
};

// The sums of a block's groups, in shared memory, become results or partial results. A thread has four neighbours in every PASS-th row.
template <class S>
__device__ __forceinline__ void finish_tile(const MatMulArguments& arguments, const Portion& portion, const Finish& finish, const float* tiles) {
    constexpr int PASS = S::THREADS / (S::COLUMNS / 4), QUADS = S::ROWS / PASS, Q = QUADS < 4 ? QUADS : 4;
    static_assert(S::ROWS % PASS == 0 && QUADS % Q == 0);
    int row = threadIdx.x / (S::COLUMNS / 4), column = threadIdx.x % (S::COLUMNS / 4) * 4;
    int n = portion.column + column, valid = int(arguments.n) - n;
    if (valid <= 0) return;
    int64_t partial = (int64_t(portion.split) * arguments.batch.count + portion.batch) * arguments.m;
    Plane parts = {static_cast<char*>(arguments.partials), int32_t(arguments.n), 1, F32_TYPE, arguments.n % 4 == 0};
    parts.base += partial * arguments.n * sizeof(float);
    tiles += row * S::SUMS_PITCH + column;
#pragma unroll 1
    for (int turn = 0; turn < QUADS / Q; ++turn, row += Q * PASS, tiles += Q * PASS * S::SUMS_PITCH) {
        int m = portion.row + row, rows = (int(arguments.m) - m + PASS - 1) / PASS;
        if (rows <= 0) return;
        float x[Q][4];
#pragma unroll
        for (int q = 0; q < Q; ++q) {
            load_four(tiles + q * PASS * S::SUMS_PITCH, x[q]);
#pragma unroll
            for (int group = 1; group < S::GROUPS; ++group) {
                float y[4];
                load_four(tiles + group * S::SUMS + q * PASS * S::SUMS_PITCH, y);
#pragma unroll
                for (int lane = 0; lane < 4; ++lane) x[q][lane] += y[lane];
            }
        }
        Spot spot = {m, PASS, rows, n, valid};
        if (arguments.splits == 1) finish.finish(spot, x);
        else parts.store(spot, x);
    }
}

// The whole of a block's work: stages are fetched STAGES - 1 steps ahead of the products. A right factor that no request changes
// is fetched while the launch before still runs; nothing else is touched before the wait.
template <class S, class Left>
__device__ __forceinline__ void multiply_tiles(const MatMulArguments& arguments, const Portion& portion, Left& left,
                                               const Rows<typename S::T>& factor) {
    using T = typename S::T;
    constexpr uint32_t STAGE = S::ELEMENTS * sizeof(T), ALL = S::STAGES * STAGE, B = S::A_ELEMENTS * sizeof(T);
    int start = portion.start(arguments), end = portion.end(arguments);
    int steps = (end - start + S::DEPTH - 1) / S::DEPTH;
    uint32_t base = kept_address(pipeline);
    base += -base % S::ALIGNMENT;
    RightFactor<S> right(factor, portion.column, start, end);
    Finish finish = Finish::of(arguments, portion.batch);
    constexpr int WARPS = S::WARPS_M * S::WARPS_N;
    int warp = threadIdx.x / 32 % WARPS, group = threadIdx.x / 32 / WARPS;
    int row = warp % S::WARPS_M * S::WARP_ROWS, column = warp / S::WARPS_M * S::WARP_COLUMNS;
    bool early = arguments.b_constant != 0;
    int ahead = min(steps, S::STAGES - 1);
    if (early) {
#pragma unroll 1
        for (int step = 0; step < ahead; ++step) right.tile.fetch(base + step * STAGE + B);
    }
    await_launch();
#pragma unroll 1
    for (int step = 0; step < S::STAGES - 1; ++step) {
        if (step < steps) {
            left.stage(base + step * STAGE, start + step * S::DEPTH, end);
            if (!early) right.tile.fetch(base + step * STAGE + B);
        }
        commit_copies();
    }
    Sums<S> sums(row, column, group * S::GROUP_DEPTH);
    uint32_t read = 0, write = (S::STAGES - 1) * STAGE;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        await_copies<S::STAGES - 2>();
#if HAS_WARPGROUPS
        if (S::KIND == Kind::Wide) publish_writes();
#endif
        // Everyone's copies have arrived, and everyone is done with the stage that is fetched next.
        __syncthreads();
        int next = step + S::STAGES - 1;
        if (next < steps) {
            left.stage(base + write, start + next * S::DEPTH, end);
            right.tile.fetch(base + write + B);
        }
        commit_copies();
        // Where numbers are read by address, or in the pipeline.
        sums.add(S::KIND == Kind::Half || S::KIND == Kind::Wide ? base + read : read);
        write = read;
        read = read + STAGE == ALL ? 0 : read + STAGE;
    }
    await_copies<0>();
    release_launch();
    __syncthreads();
    float* tiles = reinterpret_cast<float*>(pipeline);
    sums.store(tiles + group * S::SUMS, row, column);
    __syncthreads();
    finish_tile<S>(arguments, portion, finish, tiles);
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
    LeftRows<S> left(rows, portion.row, portion.start(arguments), portion.end(arguments));
    multiply_tiles<S>(arguments, portion, left, right_factor<S>(arguments, portion));
}

// The three tiles of src/kernels/entry/matmul.rs. Of the smaller ones a multiprocessor has few blocks: two groups of warps hide more.
template <class Wide, class Other> using WideOr = std::conditional_t<HAS_WARPGROUPS && Other::KIND == Kind::Half, Wide, Other>;
template <class T, Kind KIND, Right RIGHT> using Large = WideOr<WideShape<T, 128, 128, 1, 3, RIGHT>, Shape<T, KIND, 128, 128, 2, 4, 1, 64, RIGHT>>;
template <class T, Kind KIND, Right RIGHT> using Medium = WideOr<WideShape<T, 64, 64, 2, 6, RIGHT>, Shape<T, KIND, 64, 64, 2, 2, 2, 128, RIGHT>>;
template <class T, Kind KIND, Right RIGHT> using Flat = Shape<T, KIND, 32, 64, 1, 4, 1, 128, RIGHT>;
