// Convolutions: binary32 operands, TensorFloat-32 tensor cores.
#include "conv.cuh"

CONVOLUTIONS(tf32, float, Kind::Tf32, 2)
