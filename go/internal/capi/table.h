/* The library's exports as a table, and one static call per export: cgo cannot call a pointer that dlsym gave. */

#ifndef STREAMINFER_GO_TABLE_H
#define STREAMINFER_GO_TABLE_H

#include <stdlib.h>
#include <time.h>

#include "streaminfer.h"

#define EXPORTS(X)                                                                                                  \
    X(si_abi_version) X(si_struct_bytes) X(si_device_count) X(si_device_describe)                                   \
    X(si_engine_open) X(si_engine_close) X(si_engine_stats) X(si_engine_device) X(si_engine_completion_fd)           \
    X(si_engine_reap)                                                                                               \
    X(si_model_load) X(si_model_load_bytes) X(si_model_add_bucket) X(si_model_describe) X(si_model_input)           \
    X(si_model_output) X(si_model_free)                                                                             \
    X(si_context_new) X(si_context_link) X(si_context_prepare) X(si_context_bind) X(si_context_unbind)              \
    X(si_context_shape) X(si_context_input) X(si_context_output) X(si_context_submit) X(si_context_completion)      \
    X(si_context_poll) X(si_context_wait) X(si_context_park) X(si_context_unpark) X(si_context_cancel) X(si_context_timings)           \
    X(si_context_free)                                                                                              \
    X(si_event_new) X(si_event_record) X(si_event_wait) X(si_event_free)                                            \
    X(si_batcher_new) X(si_batcher_reserve) X(si_batcher_stats) X(si_batcher_free)                                  \
    X(si_slot_input) X(si_slot_output) X(si_slot_commit) X(si_slot_park) X(si_slot_cancel) X(si_slot_abandon)       \
    X(si_slot_release) X(si_slot_timings)                                                                           \
    X(si_memory_new) X(si_memory_describe) X(si_memory_write) X(si_memory_read) X(si_memory_free)                   \
    X(si_context_attach_input) X(si_context_attach_output)

typedef struct table {
#define FIELD(name) __typeof__(&name) name;
    EXPORTS(FIELD)
#undef FIELD
} table;

/* Addresses of C memory, passed as numbers. Where the type of an argument leads to pointers, cgo looks in each call whether
 * they are Go's; here, where they never are, that would cost as much as the call. */

typedef struct table_at {
    uintptr_t address;
} table_at;
typedef struct scratch_at {
    uintptr_t address;
} scratch_at;
typedef struct slot_at {
    uintptr_t address;
} slot_at;

#define TABLE(t) ((const table *)(t).address)
#define SCRATCH(s) ((scratch *)(s).address)
#define SLOT(s) ((slot_scratch *)(s).address)

/* Fills the table from the library at path. Returns null, or why it could not, in memory of the caller's to free. */
char *table_load(const char *path, table *out);

/* What a Session's calls write, so that no Go pointer crosses the border. */
typedef struct scratch {
    si_error error;
    si_tensor_view view;
    si_submit_options submit;
    si_timings timings;
    uint32_t sequence;
    /* What call_shape selects. */
    const si_bucket *bucket;
} scratch;

static inline scratch *scratch_new(const si_bucket *bucket) {
    scratch *s = calloc(1, sizeof *s);
    if (s) {
        s->bucket = bucket;
        s->view.struct_size = sizeof s->view;
        s->submit.struct_size = sizeof s->submit;
        s->timings.struct_size = sizeof s->timings;
    }
    return s;
}

static inline uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#define SHIM static inline si_result

/* The hot path. */

SHIM call_submit(table_at t, si_context context, scratch_at s, uint64_t token, uint64_t timeout_ns) {
    SCRATCH(s)->submit.token = token;
    SCRATCH(s)->submit.deadline_ns = timeout_ns ? monotonic_ns() + timeout_ns : 0;
    return TABLE(t)->si_context_submit(context, &SCRATCH(s)->submit, &SCRATCH(s)->sequence, &SCRATCH(s)->error);
}
SHIM call_poll(table_at t, si_context context, uint32_t sequence, scratch_at s) {
    return TABLE(t)->si_context_poll(context, sequence, &SCRATCH(s)->error);
}
SHIM call_wait(table_at t, si_context context, uint32_t sequence, scratch_at s) {
    return TABLE(t)->si_context_wait(context, sequence, SI_TIMEOUT_INFINITE, &SCRATCH(s)->error);
}
SHIM call_park(table_at t, si_context context, uint32_t sequence, scratch_at s) {
    return TABLE(t)->si_context_park(context, sequence, &SCRATCH(s)->error);
}
SHIM call_unpark(table_at t, si_context context, uint32_t sequence, scratch_at s) {
    return TABLE(t)->si_context_unpark(context, sequence, &SCRATCH(s)->error);
}
SHIM call_bind(table_at t, si_context context, scratch_at s) {
    return TABLE(t)->si_context_bind(context, &SCRATCH(s)->error);
}
SHIM call_unbind(table_at t, si_context context, scratch_at s) {
    return TABLE(t)->si_context_unbind(context, &SCRATCH(s)->error);
}
SHIM call_context_input(table_at t, si_context context, uint32_t index, scratch_at s) {
    return TABLE(t)->si_context_input(context, index, &SCRATCH(s)->view, &SCRATCH(s)->error);
}
SHIM call_context_output(table_at t, si_context context, uint32_t index, scratch_at s) {
    return TABLE(t)->si_context_output(context, index, &SCRATCH(s)->view, &SCRATCH(s)->error);
}
SHIM call_shape(table_at t, si_context context, scratch_at s) {
    return TABLE(t)->si_context_shape(context, SCRATCH(s)->bucket, &SCRATCH(s)->error);
}
SHIM call_timings(table_at t, si_context context, scratch_at s) {
    return TABLE(t)->si_context_timings(context, &SCRATCH(s)->timings, &SCRATCH(s)->error);
}
SHIM call_prepare(table_at t, si_context context, scratch_at s) {
    return TABLE(t)->si_context_prepare(context, &SCRATCH(s)->error);
}
SHIM call_completion(table_at t, si_context context, const si_completion_record **out, scratch_at s) {
    return TABLE(t)->si_context_completion(context, out, &SCRATCH(s)->error);
}
SHIM call_link(table_at t, si_context target, uint32_t input, si_context source, uint32_t output, scratch_at s) {
    return TABLE(t)->si_context_link(target, input, source, output, &SCRATCH(s)->error);
}

