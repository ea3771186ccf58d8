/* What tests/views.rs does with views that must not be used: `views LONG ENDLESS`, models whose requests take
 * long, and so long that they are cancelled. */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <streaminfer.h>

static si_engine engine;
static si_model model;
static si_error error;

static void must(const char *what, int holds)
{
    if (!holds) {
        printf("%s does not hold (%.400s)\n", what, error.message);
        exit(1);
    }
}

static sigjmp_buf before;

static void jump(int signal) { siglongjmp(before, signal); }

/* The signal that reading the byte causes, or writing it, 0 if none. */
static int touch(volatile unsigned char *byte, int write)
{
    int signal = sigsetjmp(before, 1);
    if (signal == 0) {
        unsigned char value = *byte;
        if (write)
            *byte = value;
    }
    return signal;
}

static int is_gone(unsigned char *byte) { return touch(byte, 0) == SIGSEGV && touch(byte, 1) == SIGSEGV; }
static int is_usable(unsigned char *byte) { return touch(byte, 1) == 0; }

/* The first and the last byte of an input and an output. */
typedef struct views {
    unsigned char *ends[4];
} views;

static si_context context_of(views *out)
{
    si_context context = {0};
    si_tensor_view view = {sizeof view, 0, 0, 0, {0}, {0}, NULL, 0};
    must("new", si_context_new(model, NULL, &context, &error) == SI_OK);
    must("prepare", si_context_prepare(context, &error) == SI_OK);
    for (int side = 0; side < 2; side++) {
        must("view", (side ? si_context_output : si_context_input)(context, 0, &view, &error) == SI_OK);
        out->ends[2 * side] = (unsigned char *)view.data;
        out->ends[2 * side + 1] = (unsigned char *)view.data + view.capacity_bytes - 1;
    }
    return context;
}

static void start(const char *path, uint32_t flags)
{
    si_engine_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = (uint32_t)sizeof options;
    options.device = "host";
    options.flags = flags;
    must("open", si_engine_open(&options, &engine, &error) == SI_OK);
    must("load", si_model_load(engine, path, NULL, &model, &error) == SI_OK);
}

static void finish(void)
{
    must("model_free", si_model_free(model, &error) == SI_OK);
    must("engine_close", si_engine_close(engine, &error) == SI_OK);
}

/* Freed views lead to nothing, however many contexts come after. */
static void freed(const char *path)
{
    enum { LATER = 100 };
    si_context later[LATER];
    views gone, theirs;
    start(path, 0);
    si_context context = context_of(&gone);
    for (int end = 0; end < 4; end++)
        must("a live view is usable", is_usable(gone.ends[end]));
    must("free", si_context_free(context, &error) == SI_OK);
    for (int index = 0; index < LATER; index++) {
        later[index] = context_of(&theirs);
        for (int end = 0; end < 4; end++)
            must("a freed view leads to nothing", is_gone(gone.ends[end]) && is_usable(theirs.ends[end]));
    }
    for (int index = 0; index < LATER; index++)
        must("free", si_context_free(later[index], &error) == SI_OK);
    finish();
}

/* The memory stays until the device is done with it. */
static void freed_in_flight(const char *path)
{
    struct timespec pause = {0, 1000000};
    uint32_t sequence;
    views views;
    start(path, 0);
    si_context context = context_of(&views);
    must("submit", si_context_submit(context, NULL, &sequence, &error) == SI_OK);
    must("an input in flight can be written without a guard", is_usable(views.ends[0]));
    must("free", si_context_free(context, &error) == SI_OK);
    int looks = 0;
    while (!is_gone(views.ends[3]) && ++looks < 20000)
        nanosleep(&pause, NULL);
    for (int end = 0; end < 4; end++)
        must("the memory of a drained context is gone", is_gone(views.ends[end]));
    finish();
}

/* With SI_ENGINE_GUARD_INPUTS inputs can only be read while a request is in flight. */
static void guarded(const char *path)
{
    uint32_t sequence;
    views views;
    si_tensor_view view = {sizeof view, 0, 0, 0, {0}, {0}, NULL, 0};
    start(path, SI_ENGINE_GUARD_INPUTS);
    si_context context = context_of(&views);
    must("an idle input is usable", is_usable(views.ends[0]) && is_usable(views.ends[1]));
    must("submit", si_context_submit(context, NULL, &sequence, &error) == SI_OK);
    for (int end = 0; end < 2; end++)
        must("an input in flight is read-only", touch(views.ends[end], 0) == 0 && touch(views.ends[end], 1) == SIGSEGV);
    must("it is in flight", si_context_poll(context, sequence, &error) == SI_PENDING);
    must("cancel", si_context_cancel(context, sequence, &error) == SI_OK);
    while (si_context_input(context, 0, &view, &error) == SI_DRAINING)
        ;
    must("a drained input is usable", is_usable(views.ends[0]) && is_usable(views.ends[1]));
    must("free", si_context_free(context, &error) == SI_OK);
    finish();
}

/* Once a request has ended its inputs are the host's again. */
static void unguarded(const char *path)
{
    uint32_t sequence;
    views views;
    start(path, SI_ENGINE_GUARD_INPUTS);
    si_context context = context_of(&views);
    for (int round = 0; round < 2; round++) {
        must("submit", si_context_submit(context, NULL, &sequence, &error) == SI_OK);
        must("wait", si_context_wait(context, sequence, SI_TIMEOUT_INFINITE, &error) == SI_OK);
        must("an input is usable afterwards", is_usable(views.ends[0]) && is_usable(views.ends[1]));
    }
    must("free", si_context_free(context, &error) == SI_OK);
    finish();
}

/* What no version of the options means is refused by name. */
static void refused(void)
{
    si_engine_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = (uint32_t)sizeof options;
    options.flags = 2;
    must("flags", si_engine_open(&options, &engine, &error) == SI_INVALID_ARGUMENT && strstr(error.message, "options.flags has 0x2"));
    options.flags = 0;
    options.reserved = 1;
    must("reserved", si_engine_open(&options, &engine, &error) == SI_INVALID_ARGUMENT && strstr(error.message, "options.reserved is 1"));
}

int main(int argc, char **argv)
{
    struct sigaction action;
    if (argc != 3)
        return 2;
    alarm(60);
    memset(&action, 0, sizeof action);
    action.sa_handler = jump;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    refused();
    freed(argv[1]);
    freed_in_flight(argv[1]);
    guarded(argv[2]);
    unguarded(argv[1]);
    return 0;
}
