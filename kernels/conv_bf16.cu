// Convolutions: bfloat16 operands, tensor cores.
#include "conv.cuh"

CONVOLUTIONS(bf16, __nv_bfloat16, Kind::Half, 2)
