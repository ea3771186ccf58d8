// Reductions: by a thread, a warp or a block, or in columns.
#pragma once
#include "rows.cuh"
#include <type_traits>

namespace {

// The state of a reduction over floats or over integers.
template <class T> struct Reduction {
    T value;
    int32_t index;

    static __device__ bool is_nan(float x) { return isnan(x); }
    static __device__ bool is_nan(int64_t) { return false; }
    static __device__ T limit(uint32_t dtype, bool greatest);

    static __device__ Reduction neutral(const ReduceArguments& arguments) {
        switch (arguments.op) {
        case 2: return {limit(arguments.input.dtype, false), 0};
        case 3: return {limit(arguments.input.dtype, true), 0};
        case 4: return {T(1), 0};
        default: return {T(0), -1};
        }
    }

    __device__ bool loses(const ReduceArguments& arguments, const Reduction& other) const {
        if (other.index < 0) return false;
        if (index < 0) return true;
        if (is_nan(value) || is_nan(other.value))
            return is_nan(value) && (!is_nan(other.value) || other.index < index);
        if (value == other.value) return arguments.last ? other.index > index : other.index < index;
        return arguments.op == 6 ? other.value > value : other.value < value;
    }

    __device__ void merge(const ReduceArguments& arguments, const Reduction& other) {
        switch (arguments.op) {
        case 2: value = other.value > value || is_nan(other.value) ? other.value : value; break;
        case 3: value = other.value < value || is_nan(other.value) ? other.value : value; break;
        case 4: value *= other.value; break;
        case 6:
        case 7:
            if (loses(arguments, other)) *this = other;
            break;
        default: value += other.value;
        }
    }

    // Elements `first`, `first + step`, .. of a result; four at a time are on their way.
    template <class M> __device__ __forceinline__ void add(const ReduceArguments& arguments, int64_t start, uint32_t first, uint32_t step) {
        constexpr int AHEAD = 4;
        const Operand& input = arguments.input;
        const M* base = static_cast<const M*>(input.address) + start;
#pragma unroll 1
        for (uint32_t element = first; element < arguments.extent; element += AHEAD * step) {
            M stored[AHEAD];
#pragma unroll
            for (int index = 0; index < AHEAD; ++index) {
                uint32_t own = element + index * step;
                if (own < arguments.extent) stored[index] = base[position(arguments.space, input.strides, own, arguments.kept, arguments.space.rank)];
            }
#pragma unroll
            for (int index = 0; index < AHEAD; ++index) {
                uint32_t own = element + index * step;
                T x = T(stored[index]);
                if (own < arguments.extent) merge(arguments, {arguments.op == 5 ? x * x : x, int32_t(own)});
            }
        }
    }

    __device__ void store(const ReduceArguments& arguments, uint32_t result) const;

    __device__ Reduction shuffled(int distance) const {
        return {__shfl_xor_sync(~0u, value, distance), __shfl_xor_sync(~0u, index, distance)};
    }
};

template <> __device__ float Reduction<float>::limit(uint32_t, bool greatest) { return greatest ? INFINITY : -INFINITY; }
template <> __device__ int64_t Reduction<int64_t>::limit(uint32_t dtype, bool greatest) {
    switch (dtype) {
    case I32_TYPE: return greatest ? INT32_MAX : INT32_MIN;
    case I8_TYPE: return greatest ? INT8_MAX : INT8_MIN;
    case U8_TYPE: return greatest ? UINT8_MAX : 0;
    case BOOL_TYPE: return greatest;
    default: return greatest ? INT64_MAX : INT64_MIN;
    }
}
template <> __device__ void Reduction<float>::store(const ReduceArguments& arguments, uint32_t result) const {
    const Operand& output = arguments.output;
    int64_t at = position(arguments.space, output.strides, result, 0, arguments.kept);
    if (arguments.op >= 6) return store_integer(output.address, output.dtype, at, index);
    float x = arguments.op == 1 ? value / float(arguments.extent) : arguments.op == 5 ? sqrtf(value) : value;
    store_float(output.address, output.dtype, at, x);
}
template <> __device__ void Reduction<int64_t>::store(const ReduceArguments& arguments, uint32_t result) const {
    const Operand& output = arguments.output;
    int64_t at = position(arguments.space, output.strides, result, 0, arguments.kept);
    int64_t x = value;
    if (arguments.op == 1) x /= max(arguments.extent, 1u);
    if (arguments.op == 5) x = static_cast<int64_t>(sqrt(static_cast<double>(value)));
    store_integer(output.address, output.dtype, at, arguments.op >= 6 ? index : x);
}

__device__ __forceinline__ uint32_t results(const ReduceArguments& arguments) {
    uint32_t count = 1;
    for (uint32_t axis = 0; axis < arguments.kept; ++axis) count *= arguments.space.extents[axis];
    return count;
}

// Elements `first`, `first + step`, .. of one result.
template <class T> __device__ __forceinline__ Reduction<T> partly(const ReduceArguments& arguments, uint32_t result, uint32_t first, uint32_t step) {
    Reduction<T> state = Reduction<T>::neutral(arguments);
    int64_t start = position(arguments.space, arguments.input.strides, result, 0, arguments.kept);
    auto add = [&](auto stored) { state.template add<decltype(stored)>(arguments, start, first, step); };
    if constexpr (sizeof(T) == sizeof(float)) {
        with_float_type(nullptr, arguments.input.dtype, [&](auto* typed) { add(std::remove_pointer_t<decltype(typed)>()); });
    } else {
        switch (arguments.input.dtype) {
        case I64_TYPE: add(int64_t()); break;
        case I32_TYPE: add(int32_t()); break;
        case I8_TYPE: add(int8_t()); break;
        default: add(uint8_t());
        }
    }
    return state;
}

template <class T> __device__ __forceinline__ void warp_merge(const ReduceArguments& arguments, Reduction<T>& state) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) state.merge(arguments, state.shuffled(distance));
}

