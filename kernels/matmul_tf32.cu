// Matrix products: binary32 operands, TensorFloat-32 tensor cores.
#include "matmul.cuh"

MATMULS(tf32, float, Kind::Tf32, 2)
