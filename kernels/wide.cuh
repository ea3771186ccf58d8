// Products by warpgroups (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions"): four warps multiply 64 rows at once, and both
// factors come from shared memory.
#pragma once
#include "tiles.cuh"
#include <type_traits>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define HAS_WARPGROUPS 1
#else
#define HAS_WARPGROUPS 0
#endif

// Lines of shared memory are 128 bytes here, and chunk c of line l lies in place c ^ l % 8, so that eight lines of a chunk come from
// different banks. The pattern needs addresses that are multiples of 1024 bytes.
constexpr int WIDE_LINE = 128, WIDE_ALIGNMENT = 1024;

__device__ __forceinline__ uint32_t wide_place(int line, int chunk) { return line * WIDE_LINE + (chunk ^ line % 8) * 16; }

// What describes a matrix in shared memory: where it begins, and how far apart groups of eight lines are, and blocks of 128 bytes of lines.
__device__ __forceinline__ uint64_t wide_matrix(uint32_t address, uint32_t block_step) {
    constexpr uint64_t EIGHT_LINES = 8 * WIDE_LINE, SWIZZLED = uint64_t(1) << 62;
    return SWIZZLED | EIGHT_LINES / 16 << 32 | uint64_t(block_step / 16) << 16 | (address & 0x3ffff) / 16;
}

#if HAS_WARPGROUPS
// What threads have written to shared memory becomes visible to the instructions below; each writer calls it before the barrier.
__device__ __forceinline__ void publish_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void begin_wide() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_wide() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wait_wide_but_one() { asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory"); }
__device__ __forceinline__ void wait_wide() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
__device__ __forceinline__ void end_wide() {
    commit_wide();
    wait_wide();
}

#define FOUR_SUMS(n) "+f"(sums[n][0]), "+f"(sums[n][1]), "+f"(sums[n][2]), "+f"(sums[n][3])
#define MULTIPLY_64(type, transposed) \
    asm volatile( \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
        "%32, %33, 1, 1, 1, 0, " transposed ";" \
        : FOUR_SUMS(0), FOUR_SUMS(1), FOUR_SUMS(2), FOUR_SUMS(3), FOUR_SUMS(4), FOUR_SUMS(5), FOUR_SUMS(6), FOUR_SUMS(7) \
        : "l"(a), "l"(b))
#define MULTIPLY_128(type, transposed) \
    asm volatile( \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " " \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, " \
        "%64, %65, 1, 1, 1, 0, " transposed ";" \
        : FOUR_SUMS(0), FOUR_SUMS(1), FOUR_SUMS(2), FOUR_SUMS(3), FOUR_SUMS(4), FOUR_SUMS(5), FOUR_SUMS(6), FOUR_SUMS(7), \
          FOUR_SUMS(8), FOUR_SUMS(9), FOUR_SUMS(10), FOUR_SUMS(11), FOUR_SUMS(12), FOUR_SUMS(13), FOUR_SUMS(14), FOUR_SUMS(15) \
        : "l"(a), "l"(b))

// sums[64 x COLUMNS] += a[64 x 16] b[16 x COLUMNS]; a has K along its lines, b too unless it is TRANSPOSED.
template <class T, int COLUMNS, bool TRANSPOSED> __device__ __forceinline__ void multiply_wide(float (&sums)[COLUMNS / 8][4], uint64_t a, uint64_t b) {
    constexpr bool HALF = std::is_same_v<T, __half>;
#define BY_TYPE(MULTIPLY) \
    if constexpr (HALF && TRANSPOSED) MULTIPLY("f16", "1"); \
    else if constexpr (HALF) MULTIPLY("f16", "0"); \
    else if constexpr (TRANSPOSED) MULTIPLY("bf16", "1"); \
    else MULTIPLY("bf16", "0");
    if constexpr (COLUMNS == 64) {
        BY_TYPE(MULTIPLY_64)
    } else {
        BY_TYPE(MULTIPLY_128)
    }
#undef BY_TYPE
}
#undef MULTIPLY_64
#undef MULTIPLY_128
#undef FOUR_SUMS
#endif
