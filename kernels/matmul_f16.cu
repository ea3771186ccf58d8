// Matrix products: binary16 operands, tensor cores.
#include "matmul.cuh"

MATMULS(f16, __half, Kind::Half, 2)
