// Matrix products: binary16 operands that the tensor memory accelerator brings.
// ARCH_90A_ALONE: there is no other code for them.
#include "streamed.cuh"

STREAMED_MATMULS(f16, __half)
