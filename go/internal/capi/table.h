/* The library's exports as a table, and one static call per export: cgo cannot call a pointer that dlsym gave. */

#ifndef STREAMINFER_GO_TABLE_H
#define STREAMINFER_GO_TABLE_H

#include <stdlib.h>
#include <time.h>

#include "streaminfer.h"

#define EXPORTS(X)                                                                                                  \
    X(si_abi_version) X(si_struct_bytes) X(si_device_count) X(si_device_describe)                                   \
    X(si_engine_open) X(si_engine_close) X(si_engine_stats) X(si_engine_completion_fd) X(si_engine_reap)            \
    X(si_model_load) X(si_model_load_bytes) X(si_model_add_bucket) X(si_model_describe) X(si_model_input)           \
    X(si_model_output) X(si_model_free)                                                                             \
    X(si_context_new) X(si_context_link) X(si_context_prepare) X(si_context_bind) X(si_context_unbind)              \
    X(si_context_shape) X(si_context_input) X(si_context_output) X(si_context_submit) X(si_context_completion)      \
    X(si_context_poll) X(si_context_wait) X(si_context_park) X(si_context_unpark) X(si_context_cancel) X(si_context_timings)           \
    X(si_context_free)                                                                                              \
    X(si_event_new) X(si_event_record) X(si_event_wait) X(si_event_free)                                            \
    X(si_batcher_new) X(si_batcher_reserve) X(si_batcher_stats) X(si_batcher_free)                                  \
    X(si_slot_input) X(si_slot_output) X(si_slot_commit) X(si_slot_park) X(si_slot_cancel) X(si_slot_abandon)       \
    X(si_slot_release)

typedef struct table {
#define FIELD(name) __typeof__(&name) name;
    EXPORTS(FIELD)
#undef FIELD
} table;

/* Fills the table from the library at path. Returns null, or why it could not, in memory of the caller's to free. */
char *table_load(const char *path, table *out);

/* What a Session's calls write, so that no Go pointer crosses the border. */
typedef struct scratch {
    si_error error;
    si_tensor_view view;
    si_submit_options submit;
    si_timings timings;
    uint32_t sequence;
} scratch;

