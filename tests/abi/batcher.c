/* Many threads on one batcher, completions through the queue, and a free while slots are out: tests/batcher.rs. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <streaminfer.h>

enum { THREADS = 5, REQUESTS = 150, PARKED = 50 };

static si_engine engine;
static si_batcher batcher;
static si_bucket_input shape;
static si_bucket bucket;

static void expect(si_result status, si_result expected, const si_error *error)
{
    if (status != expected) {
        printf("%s instead of %s: %s\n", si_status_name(status), si_status_name(expected), error->message);
        exit(1);
    }
}

static float *place(const si_tensor_view *view, int64_t column)
{
    return (float *)((char *)view->data + column * view->strides_bytes[1]);
}

/* A committed slot; a batch that closes before its writer is done is tried again. */
static si_slot commit(float x, float y, uint64_t token)
{
    si_error error;
    si_slot slot;
    for (;;) {
        si_tensor_view input;
        si_result status = si_batcher_reserve(batcher, &bucket, 0, &slot, &error);
        if (status == SI_AGAIN) {
            sched_yield();
            continue;
        }
        expect(status, SI_OK, &error);
        memset(&input, 0, sizeof input);
        input.struct_size = (uint32_t)sizeof input;
        status = si_slot_input(slot, 0, &input, &error);
        if (status == SI_OK) {
            if (input.dims[0] != 1 || input.dims[1] != 2)
                exit(1);
            *place(&input, 0) = x;
            *place(&input, 1) = y;
            status = si_slot_commit(slot, token, &error);
        }
        if (status == SI_OK)
            return slot;
        expect(status, SI_EXPIRED, &error);
        expect(si_slot_abandon(slot, &error), SI_OK, &error);
    }
}

static void check(si_slot slot, float x, float y)
{
    si_error error;
    si_tensor_view output;
    memset(&output, 0, sizeof output);
    output.struct_size = (uint32_t)sizeof output;
    expect(si_slot_output(slot, 0, &output, &error), SI_OK, &error);
    if (*place(&output, 0) != x + 4 * y || *place(&output, 1) != 2 * x + 5 * y) {
        printf("%g and %g give %g and %g\n", x, y, *place(&output, 0), *place(&output, 1));
        exit(1);
    }
    expect(si_slot_release(slot, &error), SI_OK, &error);
    expect(si_slot_release(slot, &error), SI_STALE_HANDLE, &error);
}

static void *request(void *number)
{
    si_error error;
    for (int round = 0; round < REQUESTS; round++) {
        float x = (float)*(const int *)number, y = (float)round;
        si_slot slot = commit(x, y, 0);
        expect(si_slot_wait(slot, SI_TIMEOUT_INFINITE, &error), SI_OK, &error);
        check(slot, x, y);
    }
    return NULL;
}

/* Sleeps until the batcher is freed. */
static void *wait_for_the_end(void *slot)
{
    si_error error;
    si_result status = si_slot_wait(*(const si_slot *)slot, SI_TIMEOUT_INFINITE, &error);
    /* Freed before it was inside, or while it was. */
    if (status != SI_STALE_HANDLE)
        expect(status, SI_CANCELLED, &error);
    return NULL;
}

static void start(pthread_t *thread, void *(*body)(void *), void *argument)
{
    if (pthread_create(thread, NULL, body, argument) != 0)
        exit(1);
}

static void reap(uint64_t token, si_result status)
{
    si_error error;
    si_completion completion;
    uint32_t count;
    do {
        expect(si_engine_reap(engine, &completion, 1, &count, &error), SI_OK, &error);
    } while (count == 0);
    expect(completion.status, status, &error);
    if (completion.token != token || completion.context.handle != batcher.handle || completion.sequence != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    si_model model;
    si_model_options model_options;
    si_batcher_options options;
    si_batch_stats stats;
    si_padding padding;
    si_error error;
    si_slot slots[3];
    pthread_t threads[THREADS], waiter;
    int numbers[THREADS];
    if (argc != 2)
        return 2;
    memset(&error, 0, sizeof error);
    memset(&padding, 0, sizeof padding);
    memset(&model_options, 0, sizeof model_options);
    memset(&options, 0, sizeof options);
    memset(&stats, 0, sizeof stats);
    shape.struct_size = (uint32_t)sizeof shape;
    shape.rank = 2;
    shape.dims[0] = 4;
    shape.dims[1] = 2;
    bucket.struct_size = (uint32_t)sizeof bucket;
    bucket.input_count = 1;
    bucket.inputs = &shape;
    padding.struct_size = (uint32_t)sizeof padding;
    padding.kind = SI_PADDING_BATCH;
    model_options.struct_size = (uint32_t)sizeof model_options;
    model_options.buckets = &bucket;
    model_options.bucket_count = 1;
    options.struct_size = (uint32_t)sizeof options;
    stats.struct_size = (uint32_t)sizeof stats;
    expect(si_engine_open(NULL, &engine, &error), SI_OK, &error);
    expect(si_model_load(engine, argv[1], &model_options, &model, &error), SI_OK, &error);
    expect(si_batcher_new(model, &options, &batcher, &error), SI_UNSUPPORTED, &error);
    expect(si_model_free(model, &error), SI_OK, &error);
    model_options.paddings = &padding;
    model_options.padding_count = 1;
    expect(si_model_load(engine, argv[1], &model_options, &model, &error), SI_OK, &error);
    expect(si_batcher_new(model, &options, &batcher, &error), SI_OK, &error);

    shape.dims[0] = 5;
    expect(si_batcher_reserve(batcher, &bucket, 0, &slots[0], &error), SI_NO_BUCKET, &error);
    shape.dims[0] = 1;
    for (int index = 0; index < THREADS; index++) {
        numbers[index] = index;
        start(&threads[index], request, &numbers[index]);
    }
    for (int index = 0; index < THREADS; index++)
        pthread_join(threads[index], NULL);
    for (int round = 0; round < PARKED; round++) {
        si_slot slot = commit(1, (float)round, (uint64_t)round + 7);
        expect(si_slot_park(slot, &error), SI_OK, &error);
        reap((uint64_t)round + 7, SI_OK);
        expect(si_slot_poll(slot, &error), SI_OK, &error);
        check(slot, 1, (float)round);
    }
    expect(si_batcher_stats(batcher, &stats, &error), SI_OK, &error);
    printf("%d requests, %d of them parked; ", (int)stats.completed, PARKED);
    if (stats.rows != stats.completed || stats.slots != 0 || stats.class_count != 1)
        return 1;
    expect(si_batcher_free(batcher, &error), SI_OK, &error);

    options.delay_ns = UINT64_C(3600000000000);
    expect(si_batcher_new(model, &options, &batcher, &error), SI_OK, &error);
    expect(si_model_free(model, &error), SI_OK, &error);
    slots[0] = commit(1, 2, 1);
    slots[1] = commit(3, 4, 2);
    expect(si_slot_park(slots[1], &error), SI_OK, &error);
    expect(si_batcher_reserve(batcher, &bucket, 0, &slots[2], &error), SI_OK, &error);
    start(&waiter, wait_for_the_end, &slots[0]);
    expect(si_batcher_free(batcher, &error), SI_OK, &error);
    reap(2, SI_CANCELLED);
    pthread_join(waiter, NULL);
    for (int index = 0; index < 3; index++)
        expect(si_slot_abandon(slots[index], &error), SI_STALE_HANDLE, &error);
    expect(si_engine_close(engine, &error), SI_OK, &error);
    printf("freed with 3 slots out\n");
    return 0;
}
