// Matrix products: binary32 operands, fused multiply-add.
#include "matmul.cuh"

MATMULS(f32, float, Kind::Float, 1)
