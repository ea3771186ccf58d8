// The recurrence of LSTM and GRU; the products of input and weights are there. R is read in every step: what of it fits stays in the
// multiprocessor's cache, the rest comes from the GPU's.
#include "numbers.cuh"

namespace {

// Cells, in the order of their numbers.
enum Cell : uint32_t { LSTM, LSTM_INPUT_FORGET, GRU, GRU_LINEAR };

constexpr int ROWS = 8;
constexpr int STEP_THREADS = 256, STEP_WARPS = STEP_THREADS / 32, STEP_UNITS = 8;
// Elements of the state that a block of recurrent_step holds at a time.
constexpr int CHUNK = 256;

__device__ __forceinline__ uint32_t gates_of(const RecurrentArguments& arguments) { return arguments.cell < GRU ? 4 : 3; }

// Clips the input of a gate. A NaN stays a NaN, here and below.
__device__ __forceinline__ float clipped(float x, float clip) { return x < -clip ? -clip : x > clip ? clip : x; }

__device__ __forceinline__ float activate(const GateFunction& function, float x) {
    switch (function.kind) {
    case 0: return sigmoid(x);
    case 1: return tanhf(x);
    case 2: return x < 0.0f ? 0.0f : x;
    default: {
        float y = function.alpha * x + function.beta;
        return y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;
    }
    }
}

// Element `index` along the last axis of row `row` of a `[D, B, H]` state; 0 if there is none.
__device__ __forceinline__ float load_state(const Operand& state, uint32_t direction, uint32_t row, uint32_t index) {
    if (!state.address) return 0.0f;
    int64_t at = int64_t(direction) * state.strides[0] + int64_t(row) * state.strides[1] + int64_t(index) * state.strides[2];
    return load_float(state.address, state.dtype, at);
}

__device__ __forceinline__ void store_state(const Operand& state, uint32_t direction, uint32_t row, uint32_t index, float x) {
    if (!state.address) return;
    int64_t at = int64_t(direction) * state.strides[0] + int64_t(row) * state.strides[1] + int64_t(index) * state.strides[2];
    store_float(state.address, state.dtype, at, x);
}

__device__ __forceinline__ float load_pair(const Operand& operand, uint32_t direction, uint32_t index) {
    if (!operand.address) return 0.0f;
    return load_float(operand.address, operand.dtype, int64_t(direction) * operand.strides[0] + int64_t(index) * operand.strides[1]);
}

__device__ __forceinline__ uint32_t length_of(const RecurrentArguments& arguments, uint32_t row) {
    const Operand& lengths = arguments.lengths;
    if (!lengths.address) return arguments.steps;
    int64_t length = load_integer(lengths.address, lengths.dtype, int64_t(row) * lengths.strides[0]);
    return length < 0 ? 0 : length > arguments.steps ? arguments.steps : uint32_t(length);
}

// A row of the batch in one direction, at one step.
struct Moment {
    const RecurrentArguments& arguments;
    uint32_t direction, row, time;
    bool active;

    __device__ Moment(const RecurrentArguments& arguments, uint32_t direction, uint32_t row, uint32_t step, uint32_t length)
        : arguments(arguments), direction(direction), row(row), active(step < length) {
        // A step that the row does not have gives zeros where it stands.
        time = active && (arguments.reverse >> direction & 1) ? length - 1 - step : step;
    }

    // W x with its bias, for element `index` of the gates.
    __device__ float input_part(uint32_t index) const {
        const Operand& products = arguments.products;
        int64_t at = int64_t(direction) * products.strides[0] + int64_t(time) * products.strides[1] +
                     int64_t(row) * products.strides[2] + int64_t(index) * products.strides[3];
        return static_cast<const float*>(products.address)[at] + load_pair(arguments.bias, direction, index);
    }

    // What the sum of R h begins with: its bias, and the input's part unless the reset gate stands between them.
    __device__ float seed(uint32_t index) const {
        float bias = load_pair(arguments.bias, direction, gates_of(arguments) * arguments.hidden + index);
        return arguments.cell >= GRU && index >= 2 * arguments.hidden ? bias : bias + input_part(index);
    }

