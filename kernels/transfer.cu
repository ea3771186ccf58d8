// The first and the last kernel of a request; see src/kernels/entry/transfer.rs.
// ARCH_90A: every replay ends with one of them, which may start while the kernel before still runs.
#include "numbers.cuh"

// The part of the completion record that the device writes.
struct Record {
    uint32_t done;
    uint32_t reserved;
    uint64_t start_ns;
    uint64_t inputs_ns;
    uint64_t compute_ns;
    uint64_t done_ns;
    uint64_t ended;
};

static __device__ uint64_t clock_ns() {
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

static __device__ uint64_t vectors_of(const Segment& segment) { return segment.bytes / 16; }

// Areas begin at multiples of 16 bytes, but what lies behind one may be the host program's. Four loads are in flight per thread: the bus is
// far away.
static __device__ void copy(const Segment* segments, uint32_t count) {
    const uint64_t first = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
    // A thread's first vectors of all segments travel together: most segments have no more.
    constexpr uint32_t TOGETHER = 4;
    for (uint32_t index = 0; index < count; index += TOGETHER) {
        uint4 held[TOGETHER];
#pragma unroll
        for (uint32_t next = 0; next < TOGETHER; ++next)
            if (index + next < count && first < vectors_of(segments[index + next]))
                held[next] = static_cast<const uint4*>(segments[index + next].from)[first];
#pragma unroll
        for (uint32_t next = 0; next < TOGETHER; ++next)
            if (index + next < count && first < vectors_of(segments[index + next]))
                static_cast<uint4*>(segments[index + next].to)[first] = held[next];
    }
    for (uint32_t index = 0; index < count; ++index) {
        const uint4* from = static_cast<const uint4*>(segments[index].from);
        uint4* to = static_cast<uint4*>(segments[index].to);
        const uint64_t vectors = vectors_of(segments[index]);
        uint64_t i = first + stride;
        for (; i + 3 * stride < vectors; i += 4 * stride) {
            const uint4 a = from[i], b = from[i + stride], c = from[i + 2 * stride], d = from[i + 3 * stride];
            to[i] = a;
            to[i + stride] = b;
            to[i + 2 * stride] = c;
            to[i + 3 * stride] = d;
        }
        for (; i < vectors; i += stride) to[i] = from[i];
        if (first < segments[index].bytes % 16) {
            const uint64_t byte = vectors * 16 + first;
            static_cast<uint8_t*>(segments[index].to)[byte] = static_cast<const uint8_t*>(segments[index].from)[byte];
        }
    }
}

// Host minus GPU clock. A difference that is seen is too small by what its launch took, so the greatest is the best estimate. It is lowered
// by 50 parts per million of the time that has passed, so that it follows clocks that drift apart; of the lanes that come by at once one does it.
static __device__ uint64_t offset_of(Clock* clock, int64_t seen, uint64_t now) {
    auto* lowered = reinterpret_cast<unsigned long long*>(&clock->lowered_ns);
    const unsigned long long before = *static_cast<volatile unsigned long long*>(lowered), drift = (now - before) / 20000;
    if (int64_t(now - before) > 0 && drift > 0 && atomicCAS(lowered, before, before + drift * 20000) == before)
        atomicAdd(reinterpret_cast<unsigned long long*>(&clock->offset_ns), -drift);
    const long long known = atomicMax(reinterpret_cast<long long*>(&clock->offset_ns), static_cast<long long>(seen));
    return uint64_t(seen > known ? seen : known);
}

extern "C" __global__ void transfer_fetch(const __grid_constant__ FetchArguments args) {
    begin();
    Control* control = static_cast<Control*>(args.control);
    const bool leads = control != nullptr && blockIdx.x == 0 && threadIdx.x == 0;
    const uint64_t start_ns = leads ? clock_ns() : 0;
    const uint64_t submit_ns = leads ? *static_cast<volatile const uint64_t*>(args.submit_ns) : 0;
    copy(args.segments, args.count);
    if (!leads) return;
    control->offset_ns = offset_of(static_cast<Clock*>(args.clock), int64_t(submit_ns - start_ns), start_ns);
    control->start_ns = start_ns;
    control->inputs_ns = clock_ns();
}

extern "C" __global__ void transfer_finish(const __grid_constant__ FinishArguments args) {
    begin();
    const uint64_t compute_ns = clock_ns();
    Control* control = static_cast<Control*>(args.control);
    copy(args.segments, args.count);
    // What every thread of the block wrote is visible to the host before the block counts as through.
    __threadfence_system();
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (atomicAdd(&control->arrived, 1u) + 1 != gridDim.x) return;
    __threadfence_system();
    control->arrived = 0;
    const uint64_t ordinal = ++control->ordinal;
    const uint64_t offset = control->offset_ns;
    volatile Record* record = static_cast<volatile Record*>(args.record);
    record->start_ns = control->start_ns + offset;
    record->inputs_ns = control->inputs_ns + offset;
    record->compute_ns = compute_ns + offset;
    record->done_ns = clock_ns() + offset;
    __threadfence_system();
    // Callers number requests 1, 2, .. 2^32 - 1, 1, ..
    record->done = uint32_t((ordinal - 1) % 0xffffffffull) + 1;
    record->ended = ordinal;
}
