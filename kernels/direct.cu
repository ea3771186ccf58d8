// Convolutions by their definition: a thread sums the window of four output channels.
#include "slide.cuh"

namespace {

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(__half x) { return __half2float(x); }
__device__ __forceinline__ float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
// Wrapping sums are those of the unsigned type.
__device__ __forceinline__ uint32_t wide(int32_t x) { return uint32_t(x); }

template <class T> struct SumOf { using Type = float; };
template <> struct SumOf<int32_t> { using Type = uint32_t; };

__device__ __forceinline__ float fused(float a, float b, float sum) { return fmaf(a, b, sum); }
__device__ __forceinline__ uint32_t fused(uint32_t a, uint32_t b, uint32_t sum) { return a * b + sum; }

// Up to four elements, `step` apart; the rest become zeros.
template <class T, class Sum> __device__ __forceinline__ void fetch_wide(const T* from, int64_t step, int valid, bool vectors, Sum (&x)[4]) {
    if (vectors) {
        struct alignas(4 * sizeof(T)) Packed { T x[4]; };
        Packed packed = *reinterpret_cast<const Packed*>(from);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] = wide(packed.x[lane]);
        return;
    }
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) x[lane] = lane < valid ? wide(from[lane * step]) : Sum(0);
}

template <int DIMS> __device__ __forceinline__ void store_sums(const DirectArguments& arguments, const Quad<DIMS>& quad, float (&sums)[4]) {
    quad.finish(arguments.chain, arguments.output, sums);
}

template <int DIMS> __device__ __forceinline__ void store_sums(const DirectArguments& arguments, const Quad<DIMS>& quad, uint32_t (&sums)[4]) {
    const Operand& output = arguments.output;
    int64_t at = quad.place(output);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane)
        if (lane < quad.valid) store_integer(output.address, output.dtype, at + int64_t(lane) * output.strides[1], int32_t(sums[lane]));
}

template <class T, int DIMS> __device__ __forceinline__ void convolve_directly(const DirectArguments& arguments) {
    using Sum = typename SumOf<T>::Type;
    uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= arguments.quads.space.count) return;
    Quad<DIMS> quad(arguments.quads, index);
    const Operand &x = arguments.x, &w = arguments.w;
    const T* input = static_cast<const T*>(x.address) + quad.start(x);
    const T* weights = static_cast<const T*>(w.address) + int64_t(quad.channel) * w.strides[0];
    int inputs = arguments.inputs, outputs = arguments.outputs, valid = quad.valid;
    // Four output channels see the same channels, or each its own, or whatever comes.
    bool shared = outputs % 4 == 0, own = inputs == 1 && outputs == 1;
    int64_t x_step = x.strides[1], w_step = w.strides[1];
    int64_t group = quad.channel / outputs * int64_t(inputs) * x_step;
    Sum sums[4] = {};
    for_each_tap(arguments.slide, quad.at, [&](const int (&taps)[DIMS], const int (&positions)[DIMS]) {
        const T *from = input, *factors = weights;
#pragma unroll
        for (int axis = 0; axis < DIMS; ++axis) {
            from += int64_t(positions[axis]) * x.strides[axis + 2];
            factors += int64_t(taps[axis]) * w.strides[axis + 2];
        }
        Sum a[4], b[4];
        if (own) {
            fetch_wide(from + group, x_step, valid, arguments.x_vectors != 0, a);
            fetch_wide(factors, w.strides[0], valid, arguments.w_vectors != 0, b);
#pragma unroll
            for (int lane = 0; lane < 4; ++lane) sums[lane] = fused(a[lane], b[lane], sums[lane]);
            return;
        }
        for (int channel = 0; channel < inputs; ++channel, factors += w_step) {
            fetch_wide(factors, w.strides[0], valid, arguments.w_vectors != 0, b);
            if (shared) {
                Sum one = wide(from[group + channel * x_step]);
#pragma unroll
                for (int lane = 0; lane < 4; ++lane) sums[lane] = fused(one, b[lane], sums[lane]);
                continue;
            }
#pragma unroll
            for (int lane = 0; lane < 4; ++lane) {
                if (lane >= valid) continue;
                int64_t first = (quad.channel + lane) / outputs * int64_t(inputs);
                sums[lane] = fused(wide(from[(first + channel) * x_step]), b[lane], sums[lane]);
            }
        }
    });
    store_sums(arguments, quad, sums);
}

}  // namespace

BY_RANK(conv_direct_f32, DirectArguments, convolve_directly<float,)
BY_RANK(conv_direct_f16, DirectArguments, convolve_directly<__half,)
BY_RANK(conv_direct_bf16, DirectArguments, convolve_directly<__nv_bfloat16,)
BY_RANK(conv_direct_i32, DirectArguments, convolve_directly<int32_t,)
