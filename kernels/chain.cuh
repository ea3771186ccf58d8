// Chains: one binary32 value, changed step by step in registers.
#pragma once
#include "numbers.cuh"

// The functions that are rare enough to be called.
static __device__ __noinline__ float rare_function(uint32_t op, float a, float b) {
    return op < Add ? float_unary(op, a) : float_binary(op, a, b);
}

// One step on four values; `y` is the other argument.
__device__ __forceinline__ void apply_stage(uint32_t op, bool left, float constant, float (&x)[4], const float (&y)[4]) {
#define LANES_OF_A(expression) \
    _Pragma("unroll") for (int lane = 0; lane < 4; ++lane) { \
        float a = x[lane]; \
        x[lane] = (expression); \
    }
#define LANES_OF_BOTH(expression) \
    _Pragma("unroll") for (int lane = 0; lane < 4; ++lane) { \
        float a = x[lane], b = y[lane]; \
        x[lane] = (expression); \
    }
    switch (op) {
    case Add: LANES_OF_BOTH(a + b) break;
    case Mul: LANES_OF_BOTH(a * b) break;
    case Sub: LANES_OF_BOTH(left ? b - a : a - b) break;
    case Min: LANES_OF_BOTH(left ? lesser(b, a) : lesser(a, b)) break;
    case Max: LANES_OF_BOTH(left ? greater(b, a) : greater(a, b)) break;
    case SELECT: LANES_OF_BOTH((b != 0.0f) != left ? a : constant) break;
    case Relu: LANES_OF_A(a < 0.0f ? 0.0f : a) break;
    case Gelu: LANES_OF_A(gelu(a)) break;
    case Silu: LANES_OF_A(a * sigmoid(a)) break;
    case Sigmoid: LANES_OF_A(sigmoid(a)) break;
    case Tanh: LANES_OF_A(tanhf(a)) break;
    case ROUND_F16: LANES_OF_A(__half2float(__float2half_rn(a))) break;
    case ROUND_BF16: LANES_OF_A(__bfloat162float(__float2bfloat16_rn(a))) break;
    default:
#pragma unroll 1
        for (int lane = 0; lane < 4; ++lane) {
            float a = lane == 0 ? x[0] : lane == 1 ? x[1] : lane == 2 ? x[2] : x[3];
            float b = lane == 0 ? y[0] : lane == 1 ? y[1] : lane == 2 ? y[2] : y[3];
            float result = left ? rare_function(op, b, a) : rare_function(op, a, b);
            x[0] = lane == 0 ? result : x[0];
            x[1] = lane == 1 ? result : x[1];
            x[2] = lane == 2 ? result : x[2];
            x[3] = lane == 3 ? result : x[3];
        }
    }
#undef LANES_OF_A
#undef LANES_OF_BOTH
}

// The number of the kept value among the operands of a chain.
constexpr uint32_t KEPT = sizeof(Chain::operands) / sizeof(Operand);

// All steps on four values; `fetch(i, y)` reads operand i where the values lie.
template <class Fetch> __device__ __forceinline__ void apply_chain(const Chain& chain, float (&x)[4], Fetch fetch) {
    float kept[4] = {};
#pragma unroll 1
    for (uint32_t index = 0; index < chain.count; ++index) {
        const Stage& stage = chain.stages[index];
        if (index == chain.keep) {
#pragma unroll
            for (int lane = 0; lane < 4; ++lane) kept[lane] = x[lane];
        }
        float y[4] = {stage.constant, stage.constant, stage.constant, stage.constant};
        bool left = stage.source == 2;
        if (stage.source >= 3) {
            uint32_t operand = (stage.source - 3) / 2;
            if (operand == KEPT) {
#pragma unroll
                for (int lane = 0; lane < 4; ++lane) y[lane] = kept[lane];
            } else {
                fetch(operand, y);
            }
            left = stage.source % 2 == 0;
        }
        // The functions of one argument have no other side.
        apply_stage(stage.op, left && stage.source != 0, stage.constant, x, y);
    }
}
