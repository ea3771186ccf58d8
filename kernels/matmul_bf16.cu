// Matrix products: bfloat16 operands, tensor cores.
// ARCH_90A: with warpgroups.
#include "matmul.cuh"

MATMULS(bf16, __nv_bfloat16, Kind::Half, 2)
