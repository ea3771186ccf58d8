// Index spaces: from the number of an element to its place in strided operands.
#pragma once
#include "arguments.cuh"

// n / extent by the numbers of a Space, n < 2^31.
__device__ __forceinline__ uint32_t divide(uint32_t n, uint32_t magic, uint32_t shift) {
    return (__umulhi(n, magic) + n) >> shift;
}

// Position of element `index`, counted over the axes `first .. last`, in elements of the operand.
__device__ __forceinline__ int32_t position(const Space& space, const int32_t* strides, uint32_t index, int first, int last) {
    int32_t at = 0;
#pragma unroll 1
    for (int axis = last - 1; axis > first; --axis) {
        uint32_t outer = divide(index, space.magics[axis], space.shifts[axis]);
        at += static_cast<int32_t>(index - outer * space.extents[axis]) * strides[axis];
        index = outer;
    }
    return last > first ? at + static_cast<int32_t>(index) * strides[first] : at;
}

__device__ __forceinline__ int32_t position(const Space& space, const Operand& operand, uint32_t index) {
    return position(space, operand.strides, index, 0, space.rank);
}
