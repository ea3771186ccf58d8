// Resampling by tables of taps.
#include "numbers.cuh"
#include "walk.cuh"

namespace {

// Where the sums of one result begin.
struct Place {
    int64_t from, to;
    // Per axis that changes, the first tap of its table.
    uint32_t firsts[AXES];
    bool outside;
};

__device__ __forceinline__ Place place_of(const ResizeArguments& arguments, uint32_t index) {
    const Space& space = arguments.space;
    Place place = {0, 0, {}, false};
    int slot = int(arguments.taps.rank) - 1;
    for (int axis = int(space.rank) - 1; axis >= 0; --axis) {
        uint32_t outer = axis > 0 ? divide(index, space.magics[axis], space.shifts[axis]) : 0;
        uint32_t digit = index - outer * space.extents[axis];
        place.from += int64_t(digit) * arguments.input.strides[axis];
        place.to += int64_t(digit) * arguments.output.strides[axis];
        if (slot >= 0 && int(arguments.axes[slot]) == axis) {
            place.firsts[slot] = arguments.starts[slot] + digit * arguments.taps.extents[slot];
            place.outside |= static_cast<const int32_t*>(arguments.positions)[place.firsts[slot]] < 0;
            --slot;
        }
        index = outer;
    }
    return place;
}

// Calls `visit(at, weight)` for every combination of taps.
template <class Visit> __device__ __forceinline__ void for_each_combination(const ResizeArguments& arguments, const Place& place, Visit visit) {
    const Space& taps = arguments.taps;
    for (uint32_t number = 0; number < taps.count; ++number) {
        uint32_t rest = number;
        int64_t at = place.from;
        float weight = 1.0f;
        for (int slot = int(taps.rank) - 1; slot >= 0; --slot) {
            uint32_t outer = divide(rest, taps.magics[slot], taps.shifts[slot]);
            uint32_t entry = place.firsts[slot] + rest - outer * taps.extents[slot];
            at += int64_t(static_cast<const int32_t*>(arguments.positions)[entry]) * arguments.steps[slot];
            weight *= static_cast<const float*>(arguments.weights)[entry];
            rest = outer;
        }
        visit(at, weight);
    }
}

}  // namespace

ENTRY(resize, ResizeArguments, 128) {
    begin();
    uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= arguments.space.count) return;
    const Operand &input = arguments.input, &output = arguments.output;
    Place place = place_of(arguments, index);
    if (is_float(input.dtype)) {
        float sum = 0.0f;
        auto add = [&](int64_t at, float weight) { sum = fmaf(weight, load_float(input.address, input.dtype, at), sum); };
        if (!place.outside) for_each_combination(arguments, place, add);
        return store_float(output.address, output.dtype, place.to, place.outside ? arguments.outside : sum);
    }
    // Of other types one element is picked.
    int64_t picked = static_cast<int64_t>(arguments.outside);
    auto pick = [&](int64_t at, float) { picked = load_integer(input.address, input.dtype, at); };
    if (!place.outside) for_each_combination(arguments, place, pick);
    store_integer(output.address, output.dtype, place.to, picked);
}
