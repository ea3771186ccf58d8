/*
 * Names the type of files: load, bind, write in place, run, read in place.
 *
 *     classify MODELS FILE...
 *
 * MODELS is the folder with magika.onnx and magika.config.json (make models). The model sees the first and the last 1024
 * bytes of a file without the white space around them, one number per byte, 256 where there is none.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <streaminfer.h>

enum { PART = 1024, BLOCK = 4096, PADDING = 256 };

static void check(si_result status, const si_error *error)
{
    if (status != SI_OK) {
        fprintf(stderr, "%s: %s\n", si_status_name(status), error->message);
        exit(1);
    }
}

/* Reads a whole small file as a string. */
static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = (char *)calloc(1, 1 << 20);
    if (file == NULL || text == NULL || fread(text, 1, (1 << 20) - 1, file) == 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    return text;
}

/* Prints string number `index` of the array of strings that stands behind `key`. */
static void print_label(const char *json, const char *key, size_t index)
{
    const char *at = strstr(json, key), *end;
    at = at == NULL ? NULL : strchr(at, '[');
    for (; at != NULL; at = end + 1) {
        at = strchr(at, '"');
        end = at == NULL ? NULL : strchr(at + 1, '"');
        if (end == NULL)
            break;
        if (index-- == 0) {
            printf("%.*s", (int)(end - at - 1), at + 1);
            return;
        }
    }
    printf("unknown");
}

/* Writes a file's features where the model reads them. Returns 0 if the file is too short to tell. */
static int write_features(FILE *file, int32_t *features)
{
    unsigned char block[BLOCK];
    size_t count, from, index;
    for (index = 0; index < 2 * PART; index++)
        features[index] = PADDING;
    count = fread(block, 1, BLOCK, file);
    for (from = 0; from < count && isspace(block[from]); from++)
        continue;
    if (count - from < 8)
        return 0;
    for (index = 0; index < PART && from + index < count; index++)
        features[index] = block[from + index];
    /* The last block, which in a short file is the first one. */
    if (fseek(file, -BLOCK, SEEK_END) == 0)
        count = fread(block, 1, BLOCK, file);
    while (count > 0 && isspace(block[count - 1]))
        count--;
    for (index = 0; index < PART && index < count; index++)
        features[2 * PART - 1 - index] = block[count - 1 - index];
    return 1;
}

int main(int argc, char **argv)
{
    si_error error;
    si_engine engine;
    si_model model;
    si_context context;
    si_bucket_input shape;
    si_bucket bucket;
    si_model_options options;
    si_tensor_view input, output;
    char path[4096], *config;
    int at;

    if (argc < 3) {
        fprintf(stderr, "usage: classify MODELS FILE...\n");
        return 2;
    }
    if (si_abi_version() != SI_ABI_VERSION) {
        fprintf(stderr, "this program was built for another version of the library\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/magika.config.json", argv[1]);
    config = read_text(path);

    /* Load: one request has the features of one file. */
    memset(&shape, 0, sizeof shape);
    shape.struct_size = sizeof shape;
    shape.rank = 2;
    shape.dims[0] = 1;
    shape.dims[1] = 2 * PART;
    memset(&bucket, 0, sizeof bucket);
    bucket.struct_size = sizeof bucket;
    bucket.input_count = 1;
    bucket.inputs = &shape;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.buckets = &bucket;
    options.bucket_count = 1;
    snprintf(path, sizeof path, "%s/magika.onnx", argv[1]);
    check(si_engine_open(NULL, &engine, &error), &error);
    check(si_model_load(engine, path, &options, &model, &error), &error);
    check(si_context_new(model, NULL, &context, &error), &error);
    check(si_context_prepare(context, &error), &error);

    /* Bind: this thread is the context's. */
    check(si_context_bind(context, &error), &error);
    memset(&input, 0, sizeof input);
    input.struct_size = sizeof input;
    memset(&output, 0, sizeof output);
    output.struct_size = sizeof output;
    check(si_context_input(context, 0, &input, &error), &error);
    check(si_context_output(context, 0, &output, &error), &error);

    for (at = 2; at < argc; at++) {
        FILE *file = fopen(argv[at], "rb");
        const float *scores = (const float *)output.data;
        size_t best = 0, index;
        if (file == NULL) {
            fprintf(stderr, "cannot read %s\n", argv[at]);
            return 1;
        }
        /* Write in place, run, read in place. */
        if (write_features(file, (int32_t *)input.data)) {
            check(si_context_run(context, NULL, &error), &error);
            for (index = 1; index < (size_t)output.dims[1]; index++)
                if (scores[index] > scores[best])
                    best = index;
            printf("%s: ", argv[at]);
            print_label(config, "\"target_labels_space\"", best);
            printf(" (%.1f %%)\n", 100 * (double)scores[best]);
        } else {
            printf("%s: too short to tell\n", argv[at]);
        }
        fclose(file);
    }

    check(si_context_unbind(context, &error), &error);
    check(si_context_free(context, &error), &error);
    check(si_model_free(model, &error), &error);
    check(si_engine_close(engine, &error), &error);
    free(config);
    return 0;
}
