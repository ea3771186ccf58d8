// Products whose tiles one warp has brought by the tensor memory accelerator, while warpgroups multiply and wait for nothing but tiles.
#pragma once
#include "product.cuh"
#include "tma.cuh"

// Lines of a box; each is as long as a line of shared memory.
constexpr int BOX_LINES = 64;

#if HAS_WARPGROUPS

// Which stage of shared memory is next, and how often all have been used, modulo two.
template <class S> struct Turn {
    static constexpr uint32_t BYTES = S::ELEMENTS * sizeof(typename S::T);

    uint32_t slot = 0, parity = 0;

    __device__ __forceinline__ void advance() {
        if (++slot == S::STAGES) slot = 0, parity ^= 1;
    }
};

// The stages in shared memory, and a barrier for each to say that it is full, and that it is empty again.
template <class S> struct Stages {
    uint32_t base, full, empty;

    // All threads of the block call it, and come together before the first use.
    __device__ __forceinline__ Stages() {
        __shared__ uint64_t barriers[2][S::STAGES];
        base = kept_address(pipeline), full = kept_address(barriers[0]), empty = kept_address(barriers[1]);
        base += -base % S::ALIGNMENT;
        if (threadIdx.x != 0) return;
        // A warp arrives for itself when it is done with a stage.
#pragma unroll
        for (int slot = 0; slot < S::STAGES; ++slot) barrier_init(full + slot * 8, 1), barrier_init(empty + slot * 8, S::THREADS / 32);
        publish_barriers();
    }

    __device__ __forceinline__ uint32_t left(const Turn<S>& turn) const { return base + turn.slot * Turn<S>::BYTES; }
    __device__ __forceinline__ uint32_t right(const Turn<S>& turn) const { return left(turn) + S::A_ELEMENTS * sizeof(typename S::T); }
    __device__ __forceinline__ uint32_t full_barrier(const Turn<S>& turn) const { return full + turn.slot * 8; }
    __device__ __forceinline__ uint32_t empty_barrier(const Turn<S>& turn) const { return empty + turn.slot * 8; }
};

// What one lane does: it brings the tiles of a block, as far ahead as there are stages.
template <class S> struct Bringer {
    const TmaArguments& arguments;
    const Portion& portion;
    const Stages<S>& stages;
    int start;

    __device__ __forceinline__ void left(const Turn<S>& turn, int step) const {
#pragma unroll
        for (int row = 0; row < S::ROWS; row += BOX_LINES)
            copy_box(stages.left(turn) + row * WIDE_LINE, arguments.left, portion.row + row, start + step * S::DEPTH, stages.full_barrier(turn));
    }

    __device__ __forceinline__ void right(const Turn<S>& turn, int step) const {
        int k = start + step * S::DEPTH;
#pragma unroll
        for (int column = 0; column < S::COLUMNS; column += BOX_LINES) {
            uint32_t to = stages.right(turn) + column * WIDE_LINE;
            if (S::RIGHT == Right::Rows) copy_box(to, arguments.right, k, portion.column + column, stages.full_barrier(turn));
            else copy_box(to, arguments.right, portion.column + column, k, stages.full_barrier(turn));
        }
    }

    // A right factor that no request changes is brought while the launch before still runs.
    __device__ __forceinline__ void bring(int steps) const {
        bool early = arguments.product.b_constant != 0;
        int ahead = min(steps, S::STAGES);
        Turn<S> turn;
#pragma unroll 1
        for (int step = 0; step < ahead; ++step, turn.advance()) {
            barrier_expect(stages.full_barrier(turn), Turn<S>::BYTES);
            if (early) right(turn, step);
        }
        await_launch();
        turn = Turn<S>();
#pragma unroll 1
        for (int step = 0; step < ahead; ++step, turn.advance()) {
            if (!early) right(turn, step);
            left(turn, step);
        }
#pragma unroll 1
        for (int step = ahead; step < steps; ++step, turn.advance()) {
            // Empty since it was used last.
            barrier_wait(stages.empty_barrier(turn), turn.parity ^ 1);
            barrier_expect(stages.full_barrier(turn), Turn<S>::BYTES);
            right(turn, step);
            left(turn, step);
        }
    }
};