template <class T> __device__ __forceinline__ void reduce_in_threads(const ReduceArguments& arguments) {
    uint32_t result = blockIdx.x * blockDim.x + threadIdx.x;
    if (result < results(arguments)) partly<T>(arguments, result, 0, 1).store(arguments, result);
}

template <class T> __device__ __forceinline__ void reduce_in_warps(const ReduceArguments& arguments) {
    uint32_t result = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (result >= results(arguments)) return;
    Reduction<T> state = partly<T>(arguments, result, threadIdx.x % 32, 32);
    warp_merge(arguments, state);
    if (threadIdx.x % 32 == 0) state.store(arguments, result);
}

// 32 neighbouring results a block, so that what its warps read lies side by side; each warp has a part of the elements.
template <class T> __device__ __forceinline__ void reduce_in_columns(const ReduceArguments& arguments) {
    constexpr int PARTS = 8;
    __shared__ T values[PARTS][32];
    __shared__ int32_t indices[PARTS][32];
    uint32_t lane = threadIdx.x % 32, part = threadIdx.x / 32, result = blockIdx.x * 32 + lane;
    bool exists = result < results(arguments);
    if (exists) {
        Reduction<T> state = partly<T>(arguments, result, part, PARTS);
        values[part][lane] = state.value, indices[part][lane] = state.index;
    }
    __syncthreads();
    if (part != 0 || !exists) return;
    Reduction<T> state = {values[0][lane], indices[0][lane]};
#pragma unroll 1
    for (int other = 1; other < PARTS; ++other) state.merge(arguments, {values[other][lane], indices[other][lane]});
    state.store(arguments, result);
}

template <class T> __device__ __forceinline__ void reduce_in_blocks(const ReduceArguments& arguments) {
    __shared__ T values[32];
    __shared__ int32_t indices[32];
    if (blockIdx.x >= results(arguments)) return;
    Reduction<T> state = partly<T>(arguments, blockIdx.x, threadIdx.x, blockDim.x);
    warp_merge(arguments, state);
    if (threadIdx.x % 32 == 0) values[threadIdx.x / 32] = state.value, indices[threadIdx.x / 32] = state.index;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    state = Reduction<T>::neutral(arguments);
    if (threadIdx.x < blockDim.x / 32) state = {values[threadIdx.x], indices[threadIdx.x]};
    warp_merge(arguments, state);
    if (threadIdx.x == 0) state.store(arguments, blockIdx.x);
}

}  // namespace
