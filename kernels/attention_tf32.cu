// Attention: binary32 operands, TensorFloat-32 tensor cores.
#include "attention.cuh"

ATTENTIONS(tf32, float, 1, 1)
