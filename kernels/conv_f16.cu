// Convolutions: binary16 operands, tensor cores.
// ARCH_90A: with warpgroups.
#include "conv.cuh"

CONVOLUTIONS(f16, __half, Kind::Half, 2)
