// Element types, scalar functions, and how an entry begins.
#pragma once
#include "arguments.cuh"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// An entry point: one struct by value, read from the constant bank. Registers are limited so that `blocks` blocks fit into a
// multiprocessor, and not further.
#define ENTRY_BLOCKS(name, Arguments, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Arguments arguments)
#define ENTRY(name, Arguments, threads) ENTRY_BLOCKS(name, Arguments, threads, 1)

// Waits until everything before this launch of a programmatic chain has been written; without a programmatic edge it does nothing.
// Every entry calls it, or `begin`, in all threads that touch memory that a request changes, before they do.
__device__ __forceinline__ void await_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next launch of a programmatic chain start, once all blocks have come here. Its blocks then wait on the multiprocessors, in
// the room of others that could work: long kernels call it when they are nearly done.
__device__ __forceinline__ void release_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// The arguments by an address that nobody recognises. The constant bank serves one address at a time: where threads read different ones,
// they read them as memory.
template <class T> __device__ __forceinline__ const T& apart(const T& arguments) {
    const T* address = &arguments;
    asm("" : "+l"(address));
    return *address;
}

// Both, for kernels that are short.
__device__ __forceinline__ void begin() {
    release_launch();
    await_launch();
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float(float x) { return x; }
template <> __device__ __forceinline__ __half from_float(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float(float x) { return __float2bfloat16_rn(x); }

__device__ __forceinline__ int bytes_of(uint32_t dtype) {
    return dtype == I64_TYPE ? 8 : dtype == F32_TYPE || dtype == I32_TYPE ? 4 : dtype == F16_TYPE || dtype == BF16_TYPE ? 2 : 1;
}

__device__ __forceinline__ bool is_float(uint32_t dtype) { return dtype <= BF16_TYPE; }

// One element of any type as binary32.
__device__ __forceinline__ float load_float(const void* base, uint32_t dtype, int64_t at) {
    switch (dtype) {
    case F32_TYPE: return static_cast<const float*>(base)[at];
    case F16_TYPE: return __half2float(static_cast<const __half*>(base)[at]);
    case BF16_TYPE: return __bfloat162float(static_cast<const __nv_bfloat16*>(base)[at]);
    case I64_TYPE: return __ll2float_rn(static_cast<const int64_t*>(base)[at]);
    case I32_TYPE: return __int2float_rn(static_cast<const int32_t*>(base)[at]);
    case I8_TYPE: return static_cast<const int8_t*>(base)[at];
    default: return static_cast<const uint8_t*>(base)[at];
    }
}

// One element of an integer type or a truth value.
__device__ __forceinline__ int64_t load_integer(const void* base, uint32_t dtype, int64_t at) {
    switch (dtype) {
    case I64_TYPE: return static_cast<const int64_t*>(base)[at];
    case I32_TYPE: return static_cast<const int32_t*>(base)[at];
    case I8_TYPE: return static_cast<const int8_t*>(base)[at];
    default: return static_cast<const uint8_t*>(base)[at];
    }
}

// Stores a binary32 as an element of a float type.
__device__ __forceinline__ void store_float(void* base, uint32_t dtype, int64_t at, float x) {
    switch (dtype) {
    case F16_TYPE: static_cast<__half*>(base)[at] = __float2half_rn(x); break;
    case BF16_TYPE: static_cast<__nv_bfloat16*>(base)[at] = __float2bfloat16_rn(x); break;
    default: static_cast<float*>(base)[at] = x;
    }
}

// Stores an integer, wrapped, as an element of an integer type or a truth value.
__device__ __forceinline__ void store_integer(void* base, uint32_t dtype, int64_t at, int64_t x) {
    switch (dtype) {
    case I64_TYPE: static_cast<int64_t*>(base)[at] = x; break;
    case I32_TYPE: static_cast<int32_t*>(base)[at] = static_cast<int32_t>(x); break;
    default: static_cast<uint8_t*>(base)[at] = static_cast<uint8_t>(x);
    }
}

// Four neighbours as binary32, and back; the address is a multiple of their size together.
__device__ __forceinline__ void load_four(const float* at, float (&x)[4]) {
    float4 packed = *reinterpret_cast<const float4*>(at);
    x[0] = packed.x, x[1] = packed.y, x[2] = packed.z, x[3] = packed.w;
}

__device__ __forceinline__ void load_four(const __half* at, float (&x)[4]) {
    uint2 packed = *reinterpret_cast<const uint2*>(at);
    float2 low = __half22float2(reinterpret_cast<const __half2&>(packed.x)), high = __half22float2(reinterpret_cast<const __half2&>(packed.y));
    x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
}

__device__ __forceinline__ void load_four(const __nv_bfloat16* at, float (&x)[4]) {
    uint2 packed = *reinterpret_cast<const uint2*>(at);
    float2 low = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(packed.x));
    float2 high = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(packed.y));
    x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
}

