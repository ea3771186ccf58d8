// Running sums.
#include "numbers.cuh"
#include "walk.cuh"

namespace {

constexpr int THREADS = 256, WARPS = THREADS / 32, LANES = 4;

// Integers are summed without sign, so that they wrap.
template <class T> __device__ __forceinline__ T load(const Operand& operand, int64_t at);
template <> __device__ __forceinline__ float load(const Operand& operand, int64_t at) {
    return load_float(operand.address, operand.dtype, at);
}
template <> __device__ __forceinline__ uint64_t load(const Operand& operand, int64_t at) {
    return static_cast<uint64_t>(load_integer(operand.address, operand.dtype, at));
}
__device__ __forceinline__ void store(const Operand& operand, int64_t at, float x) { store_float(operand.address, operand.dtype, at, x); }
__device__ __forceinline__ void store(const Operand& operand, int64_t at, uint64_t x) {
    store_integer(operand.address, operand.dtype, at, static_cast<int64_t>(x));
}

// A line of elements, in the order in which they are summed.
struct Line {
    const CumSumArguments& arguments;
    int64_t from, to;

    __device__ Line(const CumSumArguments& arguments, uint32_t line) : arguments(arguments) {
        int last = arguments.space.rank - 1;
        from = position(arguments.space, arguments.input.strides, line, 0, last);
        to = position(arguments.space, arguments.output.strides, line, 0, last);
    }
    __device__ int64_t index(uint32_t element) const { return arguments.reverse ? arguments.extent - 1 - element : element; }
    template <class T> __device__ T get(uint32_t element) const {
        return load<T>(arguments.input, from + index(element) * arguments.input.strides[arguments.space.rank - 1]);
    }
    template <class T> __device__ void put(uint32_t element, T sum) const {
        store(arguments.output, to + index(element) * arguments.output.strides[arguments.space.rank - 1], sum);
    }
};

template <class T> __device__ __forceinline__ void sum_in_threads(const CumSumArguments& arguments) {
    uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= arguments.space.count / arguments.extent) return;
    Line line(arguments, index);
    T sum = 0;
    for (uint32_t element = 0; element < arguments.extent; ++element) {
        T next = sum + line.get<T>(element);
        line.put(element, arguments.exclusive ? sum : next);
        sum = next;
    }
}

template <class T> __device__ __forceinline__ void sum_in_blocks(const CumSumArguments& arguments) {
    __shared__ T totals[WARPS];
    Line line(arguments, blockIdx.x);
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    T carry = 0;
    for (uint32_t start = 0; start < arguments.extent; start += THREADS * LANES) {
        uint32_t first = start + threadIdx.x * LANES;
        T x[LANES], own = 0;
#pragma unroll
        for (int index = 0; index < LANES; ++index) {
            x[index] = first + index < arguments.extent ? line.get<T>(first + index) : T(0);
            own += x[index];
        }
        T until = own;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            T other = __shfl_up_sync(~0u, until, distance);
            if (lane >= distance) until += other;
        }
        T before = __shfl_up_sync(~0u, until, 1);
        if (lane == 0) before = 0;
        // Nobody overwrites what another warp still reads.
        __syncthreads();
        if (lane == 31) totals[warp] = until;
        __syncthreads();
        T sum = carry;
#pragma unroll
        for (int index = 0; index < WARPS; ++index) {
            if (index < warp) sum += totals[index];
            carry += totals[index];
        }
        sum += before;
#pragma unroll
        for (int index = 0; index < LANES; ++index) {
            T next = sum + x[index];
            if (first + index < arguments.extent) line.put(first + index, arguments.exclusive ? sum : next);
            sum = next;
        }
    }
}

}  // namespace

ENTRY(cumsum_threads, CumSumArguments, 128) {
    begin();
    if (is_float(arguments.input.dtype)) sum_in_threads<float>(arguments);
    else sum_in_threads<uint64_t>(arguments);
}

ENTRY(cumsum_blocks, CumSumArguments, THREADS) {
    begin();
    if (is_float(arguments.input.dtype)) sum_in_blocks<float>(arguments);
    else sum_in_blocks<uint64_t>(arguments);
}