/* From any thread: cancel and free must not touch a scratch that another call uses. */

SHIM call_cancel(table_at t, si_context context, uint32_t sequence, si_error *error) {
    return TABLE(t)->si_context_cancel(context, sequence, error);
}
SHIM call_context_free(table_at t, si_context context, si_error *error) {
    return TABLE(t)->si_context_free(context, error);
}

/* Engines, models, events. */

static inline uint32_t call_abi_version(table_at t) { return TABLE(t)->si_abi_version(); }
static inline uint32_t call_struct_bytes(table_at t, uint32_t id) { return TABLE(t)->si_struct_bytes(id); }
SHIM call_device_count(table_at t, uint32_t *out, si_error *error) { return TABLE(t)->si_device_count(out, error); }
SHIM call_device_describe(table_at t, uint32_t index, si_device_info *out, si_error *error) {
    return TABLE(t)->si_device_describe(index, out, error);
}
SHIM call_engine_open(table_at t, const si_engine_options *options, si_engine *out, si_error *error) {
    return TABLE(t)->si_engine_open(options, out, error);
}
SHIM call_engine_close(table_at t, si_engine engine, si_error *error) {
    return TABLE(t)->si_engine_close(engine, error);
}
SHIM call_engine_stats(table_at t, si_engine engine, si_stats *out, si_error *error) {
    return TABLE(t)->si_engine_stats(engine, out, error);
}
SHIM call_engine_device(table_at t, si_engine engine, si_device_info *out, si_error *passed_over, si_error *error) {
    return TABLE(t)->si_engine_device(engine, out, passed_over, error);
}
SHIM call_completion_fd(table_at t, si_engine engine, int32_t *out, si_error *error) {
    return TABLE(t)->si_engine_completion_fd(engine, out, error);
}
SHIM call_reap(table_at t, si_engine engine, si_completion *out, uint32_t max, uint32_t *count, si_error *error) {
    return TABLE(t)->si_engine_reap(engine, out, max, count, error);
}
SHIM call_load(table_at t, si_engine engine, const char *path, const si_model_options *options, si_model *out,
               si_error *error) {
    return TABLE(t)->si_model_load(engine, path, options, out, error);
}
SHIM call_load_bytes(table_at t, si_engine engine, const uint8_t *data, size_t bytes,
                     const si_model_options *options, si_model *out, si_error *error) {
    return TABLE(t)->si_model_load_bytes(engine, data, bytes, options, out, error);
}
SHIM call_add_bucket(table_at t, si_model model, const si_bucket *bucket, si_error *error) {
    return TABLE(t)->si_model_add_bucket(model, bucket, error);
}
SHIM call_describe(table_at t, si_model model, si_model_info *out, si_error *error) {
    return TABLE(t)->si_model_describe(model, out, error);
}
SHIM call_model_input(table_at t, si_model model, uint32_t index, si_tensor_info *out, si_error *error) {
    return TABLE(t)->si_model_input(model, index, out, error);
}
SHIM call_model_output(table_at t, si_model model, uint32_t index, si_tensor_info *out, si_error *error) {
    return TABLE(t)->si_model_output(model, index, out, error);
}
SHIM call_model_free(table_at t, si_model model, si_error *error) { return TABLE(t)->si_model_free(model, error); }
SHIM call_context_new(table_at t, si_model model, const si_context_options *options, si_context *out,
                      si_error *error) {
    return TABLE(t)->si_context_new(model, options, out, error);
}
SHIM call_event_new(table_at t, si_engine engine, si_event *out, si_error *error) {
    return TABLE(t)->si_event_new(engine, out, error);
}
SHIM call_event_record(table_at t, si_event event, si_context context, si_error *error) {
    return TABLE(t)->si_event_record(event, context, error);
}
SHIM call_event_wait(table_at t, si_event event, si_context context, si_error *error) {
    return TABLE(t)->si_event_wait(event, context, error);
}
SHIM call_event_free(table_at t, si_event event, si_error *error) { return TABLE(t)->si_event_free(event, error); }

