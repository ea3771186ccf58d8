// Attention: bfloat16 operands, tensor cores.
#include "attention.cuh"

ATTENTIONS(bf16, __nv_bfloat16, 4, 3)
