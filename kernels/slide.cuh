// Windows that slide over an input: a thread has one window and four channels, and walks the taps.
#pragma once
#include "finish.cuh"

// What a thread computes. Operands have the steps of image, channel and spatial axes.
template <int DIMS> struct Quad {
    uint32_t image;
    int channel, valid;
    int at[DIMS];

    __device__ __forceinline__ Quad(const Quads& quads, uint32_t index) {
        const Space& space = quads.space;
        uint32_t digits[DIMS + 2];
#pragma unroll
        for (int axis = DIMS + 1; axis > 0; --axis) {
            uint32_t outer = divide(index, space.magics[axis], space.shifts[axis]);
            digits[axis] = index - outer * space.extents[axis];
            index = outer;
        }
        bool last = quads.channels_last != 0;
        image = index;
        channel = 4 * (last ? digits[DIMS + 1] : digits[1]);
        valid = min(4, int(quads.channels) - channel);
#pragma unroll
        for (int axis = 0; axis < DIMS; ++axis) at[axis] = last ? digits[axis + 1] : digits[axis + 2];
    }

    // Where the image begins that an operand shows.
    __device__ __forceinline__ int64_t start(const Operand& operand) const { return int64_t(image) * operand.strides[0]; }

    // Where the first of the four results lies.
    __device__ __forceinline__ int64_t place(const Operand& operand) const {
        int64_t place = start(operand) + int64_t(channel) * operand.strides[1];
#pragma unroll
        for (int axis = 0; axis < DIMS; ++axis) place += int64_t(at[axis]) * operand.strides[axis + 2];
        return place;
    }

    // The chain, and the results' way to their place.
    __device__ __forceinline__ void finish(const Chain& chain, const Operand& output, float (&x)[4]) const {
        apply_chain(chain, x, [&](uint32_t index, float (&y)[4]) {
            const Operand& operand = chain.operands[index];
            fetch_four(operand, place(operand), operand.strides[1], valid, y);
        });
        store_four(output, place(output), output.strides[1], valid, x);
    }
};

// The indices of tap `number` along the axes of the window.
template <int DIMS> __device__ __forceinline__ void tap_indices(const Space& kernel, uint32_t number, int (&taps)[DIMS]) {
#pragma unroll
    for (int axis = DIMS - 1; axis > 0; --axis) {
        uint32_t outer = divide(number, kernel.magics[axis], kernel.shifts[axis]);
        taps[axis] = number - outer * kernel.extents[axis];
        number = outer;
    }
    taps[0] = number;
}

// Calls `visit(tap, positions)` for every tap of the window at `at` that lies inside the input, in row-major order.
template <int DIMS, class Visit> __device__ __forceinline__ void for_each_tap(const Slide& slide, const int (&at)[DIMS], Visit visit) {
    int corner[DIMS];
#pragma unroll
    for (int axis = 0; axis < DIMS; ++axis) corner[axis] = at[axis] * int(slide.strides[axis]) - int(slide.pads[axis]);
    for (uint32_t number = 0; number < slide.kernel.count; ++number) {
        int taps[DIMS], positions[DIMS];
        tap_indices(slide.kernel, number, taps);
        bool inside = true;
#pragma unroll
        for (int axis = 0; axis < DIMS; ++axis) {
            positions[axis] = corner[axis] + taps[axis] * int(slide.dilations[axis]);
            inside &= uint32_t(positions[axis]) < slide.extents[axis];
        }
        if (inside) visit(taps, positions);
    }
}

// The entries of a kernel: for two or three spatial axes, and, with more registers, for any number of them.
#define BY_RANK(name, Arguments, ...) \
    ENTRY(name, Arguments, 128) { \
        begin(); \
        if (arguments.slide.kernel.rank == 2) __VA_ARGS__ 2>(arguments); \
        else __VA_ARGS__ 3>(arguments); \
    } \
    ENTRY(name##_any, Arguments, 128) { \
        begin(); \
        __VA_ARGS__ AXES - 2>(arguments); \
    }
