// Elementwise entries: interpreted programs, chains, copies.
#include "chain.cuh"
#include "walk.cuh"

namespace {

constexpr int LANES = 4;

// Registers of a program lie in shared memory, 16 bytes a thread and slot: four 32-bit lanes or two 64-bit ones.
template <bool WIDE> struct Registers;
template <> struct Registers<false> {
    using Word = uint32_t;
    using Integer = int32_t;
    static constexpr int COUNT = 4;
};
template <> struct Registers<true> {
    using Word = uint64_t;
    using Integer = int64_t;
    static constexpr int COUNT = 2;
};

template <bool WIDE> struct Lanes {
    typename Registers<WIDE>::Word word[Registers<WIDE>::COUNT];

    __device__ float real(int lane) const { return __uint_as_float(static_cast<uint32_t>(word[lane])); }
    __device__ typename Registers<WIDE>::Integer integer(int lane) const {
        return static_cast<typename Registers<WIDE>::Integer>(word[lane]);
    }
    __device__ void set(int lane, float x) { word[lane] = __float_as_uint(x); }
};

extern __shared__ uint4 slots[];

template <bool WIDE> __device__ __forceinline__ Lanes<WIDE> get(uint32_t slot) {
    uint4 bits = slots[slot * blockDim.x + threadIdx.x];
    return reinterpret_cast<Lanes<WIDE>&>(bits);
}

template <bool WIDE> __device__ __forceinline__ void put(uint32_t slot, const Lanes<WIDE>& lanes) {
    slots[slot * blockDim.x + threadIdx.x] = reinterpret_cast<const uint4&>(lanes);
}

// Which elements of the space this thread works on.
struct Place {
    uint32_t first, step, count;
    __device__ uint32_t element(int lane) const { return first + lane * step; }
};

template <class Integer> __device__ __forceinline__ Integer wrapped(uint32_t type, Integer x) {
    switch (type) {
    case I32_TYPE: return static_cast<int32_t>(x);
    case I8_TYPE: return static_cast<int8_t>(x);
    case U8_TYPE: return static_cast<uint8_t>(x);
    default: return x;
    }
}

template <class Integer> __device__ __forceinline__ Integer power(Integer base, Integer exponent) {
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
    Integer result = 1;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result *= base;
        base *= base;
    }
    return result;
}

template <class Integer> __device__ __forceinline__ Integer quotient(Integer a, Integer b) {
    return b == 0 ? 0 : b == -1 ? -a : a / b;
}

template <class Integer> __device__ __forceinline__ Integer remainder(Integer a, Integer b) {
    return b == 0 || b == -1 ? 0 : a % b;
}

template <class Integer> __device__ __forceinline__ Integer integer_unary(uint32_t op, Integer x) {
    switch (op) {
    case Neg: return -x;
    case Abs: return x < 0 ? -x : x;
    case Sign: return (x > 0) - (x < 0);
    case Relu: return x > 0 ? x : 0;
    default: return x ^ 1;
    }
}

template <class Integer> __device__ __forceinline__ Integer integer_binary(uint32_t op, Integer a, Integer b) {
    switch (op) {
    case Add: return a + b;
    case Sub: return a - b;
    case Mul: return a * b;
    case Div: return quotient(a, b);
    case Mod: {
        Integer left = remainder(a, b);
        return left != 0 && (left < 0) != (b < 0) ? left + b : left;
    }
    case Fmod: return remainder(a, b);
    case Pow: return power(a, b);
    case Min: return a < b ? a : b;
    case Max: return a > b ? a : b;
    case And: return a & b;
    case Or: return a | b;
    case Xor: return a ^ b;
    case Equal: return a == b;
    case Less: return a < b;
    default: return a <= b;
    }
}

__device__ __forceinline__ bool compares(uint32_t op, float a, float b) {
    return op == Equal ? a == b : op == Less ? a < b : a <= b;
}

template <bool WIDE>
__device__ __forceinline__ Lanes<WIDE> load(const MapArguments& arguments, const Operand& operand, const Place& place) {
    Lanes<WIDE> lanes;
    int32_t first = position(arguments.space, operand, place.first);
    if (!WIDE && arguments.vectors && is_float(operand.dtype) && operand.strides[arguments.space.rank - 1] == 1) {
        float x[4];
        load_floats(operand.address, operand.dtype, first, x);
#pragma unroll
        for (int lane = 0; lane < Registers<WIDE>::COUNT; ++lane) lanes.set(lane, x[lane]);
        return lanes;
    }
#pragma unroll
    for (int lane = 0; lane < Registers<WIDE>::COUNT; ++lane) {
        lanes.word[lane] = 0;
        if (place.element(lane) >= place.count) continue;
        int32_t at = lane == 0 ? first : position(arguments.space, operand, place.element(lane));
        if (is_float(operand.dtype)) lanes.set(lane, load_float(operand.address, operand.dtype, at));
        else lanes.word[lane] = load_integer(operand.address, operand.dtype, at);
    }
    return lanes;
}