__device__ __forceinline__ void store_four(float* at, const float (&x)[4]) {
    *reinterpret_cast<float4*>(at) = make_float4(x[0], x[1], x[2], x[3]);
}

__device__ __forceinline__ void store_four(__half* at, const float (&x)[4]) {
    __half2 low = __floats2half2_rn(x[0], x[1]), high = __floats2half2_rn(x[2], x[3]);
    *reinterpret_cast<uint2*>(at) = {reinterpret_cast<uint32_t&>(low), reinterpret_cast<uint32_t&>(high)};
}

__device__ __forceinline__ void store_four(__nv_bfloat16* at, const float (&x)[4]) {
    __nv_bfloat162 low = __floats2bfloat162_rn(x[0], x[1]), high = __floats2bfloat162_rn(x[2], x[3]);
    *reinterpret_cast<uint2*>(at) = {reinterpret_cast<uint32_t&>(low), reinterpret_cast<uint32_t&>(high)};
}

// Calls `visit` with a pointer to elements of a float type.
template <class Visit> __device__ __forceinline__ void with_float_type(void* base, uint32_t dtype, Visit visit) {
    if (dtype == F16_TYPE) visit(static_cast<__half*>(base));
    else if (dtype == BF16_TYPE) visit(static_cast<__nv_bfloat16*>(base));
    else visit(static_cast<float*>(base));
}

// Four neighbours of any type, or of a float type.
template <bool FLOATS = false> __device__ __forceinline__ void load_floats(const void* base, uint32_t dtype, int64_t at, float (&x)[4]) {
    if (FLOATS || is_float(dtype)) {
        with_float_type(const_cast<void*>(base), dtype, [&](auto* typed) { load_four(typed + at, x); });
    } else {
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] = load_float(base, dtype, at + lane);
    }
}

// Four neighbours of a float type.
__device__ __forceinline__ void store_floats(void* base, uint32_t dtype, int64_t at, const float (&x)[4]) {
    with_float_type(base, dtype, [&](auto* typed) { store_four(typed + at, x); });
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
// A NaN stays a NaN.
__device__ __forceinline__ float lesser(float a, float b) { return a < b || isnan(a) ? a : b; }
__device__ __forceinline__ float greater(float a, float b) { return a > b || isnan(a) ? a : b; }

__device__ __forceinline__ float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

// Remainder with the divisor's sign.
__device__ __forceinline__ float floor_remainder(float a, float b) {
    float remainder = fmodf(a, b);
    return remainder != 0.0f && (remainder < 0.0f) != (b < 0.0f) ? remainder + b : remainder;
}

// A function of a float with a float result. The formulas are those of src/kernels/map/functions.rs.
__device__ __forceinline__ float float_unary(uint32_t op, float x) {
    switch (op) {
    case Neg: return -x;
    case Abs: return fabsf(x);
    case Sign: return x == 0.0f || isnan(x) ? x : copysignf(1.0f, x);
    case Ceil: return ceilf(x);
    case Floor: return floorf(x);
    case Round: return rintf(x);
    case Sqrt: return sqrtf(x);
    case Reciprocal: return 1.0f / x;
    case Exp: return expf(x);
    case Log: return logf(x);
    case Sin: return sinf(x);
    case Cos: return cosf(x);
    case Tanh: return tanhf(x);
    case Erf: return erff(x);
    case Sigmoid: return sigmoid(x);
    case Relu: return x < 0.0f ? 0.0f : x;
    case Gelu: return gelu(x);
    case GeluTanh: return gelu_tanh(x);
    case Silu: return x * sigmoid(x);
    default: return isnan(x) ? x : fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
    }
}

// A function of two floats with a float result.
__device__ __forceinline__ float float_binary(uint32_t op, float a, float b) {
    switch (op) {
    case Add: return a + b;
    case Sub: return a - b;
    case Mul: return a * b;
    case Div: return a / b;
    case Mod: return floor_remainder(a, b);
    case Fmod: return fmodf(a, b);
    case Pow: return powf(a, b);
    case Min: return lesser(a, b);
    default: return greater(a, b);
    }
}

// Truncates and saturates; NaN gives 0.
__device__ __forceinline__ int64_t float_to_integer(float x) { return isnan(x) ? 0 : __float2ll_rz(x); }
