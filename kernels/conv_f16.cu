// Convolutions: binary16 operands, tensor cores.
#include "conv.cuh"

CONVOLUTIONS(f16, __half, Kind::Half, 2)