template <bool WIDE>
__device__ __forceinline__ void store(const MapArguments& arguments, const Lanes<WIDE>& lanes, const Place& place) {
    const Operand& output = arguments.output;
    if (!WIDE && arguments.vectors && is_float(output.dtype)) {
        float x[4];
#pragma unroll
        for (int lane = 0; lane < Registers<WIDE>::COUNT; ++lane) x[lane] = lanes.real(lane);
        store_floats(output.address, output.dtype, position(arguments.space, output, place.first), x);
        return;
    }
#pragma unroll
    for (int lane = 0; lane < Registers<WIDE>::COUNT; ++lane) {
        if (place.element(lane) >= place.count) continue;
        int32_t at = position(arguments.space, output, place.element(lane));
        if (is_float(output.dtype)) store_float(output.address, output.dtype, at, lanes.real(lane));
        else store_integer(output.address, output.dtype, at, lanes.integer(lane));
    }
}

template <bool WIDE> __device__ __forceinline__ Lanes<WIDE> cast(uint32_t to, uint32_t from, const Lanes<WIDE>& a) {
    using Integer = typename Registers<WIDE>::Integer;
    Lanes<WIDE> result;
#pragma unroll
    for (int lane = 0; lane < Registers<WIDE>::COUNT; ++lane) {
        if (is_float(to)) {
            float x = is_float(from) ? a.real(lane) : WIDE ? __ll2float_rn(a.integer(lane)) : __int2float_rn(a.integer(lane));
            if (to == F16_TYPE) x = __half2float(__float2half_rn(x));
            if (to == BF16_TYPE) x = __bfloat162float(__float2bfloat16_rn(x));
            result.set(lane, x);
        } else if (to == BOOL_TYPE) {
            result.word[lane] = is_float(from) ? a.real(lane) != 0.0f : a.integer(lane) != 0;
        } else if (is_float(from)) {
            int64_t x = to == I64_TYPE ? float_to_integer(a.real(lane)) : __float2int_rz(a.real(lane));
            result.word[lane] = wrapped<Integer>(to, static_cast<Integer>(x));
        } else {
            result.word[lane] = wrapped<Integer>(to, a.integer(lane));
        }
    }
    return result;
}

template <bool WIDE>
__device__ __forceinline__ Lanes<WIDE> function(uint32_t op, uint32_t type, uint32_t from, const Lanes<WIDE>& a, const Lanes<WIDE>& b) {
    using Integer = typename Registers<WIDE>::Integer;
    Lanes<WIDE> result;
#pragma unroll
    for (int lane = 0; lane < Registers<WIDE>::COUNT; ++lane) {
        if (from != F32_TYPE) {
            Integer x = op < Add ? integer_unary(op, a.integer(lane)) : integer_binary(op, a.integer(lane), b.integer(lane));
            result.word[lane] = wrapped<Integer>(type, x);
        } else if (op == IsNan || op == IsInf) {
            result.word[lane] = op == IsNan ? isnan(a.real(lane)) : isinf(a.real(lane));
        } else if (op >= Equal) {
            result.word[lane] = compares(op, a.real(lane), b.real(lane));
        } else {
            result.set(lane, op < Add ? float_unary(op, a.real(lane)) : float_binary(op, a.real(lane), b.real(lane)));
        }
    }
    return result;
}

