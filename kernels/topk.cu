// The k best elements of lines. Every element has a key, greater for better ones, and no two are equally good: of equal keys the lower
// index is better. So whatever order threads run in, the results are the same.
#include "numbers.cuh"
#include "walk.cuh"

namespace {

constexpr int RANK_THREADS = 256, SELECT_THREADS = 512, SELECT_WARPS = SELECT_THREADS / 32;
constexpr int DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS, NOT_COUNTED = DIGITS;

// One line of the operand.
struct Line {
    const TopKArguments& arguments;
    uint32_t line;
    int64_t start, step;
    bool floats;

    __device__ Line(const TopKArguments& arguments, uint32_t line) : arguments(arguments), line(line) {
        int last = arguments.space.rank - 1;
        start = position(arguments.space, arguments.input.strides, line, 0, last), step = arguments.input.strides[last];
        floats = is_float(arguments.input.dtype);
    }

    // Bits of a key that may be set: the lowest so many.
    __device__ int key_bits() const { return arguments.input.dtype == I64_TYPE ? 64 : 32; }

    // Orders floats with NaN above all and zeros alike, and integers.
    __device__ uint64_t key(uint32_t index) const {
        const Operand& input = arguments.input;
        int64_t at = start + int64_t(index) * step;
        if (floats) {
            float x = load_float(input.address, input.dtype, at);
            uint32_t bits = __float_as_uint(x);
            uint32_t ordered = isnan(x) ? ~0u : x == 0.0f ? 1u << 31 : bits >> 31 ? ~bits : bits | 1u << 31;
            return arguments.largest ? ordered : ~ordered;
        }
        int64_t x = load_integer(input.address, input.dtype, at);
        if (input.dtype == I64_TYPE) {
            uint64_t ordered = static_cast<uint64_t>(x) ^ 1ull << 63;
            return arguments.largest ? ordered : ~ordered;
        }
        uint32_t ordered = static_cast<uint32_t>(static_cast<int32_t>(x)) ^ 1u << 31;
        return arguments.largest ? ordered : ~ordered;
    }

    // Writes element `index` of the line as the one of rank `rank`.
    __device__ void store(uint32_t index, uint32_t rank) const {
        const Operand &input = arguments.input, &values = arguments.values, &indices = arguments.indices;
        int last = arguments.space.rank - 1;
        int64_t from = start + int64_t(index) * step;
        int64_t to = position(arguments.space, values.strides, line, 0, last) + int64_t(rank) * values.strides[last];
        if (floats) store_float(values.address, values.dtype, to, load_float(input.address, input.dtype, from));
        else store_integer(values.address, values.dtype, to, load_integer(input.address, input.dtype, from));
        to = position(arguments.space, indices.strides, line, 0, last) + int64_t(rank) * indices.strides[last];
        store_integer(indices.address, indices.dtype, to, index);
    }
};

}  // namespace

// A thread counts how many elements, or candidates, of its line are better than its own.
ENTRY(topk_rank, TopKArguments, RANK_THREADS) {
    begin();
    __shared__ uint64_t keys[RANK_THREADS];
    __shared__ uint32_t indices[RANK_THREADS];
    const uint32_t* candidates = static_cast<const uint32_t*>(arguments.candidates);
    uint32_t count = candidates ? arguments.k : arguments.extent;
    uint32_t parts = (count + RANK_THREADS - 1) / RANK_THREADS;
    Line line(arguments, blockIdx.x / parts);
    auto index_of = [&](uint32_t which) { return candidates ? candidates[int64_t(line.line) * arguments.k + which] : which; };
    uint32_t own = blockIdx.x % parts * RANK_THREADS + threadIdx.x, index = 0, better = 0;
    uint64_t key = 0;
    if (own < count) index = index_of(own), key = line.key(index);
    for (uint32_t first = 0; first < count; first += RANK_THREADS) {
        // Nobody overwrites what another warp still reads.
        __syncthreads();
        if (first + threadIdx.x < count) {
            indices[threadIdx.x] = index_of(first + threadIdx.x);
            keys[threadIdx.x] = line.key(indices[threadIdx.x]);
        }
        __syncthreads();
        uint32_t most = min(count - first, uint32_t(RANK_THREADS));
#pragma unroll 8
        for (uint32_t other = 0; other < most; ++other)
            better += keys[other] > key || (keys[other] == key && indices[other] < index);
    }
    if (own < count && better < arguments.k) line.store(index, better);
}