    __device__ float peephole(uint32_t gate, uint32_t unit) const {
        return load_pair(arguments.peepholes, direction, gate * arguments.hidden + unit);
    }

    __device__ float function(uint32_t which, float x) const {
        return activate(arguments.functions[direction * 3 + which], x);
    }

    // The function of a gate, of its clipped input.
    __device__ float gate(uint32_t which, float x) const { return function(which, clipped(x, arguments.clip)); }

    // Moves one unit on. `sums` are those of its gates with their seeds; of a GRU that resets before the product, the third is of the
    // reset state.
    __device__ void advance(uint32_t unit, const float (&sums)[4], float& h, float& c) const {
        if (arguments.cell < GRU) {
            float input = gate(0, sums[0] + peephole(0, unit) * c);
            float forget = arguments.cell == LSTM ? gate(0, sums[2] + peephole(2, unit) * c) : 1.0f - input;
            c = forget * c + input * gate(1, sums[3]);
            h = gate(0, sums[1] + peephole(1, unit) * c) * function(2, c);
        } else {
            float update = gate(0, sums[0]), reset = arguments.cell == GRU ? 1.0f : gate(0, sums[1]);
            float candidate = gate(1, input_part(2 * arguments.hidden + unit) + reset * sums[2]);
            h = (1.0f - update) * candidate + update * h;
        }
    }