template <bool WIDE> __device__ __forceinline__ void interpret(const MapArguments& arguments, const Place& place) {
    const Program& program = arguments.program;
    Lanes<WIDE> result;
#pragma unroll 1
    for (uint32_t index = 0; index < program.count; ++index) {
        const Instruction& instruction = program.instructions[index];
        uint32_t op = instruction.code & 0xFF, type = instruction.code >> 8 & 0xFF, from = instruction.code >> 16 & 0xFF;
        uint32_t slots = instruction.slots, first = slots >> 8 & 0xFF, second = slots >> 16 & 0xFF, third = slots >> 24;
        if (op == LOAD) {
            result = load<WIDE>(arguments, arguments.operands[first], place);
        } else if (op == CONSTANT) {
#pragma unroll
            for (int lane = 0; lane < Registers<WIDE>::COUNT; ++lane) result.word[lane] = instruction.value;
        } else if (op == SELECT) {
            Lanes<WIDE> condition = get<WIDE>(first), a = get<WIDE>(second), b = get<WIDE>(third);
#pragma unroll
            for (int lane = 0; lane < Registers<WIDE>::COUNT; ++lane)
                result.word[lane] = condition.word[lane] != 0 ? a.word[lane] : b.word[lane];
        } else if (op == CAST) {
            result = cast<WIDE>(third, from, get<WIDE>(first));
        } else {
            Lanes<WIDE> a = get<WIDE>(first), b = op < Add ? a : get<WIDE>(second);
            result = function<WIDE>(op, type, from, a, b);
        }
        put<WIDE>(slots & 0xFF, result);
    }
    store<WIDE>(arguments, result, place);
}

template <bool WIDE> __device__ __forceinline__ void map(const MapArguments& arguments) {
    uint32_t threads = blockDim.x, block = blockIdx.x * threads * LANES;
    uint32_t first = arguments.vectors ? block + threadIdx.x * LANES : block + threadIdx.x;
    uint32_t step = arguments.vectors ? 1 : threads;
#pragma unroll 1
    for (int pass = 0; pass < LANES / Registers<WIDE>::COUNT; ++pass) {
        Place place = {first + pass * Registers<WIDE>::COUNT * step, step, arguments.space.count};
        if (place.first < place.count) interpret<WIDE>(arguments, place);
    }
}

template <class T> __device__ __forceinline__ void copy_elements(const CopyArguments& arguments) {
    const T* input = static_cast<const T*>(arguments.input.address);
    T* output = static_cast<T*>(arguments.output.address);
    uint32_t first = blockIdx.x * blockDim.x * LANES + threadIdx.x;
    T elements[LANES];
#pragma unroll
    for (int lane = 0; lane < LANES; ++lane) {
        uint32_t index = first + lane * blockDim.x;
        if (index < arguments.space.count) elements[lane] = input[position(arguments.space, arguments.input, index)];
    }
#pragma unroll
    for (int lane = 0; lane < LANES; ++lane) {
        uint32_t index = first + lane * blockDim.x;
        if (index < arguments.space.count) output[position(arguments.space, arguments.output, index)] = elements[lane];
    }
}

}  // namespace

ENTRY(map_narrow, MapArguments, 128) {
    begin();
    map<false>(arguments);
}

ENTRY(map_wide, MapArguments, 128) {
    begin();
    map<true>(arguments);
}

ENTRY(map_chain, ChainArguments, 128) {
    begin();
    const Space& space = arguments.space;
    bool vectors = arguments.vectors;
    uint32_t block = blockIdx.x * blockDim.x * LANES, step = vectors ? 1 : blockDim.x;
    uint32_t first = block + (vectors ? threadIdx.x * LANES : threadIdx.x);
    if (first >= space.count) return;
    auto fetch = [&](const Operand& operand, float (&y)[4]) {
        int32_t at = position(space, operand, first);
        if (vectors && operand.strides[space.rank - 1] == 1) return load_floats(operand.address, operand.dtype, at, y);
#pragma unroll
        for (int lane = 0; lane < LANES; ++lane) {
            uint32_t index = first + lane * step;
            if (lane > 0) at = position(space, operand, index);
            y[lane] = index < space.count ? load_float(operand.address, operand.dtype, at) : 0.0f;
        }
    };
    float x[4];
    fetch(arguments.input, x);
    apply_chain(arguments.chain, x, [&](uint32_t index, float (&y)[4]) { fetch(arguments.chain.operands[index], y); });
    const Operand& output = arguments.output;
    if (vectors) return store_floats(output.address, output.dtype, position(space, output, first), x);
#pragma unroll
    for (int lane = 0; lane < LANES; ++lane) {
        uint32_t index = first + lane * step;
        if (index < space.count) store_float(output.address, output.dtype, position(space, output, index), x[lane]);
    }
}

ENTRY(copy, CopyArguments, 256) {
    begin();
    switch (arguments.bytes) {
    case 1: return copy_elements<uint8_t>(arguments);
    case 2: return copy_elements<uint16_t>(arguments);
    case 4: return copy_elements<uint32_t>(arguments);
    case 8: return copy_elements<uint64_t>(arguments);
    default: return copy_elements<uint4>(arguments);
    }
}
