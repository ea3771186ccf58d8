// Combinations over the threads of a warp or a block, in an order that is always the same.
#pragma once
#include "finish.cuh"

namespace {

template <class F> __device__ __forceinline__ float warp_all(float x, F combine) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = combine(x, __shfl_xor_sync(~0u, x, distance));
    return x;
}

__device__ __forceinline__ float sum_of(float a, float b) { return a + b; }
__device__ __forceinline__ float max_of(float a, float b) { return fmaxf(a, b); }

// The combination over all threads of a block, in an order that depends on nothing but the number of threads.
template <class F> __device__ __forceinline__ float block_all(float x, float neutral, F combine) {
    __shared__ float parts[32];
    x = warp_all(x, combine);
    // Nobody overwrites what another warp still reads from the call before.
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_all(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : neutral, combine);
}

// Two sums that are taken together.
struct Moments {
    float first, second;
};

// Their sums over all threads of a block, in an order that depends on nothing but the number of threads; `parts` is used once.
__device__ __forceinline__ Moments block_sums(Moments x, Moments* parts) {
    x = {warp_all(x.first, sum_of), warp_all(x.second, sum_of)};
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    bool exists = threadIdx.x % 32 < blockDim.x / 32;
    x = exists ? parts[threadIdx.x % 32] : Moments{0.0f, 0.0f};
    return {warp_all(x.first, sum_of), warp_all(x.second, sum_of)};
}

extern __shared__ float cached[];

constexpr int CACHED = 12 << 10;

// Four neighbours of the sums over the parts of a split product.
__device__ __forceinline__ void sum_parts(const void* partials, uint32_t parts, int64_t stride, int64_t at, int valid, float (&x)[4]) {
    const float* part = static_cast<const float*>(partials) + at;
    bool together = valid >= 4 && reinterpret_cast<uint64_t>(part) % 16 == 0 && stride % 4 == 0;
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) x[lane] = 0.0f;
#pragma unroll 4
    for (uint32_t index = 0; index < parts; ++index, part += stride) {
        if (together) {
            float4 packed = *reinterpret_cast<const float4*>(part);
            x[0] += packed.x, x[1] += packed.y, x[2] += packed.z, x[3] += packed.w;
        } else {
#pragma unroll
            for (int lane = 0; lane < 4; ++lane)
                if (lane < valid) x[lane] += part[lane];
        }
    }
}

}  // namespace