    __device__ void store(uint32_t unit, float h) const {
        const Operand& y = arguments.y;
        int64_t at = int64_t(time) * y.strides[0] + int64_t(direction) * y.strides[1] + int64_t(row) * y.strides[2] +
                     int64_t(unit) * y.strides[3];
        store_float(y.address, y.dtype, at, h);
    }
};

// Four terms of one sum for each of COUNT rows, `pitch` apart.
template <int COUNT, int PARTS>
__device__ __forceinline__ void add_terms(float (&sums)[COUNT][PARTS], const float (&weights)[4], const float* x, uint32_t pitch) {
#pragma unroll
    for (int row = 0; row < COUNT; ++row) {
        float4 terms = *reinterpret_cast<const float4*>(x + row * pitch);
        sums[row][0 % PARTS] = fmaf(weights[0], terms.x, sums[row][0 % PARTS]);
        sums[row][1 % PARTS] = fmaf(weights[1], terms.y, sums[row][1 % PARTS]);
        sums[row][2 % PARTS] = fmaf(weights[2], terms.z, sums[row][2 % PARTS]);
        sums[row][3 % PARTS] = fmaf(weights[3], terms.w, sums[row][3 % PARTS]);
    }
}

template <int PARTS> __device__ __forceinline__ float together(const float (&parts)[PARTS]) {
    float sum = parts[0];
#pragma unroll
    for (int part = 1; part < PARTS; ++part) sum += parts[part];
    return sum;
}

// One direction of COUNT rows of the batch. `work` has h, c, reset h (rows filled up with zeros to `pitch`) and the gates' sums.
template <int COUNT> struct Scan {
    // A single sum is taken in four parts, so that its additions need not wait for each other.
    static constexpr int PARTS = COUNT == 1 ? 4 : 1;

    const RecurrentArguments& arguments;
    uint32_t direction, first_row, hidden, pitch, wide;
    float *h, *c, *held, *sums;
    const uint32_t* lengths;

    __device__ Scan(const RecurrentArguments& arguments, float* work, const uint32_t* lengths)
        : arguments(arguments), hidden(arguments.hidden), lengths(lengths) {
        uint32_t groups = (arguments.batch + COUNT - 1) / COUNT;
        direction = blockIdx.x / groups, first_row = blockIdx.x % groups * COUNT;
        pitch = (hidden + 3) / 4 * 4, wide = gates_of(arguments) * hidden;
        h = work, c = h + COUNT * pitch, held = c + COUNT * pitch, sums = held + COUNT * pitch;
    }

    __device__ Moment moment(uint32_t row, uint32_t step) const {
        return Moment(arguments, direction, first_row + row, step, lengths[row]);
    }

    // `sums[from .. to]` of every row: R x with its seed.
    __device__ void multiply(uint32_t step, uint32_t from, uint32_t to, const float* x) const {
        const Operand& weights = arguments.weights;
        const float* base = static_cast<const float*>(weights.address) + int64_t(direction) * weights.strides[0];
        int64_t term = weights.strides[1];
        for (uint32_t index = from + threadIdx.x; index < to; index += blockDim.x) {
            float parts[COUNT][PARTS] = {};
#pragma unroll
            for (int row = 0; row < COUNT; ++row)
                if (first_row + row < arguments.batch) parts[row][0] = moment(row, step).seed(index);
            const float* column = base + int64_t(index) * weights.strides[2];
            uint32_t k = 0;
#pragma unroll 4
            for (; k + 4 <= hidden; k += 4, column += 4 * term) {
                const float four[4] = {column[0], column[term], column[2 * term], column[3 * term]};
                add_terms(parts, four, x + k, pitch);
            }
            if (k < hidden) {
                float four[4] = {};
#pragma unroll
                for (int lane = 0; lane < 3; ++lane)
                    if (k + lane < hidden) four[lane] = column[lane * term];
                add_terms(parts, four, x + k, pitch);
            }
#pragma unroll
            for (int row = 0; row < COUNT; ++row) sums[row * wide + index] = together(parts[row]);
        }
        __syncthreads();
    }

    // Calls `each(row, unit)` for all units of the rows that exist.
    template <class F> __device__ void units(F each) const {
        for (uint32_t index = threadIdx.x; index < COUNT * hidden; index += blockDim.x) {
            uint32_t row = index / hidden, unit = index % hidden;
            if (first_row + row < arguments.batch) each(row, unit);
        }
        __syncthreads();
    }

    __device__ void advance(uint32_t step) const {
        bool resets = arguments.cell == GRU;
        multiply(step, 0, resets ? 2 * hidden : wide, h);
        if (resets) {
            units([&](uint32_t row, uint32_t unit) {
                held[row * pitch + unit] = moment(row, step).gate(0, sums[row * wide + hidden + unit]) * h[row * pitch + unit];
            });
            multiply(step, 2 * hidden, wide, held);
        }
        units([&](uint32_t row, uint32_t unit) {
            Moment now = moment(row, step);
            float* state = h + row * pitch + unit;
            if (now.active) {
                const float* gate = sums + row * wide + unit;
                const float four[4] = {gate[0], gate[hidden], gate[2 * hidden], arguments.cell < GRU ? gate[3 * hidden] : 0.0f};
                now.advance(unit, four, *state, c[row * pitch + unit]);
            }
            now.store(unit, now.active ? *state : 0.0f);
        });
    }

    __device__ void run() const {
        for (uint32_t index = threadIdx.x; index < COUNT * pitch; index += blockDim.x) {
            uint32_t row = index / pitch, unit = index % pitch;
            bool inside = unit < hidden && first_row + row < arguments.batch;
            h[index] = inside ? load_state(arguments.h, direction, first_row + row, unit) : 0.0f;
            c[index] = inside ? load_state(arguments.c, direction, first_row + row, unit) : 0.0f;
            held[index] = 0.0f;
        }
        __syncthreads();
#pragma unroll 1
        for (uint32_t step = 0; step < arguments.count; ++step) advance(arguments.first + step);
        units([&](uint32_t row, uint32_t unit) {
            store_state(arguments.last_h, direction, first_row + row, unit, h[row * pitch + unit]);
            store_state(arguments.last_c, direction, first_row + row, unit, c[row * pitch + unit]);
        });
    }
};

extern __shared__ float4 states[];

__device__ __forceinline__ void scan(const RecurrentArguments& arguments, uint32_t* lengths) {
    uint32_t rows = arguments.rows, groups = (arguments.batch + rows - 1) / rows;
    if (threadIdx.x < rows) {
        uint32_t row = blockIdx.x % groups * rows + threadIdx.x;
        lengths[threadIdx.x] = row < arguments.batch ? length_of(arguments, row) : 0;
    }
    __syncthreads();
    float* shared = reinterpret_cast<float*>(states);
    if (rows != 1) return Scan<ROWS>(arguments, shared, lengths).run();
    if (!arguments.work) return Scan<1>(arguments, shared, lengths).run();
    // As many floats a block as in src/kernels/entry/recurrent.rs.
    uint32_t hidden = arguments.hidden, floats = (3 * ((hidden + 3) / 4 * 4) + gates_of(arguments) * hidden + 3) / 4 * 4;
    Scan<1>(arguments, static_cast<float*>(arguments.work) + int64_t(blockIdx.x) * floats, lengths).run();
}

// One step of STEP_UNITS units of COUNT rows of the batch. Of a warp, lane l sums for gate l / 8 of unit l % 8; the warps share the
// terms.
template <int COUNT> __device__ __forceinline__ void step(const RecurrentArguments& arguments, float* state, float* parts) {
    uint32_t hidden = arguments.hidden, groups = (arguments.batch + COUNT - 1) / COUNT, gates = gates_of(arguments);
    uint32_t tiles = (hidden + STEP_UNITS - 1) / STEP_UNITS, tile = blockIdx.x % tiles, rest = blockIdx.x / tiles;
    uint32_t direction = rest / groups, first_row = rest % groups * COUNT;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, gate = lane / STEP_UNITS, unit = tile * STEP_UNITS + lane % STEP_UNITS;
    bool inside = gate < gates && unit < hidden;
    const Operand& weights = arguments.weights;
    int64_t term = weights.strides[1];
    const float* column = static_cast<const float*>(weights.address) + int64_t(direction) * weights.strides[0] +
                      (inside ? int64_t(gate * hidden + unit) * weights.strides[2] : 0);
    float sums[COUNT][1] = {};
    for (uint32_t start = 0; start < hidden; start += CHUNK) {
        // Nobody overwrites what another warp still reads.
        __syncthreads();
        for (uint32_t index = threadIdx.x; index < COUNT * CHUNK; index += STEP_THREADS) {
            uint32_t row = first_row + index / CHUNK, k = start + index % CHUNK;
            state[index] = row < arguments.batch && k < hidden ? load_state(arguments.h, direction, row, k) : 0.0f;
        }
        __syncthreads();
        uint32_t count = min(uint32_t(CHUNK), hidden - start);
#pragma unroll 4
        for (uint32_t k = warp * 4; k < count; k += STEP_WARPS * 4) {
            float four[4];
#pragma unroll
            for (int index = 0; index < 4; ++index)
                four[index] = inside && k + index < count ? column[int64_t(start + k + index) * term] : 0.0f;
            add_terms(sums, four, state + k, CHUNK);
        }
    }
#pragma unroll
    for (int row = 0; row < COUNT; ++row) parts[(warp * COUNT + row) * 32 + lane] = sums[row][0];
    __syncthreads();
    uint32_t row = threadIdx.x / STEP_UNITS, own = threadIdx.x % STEP_UNITS;
    unit = tile * STEP_UNITS + own;
    if (row >= COUNT || first_row + row >= arguments.batch || unit >= hidden) return;
    Moment now(arguments, direction, first_row + row, arguments.first, length_of(arguments, first_row + row));
    float h = load_state(arguments.h, direction, now.row, unit), c = load_state(arguments.c, direction, now.row, unit);
    if (now.active) {
        float four[4] = {};
        for (uint32_t which = 0; which < gates; ++which) {
            float sum = now.seed(which * hidden + unit);
            for (int part = 0; part < STEP_WARPS; ++part) sum += parts[(part * COUNT + row) * 32 + which * STEP_UNITS + own];
            four[which] = sum;
        }
        now.advance(unit, four, h, c);
    }
    now.store(unit, now.active ? h : 0.0f);
    store_state(arguments.last_h, direction, now.row, unit, h);
    store_state(arguments.last_c, direction, now.row, unit, c);
}

}  // namespace

ENTRY(recurrent_scan, RecurrentArguments, 512) {
    begin();
    __shared__ uint32_t lengths[ROWS];
    scan(arguments, lengths);
}

ENTRY(recurrent_step, RecurrentArguments, STEP_THREADS) {
    begin();
    __shared__ float4 state[ROWS * CHUNK / 4];
    __shared__ float parts[STEP_WARPS * ROWS * 32];
    float* chunk = reinterpret_cast<float*>(state);
    if (arguments.rows == 1) step<1>(arguments, chunk, parts);
    else step<ROWS>(arguments, chunk, parts);
}
