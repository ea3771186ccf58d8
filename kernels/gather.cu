// Indexed reads.
#include "numbers.cuh"
#include "walk.cuh"

namespace {

template <class T> __device__ __forceinline__ void gather_element(const GatherArguments& arguments, uint32_t index) {
    int64_t from = position(arguments.space, arguments.data, index);
    int64_t at = position(arguments.space, arguments.index, index);
    for (uint32_t axis = 0; axis < arguments.depth; ++axis, at += arguments.index_step) {
        int64_t chosen = load_integer(arguments.index.address, arguments.index.dtype, at), extent = arguments.extents[axis];
        if (chosen < 0) chosen += extent;
        chosen = chosen < 0 ? 0 : chosen >= extent ? extent - 1 : chosen;
        from += chosen * arguments.steps[axis];
    }
    T element = static_cast<const T*>(arguments.data.address)[from];
    static_cast<T*>(arguments.output.address)[position(arguments.space, arguments.output, index)] = element;
}

}  // namespace

ENTRY(gather, GatherArguments, 128) {
    begin();
    uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= arguments.space.count) return;
    switch (arguments.bytes) {
    case 1: return gather_element<uint8_t>(arguments, index);
    case 2: return gather_element<uint16_t>(arguments, index);
    case 4: return gather_element<uint32_t>(arguments, index);
    case 8: return gather_element<uint64_t>(arguments, index);
    default: return gather_element<uint4>(arguments, index);
    }
}
