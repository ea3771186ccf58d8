// How a block of a product works: extents, warps, and how its stages lie in shared memory.
#pragma once
#include "wide.cuh"

enum class Kind { Float, Tf32, Half, Wide };
enum class Right { Rows, Columns };

// The shape of a block's work: ROWS x COLUMNS results by GROUPS groups of WARPS_M x WARPS_N warps, K in steps of DEPTH, of which each
// group takes its part.
template <class T_, Kind KIND_, int ROWS_, int COLUMNS_, int WARPS_M_, int WARPS_N_, int GROUPS_, int STAGE_BYTES, Right RIGHT_> struct Shape {
    using T = T_;
    static constexpr Kind KIND = KIND_;
    static constexpr Right RIGHT = RIGHT_;
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, GROUPS = GROUPS_;
    static constexpr int THREADS = WARPS_M * WARPS_N * GROUPS * 32;
    static constexpr int STAGES = 4;
    static constexpr int CHUNK = 16 / sizeof(T);
    static constexpr int DEPTH = STAGE_BYTES / sizeof(T), GROUP_DEPTH = DEPTH / GROUPS;
    // Rows in shared memory are longer than their elements so that the rows of a fragment come from different banks.
    static constexpr int A_PITCH = DEPTH + CHUNK;
    static constexpr int B_PITCH = RIGHT == Right::Columns ? A_PITCH : COLUMNS + 8;
    static constexpr int B_ROWS = RIGHT == Right::Columns ? COLUMNS : DEPTH;
    // A stage has rows of A, then those of B.
    static constexpr int A_ELEMENTS = ROWS * A_PITCH, ELEMENTS = A_ELEMENTS + B_ROWS * B_PITCH;
    static constexpr int SUMS_PITCH = COLUMNS + 4, SUMS = ROWS * SUMS_PITCH;
    static constexpr int WARP_ROWS = ROWS / WARPS_M, WARP_COLUMNS = COLUMNS / WARPS_N;
    static constexpr uint32_t ALIGNMENT = 16;

    // Where a chunk of a line of A or of B lies, in bytes from the first.
    static __device__ __forceinline__ uint32_t a_place(int line, int element) { return (line * A_PITCH + element) * sizeof(T); }
    static __device__ __forceinline__ uint32_t b_place(int line, int element) { return (line * B_PITCH + element) * sizeof(T); }
};

// The same for warpgroups, each with 64 rows and all columns.
template <class T_, int ROWS_, int COLUMNS_, int GROUPS_, int STAGES_, Right RIGHT_> struct WideShape {
    using T = T_;
    static constexpr Kind KIND = Kind::Wide;
    static constexpr Right RIGHT = RIGHT_;
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, GROUPS = GROUPS_, STAGES = STAGES_;
    static constexpr int WARP_ROWS = 64, WARP_COLUMNS = COLUMNS, WARPS_M = ROWS / WARP_ROWS * 4, WARPS_N = 1;
    static constexpr int THREADS = WARPS_M * GROUPS * 32;
    static constexpr int CHUNK = 8, DEPTH = WIDE_LINE / sizeof(T), GROUP_DEPTH = DEPTH / GROUPS;
    static constexpr int A_PITCH = DEPTH, B_PITCH = DEPTH;
    static constexpr int A_ELEMENTS = ROWS * DEPTH, ELEMENTS = A_ELEMENTS + COLUMNS * DEPTH;
    static constexpr int SUMS_PITCH = COLUMNS + 4, SUMS = ROWS * SUMS_PITCH;
    static constexpr uint32_t ALIGNMENT = WIDE_ALIGNMENT;

    static __device__ __forceinline__ uint32_t a_place(int line, int element) { return wide_place(line, element / CHUNK); }
    // Of B with columns side by side, the first half of the columns comes first.
    static __device__ __forceinline__ uint32_t b_place(int line, int element) {
        return element / DEPTH * (DEPTH * WIDE_LINE) + wide_place(line, element % DEPTH / CHUNK);
    }
};