/* Batchers. What a request's calls write, as for a Session. */

typedef struct slot_scratch {
    si_error error;
    si_tensor_view view;
    si_batch_timings timings;
    si_slot slot;
    /* What call_batcher_reserve asks for. */
    const si_bucket *bucket;
} slot_scratch;

static inline slot_scratch *slot_scratch_new(const si_bucket *bucket) {
    slot_scratch *s = calloc(1, sizeof *s);
    if (s) {
        s->bucket = bucket;
        s->view.struct_size = sizeof s->view;
        s->timings.struct_size = sizeof s->timings;
    }
    return s;
}

SHIM call_batcher_new(table_at t, si_model model, const si_batcher_options *options, si_batcher *out,
                      si_error *error) {
    return TABLE(t)->si_batcher_new(model, options, out, error);
}
SHIM call_batcher_stats(table_at t, si_batcher batcher, si_batch_stats *out, si_error *error) {
    return TABLE(t)->si_batcher_stats(batcher, out, error);
}
SHIM call_batcher_free(table_at t, si_batcher batcher, si_error *error) {
    return TABLE(t)->si_batcher_free(batcher, error);
}
SHIM call_batcher_reserve(table_at t, si_batcher batcher, uint64_t timeout_ns, slot_at s) {
    uint64_t deadline_ns = timeout_ns ? monotonic_ns() + timeout_ns : 0;
    return TABLE(t)->si_batcher_reserve(batcher, SLOT(s)->bucket, deadline_ns, &SLOT(s)->slot, &SLOT(s)->error);
}
SHIM call_slot_input(table_at t, uint32_t index, slot_at s) {
    return TABLE(t)->si_slot_input(SLOT(s)->slot, index, &SLOT(s)->view, &SLOT(s)->error);
}
SHIM call_slot_output(table_at t, uint32_t index, slot_at s) {
    return TABLE(t)->si_slot_output(SLOT(s)->slot, index, &SLOT(s)->view, &SLOT(s)->error);
}
SHIM call_slot_timings(table_at t, slot_at s) {
    return TABLE(t)->si_slot_timings(SLOT(s)->slot, &SLOT(s)->timings, &SLOT(s)->error);
}
/* Go waits for every slot through the completion queue. A slot that is committed can be parked, whatever becomes of it. */
SHIM call_slot_commit(table_at t, uint64_t token, slot_at s) {
    si_result status = TABLE(t)->si_slot_commit(SLOT(s)->slot, token, &SLOT(s)->error);
    return status == SI_OK ? TABLE(t)->si_slot_park(SLOT(s)->slot, &SLOT(s)->error) : status;
}
SHIM call_slot_cancel(table_at t, slot_at s) { return TABLE(t)->si_slot_cancel(SLOT(s)->slot, &SLOT(s)->error); }
SHIM call_slot_abandon(table_at t, slot_at s) { return TABLE(t)->si_slot_abandon(SLOT(s)->slot, &SLOT(s)->error); }
SHIM call_slot_release(table_at t, slot_at s) { return TABLE(t)->si_slot_release(SLOT(s)->slot, &SLOT(s)->error); }

/* Memories. */

SHIM call_memory_new(table_at t, si_engine engine, const si_memory_options *options, si_memory *out, si_error *error) {
    return TABLE(t)->si_memory_new(engine, options, out, error);
}
SHIM call_memory_describe(table_at t, si_memory memory, si_memory_info *out, si_error *error) {
    return TABLE(t)->si_memory_describe(memory, out, error);
}
SHIM call_memory_write(table_at t, si_memory memory, const si_copy_options *options, const uint8_t *data, size_t bytes,
                       si_error *error) {
    return TABLE(t)->si_memory_write(memory, options, data, bytes, error);
}
SHIM call_memory_read(table_at t, si_memory memory, const si_copy_options *options, uint8_t *data, size_t bytes,
                      si_error *error) {
    return TABLE(t)->si_memory_read(memory, options, data, bytes, error);
}
SHIM call_memory_free(table_at t, si_memory memory, si_error *error) { return TABLE(t)->si_memory_free(memory, error); }
SHIM call_attach_input(table_at t, si_context target, uint32_t index, si_memory memory, uint64_t offset, scratch_at s) {
    return TABLE(t)->si_context_attach_input(target, index, memory, offset, &SCRATCH(s)->error);
}
SHIM call_attach_output(table_at t, si_context target, uint32_t index, si_memory memory, uint64_t offset, scratch_at s) {
    return TABLE(t)->si_context_attach_output(target, index, memory, offset, &SCRATCH(s)->error);
}

#endif