// The sums of a warpgroup: all columns of 64 rows.
template <class S> struct StreamedSums {
    using T = typename S::T;
    static constexpr bool TRANSPOSED = S::RIGHT == Right::Rows;
    float sums[S::COLUMNS / 8][4];

    // Starts adding the product of a stage.
    __device__ __forceinline__ void add(uint32_t left, uint32_t right) {
        constexpr uint32_t BLOCK = TRANSPOSED ? S::DEPTH * WIDE_LINE : 16;
        begin_wide();
#pragma unroll
        for (int k = 0; k < S::DEPTH; k += 16) {
            uint64_t a = wide_matrix(left + k * sizeof(T), 16), b = wide_matrix(right + k * (TRANSPOSED ? WIDE_LINE : sizeof(T)), BLOCK);
            multiply_wide<T, S::COLUMNS, TRANSPOSED>(sums, a, b);
        }
        commit_wide();
    }

    __device__ __forceinline__ void multiply(const Stages<S>& stages, int steps) {
        uint32_t own = threadIdx.x / 128 * S::WARP_ROWS * WIDE_LINE;
        bool arrives = threadIdx.x % 32 == 0;
        Turn<S> turn, last;
#pragma unroll
        for (int part = 0; part < S::COLUMNS / 2; ++part) sums[part / 4][part % 4] = 0.0f;
#pragma unroll 1
        for (int step = 0; step < steps; ++step, turn.advance()) {
            barrier_wait(stages.full_barrier(turn), turn.parity);
            add(stages.left(turn) + own, stages.right(turn));
            // The products of the stage before are done: it may be filled again.
            wait_wide_but_one();
            if (arrives && step > 0) barrier_arrive(stages.empty_barrier(last));
            last = turn;
        }
        wait_wide();
    }

    // Of each eight columns a lane has columns 2 (l % 4) + {0, 1} of rows l / 4 + {0, 8} of its warp's 16.
    template <class F> __device__ __forceinline__ void each_pair(F visit) const {
        int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, column = lane % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int n = 0; n < S::COLUMNS / 8; ++n)
                visit(row + 8 * half, n * 8 + column, make_float2(sums[n][2 * half], sums[n][2 * half + 1]));
    }
};

// The warps that multiply come together, without the one that brings tiles.
template <class S> __device__ __forceinline__ void meet() { asm volatile("bar.sync 1, %0;" ::"n"(S::THREADS) : "memory"); }

template <class S> __device__ __forceinline__ void finish_streamed(const MatMulArguments& arguments, const Portion& portion, const Finish& finish, const StreamedSums<S>& sums) {
    if (arguments.splits != 1) {
        // Partial results go straight to memory; columns come in eights (TmaArguments::takes).
        int64_t first = (int64_t(portion.split) * arguments.m + portion.row) * arguments.n + portion.column;
        float* parts = static_cast<float*>(arguments.partials) + first;
        sums.each_pair([&](int row, int column, float2 pair) {
            if (portion.row + row < int(arguments.m) && portion.column + column < int(arguments.n))
                *reinterpret_cast<float2*>(parts + int64_t(row) * arguments.n + column) = pair;
        });
        return;
    }
    float* tile = reinterpret_cast<float*>(pipeline);
    meet<S>();
    sums.each_pair([&](int row, int column, float2 pair) { *reinterpret_cast<float2*>(tile + row * S::SUMS_PITCH + column) = pair; });
    meet<S>();
    finish_tile<S>(arguments, portion, finish, tile);
}

template <class S> __device__ __forceinline__ void streamed_matmul(const TmaArguments& arguments) {
    const MatMulArguments& product = arguments.product;
    Portion portion = Portion::of<S>(product);
    int start = portion.start(product), steps = (portion.end(product) - start + S::DEPTH - 1) / S::DEPTH;
    Finish finish = Finish::of(product, 0);
    Stages<S> stages;
    __syncthreads();
    // The same for all lanes of a warp, and the compiler is to know it.
    if (__shfl_sync(~0u, threadIdx.x / 32, 0) < S::THREADS / 32) {
        await_launch();
        StreamedSums<S> sums;
        sums.multiply(stages, steps);
        release_launch();
        finish_streamed(product, portion, finish, sums);
    } else {
        if (threadIdx.x == S::THREADS) Bringer<S>{arguments, portion, stages, start}.bring(steps);
        // The next launch may begin when the last tiles are on their way: its blocks are small against these.
        release_launch();
    }
}
#endif

// The tiles of src/kernels/entry/tma.rs: so many blocks of each share a multiprocessor, and their stages its shared memory.
template <class T, int ROWS, int COLUMNS, int STAGES, Right RIGHT> using Streamed = WideShape<T, ROWS, COLUMNS, 1, STAGES, RIGHT>;
#define STREAMED_MATMUL(name, T, rows, columns, stages, blocks) \
    ENTRY_BLOCKS(matmul_##name##_tma_##rows##x##columns##_nn, TmaArguments, rows * 2 + 32, blocks) { \
        streamed_matmul<Streamed<T, rows, columns, stages, Right::Rows>>(arguments); \
    } \
    ENTRY_BLOCKS(matmul_##name##_tma_##rows##x##columns##_nt, TmaArguments, rows * 2 + 32, blocks) { \
        streamed_matmul<Streamed<T, rows, columns, stages, Right::Columns>>(arguments); \
    }
#define STREAMED_MATMULS(name, T) \
    STREAMED_MATMUL(name, T, 128, 128, 3, 2) \
    STREAMED_MATMUL(name, T, 64, 128, 3, 3) \
    STREAMED_MATMUL(name, T, 64, 64, 6, 2)
