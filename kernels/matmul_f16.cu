// Matrix products: binary16 operands, tensor cores.
// ARCH_90A: with warpgroups.
#include "matmul.cuh"

MATMULS(f16, __half, Kind::Half, 2)
