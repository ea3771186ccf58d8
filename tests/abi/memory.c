/* What tests/memory.rs does from C: `memory MODEL`, y = 2 x + 1 for four floats. The input lies in a buffer of the host's own, the output
 * in memory that was taken; rows of device memory are written and read; freed memory is touched. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <streaminfer.h>

static si_engine engine;
static si_error error;

static void must(const char *what, int holds)
{
    if (!holds) {
        printf("%s does not hold (%.400s)\n", what, error.message);
        exit(1);
    }
}

static si_memory_options wanted(uint32_t kind)
{
    si_memory_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = (uint32_t)sizeof options;
    options.kind = kind;
    return options;
}

static si_memory_info info_of(si_memory memory)
{
    si_memory_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = (uint32_t)sizeof info;
    must("describe", si_memory_describe(memory, &info, &error) == SI_OK);
    return info;
}

static void tensors(const char *path)
{
    si_memory_options options;
    si_memory lent = {0}, taken = {0};
    si_model model = {0};
    si_context context = {0};
    si_stats stats;
    float *own = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    float *result;
    time_t start;
    must("pages", own != MAP_FAILED);

    options = wanted(SI_MEMORY_REGISTERED);
    options.address = own;
    options.bytes = 8192;
    must("register", si_memory_new(engine, &options, &lent, &error) == SI_OK);
    must("once only", si_memory_new(engine, &options, &taken, &error) == SI_INVALID_ARGUMENT);
    options = wanted(SI_MEMORY_PINNED);
    options.bytes = 100;
    must("take", si_memory_new(engine, &options, &taken, &error) == SI_OK);
    options.row_count = 1;
    must("no rows of pinned memory", si_memory_new(engine, &options, &taken, &error) == SI_INVALID_ARGUMENT);

    must("load", si_model_load(engine, path, NULL, &model, &error) == SI_OK);
    must("new", si_context_new(model, NULL, &context, &error) == SI_OK);
    must("attach input", si_context_attach_input(context, 0, lent, 4096, &error) == SI_OK);
    must("attach output", si_context_attach_output(context, 0, taken, 64, &error) == SI_OK);
    must("attached", info_of(lent).attached_count == 1 && info_of(taken).attached_count == 1);
    must("prepare", si_context_prepare(context, &error) == SI_OK);
    result = (float *)((char *)info_of(taken).address + 64);
    must("addresses", info_of(lent).address == (void *)own);
    /* The taken memory is freed first: it stays until the context is gone. */
    must("free", si_memory_free(taken, &error) == SI_OK);
    must("stale", si_memory_free(taken, &error) == SI_STALE_HANDLE);
    for (int round = 0; round < 10; round++) {
        for (int index = 0; index < 4; index++)
            own[1024 + index] = (float)(round + index);
        must("run", si_context_run(context, NULL, &error) == SI_OK);
        for (int index = 0; index < 4; index++)
            must("result", result[index] == (float)(2 * (round + index) + 1));
    }
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    must("stats", si_engine_stats(engine, &stats, &error) == SI_OK && stats.memories == 2);
    must("bytes", stats.memory_bytes == 100 && stats.registered_bytes == 8192);
    must("free", si_context_free(context, &error) == SI_OK && si_model_free(model, &error) == SI_OK);
    start = time(NULL);
    while (info_of(lent).attached_count != 0)
        must("an end of its use within 20 seconds", time(NULL) - start <= 20);
    must("free", si_memory_free(lent, &error) == SI_OK);
    must("unmap", munmap(own, 8192) == 0);
}

static void rows(void)
{
    si_memory_options options = wanted(SI_MEMORY_PITCHED);
    si_copy_options part;
    si_memory memory = {0};
    uint8_t from[3 * 100], into[3 * 100], column[3];
    options.row_count = 3;
    options.row_bytes = 100;
    must("rows", si_memory_new(engine, &options, &memory, &error) == SI_OK);
    must("pitch", info_of(memory).pitch_bytes % 64 == 0 && info_of(memory).address == NULL);
    for (int index = 0; index < 300; index++)
        from[index] = (uint8_t)index;
    must("write", si_memory_write(memory, NULL, from, sizeof from, &error) == SI_OK);
    must("read", si_memory_read(memory, NULL, into, sizeof into, &error) == SI_OK && memcmp(from, into, 300) == 0);
    must("too few", si_memory_read(memory, NULL, into, sizeof into - 1, &error) == SI_INVALID_ARGUMENT);
    memset(&part, 0, sizeof part);
    part.struct_size = (uint32_t)sizeof part;
    part.byte_index = 50;
    part.row_bytes = 1;
    must("column", si_memory_read(memory, &part, column, sizeof column, &error) == SI_OK);
    must("its bytes", column[0] == 50 && column[1] == 150 && column[2] == 250);
    must("free", si_memory_free(memory, &error) == SI_OK);
}

static sigjmp_buf before;

static void jump(int signal) { siglongjmp(before, signal); }

/* On the host device a byte of memory that was freed leads to nothing. */
static void too_late(void)
{
    si_engine_options host;
    si_memory_options options = wanted(SI_MEMORY_PINNED);
    si_memory memory = {0};
    volatile unsigned char *byte;
    int signal;
    memset(&host, 0, sizeof host);
    host.struct_size = (uint32_t)sizeof host;
    host.device = "host";
    must("open", si_engine_open(&host, &engine, &error) == SI_OK);
    options.bytes = 1;
    must("take", si_memory_new(engine, &options, &memory, &error) == SI_OK);
    byte = info_of(memory).address;
    must("zeroed", *byte == 0);
    must("free", si_memory_free(memory, &error) == SI_OK);
    must("handler", sigaction(SIGSEGV, &(struct sigaction){.sa_handler = jump}, NULL) == 0);
    signal = sigsetjmp(before, 1);
    if (signal == 0)
        *byte = 1;
    must("a fault", signal == SIGSEGV);
    must("close", si_engine_close(engine, &error) == SI_OK);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    must("open", si_engine_open(NULL, &engine, &error) == SI_OK);
    tensors(argv[1]);
    rows();
    must("close", si_engine_close(engine, &error) == SI_OK);
    too_late();
    return 0;
}
