/* What tests/endings.rs and tests/cuda/forked.rs do to processes: `endings exit|exit-elsewhere|fork|unload MODEL LIBRARY [GPU GPU_MODEL]`. The
 * model takes seconds on the host; on a GPU the simulated driver holds work up. */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <streaminfer.h>

/* The library is opened at run time, as Go does it. */
static si_result (*engine_open)(const si_engine_options *, si_engine *, si_error *);
static si_result (*engine_close)(si_engine, si_error *);
static si_result (*model_load)(si_engine, const char *, const si_model_options *, si_model *, si_error *);
static si_result (*model_free)(si_model, si_error *);
static si_result (*context_new)(si_model, const si_context_options *, si_context *, si_error *);
static si_result (*context_prepare)(si_context, si_error *);
static si_result (*context_bind)(si_context, si_error *);
static si_result (*context_submit)(si_context, const si_submit_options *, uint32_t *, si_error *);
static si_result (*context_poll)(si_context, uint32_t, si_error *);
static si_result (*context_wait)(si_context, uint32_t, uint64_t, si_error *);
static si_result (*context_cancel)(si_context, uint32_t, si_error *);
static si_result (*context_free)(si_context, si_error *);

static void find(void *library, const char *name, void **place)
{
    *place = dlsym(library, name);
    if (*place == NULL) {
        printf("%s\n", dlerror());
        exit(1);
    }
}

static void *load_library(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        printf("%s\n", dlerror());
        exit(1);
    }
    find(library, "si_engine_open", (void **)&engine_open);
    find(library, "si_engine_close", (void **)&engine_close);
    find(library, "si_model_load", (void **)&model_load);
    find(library, "si_model_free", (void **)&model_free);
    find(library, "si_context_new", (void **)&context_new);
    find(library, "si_context_prepare", (void **)&context_prepare);
    find(library, "si_context_bind", (void **)&context_bind);
    find(library, "si_context_submit", (void **)&context_submit);
    find(library, "si_context_poll", (void **)&context_poll);
    find(library, "si_context_wait", (void **)&context_wait);
    find(library, "si_context_cancel", (void **)&context_cancel);
    find(library, "si_context_free", (void **)&context_free);
    return library;
}

static void expect(const char *what, si_result status, si_result expected)
{
    if (status != expected) {
        printf("%s: %d instead of %d\n", what, (int)status, (int)expected);
        fflush(stdout);
        _exit(1);
    }
}

static si_engine engine;
static si_model model;
static si_context context;
static uint32_t sequence;

/* From now on no work on streams of the simulated driver begins. */
static void hold_work(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    void (*hold)(unsigned) = NULL;
    if (driver != NULL)
        find(driver, "fakecudaHold", (void **)&hold);
    if (hold == NULL)
        exit(1);
    hold(1);
}

/* The best device there is if none is named. */
static void start(const char *path, const char *device)
{
    si_engine_options engine_options;
    si_context_options options;
    memset(&engine_options, 0, sizeof engine_options);
    engine_options.struct_size = (uint32_t)sizeof engine_options;
    engine_options.device = device;
    memset(&options, 0, sizeof options);
    options.struct_size = (uint32_t)sizeof options;
    options.threads = 2;
    expect("open", engine_open(&engine_options, &engine, NULL), SI_OK);
    expect("load", model_load(engine, path, NULL, &model, NULL), SI_OK);
    expect("new", context_new(model, &options, &context, NULL), SI_OK);
    expect("prepare", context_prepare(context, NULL), SI_OK);
    expect("bind", context_bind(context, NULL), SI_OK);
    if (device != NULL)
        hold_work();
    expect("submit", context_submit(context, NULL, &sequence, NULL), SI_OK);
    expect("poll", context_poll(context, sequence, NULL), SI_PENDING);
}

static void finish(void)
{
    expect("context_free", context_free(context, NULL), SI_OK);
    expect("model_free", model_free(model, NULL), SI_OK);
    expect("engine_close", engine_close(engine, NULL), SI_OK);
}

/* Uses what the parent had, frees it, and starts anew. */
static void child(const char *path)
{
    expect("poll in the child", context_poll(context, sequence, NULL), SI_DEVICE_LOST);
    expect("wait in the child", context_wait(context, sequence, SI_TIMEOUT_INFINITE, NULL), SI_DEVICE_LOST);
    expect("submit in the child", context_submit(context, NULL, &sequence, NULL), SI_DEVICE_LOST);
    expect("cancel in the child", context_cancel(context, sequence, NULL), SI_DEVICE_LOST);
    expect("new in the child", context_new(model, NULL, &context, NULL), SI_DEVICE_LOST);
    finish();
    start(path, NULL);
    expect("cancel of the child's own", context_cancel(context, sequence, NULL), SI_OK);
    finish();
    exit(0);
}

static void *end_process(void *unused)
{
    (void)unused;
    exit(0);
}

int main(int argc, char **argv)
{
    void *library;
    if (argc != 4 && argc != 6)
        return 2;
    alarm(60);
    library = load_library(argv[3]);
    start(argc == 6 ? argv[5] : argv[2], argc == 6 ? argv[4] : NULL);
    if (strcmp(argv[1], "exit") == 0)
        return 0;
    if (strcmp(argv[1], "exit-elsewhere") == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, end_process, NULL);
        context_wait(context, sequence, SI_TIMEOUT_INFINITE, NULL);
        return 1;
    }
    if (strcmp(argv[1], "fork") == 0) {
        int status = 1;
        pid_t process = fork();
        if (process == 0)
            child(argv[2]);
        if (waitpid(process, &status, 0) != process || status != 0)
            return 1;
    } else {
        struct timespec while_it_computes = {0, 50000000};
        dlclose(library);
        nanosleep(&while_it_computes, NULL);
    }
    /* The request goes on as if nothing had been. */
    expect("poll", context_poll(context, sequence, NULL), SI_PENDING);
    expect("cancel", context_cancel(context, sequence, NULL), SI_OK);
    expect("wait", context_wait(context, sequence, SI_TIMEOUT_INFINITE, NULL), SI_CANCELLED);
    finish();
    return 0;
}
