// Matrix products: bfloat16 operands, tensor cores.
#include "matmul.cuh"

MATMULS(bf16, __nv_bfloat16, Kind::Half, 2)
