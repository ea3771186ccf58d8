// Convolutions as products in tiles: rows of the left factor are windows of the input, gathered where they lie.
#pragma once
#include "product.cuh"

// A term of the sums: a tap of the window, and a channel.
struct Term {
    const ConvArguments& arguments;
    int taps[3], channel;

    __device__ __forceinline__ Term(const ConvArguments& arguments, uint32_t k) : arguments(arguments) {
        const Space& terms = arguments.terms;
        uint32_t tap = divide(k, terms.magics[3], terms.shifts[3]);
        channel = k - tap * terms.extents[3];
#pragma unroll
        for (int axis = 2; axis > 0; --axis) {
            uint32_t outer = divide(tap, terms.magics[axis], terms.shifts[axis]);
            taps[axis] = tap - outer * terms.extents[axis];
            tap = outer;
        }
        taps[0] = tap;
    }

    __device__ __forceinline__ void advance() {
        const Space& terms = arguments.terms;
        if (++channel < int(terms.extents[3])) return;
        channel = 0;
        if (++taps[2] < int(terms.extents[2])) return;
        taps[2] = 0;
        if (++taps[1] < int(terms.extents[1])) return;
        taps[1] = 0;
        ++taps[0];
    }

    // Distance from the window's corner along an axis.
    __device__ __forceinline__ int along(int axis) const { return taps[axis] * int(arguments.dilations[axis]); }

    // Elements from the window's corner.
    __device__ __forceinline__ int64_t offset() const {
        int64_t at = int64_t(channel) * arguments.product.a.strides[AXES - 1];
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) at += int64_t(along(axis)) * arguments.steps[axis];
        return at;
    }

    // Whether the tap of a window with this corner lies inside the input.
    __device__ __forceinline__ bool inside(const int (&corner)[3]) const {
        bool inside = true;
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) inside &= uint32_t(corner[axis] + along(axis)) < arguments.extents[axis];
        return inside;
    }
};

// The left factor: the windows of a block's rows. A thread fetches the same rows in every stage.
template <class S> struct Windows {
    using T = typename S::T;
    static constexpr int CHUNKS = S::DEPTH / S::CHUNK, PASS = S::THREADS / CHUNKS, PASSES = S::ROWS / PASS;
    static_assert(S::ROWS % PASS == 0);
    // A corner from which every tap lies outside.
    static constexpr int OUTSIDE = -(1 << 30);

    const ConvArguments& arguments;
    const T* base;
    bool vectors;
    // Per pass, where the window begins: elements from `base`, and along the spatial axes.
    int64_t starts[PASSES];
    int corners[PASSES][3];

    __device__ __forceinline__ Windows(const ConvArguments& arguments, const Portion& portion) : arguments(arguments) {
        const MatMulArguments& product = arguments.product;
        const Space& rows = arguments.rows;
        base = static_cast<const T*>(product.a.address) + position(product.batch, product.a, portion.batch);
        vectors = product.a_vectors != 0;
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            uint32_t row = portion.row + threadIdx.x / CHUNKS + pass * PASS;
            bool exists = row < product.m;
            uint32_t index = exists ? row : 0;
            starts[pass] = 0;
#pragma unroll
            for (int axis = 2; axis >= 0; --axis) {
                uint32_t outer = divide(index, rows.magics[axis + 1], rows.shifts[axis + 1]);
                int at = (index - outer * rows.extents[axis + 1]) * arguments.strides[axis];
                corners[pass][axis] = at - int(arguments.pads[axis]);
                starts[pass] += int64_t(corners[pass][axis]) * arguments.steps[axis];
                index = outer;
            }
            starts[pass] += int64_t(index) * product.a.strides[AXES - 2];
            if (!exists) corners[pass][0] = OUTSIDE;
        }
    }

    // Copies one stage, the terms from `k` on; those from `end` on are zeros.
    __device__ __forceinline__ void stage(uint32_t shared, int k, int end) const {
        int at = threadIdx.x % CHUNKS * S::CHUNK;
        shared += S::a_place(threadIdx.x / CHUNKS, at);
        k += at;
        Term term(arguments, k);
        if (vectors) {
            // The terms of a chunk are neighbouring channels of one tap.
            int64_t offset = term.offset();
#pragma unroll
            for (int pass = 0; pass < PASSES; ++pass) {
                bool inside = k < end && term.inside(corners[pass]);
                copy_async(shared + pass * PASS * S::A_PITCH * sizeof(T), base + starts[pass] + offset, inside);
            }
            return;
        }
        alignas(16) T elements[PASSES][S::CHUNK];
#pragma unroll
        for (int index = 0; index < S::CHUNK; ++index, term.advance()) {
            int64_t offset = term.offset();
#pragma unroll
            for (int pass = 0; pass < PASSES; ++pass) {
                bool inside = k + index < end && term.inside(corners[pass]);
                elements[pass][index] = inside ? base[starts[pass] + offset] : T(0.0f);
            }
        }
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass)
            store_shared(shared + pass * PASS * S::A_PITCH * sizeof(T), reinterpret_cast<const uint4&>(elements[pass]));
    }
};

template <class S> __device__ __forceinline__ void convolve(const ConvArguments& arguments) {
    Portion portion = Portion::of<S>(arguments.product);
    Windows<S> left(arguments, portion);
    multiply_tiles<S>(arguments.product, portion, left, right_factor<S>(arguments.product, portion));
}

// Of the large tiles `blocks` blocks share a multiprocessor.
#define CONVOLUTIONS(name, T, KIND, blocks) \
    ENTRY_BLOCKS(conv_##name##_128x128, ConvArguments, 256, blocks) { convolve<Large<T, KIND, Right::Rows>>(arguments); } \
    ENTRY(conv_##name##_64x64, ConvArguments, 256) { convolve<Medium<T, KIND, Right::Rows>>(arguments); } \
    ENTRY(conv_##name##_32x64, ConvArguments, 128) { convolve<Flat<T, KIND, Right::Rows>>(arguments); }
