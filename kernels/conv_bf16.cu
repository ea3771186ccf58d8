// Convolutions: bfloat16 operands, tensor cores.
// ARCH_90A: with warpgroups.
#include "conv.cuh"

CONVOLUTIONS(bf16, __nv_bfloat16, Kind::Half, 2)
