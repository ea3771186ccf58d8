/* The frame of tests/misuse.rs, which puts code in place of the two comments in capitals. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <streaminfer.h>

typedef struct objects {
    si_engine engine;
    si_model model;
    si_context context;
    si_event event;
    si_batcher batcher;
    /* Of one row of 16 bytes on the device, as wanted. */
    si_memory memory;
    si_memory_options wanted;
    /* Reserved, and given back. */
    si_slot slot, given_back;
    /* Bound to the main thread. */
    si_context bound;
    /* Not prepared. */
    si_context fresh;
    /* With a request in flight that takes seconds. */
    si_context flying;
    /* The same, with another thread waiting for it. */
    si_context busy;
    si_bucket bucket;
    si_bucket_input shape;
    const char *path, *batched;
    uint8_t *data;
    size_t data_bytes;
    /* As many bytes and more. */
    uint8_t room[1 << 16];
} objects;

static objects fixture, zero, stale, forged, future;
static int failures, calls;

static si_engine as_engine(uint64_t handle) { si_engine it; it.handle = handle; return it; }
static si_model as_model(uint64_t handle) { si_model it; it.handle = handle; return it; }
static si_context as_context(uint64_t handle) { si_context it; it.handle = handle; return it; }
static si_event as_event(uint64_t handle) { si_event it; it.handle = handle; return it; }
static si_batcher as_batcher(uint64_t handle) { si_batcher it; it.handle = handle; return it; }
static si_memory as_memory(uint64_t handle) { si_memory it; it.handle = handle; return it; }
static si_slot as_slot(uint64_t batcher, uint64_t number) { si_slot it; it.batcher = batcher; it.number = number; return it; }

static void mark(void *place, size_t bytes, size_t from) { memset((char *)place + from, 0xa5, bytes - from); }

static void untouched(const char *function, const char *what, const void *place, size_t bytes, size_t from)
{
    const unsigned char *at = (const unsigned char *)place;
    for (size_t index = from; index < bytes; index++) {
        if (at[index] != 0xa5) {
            printf("%s, %s: an output is written\n", function, what);
            failures++;
            return;
        }
    }
}

static void clear(si_error *error) { memset(error, 0, sizeof *error); }

/* The error must be filled exactly when the call fails. */
static void expect(const char *function, const char *what, si_result status, si_result expected, si_error *error)
{
    calls++;
    if (status != expected) {
        printf("%s, %s: %s instead of %s (%.490s)\n", function, what, si_status_name(status), si_status_name(expected),
               status >= 100 ? error->message : "");
        failures++;
    } else if (status >= 100 && (error->status != status || strlen(error->message) < 8)) {
        printf("%s, %s: the error is not filled: '%.490s'\n", function, what, error->message);
        failures++;
    } else if (status < 100 && (error->status != SI_OK || error->message[0] != 0)) {
        printf("%s, %s: the error is filled, though this is no failure\n", function, what);
        failures++;
    }
    clear(error);
}

static void must(si_result status, const si_error *error)
{
    if (status != SI_OK) {
        printf("set-up: %s (%s)\n", si_status_name(status), error->message);
        exit(1);
    }
}

/* A batcher of up to four rows of two floats, with a slot given back and another one reserved. */
static void make_batcher(objects *all)
{
    si_error error;
    si_model model;
    si_bucket_input shape;
    si_bucket bucket;
    si_padding padding;
    si_model_options options;
    memset(&shape, 0, sizeof shape);
    memset(&bucket, 0, sizeof bucket);
    memset(&padding, 0, sizeof padding);
    memset(&options, 0, sizeof options);
    shape.struct_size = (uint32_t)sizeof shape;
    shape.rank = 2;
    shape.dims[0] = 4;
    shape.dims[1] = 2;
    bucket.struct_size = (uint32_t)sizeof bucket;
    bucket.input_count = 1;
    bucket.inputs = &shape;
    padding.struct_size = (uint32_t)sizeof padding;
    padding.kind = SI_PADDING_BATCH;
    options.struct_size = (uint32_t)sizeof options;
    options.buckets = &bucket;
    options.bucket_count = 1;
    options.paddings = &padding;
    options.padding_count = 1;
    must(si_model_load(all->engine, all->batched, &options, &model, &error), &error);
    must(si_batcher_new(model, NULL, &all->batcher, &error), &error);
    must(si_model_free(model, &error), &error);
    shape.dims[0] = 1;
    must(si_batcher_reserve(all->batcher, &bucket, 0, &all->slot, &error), &error);
    all->given_back = all->slot;
    must(si_slot_abandon(all->slot, &error), &error);
    must(si_batcher_reserve(all->batcher, &bucket, 0, &all->slot, &error), &error);
}

static void make(objects *all)
{
    si_error error;
    must(si_engine_open(NULL, &all->engine, &error), &error);
    must(si_model_load(all->engine, all->path, NULL, &all->model, &error), &error);
    must(si_context_new(all->model, NULL, &all->context, &error), &error);
    must(si_event_new(all->engine, &all->event, &error), &error);
    make_batcher(all);
    memset(&all->wanted, 0, sizeof all->wanted);
    all->wanted.struct_size = (uint32_t)sizeof all->wanted;
    all->wanted.kind = SI_MEMORY_PITCHED;
    all->wanted.row_count = 1;
    all->wanted.row_bytes = 16;
    must(si_memory_new(all->engine, &all->wanted, &all->memory, &error), &error);
}