// A block finds the key of the k-th best element of its line digit by digit, then collects the elements with better keys, and of those
// with this key the first ones.
ENTRY(topk_select, TopKArguments, SELECT_THREADS) {
    begin();
    __shared__ uint32_t histogram[DIGITS], equals[SELECT_WARPS], digit, rank, taken;
    Line line(arguments, blockIdx.x);
    uint32_t extent = arguments.extent, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int bits = line.key_bits();
    uint64_t threshold = 0;
    if (threadIdx.x == 0) rank = arguments.k, taken = 0;
    for (int shift = bits - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        if (threadIdx.x < DIGITS) histogram[threadIdx.x] = 0;
        __syncthreads();
        for (uint32_t first = 0; first < extent; first += SELECT_THREADS) {
            uint32_t index = first + threadIdx.x;
            uint64_t key = index < extent ? line.key(index) : 0;
            bool counts = index < extent && (shift == bits - DIGIT_BITS || key >> (shift + DIGIT_BITS) == threshold);
            // Lanes with one digit count together: leading digits are nearly all alike.
            int bin = counts ? int(key >> shift & (DIGITS - 1)) : NOT_COUNTED;
            uint32_t alike = __match_any_sync(~0u, bin);
            if (counts && lane == uint32_t(__ffs(int(alike)) - 1)) atomicAdd(&histogram[bin], uint32_t(__popc(alike)));
        }
        __syncthreads();
        if (warp == 0) {
            // Lane l has digits 255 - 8 l and the seven below; the wanted one is where the count from above reaches the rank.
            uint32_t own = 0, wanted = rank;
#pragma unroll
            for (int below = 0; below < 8; ++below) own += histogram[DIGITS - 1 - 8 * int(lane) - below];
            uint32_t until = own;
#pragma unroll
            for (int distance = 1; distance < 32; distance *= 2) {
                uint32_t other = __shfl_up_sync(~0u, until, distance);
                if (lane >= distance) until += other;
            }
            uint32_t before = until - own;
            // Every lane has read the rank before one of them replaces it.
            __syncwarp();
            if (before < wanted && wanted <= until) {
                int chosen = DIGITS - 1 - 8 * int(lane);
                while (before + histogram[chosen] < wanted) before += histogram[chosen--];
                digit = uint32_t(chosen), rank = wanted - before;
            }
        }
        __syncthreads();
        threshold = threshold << DIGIT_BITS | digit;
    }
    // `rank` elements with the key itself are taken.
    uint32_t* candidates = static_cast<uint32_t*>(arguments.candidates) + int64_t(line.line) * arguments.k;
    uint32_t passed = 0;
    for (uint32_t first = 0; first < extent; first += SELECT_THREADS) {
        uint32_t index = first + threadIdx.x;
        uint64_t key = index < extent ? line.key(index) : 0;
        bool equal = index < extent && key == threshold, chosen = index < extent && key > threshold;
        uint32_t mask = __ballot_sync(~0u, equal);
        if (lane == 0) equals[warp] = __popc(mask);
        __syncthreads();
        uint32_t before = passed + __popc(mask & ((1u << lane) - 1));
#pragma unroll
        for (int other = 0; other < SELECT_WARPS; ++other) {
            if (other < warp) before += equals[other];
            passed += equals[other];
        }
        if (chosen || (equal && before < rank)) candidates[atomicAdd(&taken, 1u)] = index;
        __syncthreads();
    }
}
