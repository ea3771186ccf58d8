// Copies of tiles of matrices from global to shared memory, stage by stage.
#pragma once
#include "shape.cuh"

// Chunks that cannot be copied as they lie. It is called, not inlined, so that the code around it stays short.
template <class T> static __device__ __noinline__ void fetch_elements(uint32_t shared, const T* from, int32_t step, int valid) {
    constexpr int CHUNK = 16 / sizeof(T);
    alignas(16) T elements[CHUNK];
#pragma unroll
    for (int index = 0; index < CHUNK; ++index) elements[index] = index < valid ? from[int64_t(index) * step] : T(0.0f);
    store_shared(shared, reinterpret_cast<uint4&>(elements));
}

// Rows of a matrix, or columns of one that is read as its transpose. With `vectors` all rows are whole chunks of 16 bytes.
template <class T> struct Rows {
    const T* base;
    int32_t row_step, step, rows;
    bool vectors;
};

// A tile that moves along a matrix, stage by stage: LINES lines in shared memory, PITCH elements apart, of WIDTH elements each. A
// thread has one chunk in every PASS-th of them, and moves a pointer, because products of 64 bits would cost more than the copies.
template <class S, int LINES, int WIDTH, int PITCH, bool DOWN, bool IS_A> struct Tile {
    using T = typename S::T;
    static constexpr int CHUNKS = WIDTH / S::CHUNK, PASS = S::THREADS / CHUNKS, PASSES = (LINES + PASS - 1) / PASS;

    const T* from;
    int32_t row_step, step;
    // What is left of the matrix from this thread's first element on, in lines and in elements of a line.
    int lines, elements;
    uint32_t place;
    bool vectors;

    // The tile whose first element is at (line, element) of a matrix that ends at (lines, elements). It moves by the depth of a stage,
    // along its lines or down.
    __device__ __forceinline__ Tile(const Rows<T>& rows, int line, int element, int lines, int elements) {
        int own_line = threadIdx.x / CHUNKS, own_element = threadIdx.x % CHUNKS * S::CHUNK;
        // Lines that are a multiple of eight apart are alike.
        place = IS_A ? S::a_place(own_line, own_element) : S::b_place(own_line, own_element);
        line += own_line, element += own_element;
        from = rows.base + int64_t(line) * rows.row_step + int64_t(element) * rows.step;
        row_step = rows.row_step, step = rows.step, vectors = rows.vectors;
        this->lines = lines - line, this->elements = elements - element;
    }

    static __device__ __forceinline__ bool has(int pass) { return LINES % PASS == 0 || int(threadIdx.x / CHUNKS) + pass * PASS < LINES; }

    // Copies the tile to this address of shared memory and moves on. What lies behind the end becomes zeros and is not addressed.
    __device__ __forceinline__ void fetch(uint32_t shared) {
        shared += place;
        const T* at = from;
        if (vectors) {
            int live = elements > 0 ? lines : 0;
#pragma unroll
            for (int pass = 0; pass < PASSES; ++pass, at += int64_t(row_step) * PASS)
                if (has(pass)) copy_async(shared + pass * PASS * PITCH * sizeof(T), at, pass * PASS < live);
        } else {
#pragma unroll 1
            for (int pass = 0; pass < PASSES; ++pass, at += int64_t(row_step) * PASS)
                if (has(pass)) fetch_elements(shared + pass * PASS * PITCH * sizeof(T), at, step, pass * PASS < lines ? elements : 0);
        }
        from += int64_t(DOWN ? row_step : step) * S::DEPTH;
        (DOWN ? lines : elements) -= S::DEPTH;
    }
};

// The left factor of a matrix product: the rows of a block, moving along K.
template <class S> struct LeftRows {
    Tile<S, S::ROWS, S::DEPTH, S::A_PITCH, false, true> tile;

    __device__ __forceinline__ LeftRows(const Rows<typename S::T>& rows, int first_row, int start, int end)
        : tile(rows, first_row, start, rows.rows, end) {}

    // Copies the next stage.
    __device__ __forceinline__ void stage(uint32_t shared, int, int) { tile.fetch(shared); }
};

// The right factor: its columns moving along K, or its rows, K moving down.
template <class S, Right RIGHT = S::RIGHT> struct RightFactor;

template <class S> struct RightFactor<S, Right::Columns> {
    Tile<S, S::COLUMNS, S::DEPTH, S::B_PITCH, false, false> tile;

    __device__ __forceinline__ RightFactor(const Rows<typename S::T>& columns, int first_column, int start, int end)
        : tile(columns, first_column, start, columns.rows, end) {}
};

template <class S> struct RightFactor<S, Right::Rows> {
    Tile<S, S::DEPTH, S::COLUMNS, S::B_PITCH, true, false> tile;

    __device__ __forceinline__ RightFactor(const Rows<typename S::T>& rows, int first_column, int start, int end)
        : tile(rows, start, first_column, end, rows.rows) {}
};
