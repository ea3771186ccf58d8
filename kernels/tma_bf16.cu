// Matrix products: bfloat16 operands that the tensor memory accelerator brings.
// ARCH_90A_ALONE: there is no other code for them.
#include "streamed.cuh"

STREAMED_MATMULS(bf16, __nv_bfloat16)
