/* Three rows in a bucket of four, declared through si_model_options: tests/padding.rs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <streaminfer.h>

static void expect(si_result status, si_result expected, const si_error *error)
{
    if (status != expected) {
        printf("%s instead of %s: %s\n", si_status_name(status), si_status_name(expected), error->message);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    si_engine engine;
    si_model model;
    si_context context;
    si_bucket_input shape;
    si_bucket bucket;
    si_padding padding;
    si_model_options options;
    si_tensor_view input, output;
    si_error error;
    if (argc != 2)
        return 2;
    memset(&error, 0, sizeof error);
    memset(&shape, 0, sizeof shape);
    memset(&bucket, 0, sizeof bucket);
    memset(&padding, 0, sizeof padding);
    memset(&options, 0, sizeof options);
    memset(&input, 0, sizeof input);
    memset(&output, 0, sizeof output);
    shape.struct_size = (uint32_t)sizeof shape;
    shape.rank = 2;
    shape.dims[0] = 4;
    shape.dims[1] = 2;
    bucket.struct_size = (uint32_t)sizeof bucket;
    bucket.input_count = 1;
    bucket.inputs = &shape;
    padding.struct_size = (uint32_t)sizeof padding;
    padding.kind = 3;
    padding.dimension = 1;
    options.struct_size = (uint32_t)sizeof options;
    options.buckets = &bucket;
    options.bucket_count = 1;
    options.paddings = &padding;
    options.padding_count = 1;
    input.struct_size = output.struct_size = (uint32_t)sizeof input;

    expect(si_engine_open(NULL, &engine, &error), SI_OK, &error);
    expect(si_model_load(engine, argv[1], &options, &model, &error), SI_INVALID_ARGUMENT, &error);
    padding.kind = SI_PADDING_BATCH;
    expect(si_model_load(engine, argv[1], &options, &model, &error), SI_OK, &error);
    expect(si_context_new(model, NULL, &context, &error), SI_OK, &error);
    expect(si_context_prepare(context, &error), SI_OK, &error);
    shape.dims[0] = 5;
    expect(si_context_shape(context, &bucket, &error), SI_NO_BUCKET, &error);
    shape.dims[0] = 3;
    expect(si_context_shape(context, &bucket, &error), SI_OK, &error);
    expect(si_context_input(context, 0, &input, &error), SI_OK, &error);
    expect(si_context_output(context, 0, &output, &error), SI_OK, &error);
    for (int64_t row = 0; row < input.dims[0]; row++)
        for (int64_t column = 0; column < input.dims[1]; column++)
            *(float *)((char *)input.data + row * input.strides_bytes[0] + column * input.strides_bytes[1]) = 1;
    expect(si_context_run(context, NULL, &error), SI_OK, &error);
    printf("%d rows of %d:", (int)output.dims[0], (int)(output.capacity_bytes / (uint64_t)output.strides_bytes[0]));
    for (int64_t row = 0; row < output.dims[0]; row++)
        for (int64_t column = 0; column < output.dims[1]; column++)
            printf(" %g", *(float *)((char *)output.data + row * output.strides_bytes[0] + column * output.strides_bytes[1]));
    printf("\n");
    expect(si_context_free(context, &error), SI_OK, &error);
    expect(si_model_free(model, &error), SI_OK, &error);
    expect(si_engine_close(engine, &error), SI_OK, &error);
    return 0;
}
