// Convolutions: binary32 operands, fused multiply-add.
#include "conv.cuh"

CONVOLUTIONS(f32, float, Kind::Float, 1)
