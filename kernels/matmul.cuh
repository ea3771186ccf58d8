// The entries of one arithmetic.
#pragma once
#include "product.cuh"

// Of the large tiles `blocks` blocks share a multiprocessor.
#define MATMULS(name, T, KIND, blocks) \
    ENTRY_BLOCKS(matmul_##name##_128x128_nn, MatMulArguments, 256, blocks) { matmul<Large<T, KIND, Right::Rows>>(arguments); } \
    ENTRY_BLOCKS(matmul_##name##_128x128_nt, MatMulArguments, 256, blocks) { matmul<Large<T, KIND, Right::Columns>>(arguments); } \
    ENTRY(matmul_##name##_64x64_nn, MatMulArguments, 256) { matmul<Medium<T, KIND, Right::Rows>>(arguments); } \
    ENTRY(matmul_##name##_64x64_nt, MatMulArguments, 256) { matmul<Medium<T, KIND, Right::Columns>>(arguments); } \
    ENTRY(matmul_##name##_32x64_nn, MatMulArguments, 128) { matmul<Flat<T, KIND, Right::Rows>>(arguments); } \
    ENTRY(matmul_##name##_32x64_nt, MatMulArguments, 128) { matmul<Flat<T, KIND, Right::Columns>>(arguments); }
