// Attention: binary16 operands, tensor cores.
#include "attention.cuh"

ATTENTIONS(f16, __half, 4, 3)