/* Freed in an order that C programs get wrong: what others need goes first. */
static void drop(const objects *all)
{
    si_error error;
    must(si_engine_close(all->engine, &error), &error);
    must(si_model_free(all->model, &error), &error);
    must(si_context_free(all->context, &error), &error);
    must(si_event_free(all->event, &error), &error);
    must(si_batcher_free(all->batcher, &error), &error);
    must(si_memory_free(all->memory, &error), &error);
}

/* FUNCTIONS */
static void *elsewhere(void *unused)
{
    (void)unused;
    calls_from_elsewhere();
    return NULL;
}

/* Waits for a request that is cancelled meanwhile. */
static void *wait_inside(void *unused)
{
    si_error error;
    si_result status;
    (void)unused;
    clear(&error);
    /* The main thread looks whether this one is inside, and may be inside itself. */
    do
        status = si_context_wait(fixture.busy, 1, SI_TIMEOUT_INFINITE, &error);
    while (status == SI_BUSY);
    expect("si_context_wait", "cancelled", status, SI_CANCELLED, &error);
    return NULL;
}

static void run_thread(pthread_t *thread, void *(*body)(void *))
{
    if (pthread_create(thread, NULL, body, NULL) != 0)
        exit(1);
}

static void fly(si_model model, si_context *context)
{
    si_error error;
    uint32_t sequence;
    must(si_context_new(model, NULL, context, &error), &error);
    must(si_context_prepare(*context, &error), &error);
    must(si_context_submit(*context, NULL, &sequence, &error), &error);
}

/* Frees while in flight, too. */
static void try_states(const char *slow)
{
    si_error error;
    si_model model;
    pthread_t thread;
    must(si_model_load(fixture.engine, slow, NULL, &model, &error), &error);
    run_thread(&thread, elsewhere);
    pthread_join(thread, NULL);
    calls_when_fresh();

    fly(model, &fixture.flying);
    calls_in_flight();
    must(si_context_free(fixture.flying, &error), &error);

    fly(model, &fixture.busy);
    run_thread(&thread, wait_inside);
    while (si_context_poll(fixture.busy, 1, NULL) != SI_BUSY)
        sched_yield();
    calls_when_busy();
    must(si_context_cancel(fixture.busy, 1, &error), &error);
    pthread_join(thread, NULL);
    must(si_context_free(fixture.busy, &error), &error);
    must(si_model_free(model, &error), &error);
}

static void read_file(void)
{
    FILE *file = fopen(fixture.path, "rb");
    fixture.data = (uint8_t *)malloc(1 << 20);
    if (file == NULL || fixture.data == NULL)
        exit(1);
    fixture.data_bytes = fread(fixture.data, 1, sizeof fixture.room, file);
    fclose(file);
}

int main(int argc, char **argv)
{
    si_error error;
    uint32_t sequence;
    if (argc != 4)
        return 2;
    clear(&error);
    fixture.path = stale.path = argv[1];
    fixture.batched = stale.batched = argv[3];
    read_file();

    make(&stale);
    drop(&stale);
    make(&fixture);
    must(si_context_prepare(fixture.context, &error), &error);
    must(si_context_submit(fixture.context, NULL, &sequence, &error), &error);
    must(si_context_wait(fixture.context, sequence, SI_TIMEOUT_INFINITE, &error), &error);
    must(si_event_record(fixture.event, fixture.context, &error), &error);
    must(si_context_new(fixture.model, NULL, &fixture.bound, &error), &error);
    must(si_context_prepare(fixture.bound, &error), &error);
    must(si_context_bind(fixture.bound, &error), &error);
    must(si_context_new(fixture.model, NULL, &fixture.fresh, &error), &error);
    fixture.shape.struct_size = (uint32_t)sizeof fixture.shape;
    fixture.shape.rank = 1;
    fixture.shape.dims[0] = 4;
    fixture.bucket.struct_size = (uint32_t)sizeof fixture.bucket;
    fixture.bucket.input_count = 1;
    fixture.bucket.inputs = &fixture.shape;

    forged.engine = as_engine(UINT64_C(0x01badbadbad0dead));
    forged.model = as_model(UINT64_C(0x02badbadbad0dead));
    forged.context = as_context(UINT64_C(0x7fffffffffffffff));
    forged.event = as_event(1);
    forged.batcher = as_batcher(UINT64_C(0x05badbadbad0dead));
    forged.memory = as_memory(UINT64_C(0x06badbadbad0dead));
    forged.slot = as_slot(forged.batcher.handle, 1 << 16);
    future.engine = as_engine(fixture.engine.handle + 0x10000);
    future.model = as_model(fixture.model.handle + 0x10000);
    future.context = as_context(fixture.bound.handle + 0x10000);
    future.event = as_event(fixture.event.handle + 0x10000);
    future.batcher = as_batcher(fixture.batcher.handle + 0x10000);
    future.memory = as_memory(fixture.memory.handle + 0x10000);
    future.slot = as_slot(future.batcher.handle, fixture.slot.number);

    /* CALLS */
    try_states(argv[2]);

    /* After all that, everything still works. */
    must(si_context_run(fixture.context, NULL, &error), &error);
    must(si_context_run(fixture.bound, NULL, &error), &error);
    must(si_context_free(fixture.bound, &error), &error);
    must(si_context_free(fixture.fresh, &error), &error);
    drop(&fixture);
    free(fixture.data);
    printf("misuses: %d\n", calls);
    return failures != 0;
}