static inline scratch *scratch_new(void) {
    scratch *s = calloc(1, sizeof *s);
    if (s) {
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

SHIM call_submit(const table *t, si_context context, scratch *s, uint64_t token, uint64_t timeout_ns) {
    s->submit.token = token;
    s->submit.deadline_ns = timeout_ns ? monotonic_ns() + timeout_ns : 0;
    return t->si_context_submit(context, &s->submit, &s->sequence, &s->error);
}
SHIM call_poll(const table *t, si_context context, uint32_t sequence, scratch *s) {
    return t->si_context_poll(context, sequence, &s->error);
}
SHIM call_wait(const table *t, si_context context, uint32_t sequence, scratch *s) {
    return t->si_context_wait(context, sequence, SI_TIMEOUT_INFINITE, &s->error);
}
SHIM call_park(const table *t, si_context context, uint32_t sequence, scratch *s) {
    return t->si_context_park(context, sequence, &s->error);
}
SHIM call_unpark(const table *t, si_context context, uint32_t sequence, scratch *s) {
    return t->si_context_unpark(context, sequence, &s->error);
}
SHIM call_bind(const table *t, si_context context, scratch *s) { return t->si_context_bind(context, &s->error); }
SHIM call_unbind(const table *t, si_context context, scratch *s) { return t->si_context_unbind(context, &s->error); }
SHIM call_context_input(const table *t, si_context context, uint32_t index, scratch *s) {
    return t->si_context_input(context, index, &s->view, &s->error);
}
SHIM call_context_output(const table *t, si_context context, uint32_t index, scratch *s) {
    return t->si_context_output(context, index, &s->view, &s->error);
}
SHIM call_shape(const table *t, si_context context, const si_bucket *bucket, scratch *s) {
    return t->si_context_shape(context, bucket, &s->error);
}
SHIM call_timings(const table *t, si_context context, scratch *s) {
    return t->si_context_timings(context, &s->timings, &s->error);
}
SHIM call_prepare(const table *t, si_context context, scratch *s) {
    return t->si_context_prepare(context, &s->error);
}
SHIM call_completion(const table *t, si_context context, const si_completion_record **out, scratch *s) {
    return t->si_context_completion(context, out, &s->error);
}
SHIM call_link(const table *t, si_context target, uint32_t input, si_context source, uint32_t output, scratch *s) {
    return t->si_context_link(target, input, source, output, &s->error);
}

/* From any thread: cancel and free must not touch a scratch that another call uses. */

SHIM call_cancel(const table *t, si_context context, uint32_t sequence, si_error *error) {
    return t->si_context_cancel(context, sequence, error);
}
SHIM call_context_free(const table *t, si_context context, si_error *error) {
    return t->si_context_free(context, error);
}

/* Engines, models, events. */

static inline uint32_t call_abi_version(const table *t) { return t->si_abi_version(); }
static inline uint32_t call_struct_bytes(const table *t, uint32_t id) { return t->si_struct_bytes(id); }
SHIM call_device_count(const table *t, uint32_t *out, si_error *error) { return t->si_device_count(out, error); }
SHIM call_device_describe(const table *t, uint32_t index, si_device_info *out, si_error *error) {
    return t->si_device_describe(index, out, error);
}
SHIM call_engine_open(const table *t, const si_engine_options *options, si_engine *out, si_error *error) {
    return t->si_engine_open(options, out, error);
}
SHIM call_engine_close(const table *t, si_engine engine, si_error *error) {
    return t->si_engine_close(engine, error);
}
SHIM call_engine_stats(const table *t, si_engine engine, si_stats *out, si_error *error) {
    return t->si_engine_stats(engine, out, error);
}
SHIM call_completion_fd(const table *t, si_engine engine, int32_t *out, si_error *error) {
    return t->si_engine_completion_fd(engine, out, error);
}
SHIM call_reap(const table *t, si_engine engine, si_completion *out, uint32_t max, uint32_t *count, si_error *error) {
    return t->si_engine_reap(engine, out, max, count, error);
}
SHIM call_load(const table *t, si_engine engine, const char *path, const si_model_options *options, si_model *out,
               si_error *error) {
    return t->si_model_load(engine, path, options, out, error);
}
SHIM call_load_bytes(const table *t, si_engine engine, const uint8_t *data, size_t bytes,
                     const si_model_options *options, si_model *out, si_error *error) {
    return t->si_model_load_bytes(engine, data, bytes, options, out, error);
}
SHIM call_add_bucket(const table *t, si_model model, const si_bucket *bucket, si_error *error) {
    return t->si_model_add_bucket(model, bucket, error);
}
SHIM call_describe(const table *t, si_model model, si_model_info *out, si_error *error) {
    return t->si_model_describe(model, out, error);
}
SHIM call_model_input(const table *t, si_model model, uint32_t index, si_tensor_info *out, si_error *error) {
    return t->si_model_input(model, index, out, error);
}
SHIM call_model_output(const table *t, si_model model, uint32_t index, si_tensor_info *out, si_error *error) {
    return t->si_model_output(model, index, out, error);
}
SHIM call_model_free(const table *t, si_model model, si_error *error) { return t->si_model_free(model, error); }
SHIM call_context_new(const table *t, si_model model, const si_context_options *options, si_context *out,
                      si_error *error) {
    return t->si_context_new(model, options, out, error);
}
SHIM call_event_new(const table *t, si_engine engine, si_event *out, si_error *error) {
    return t->si_event_new(engine, out, error);
}
SHIM call_event_record(const table *t, si_event event, si_context context, si_error *error) {
    return t->si_event_record(event, context, error);
}
SHIM call_event_wait(const table *t, si_event event, si_context context, si_error *error) {
    return t->si_event_wait(event, context, error);
}
SHIM call_event_free(const table *t, si_event event, si_error *error) { return t->si_event_free(event, error); }

/* Batchers. What a request's calls write, as for a Session. */

typedef struct slot_scratch {
    si_error error;
    si_tensor_view view;
    si_slot slot;
} slot_scratch;

static inline slot_scratch *slot_scratch_new(void) {
    slot_scratch *s = calloc(1, sizeof *s);
    if (s)
        s->view.struct_size = sizeof s->view;
    return s;
}

SHIM call_batcher_new(const table *t, si_model model, const si_batcher_options *options, si_batcher *out,
                      si_error *error) {
    return t->si_batcher_new(model, options, out, error);
}
SHIM call_batcher_stats(const table *t, si_batcher batcher, si_batch_stats *out, si_error *error) {
    return t->si_batcher_stats(batcher, out, error);
}
SHIM call_batcher_free(const table *t, si_batcher batcher, si_error *error) {
    return t->si_batcher_free(batcher, error);
}
SHIM call_batcher_reserve(const table *t, si_batcher batcher, const si_bucket *bucket, uint64_t timeout_ns,
                          slot_scratch *s) {
    uint64_t deadline_ns = timeout_ns ? monotonic_ns() + timeout_ns : 0;
    return t->si_batcher_reserve(batcher, bucket, deadline_ns, &s->slot, &s->error);
}
SHIM call_slot_input(const table *t, uint32_t index, slot_scratch *s) {
    return t->si_slot_input(s->slot, index, &s->view, &s->error);
}
SHIM call_slot_output(const table *t, uint32_t index, slot_scratch *s) {
    return t->si_slot_output(s->slot, index, &s->view, &s->error);
}
/* Go waits for every slot through the completion queue. A slot that is committed can be parked, whatever becomes of it. */
SHIM call_slot_commit(const table *t, uint64_t token, slot_scratch *s) {
    si_result status = t->si_slot_commit(s->slot, token, &s->error);
    return status == SI_OK ? t->si_slot_park(s->slot, &s->error) : status;
}
SHIM call_slot_cancel(const table *t, slot_scratch *s) { return t->si_slot_cancel(s->slot, &s->error); }
SHIM call_slot_abandon(const table *t, slot_scratch *s) { return t->si_slot_abandon(s->slot, &s->error); }
SHIM call_slot_release(const table *t, slot_scratch *s) { return t->si_slot_release(s->slot, &s->error); }

#endif
