// Chains: one binary32 value, changed step by step in registers.
#pragma once
#include "numbers.cuh"

// The functions that are rare enough to be called.
static __device__ __noinline__ float rare_function(uint32_t op, float a, float b) {
    return op < Add ? float_unary(op, a) : float_binary(op, a, b);
}

// One step on Q times four values; `y` is the other argument.
template <int Q> __device__ __forceinline__ void apply_stage(uint32_t op, bool left, float constant, float (&x)[Q][4], const float (&y)[Q][4]) {
#define LANES_OF_A(expression) \
    _Pragma("unroll") for (int lane = 0; lane < 4 * Q; ++lane) { \
        float a = x[lane / 4][lane % 4]; \
        x[lane / 4][lane % 4] = (expression); \
    }
#define LANES_OF_BOTH(expression) \
    _Pragma("unroll") for (int lane = 0; lane < 4 * Q; ++lane) { \
        float a = x[lane / 4][lane % 4], b = y[lane / 4][lane % 4]; \
        x[lane / 4][lane % 4] = (expression); \
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
    default: LANES_OF_BOTH(left ? rare_function(op, b, a) : rare_function(op, a, b))
    }
#undef LANES_OF_A
#undef LANES_OF_BOTH
}

// The number of the kept value among the operands of a chain.
constexpr uint32_t KEPT = sizeof(Chain::operands) / sizeof(Operand);

// All steps on Q times four values; `fetch(i, y)` reads operand i where the values lie.
template <int Q, class Fetch> __device__ __forceinline__ void apply_chain(const Chain& chain, float (&x)[Q][4], Fetch fetch) {
    float kept[Q][4] = {};
#pragma unroll 1
    for (uint32_t index = 0; index < chain.count; ++index) {
        const Stage& stage = chain.stages[index];
        if (index == chain.keep) {
#pragma unroll
            for (int lane = 0; lane < 4 * Q; ++lane) kept[lane / 4][lane % 4] = x[lane / 4][lane % 4];
        }
        float y[Q][4];
#pragma unroll
        for (int lane = 0; lane < 4 * Q; ++lane) y[lane / 4][lane % 4] = stage.constant;
        bool left = stage.source == 2;
        if (stage.source >= 3) {
            uint32_t operand = (stage.source - 3) / 2;
            if (operand == KEPT) {
#pragma unroll
                for (int lane = 0; lane < 4 * Q; ++lane) y[lane / 4][lane % 4] = kept[lane / 4][lane % 4];
            } else {
                fetch(operand, y);
            }
            left = stage.source % 2 == 0;
        }
        // The functions of one argument have no other side.
        apply_stage(stage.op, left && stage.source != 0, stage.constant, x, y);
    }
}

// All steps on four values.
template <class Fetch> __device__ __forceinline__ void apply_chain(const Chain& chain, float (&x)[4], Fetch fetch) {
    float single[1][4] = {{x[0], x[1], x[2], x[3]}};
    apply_chain(chain, single, [&](uint32_t index, float (&y)[1][4]) { fetch(index, y[0]); });
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) x[lane] = single[0][lane];
}
