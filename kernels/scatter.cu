// Indexed writes. Where several updates meet, integers that do not depend on any order say which ones, and one thread applies them in
// theirs: results do not depend on the schedule.
#include "numbers.cuh"
#include "walk.cuh"

namespace {

enum Op : uint32_t { SET, ADD, MUL, MAX, MIN };

__device__ __forceinline__ float combined(uint32_t op, float a, float b) {
    return op == ADD ? a + b : op == MUL ? a * b : op == MAX ? greater(a, b) : lesser(a, b);
}

// Sums and products wrap.
__device__ __forceinline__ int64_t combined(uint32_t op, int64_t a, int64_t b) {
    uint64_t left = static_cast<uint64_t>(a), right = static_cast<uint64_t>(b);
    return op == ADD ? static_cast<int64_t>(left + right) : op == MUL ? static_cast<int64_t>(left * right) : op == MAX ? max(a, b) : min(a, b);
}

__device__ __forceinline__ float load(const Operand& operand, int64_t at, float) { return load_float(operand.address, operand.dtype, at); }
__device__ __forceinline__ int64_t load(const Operand& operand, int64_t at, int64_t) { return load_integer(operand.address, operand.dtype, at); }
__device__ __forceinline__ void store(const Operand& operand, int64_t at, float x) { store_float(operand.address, operand.dtype, at, x); }
__device__ __forceinline__ void store(const Operand& operand, int64_t at, int64_t x) { store_integer(operand.address, operand.dtype, at, x); }

template <class T> __device__ __forceinline__ void apply(const ScatterArguments& arguments, uint32_t element) {
    const Space& space = arguments.space;
    int32_t place = position(space, arguments.marks, element);
    uint32_t mark = static_cast<const uint32_t*>(arguments.marks.address)[place], count = arguments.tuples.count;
    int64_t within = position(space, arguments.steps, element, 0, space.rank);
    auto update = [&](uint32_t tuple) {
        return load(arguments.updates, position(arguments.tuples, arguments.updates, tuple) + within, T());
    };
    T value;
    if (arguments.op == SET && mark != 0) {
        value = update(mark - 1);
    } else {
        value = load(arguments.data, position(space, arguments.data, element), T());
    }
    if (arguments.op != SET && mark != 0) {
        const int32_t* positions = static_cast<const int32_t*>(arguments.positions);
        uint32_t left = static_cast<const uint32_t*>(arguments.counts)[place];
        for (uint32_t tuple = count - mark; left > 0 && tuple < count; ++tuple) {
            if (positions[tuple] != place) continue;
            value = combined(arguments.op, value, update(tuple));
            --left;
        }
    }
    store(arguments.output, position(space, arguments.output, element), value);
}

}  // namespace

// Finds the place that each tuple of indices names, and marks it.
ENTRY(scatter_index, ScatterArguments, 128) {
    begin();
    uint32_t tuple = blockIdx.x * blockDim.x + threadIdx.x;
    if (tuple >= arguments.tuples.count) return;
    int64_t at = position(arguments.tuples, arguments.index, tuple), place = 0;
    bool inside = true;
    for (uint32_t axis = 0; axis < arguments.depth; ++axis, at += arguments.index_step) {
        int64_t chosen = load_integer(arguments.index.address, arguments.index.dtype, at), extent = arguments.space.extents[axis];
        if (chosen < 0) chosen += extent;
        inside = inside && chosen >= 0 && chosen < extent;
        place += inside ? chosen * arguments.marks.strides[axis] : 0;
    }
    if (arguments.positions) static_cast<int32_t*>(arguments.positions)[tuple] = inside ? static_cast<int32_t>(place) : -1;
    if (!inside) return;
    // The last tuple wins, or the first one is remembered.
    uint32_t mark = arguments.op == SET ? tuple + 1 : arguments.tuples.count - tuple;
    atomicMax(static_cast<uint32_t*>(arguments.marks.address) + place, mark);
    if (arguments.op != SET) atomicAdd(static_cast<uint32_t*>(arguments.counts) + place, 1u);
}

// Writes every element of the result.
ENTRY(scatter_apply, ScatterArguments, 128) {
    begin();
    uint32_t element = blockIdx.x * blockDim.x + threadIdx.x;
    if (element >= arguments.space.count) return;
    if (is_float(arguments.data.dtype)) apply<float>(arguments, element);
    else apply<int64_t>(arguments, element);
}
