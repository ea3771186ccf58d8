// Pooling, and the sums of transposed convolutions.
#include "slide.cuh"

namespace {

// The least value of a type, which is what the maximum of nothing is.
__device__ __forceinline__ float least(uint32_t dtype) {
    return dtype == I8_TYPE ? -128.0f : dtype == U8_TYPE ? 0.0f : -INFINITY;
}

// Four channels of an operand of any type.
__device__ __forceinline__ void store_any(const Operand& output, int64_t at, int valid, const float (&x)[4]) {
    if (is_float(output.dtype)) return store_four(output, at, output.strides[1], valid, x);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane)
        if (lane < valid) store_integer(output.address, output.dtype, at + int64_t(lane) * output.strides[1], int64_t(x[lane]));
}

// What the sum of a window that counts its padding is divided by.
template <int DIMS> __device__ __forceinline__ float taps_with_padding(const PoolArguments& arguments, const int (&at)[DIMS]) {
    const Slide& slide = arguments.slide;
    float taps = 1.0f;
#pragma unroll
    for (int axis = 0; axis < DIMS; ++axis) {
        uint32_t left = arguments.padded[axis] - uint32_t(at[axis]) * slide.strides[axis], dilation = slide.dilations[axis];
        taps *= float(min((left + dilation - 1) / dilation, slide.kernel.extents[axis]));
    }
    return taps;
}

// Position of an input element of one channel, of the four channels' area each.
template <int DIMS> __device__ __forceinline__ int64_t flat(const PoolArguments& arguments, const int (&positions)[DIMS]) {
    int64_t flat = 0, weight = 1;
    bool column_major = arguments.column_major != 0;
#pragma unroll
    for (int step = 0; step < DIMS; ++step) {
        int position = column_major ? positions[step] : positions[DIMS - 1 - step];
        flat += position * weight;
        weight *= column_major ? arguments.slide.extents[step] : arguments.slide.extents[DIMS - 1 - step];
    }
    return flat;
}

template <int DIMS> __device__ __forceinline__ void store_indices(const PoolArguments& arguments, const Quad<DIMS>& quad, const int64_t (&best)[4]) {
    const Operand& indices = arguments.indices;
    int64_t area = 1, at = quad.place(indices);
#pragma unroll
    for (int axis = 0; axis < DIMS; ++axis) area *= arguments.slide.extents[axis];
    int64_t plane = int64_t(quad.image) * arguments.quads.channels + quad.channel;
#pragma unroll
    for (int lane = 0; lane < 4; ++lane)
        if (lane < quad.valid)
            static_cast<int64_t*>(indices.address)[at + int64_t(lane) * indices.strides[1]] = (plane + lane) * area + best[lane];
}

template <int DIMS> __device__ __forceinline__ void pool_window(const PoolArguments& arguments) {
    uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= arguments.quads.space.count) return;
    Quad<DIMS> quad(arguments.quads, index);
    const Operand& input = arguments.input;
    bool maximum = arguments.kind == 0, wants_indices = arguments.indices.address != nullptr;
    int64_t start = quad.start(input) + int64_t(quad.channel) * input.strides[1], best[4] = {};
    int inside = 0;
    float value = maximum ? least(input.dtype) : 0.0f, x[4] = {value, value, value, value};
    for_each_tap(arguments.slide, quad.at, [&](const int (&)[DIMS], const int (&positions)[DIMS]) {
        int64_t at = start;
#pragma unroll
        for (int axis = 0; axis < DIMS; ++axis) at += int64_t(positions[axis]) * input.strides[axis + 2];
        float y[4];
        fetch_four(input, at, input.strides[1], quad.valid, y);
        int64_t here = wants_indices ? flat(arguments, positions) : 0;
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) {
            if (!maximum) {
                x[lane] += y[lane];
            } else if (inside == 0 || y[lane] > x[lane] || (isnan(y[lane]) && !isnan(x[lane]))) {
                x[lane] = y[lane];
                best[lane] = here;
            }
        }
        ++inside;
    });
    if (!maximum) {
        float divisor = arguments.kind == 1 ? float(max(inside, 1)) : taps_with_padding(arguments, quad.at);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] /= divisor;
    }
    store_any(arguments.output, quad.place(arguments.output), quad.valid, x);
    if (wants_indices) store_indices(arguments, quad, best);
}

template <int DIMS> __device__ __forceinline__ void collect_window(const CollectArguments& arguments) {
    uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= arguments.quads.space.count) return;
    Quad<DIMS> quad(arguments.quads, index);
    const Slide& slide = arguments.slide;
    const Operand& columns = arguments.columns;
    int64_t start = quad.start(columns) + int64_t(quad.channel) * columns.strides[1];
    float x[4] = {};
    for (uint32_t number = 0; number < slide.kernel.count; ++number) {
        int taps[DIMS];
        tap_indices(slide.kernel, number, taps);
        int64_t at = start + int64_t(number) * arguments.tap_step;
        bool inside = true;
#pragma unroll
        for (int axis = 0; axis < DIMS; ++axis) {
            // The input whose window has this tap at this result, if there is one.
            int distance = quad.at[axis] + int(slide.pads[axis]) - taps[axis] * int(slide.dilations[axis]);
            int stride = slide.strides[axis], position = distance / stride;
            inside &= distance >= 0 && position * stride == distance && position < int(slide.extents[axis]);
            at += int64_t(position) * columns.strides[axis + 2];
        }
        if (!inside) continue;
        float y[4];
        fetch_four(columns, at, columns.strides[1], quad.valid, y);
#pragma unroll
        for (int lane = 0; lane < 4; ++lane) x[lane] += y[lane];
    }
    quad.finish(arguments.chain, arguments.output, x);
}

}  // namespace

BY_RANK(pool, PoolArguments, pool_window<)
BY_RANK(collect, CollectArguments, collect_window<)
