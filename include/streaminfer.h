/*
 * streaminfer 0.1.0 - predictable neural-network inference for services.
 * SPDX-License-Identifier: Apache-2.0 OR MIT
 *
 * Generated from src/ffi by `UPDATE_HEADER=1 cargo test --test header`; do not edit.
 *
 * The story in one breath: open an engine (a device), load a model (an ONNX file), make one context per worker, prepare
 * it, and from then on write inputs in place, run, read outputs in place.
 *
 *     si_engine engine = {0};
 *     si_model model = {0};
 *     si_context context = {0};
 *     si_tensor_view in = {sizeof in}, out = {sizeof out};
 *     si_error error;
 *
 *     if (si_engine_open(NULL, &engine, &error) || si_model_load(engine, "mlp.onnx", NULL, &model, &error) ||
 *         si_context_new(model, NULL, &context, &error) || si_context_prepare(context, &error) ||
 *         si_context_input(context, 0, &in, &error) || si_context_output(context, 0, &out, &error))
 *         die(error.message);
 *     fill(in.data);
 *     if (si_context_run(context, NULL, &error))
 *         die(error.message);
 *     use(out.data);
 *
 * OBJECTS. Six nouns: si_engine, si_model, si_context, si_event, si_batcher, si_memory. Each is a 64-bit handle in a struct of its own
 * type, passed by value; copies are equal. The zero handle is no object: freeing it is a no-op, anything else with it answers
 * SI_INVALID_HANDLE. A handle that was freed answers SI_STALE_HANDLE for ever, one of another noun SI_WRONG_TYPE, a
 * number that was never a handle SI_INVALID_HANDLE. None of these touches memory. An si_slot is a part of a batcher and names it;
 * the same holds for it, but that it is always given back by its own calls.
 *
 * OWNERSHIP. Objects may be freed in any order: what a context needs of its model, and a model of its engine, stays until
 * the last user is gone. Every pointer in this header is one of four: borrowed for the call; owned by the caller (and
 * freed with the function named); owned by an object, valid until a moment named; consumed. Outputs come last, are
 * written only on success, and then all of them.
 *
 * THREADS. Engines, models, events, batchers and memories: any thread, several at once. Contexts: one thread at a time; see si_context. The
 * library's own threads block all signals, and it installs no signal handler and no atexit function. A child made by fork()
 * has none of these threads: there, calls that need them answer SI_DEVICE_LOST, and the parent's objects can be freed; an engine
 * that the child opens itself works. The NVIDIA driver does not work in a child of a process that has started it: there is no GPU to open
 * there, and inputs, outputs, completion records and pinned memory of the parent's GPU are not to be touched.
 *
 * ERRORS. Every function that can fail returns an si_result and takes a last parameter si_error *error, which may be null
 * and says in words what went wrong. There is no hidden last error. Each function lists what it can return; in
 * addition any function can return SI_INVALID_ARGUMENT for a required pointer that is null, a struct_size that is wrong or a
 * value that is out of range, SI_OUT_OF_MEMORY, SI_INTERNAL and SI_PANICKED.
 *
 * PANICS. No panic crosses this border. One that happens inside becomes SI_PANICKED; a context that it happened in is
 * poisoned and answers SI_POISONED until it is freed. Everything else goes on.
 *
 * VERSIONS. Structs begin with struct_size, which the caller sets; the library reads and writes at most that many bytes,
 * so a host and a library of different age agree. Structs whose layout is frozen have none and say so. In options, zero
 * means the default; enumerations start at 1; an unknown value is an error. A host that opens the library at run time
 * compares si_abi_version() with SI_ABI_VERSION first.
 *
 * UNITS. Sizes end in _bytes, counts in _count, positions in _index, bounds in _max, times in _ns. Time stamps and
 * deadlines are nanoseconds of CLOCK_MONOTONIC.
 */

#ifndef STREAMINFER_H
#define STREAMINFER_H

#include <stddef.h>
#include <stdint.h>

#define SI_VERSION_MAJOR 0
#define SI_VERSION_MINOR 1
#define SI_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Objects ------------------------------------------------------------------------------------------------- */

/**
 * One opened device. Any thread may use it, several at once. Models, contexts, events and memories keep what they need of it, so
 * it may be closed before them; completions that are then still parked can no longer be reaped.
 */
typedef struct si_engine {
    /** 0 is no engine. */
    uint64_t handle;
} si_engine;

/**
 * One ONNX file at one precision: its weights on the device once, one program per bucket, shared by all contexts. Any
 * thread may use it, several at once. Contexts keep it alive, so it may be freed before them.
 */
typedef struct si_model {
    /** 0 is no model. */
    uint64_t handle;
} si_model;

/**
 * One lane of a model: its own stream, its own input and output memory, one request in flight.
 *
 * One thread at a time: a call that meets another answers SI_BUSY. A bound context belongs to the thread that bound it;
 * calls from elsewhere answer SI_WRONG_THREAD. si_context_cancel and si_context_free are exempt from both, and the end of the
 * owning thread unbinds. Order of calls: new, link and attach, prepare, then any number of requests, then free.
 */
typedef struct si_context {
    /** 0 is no context. */
    uint64_t handle;
} si_context;

/**
 * A mark in one context's order of work that other contexts can wait for, without the host waiting. Any thread may use
 * it, several at once. It may outlive the context that it marks.
 */
typedef struct si_event {
    /** 0 is no event. */
    uint64_t handle;
} si_event;

/**
 * A bounded queue in front of contexts of one model that merges requests into batches. Any thread may use it, several at once.
 *
 * The queue is the contexts' own memory: a request reserves a slot, which is rows of a batch that forms, writes its inputs
 * there, commits, and reads its outputs there. A batch closes when it is full and all of it is committed, after its delay, or in
 * time for the earliest deadline of its slots, and runs in the smallest of the model's buckets that holds it. What is not
 * committed by then has expired, and runs as padding; rows are proved independent when the model is loaded, so it changes nothing.
 * Requests are merged whose buckets differ in their batch alone.
 */
typedef struct si_batcher {
    /** 0 is no batcher. */
    uint64_t handle;
} si_batcher;

/**
 * The part of a batch that one request has: si_batcher_reserve, then si_slot_commit or si_slot_abandon, after a commit the end,
 * then si_slot_release. Its calls may come from different threads, one after the other; si_slot_cancel may come at any time.
 */
typedef struct si_slot {
    /** Its batcher's handle. */
    uint64_t batcher;
    /** What the batcher calls it, never twice the same; 0 is no slot. */
    uint64_t number;
} si_slot;

/**
 * Memory that a host takes from an engine's device or lends it, beside the inputs and outputs that contexts have anyway. Inputs and
 * outputs of contexts can be attached to host memory, so that a host with buffers of its own copies nothing. Device memory is for
 * hosts that keep data on the device and copy to and from it. Any thread may use it, several at once. It may be freed before the contexts
 * that it is attached to; they, and those that are linked to them, keep it until they are freed and drained.
 */
typedef struct si_memory {
    /** 0 is no memory. */
    uint64_t handle;
} si_memory;

/* ---- Versions ------------------------------------------------------------------------------------------------ */

/** Version of the binary interface. It grows only when a host built against an older header would break. */
#define SI_ABI_VERSION 1

/** Numbers of the structs, for `si_struct_bytes`. */
#define SI_STRUCT_ERROR 1

/** `si_device_info` */
#define SI_STRUCT_DEVICE_INFO 2

/** `si_engine_options` */
#define SI_STRUCT_ENGINE_OPTIONS 3

/** `si_stats` */
#define SI_STRUCT_STATS 4

/** `si_completion` */
#define SI_STRUCT_COMPLETION 5

/** `si_model_options` */
#define SI_STRUCT_MODEL_OPTIONS 6

/** `si_bucket` */
#define SI_STRUCT_BUCKET 7

/** `si_bucket_input` */
#define SI_STRUCT_BUCKET_INPUT 8

/** `si_padding` */
#define SI_STRUCT_PADDING 9

/** `si_model_info` */
#define SI_STRUCT_MODEL_INFO 10

/** `si_tensor_info` */
#define SI_STRUCT_TENSOR_INFO 11

/** `si_tensor_view` */
#define SI_STRUCT_TENSOR_VIEW 12

/** `si_context_options` */
#define SI_STRUCT_CONTEXT_OPTIONS 13

/** `si_submit_options` */
#define SI_STRUCT_SUBMIT_OPTIONS 14

/** `si_completion_record` */
#define SI_STRUCT_COMPLETION_RECORD 15

/** `si_timings` */
#define SI_STRUCT_TIMINGS 16

/** `si_batcher_options` */
#define SI_STRUCT_BATCHER_OPTIONS 17

/** `si_batch_stats` */
#define SI_STRUCT_BATCH_STATS 18

/** `si_memory_options` */
#define SI_STRUCT_MEMORY_OPTIONS 19

/** `si_memory_info` */
#define SI_STRUCT_MEMORY_INFO 20

/** `si_copy_options` */
#define SI_STRUCT_COPY_OPTIONS 21

/** `si_batch_timings` */
#define SI_STRUCT_BATCH_TIMINGS 22

/**
 * The library's binary interface version.
 *
 * @return The `SI_ABI_VERSION` that the library was built with. Refuse to go on when it is not the header's.
 * Threads: any. Since: 0.1.
 */
uint32_t si_abi_version(void);

/**
 * The library's version.
 *
 * @return A static string such as "0.1.0", valid for ever.
 * Threads: any. Since: 0.1.
 */
const char *si_version_string(void);

/**
 * The size that the library gives a struct.
 *
 * @param struct_id One of the `SI_STRUCT_*` numbers.
 * @return Bytes; 0 for a number that the library does not know. A library that is newer than the header may answer
 *     more than the header's size; less means that the library is older, and fields at the end are ignored.
 * Threads: any. Since: 0.1.
 */
uint32_t si_struct_bytes(uint32_t struct_id);

/* ---- Statuses and errors ------------------------------------------------------------------------------------- */

/** Bytes of `si_error.message`, terminating zero included. */
#define SI_ERROR_MESSAGE_BYTES 496

/** After the work of others. */
#define SI_PRIORITY_LOW 1

/** As others. The default. */
#define SI_PRIORITY_NORMAL 2

/** Before the work of others. */
#define SI_PRIORITY_HIGH 3

/**
 * What a call answers: 0 is success, 1 to 99 are answers that are no failure, everything else is a failure, grouped by
 * what the caller can do about it. Numbers are never reused; treat one you do not know by its group. (The name says
 * result because `<signal.h>` has a macro that says status.)
 */
typedef int32_t si_result;

/**
 * A failure in words. Owned by the caller; its layout is frozen, so it has no `struct_size`. Every function writes it
 * only when it fails (never for `SI_PENDING`, `SI_PARKED` or `SI_TOO_LATE`), and a null pointer is always allowed.
 */
typedef struct si_error {
    /** The status that the function returned. */
    si_result status;
    /** The operating system's or driver's own code, 0 if there is none. */
    int32_t native;
    /** One sentence in UTF-8, zero-terminated, naming the node, file, argument or symbol at fault. */
    char message[SI_ERROR_MESSAGE_BYTES];
} si_error;

/** Done. */
#define SI_OK 0

/** The request has not ended yet. */
#define SI_PENDING 1

/** The request is parked: a completion will announce it, or has been queued for `si_engine_reap`. */
#define SI_PARKED 2

/** The call came too late: `si_context_unpark` finds the completion on its way, `si_context_cancel` the request ended. */
#define SI_TOO_LATE 3

/** 1xx, the calling program is wrong: a pointer is null, a value out of range, or two values contradict each other. */
#define SI_INVALID_ARGUMENT 100

/** The handle is zero or was never issued by this library. */
#define SI_INVALID_HANDLE 101

/** The handle was valid once and has been freed. */
#define SI_STALE_HANDLE 102

/** The handle belongs to another noun. */
#define SI_WRONG_TYPE 103

/** The context is bound to another thread. */
#define SI_WRONG_THREAD 104

/** The object is in a state in which this call makes no sense. */
#define SI_WRONG_STATE 105

/** Another thread is inside a call on this context. */
#define SI_BUSY 106

/** The context already has a request in flight. */
#define SI_IN_FLIGHT 107

/** The event has not been recorded yet. */
#define SI_NOT_RECORDED 108

/** No prepared bucket has these shapes and shape-input values. */
#define SI_NO_BUCKET 109

/** A shape, rank or element type differs from what the model declares. */
#define SI_SHAPE_MISMATCH 110

/** 2xx, the model or its file is at fault: there is no such file. */
#define SI_NOT_FOUND 200

/** The file could not be read; `native` is the errno. */
#define SI_IO 201

/** The path leads outside the model's directory or is not a plain file. */
#define SI_FORBIDDEN_PATH 202

/** The file is not a well-formed ONNX model. */
#define SI_MALFORMED 203

/** The model, or an option, asks for something that this library or device does not support. */
#define SI_UNSUPPORTED 204

/** An extent depends on tensor data. */
#define SI_UNSUPPORTED_DYNAMIC 205

/** The model exceeds a bound of the library. */
#define SI_TOO_LARGE 206

/** 3xx, not now: the device's in-flight permits are out. Nothing happened; try again after a completion. */
#define SI_AGAIN 300

/** A bound on live objects is reached. */
#define SI_LIMIT_REACHED 301

/** Memory could not be had, or would exceed the engine's budget. */
#define SI_OUT_OF_MEMORY 302

/** The time ran out before the request ended; it goes on and the context is draining. */
#define SI_TIMEOUT 303

/** The request was cancelled; the context is draining until the device is done. */
#define SI_CANCELLED 304

/** The deadline passed before the request was started; nothing was computed. */
#define SI_EXPIRED 305

/** The context's last request was given up and the device has not finished it. */
#define SI_DRAINING 306

/** 4xx, the device: there is no such device, or no driver for it. */
#define SI_NO_DEVICE 400

/** A driver or operating system call failed; `native` is its code. */
#define SI_DRIVER 401

/** The device had a fatal fault; this process can no longer use it. */
#define SI_DEVICE_LOST 402

/** 5xx, the library: a defect in it. Please report the message. */
#define SI_INTERNAL 500

/** A panic was caught at the border; a context that was in use is poisoned. */
#define SI_PANICKED 501

/** An earlier panic poisoned this context: free it. */
#define SI_POISONED 502

/**
 * The name of a status.
 *
 * @param status Any number.
 * @return A static string such as "SI_NO_BUCKET", valid for ever; "unknown status" for any other number.
 * Threads: any. Since: 0.1.
 */
const char *si_status_name(si_result status);

/* ---- Devices ------------------------------------------------------------------------------------------------- */

/** The CPUs of this machine. */
#define SI_DEVICE_KIND_HOST 1

/** A CUDA GPU. */
#define SI_DEVICE_KIND_CUDA 2

/** The device works. */
#define SI_DEVICE_STATE_OK 1

/** The device had a fault that may be its last. */
#define SI_DEVICE_STATE_SUSPECT 2

/** The device is lost for this process. */
#define SI_DEVICE_STATE_DEAD 3

/** Bytes of `si_device_info.name` and `si_device_info.id`, terminating zero included. */
#define SI_DEVICE_NAME_BYTES 64

/** A device that an engine can be opened on. */
typedef struct si_device_info {
    /** Set by the caller to sizeof(si_device_info). */
    uint32_t struct_size;
    /** One of `SI_DEVICE_KIND_*`. */
    uint32_t kind;
    /** Processors: CPUs that this process may use, or multiprocessors of a GPU. */
    uint32_t processors;
    /** Zero. */
    uint32_t reserved;
    /** Memory of the device in bytes. */
    uint64_t memory_bytes;
    /** What `si_engine_options.device` takes, for example "host". Zero-terminated. */
    char id[SI_DEVICE_NAME_BYTES];
    /** The maker's name for it. Zero-terminated. */
    char name[SI_DEVICE_NAME_BYTES];
} si_device_info;

/**
 * Counts the devices of this machine. The host is always one of them, and always the last.
 *
 * @param out_count Receives the number, at least 1. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT.
 * Threads: any. Since: 0.1.
 */
si_result si_device_count(uint32_t *out_count, si_error *error);

/**
 * Describes one device.
 *
 * @param device_index From 0, below the count of `si_device_count`.
 * @param out_info Receives the description. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_NO_DEVICE for an index that is too high.
 * Threads: any. Since: 0.1.
 */
si_result si_device_describe(uint32_t device_index, si_device_info *out_info, si_error *error);

/* ---- Tensors ------------------------------------------------------------------------------------------------- */

/** IEEE 754 binary32, 4 bytes. Element types are little-endian. */
#define SI_DTYPE_F32 1

/** IEEE 754 binary16, 2 bytes. */
#define SI_DTYPE_F16 2

/** The upper half of a binary32, 2 bytes. */
#define SI_DTYPE_BF16 3

/** Signed integer, 8 bytes. */
#define SI_DTYPE_I64 4

/** Signed integer, 4 bytes. */
#define SI_DTYPE_I32 5

/** Signed integer, 1 byte. */
#define SI_DTYPE_I8 6

/** Unsigned integer, 1 byte. */
#define SI_DTYPE_U8 7

/** Truth value, 1 byte: 0 or 1. */
#define SI_DTYPE_BOOL 8

/** Highest rank of a tensor. */
#define SI_RANK_MAX 12

/** `si_tensor_info.flags`: the file declares no shape for this input or output; `rank` is 0 and says nothing. */
#define SI_TENSOR_RANK_OPEN 1

/** `si_tensor_info.flags`: a shape input. Its values are part of a bucket's key. */
#define SI_TENSOR_SHAPE_INPUT 2

/** `si_tensor_info.flags`: an initializer that the load options made overridable. */
#define SI_TENSOR_OVERRIDABLE 4

/** An input or output as the model declares it. */
typedef struct si_tensor_info {
    /** Set by the caller to sizeof(si_tensor_info). */
    uint32_t struct_size;
    /** One of `SI_DTYPE_*`; 0 for an output whose type only a bucket tells. */
    uint32_t dtype;
    /** Number of axes. */
    uint32_t rank;
    /** A sum of `SI_TENSOR_*`. */
    uint32_t flags;
    /** Extents, outermost first; -1 where the model leaves one open. */
    int64_t dims[SI_RANK_MAX];
    /** Names of symbolic axes, null where there is none. Owned by the model, valid until it is freed. */
    const char *dim_names[SI_RANK_MAX];
    /** ONNX name. Owned by the model, valid until it is freed. */
    const char *name;
} si_tensor_info;

/**
 * Where one input or output of a context lies for the bucket selected, or a slot's rows of it. The memory is owned by the
 * context and stays at its address from `si_context_prepare` until the context is freed; that of a slot is the slot's until it is
 * released or abandoned, or its batcher is freed. Afterwards it must not be touched. On the host device it lies in pages that no
 * other context shares; once a freed context's last request has ended (and those of contexts linked to it are freed), touching it is a
 * fault (SIGSEGV), and nothing else gets its address until 1024 more contexts of the engine, or 4 GiB of their inputs and outputs, have
 * been freed, the engine is gone, or memory runs out. On a GPU page-locked memory serves the engine's next context of about the same size, since giving it
 * back stalls the GPU: there a view that is used too late may read and overwrite that context's tensors. Element (i, j, ..) is at
 * `data + i * strides_bytes[0] + j * strides_bytes[1] + ..`.
 */
typedef struct si_tensor_view {
    /** Set by the caller to sizeof(si_tensor_view). */
    uint32_t struct_size;
    /** One of `SI_DTYPE_*`. */
    uint32_t dtype;
    /** Number of axes. */
    uint32_t rank;
    /** Zero. */
    uint32_t reserved;
    /** Extents, outermost first. */
    int64_t dims[SI_RANK_MAX];
    /**
     * Distance in bytes between neighbours along each axis. They belong to the prepared bucket, so a shape that is
     * padded to a larger bucket has gaps between its rows.
     */
    int64_t strides_bytes[SI_RANK_MAX];
    /** First element. Owned by the context, valid until it is freed, or by the slot, valid until it is given back; never null. */
    void *data;
    /** Bytes that may be touched from `data` on. */
    uint64_t capacity_bytes;
} si_tensor_view;

/* ---- Engines ------------------------------------------------------------------------------------------------- */

/**
 * For development: inputs are read-only while their request is in flight, so that writing to one too early is a fault (SIGSEGV)
 * at that instruction. It costs two system calls a request. Only the host device does it, and neither for inputs that are attached to
 * memory of the host's choice nor for batchers, where who came too late for a batch may write on.
 */
#define SI_ENGINE_GUARD_INPUTS 1

/** How an engine is opened. All zero (but struct_size) means every default; a null pointer does too. */
typedef struct si_engine_options {
    /** Set by the caller to sizeof(si_engine_options). */
    uint32_t struct_size;
    /** Host threads that a context computes with unless its own options say otherwise. 0: 1. */
    uint32_t threads;
    /** "auto", "host", "cuda:0" or a GPU's UUID. Borrowed for the call; null: "auto", the best device there is. */
    const char *device;
    /**
     * Requests that may be in flight on the device at once; a further submit answers SI_AGAIN. Of a GPU that several engines of
     * the process have open, the requests of all of them count, each engine against its own number: give them the same. 0: no bound.
     */
    uint32_t in_flight_max;
    /**
     * Live contexts, freed ones whose completion has not been reaped yet, and slots of batchers: all that may have a completion on
     * its way. A batcher takes one for each of its contexts and for each row of their largest batch. 0: 4096.
     */
    uint32_t contexts_max;
    /** Bytes that weights, arenas, inputs, outputs and memories (but registered ones) may take together. 0: no bound. */
    uint64_t memory_bytes_max;
    /** Sum of `SI_ENGINE_*`. 0: none. */
    uint32_t flags;
    /** Zero. */
    uint32_t reserved;
} si_engine_options;

/** What is alive and what it takes, at one moment. */
typedef struct si_stats {
    /** Set by the caller to sizeof(si_stats). */
    uint32_t struct_size;
    /** One of `SI_DEVICE_STATE_*`. */
    uint32_t device_state;
    /** Models alive, those included whose handle is freed while a context uses them. */
    uint32_t models;
    /** Contexts alive, those included that are freed and not drained yet. */
    uint32_t contexts;
    /** Events alive. */
    uint32_t events;
    /** Threads that the engine's contexts and reactor run, and the one that closes batches, if there has been a batcher. */
    uint32_t threads;
    /** Requests in flight. */
    uint32_t in_flight;
    /** Completions queued for `si_engine_reap`. */
    uint32_t completions;
    /** Bytes of weights on the device, packed. */
    uint64_t weights_bytes;
    /** Bytes of model files kept because the model was loaded from memory. */
    uint64_t retained_bytes;
    /** Bytes of arenas. */
    uint64_t arena_bytes;
    /** Bytes of inputs and outputs. */
    uint64_t pinned_bytes;
    /** Requests ended since the engine was opened. */
    uint64_t requests;
    /** Those of them that failed, expired or were cancelled. */
    uint64_t failures;
    /** Batchers alive, those included that are freed and not drained yet. */
    uint32_t batchers;
    /** Memories alive, those included that are freed while a context uses them. */
    uint32_t memories;
    /** Bytes of memories, registered ones left out. */
    uint64_t memory_bytes;
    /** Bytes of registered memories. */
    uint64_t registered_bytes;
} si_stats;

/** The end of a parked request or slot. Its layout is frozen. */
typedef struct si_completion {
    /** The context; for a slot, its batcher's handle. It may have been freed since. */
    si_context context;
    /** `si_submit_options.token` of the request, or what `si_slot_commit` was given. */
    uint64_t token;
    /** The request's sequence number; 0 for a slot. */
    uint32_t sequence;
    /** How it ended: SI_OK, SI_EXPIRED, SI_CANCELLED, SI_DEVICE_LOST or the failure of the computation. */
    si_result status;
} si_completion;

/**
 * Opens a device.
 *
 * @param options Borrowed for the call; null means every default.
 * @param out_engine Receives the engine, owned by the caller, free with si_engine_close.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_NO_DEVICE (the message says what was looked for), SI_LIMIT_REACHED,
 *     SI_OUT_OF_MEMORY, SI_DRIVER.
 * Threads: any. Since: 0.1.
 */
si_result si_engine_open(const si_engine_options *options, si_engine *out_engine, si_error *error);

/**
 * Closes an engine. Its models, contexts and events stay usable; the device is released with the last of them.
 *
 * @param engine Consumed. The zero handle is a no-op.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_engine_close(si_engine engine, si_error *error);

/**
 * Counts what is alive.
 *
 * @param engine Borrowed for the call.
 * @param out_stats Receives the figures. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_engine_stats(si_engine engine, si_stats *out_stats, si_error *error);

/**
 * Describes the device that an engine was opened on, which "auto" has chosen.
 *
 * @param engine Borrowed for the call.
 * @param out_info Receives the description. Owned by the caller.
 * @param out_passed_over Receives why "auto" has taken the host: the failure to open a GPU. SI_OK and no message if it did not have to.
 *     Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_engine_device(si_engine engine,
                           si_device_info *out_info,
                           si_error *out_passed_over,
                           si_error *error);

/**
 * Gives a file descriptor that becomes readable when completions of parked requests wait for `si_engine_reap`. It is an
 * eventfd: non-blocking, close-on-exec. One read of 8 bytes clears it; reading before reaping never loses a completion,
 * and a host that only polls the descriptor need not read at all, since reaping clears it too.
 *
 * @param engine Borrowed for the call.
 * @param out_fd Receives a fresh duplicate, owned by the caller, free with close().
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_DRIVER (no descriptor left).
 * Threads: any. Since: 0.1.
 */
si_result si_engine_completion_fd(si_engine engine,
                                  int32_t *out_fd,
                                  si_error *error);

/**
 * Takes completions of parked requests and slots out of the engine's queue, oldest first. Each is given exactly once, to
 * one caller. Its context is idle from then on.
 *
 * @param engine Borrowed for the call.
 * @param out_completions Receives the completions, room for completions_max. Owned by the caller.
 * @param completions_max How many at most, at least 1.
 * @param out_count Receives how many were taken, 0 if none waits. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_engine_reap(si_engine engine,
                         si_completion *out_completions,
                         uint32_t completions_max,
                         uint32_t *out_count,
                         si_error *error);

/* ---- Models -------------------------------------------------------------------------------------------------- */

/** IEEE 754 binary32 throughout. The default. */
#define SI_PRECISION_FP32 1

/** TensorFloat-32 products, the rest binary32. */
#define SI_PRECISION_TF32 2

/** binary16 storage, binary32 accumulation. */
#define SI_PRECISION_FP16 3

/** bfloat16 storage, binary32 accumulation. */
#define SI_PRECISION_BF16 4

/** The dimension counts independent rows. Proved by analysis of the model at load, or the load is refused. */
#define SI_PADDING_BATCH 1

/** The dimension may be padded because the model masks it. Checked at load: a padded run must equal the exact one. */
#define SI_PADDING_MASKED 2

/** One input of a bucket. */
typedef struct si_bucket_input {
    /** Set by the caller to sizeof(si_bucket_input), the same in all elements of an array. */
    uint32_t struct_size;
    /** Number of axes. */
    uint32_t rank;
    /** Extents, outermost first. */
    int64_t dims[SI_RANK_MAX];
    /** For a shape input, its values in the input's element type, row-major; null for all others. Borrowed for the call. */
    const void *value;
    /** Bytes of value. */
    uint64_t value_bytes;
} si_bucket_input;

/** One concrete set of input shapes, and the values of shape inputs. */
typedef struct si_bucket {
    /** Set by the caller to sizeof(si_bucket), the same in all elements of an array. */
    uint32_t struct_size;
    /** Elements of inputs: the model's number of inputs. */
    uint32_t input_count;
    /** Per model input its shape. Borrowed for the call. */
    const si_bucket_input *inputs;
} si_bucket;

/**
 * An axis of an input that may be smaller than its bucket's. What is unused of the input is filled before the request
 * starts.
 */
typedef struct si_padding {
    /** Set by the caller to sizeof(si_padding), the same in all elements of an array. */
    uint32_t struct_size;
    /** One of `SI_PADDING_*`. */
    uint32_t kind;
    /** A number of the caller's choice: axes with the same number always have the same extent. */
    uint32_t dimension;
    /** The input. */
    uint32_t input_index;
    /** The axis of that input. */
    uint32_t axis;
    /** Zero. */
    uint32_t reserved;
    /** What the unused part is filled with, for example 0 in an attention mask; converted to the input's element type. */
    double value;
} si_padding;

/** How a model is loaded. All zero (but struct_size) means every default; a null pointer does too. */
typedef struct si_model_options {
    /** Set by the caller to sizeof(si_model_options). */
    uint32_t struct_size;
    /** One of `SI_PRECISION_*`. 0: SI_PRECISION_FP32. The host device has no other. */
    uint32_t precision;
    /**
     * Buckets to make programs for at load. Borrowed for the call. With none, a model whose inputs all have fixed shapes
     * gets that one bucket; any other gets its buckets from si_model_add_bucket.
     */
    const si_bucket *buckets;
    /** Elements of buckets. */
    uint32_t bucket_count;
    /** Elements of paddings. */
    uint32_t padding_count;
    /** Axes that may be padded. Borrowed for the call. With none, a request has exactly the shapes of a bucket. */
    const si_padding *paddings;
    /** Names of initializers that become inputs, after the model's own and in this order. Borrowed for the call. */
    const char *const *overridables;
    /** Elements of overridables. */
    uint32_t overridable_count;
    /**
     * Multiprocessors of the GPU that this model's contexts run on, at least; other models that ask for some get others. The driver
     * gives them in groups: `si_model_info.multiprocessors` says how many there are. They are given back when the model is freed and
     * its last context is gone.
     * 0: the whole GPU, which models without a number share. The host device has none.
     */
    uint32_t multiprocessors;
} si_model_options;

/** What a model is and takes. */
typedef struct si_model_info {
    /** Set by the caller to sizeof(si_model_info). */
    uint32_t struct_size;
    /** One of `SI_PRECISION_*`. */
    uint32_t precision;
    /** Inputs, overridable initializers included. */
    uint32_t input_count;
    /** Outputs. */
    uint32_t output_count;
    /** Buckets that have a program. */
    uint32_t bucket_count;
    /** The ONNX operator set of the file. */
    uint32_t opset;
    /** Bytes of weights on the device, packed. */
    uint64_t weights_bytes;
    /** Bytes of the model file kept because the model was loaded from memory. */
    uint64_t retained_bytes;
    /** Equal fingerprints give bit-identical results. Over all buckets. */
    uint64_t fingerprint;
    /** Multiprocessors that its contexts run on: those asked for, rounded up, or all of the GPU; 0 on the host device. */
    uint32_t multiprocessors;
    /** Zero. */
    uint32_t reserved;
} si_model_info;

/**
 * Loads an ONNX file. External data is read from the file's own directory only.
 *
 * @param engine Borrowed for the call; the model keeps what it needs of it.
 * @param path Zero-terminated, borrowed for the call. si_model_add_bucket opens it again.
 * @param options Borrowed for the call; null means every default.
 * @param out_model Receives the model, owned by the caller, free with si_model_free.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_NOT_FOUND, SI_IO,
 *     SI_FORBIDDEN_PATH, SI_MALFORMED, SI_UNSUPPORTED, SI_UNSUPPORTED_DYNAMIC, SI_TOO_LARGE, SI_SHAPE_MISMATCH (a bucket does
 *     not suit the model), SI_LIMIT_REACHED, SI_OUT_OF_MEMORY, SI_DRIVER, SI_DEVICE_LOST. For multiprocessors: SI_TOO_LARGE (the GPU
 *     does not have so many), SI_LIMIT_REACHED (other models have the rest), SI_UNSUPPORTED (the host device has none; the GPU cannot
 *     give some of them, or not with this driver).
 * Threads: any. Since: 0.1.
 */
si_result si_model_load(si_engine engine,
                        const char *path,
                        const si_model_options *options,
                        si_model *out_model,
                        si_error *error);

/**
 * Loads an ONNX file from memory. The library keeps a copy of it (`si_model_info.retained_bytes`), since
 * si_model_add_bucket needs the weights once more; load from a path where that memory matters. External data is refused.
 *
 * @param engine Borrowed for the call; the model keeps what it needs of it.
 * @param data The file's bytes, borrowed for the call.
 * @param data_bytes Their number.
 * @param options Borrowed for the call; null means every default.
 * @param out_model Receives the model, owned by the caller, free with si_model_free.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return As si_model_load, without SI_NOT_FOUND and SI_IO.
 * Threads: any. Since: 0.1.
 */
si_result si_model_load_bytes(si_engine engine,
                              const uint8_t *data,
                              size_t data_bytes,
                              const si_model_options *options,
                              si_model *out_model,
                              si_error *error);

/**
 * Makes a program for one more bucket. Contexts that are prepared already do not get it. A control call: it may take as
 * long as a load. A bucket that the model has already is SI_OK.
 *
 * @param model Borrowed for the call.
 * @param bucket Borrowed for the call.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_SHAPE_MISMATCH, SI_NOT_FOUND, SI_IO,
 *     SI_WRONG_STATE (the file has changed since the load), SI_UNSUPPORTED, SI_UNSUPPORTED_DYNAMIC, SI_TOO_LARGE,
 *     SI_LIMIT_REACHED, SI_OUT_OF_MEMORY, SI_DRIVER, SI_DEVICE_LOST.
 * Threads: any. Since: 0.1.
 */
si_result si_model_add_bucket(si_model model,
                              const si_bucket *bucket,
                              si_error *error);

/**
 * Describes a model.
 *
 * @param model Borrowed for the call.
 * @param out_info Receives the description. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_model_describe(si_model model, si_model_info *out_info, si_error *error);

/**
 * Describes one input.
 *
 * @param model Borrowed for the call.
 * @param input_index From 0, in file order, then the overridable initializers.
 * @param out_info Receives the description. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_model_input(si_model model,
                         uint32_t input_index,
                         si_tensor_info *out_info,
                         si_error *error);

/**
 * Describes one output. Extents that are not the same in all buckets so far are -1.
 *
 * @param model Borrowed for the call.
 * @param output_index From 0, in file order.
 * @param out_info Receives the description. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_model_output(si_model model,
                          uint32_t output_index,
                          si_tensor_info *out_info,
                          si_error *error);

/**
 * Frees a model. Its weights and multiprocessors are given back when its last context is gone.
 *
 * @param model Consumed. The zero handle is a no-op.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_model_free(si_model model, si_error *error);

/* ---- Contexts ------------------------------------------------------------------------------------------------ */

/** Spin within a budget learnt from the last requests, while fewer threads spin than there are idle CPUs; then block. */
#define SI_WAIT_HYBRID 1

/** Spin while fewer threads spin than there are idle CPUs, without budget; else block. */
#define SI_WAIT_SPIN 2

/** Give the CPU away between looks. */
#define SI_WAIT_YIELD 3

/** Sleep at once. */
#define SI_WAIT_BLOCK 4

/** A timeout that never ends. */
#define SI_TIMEOUT_INFINITE UINT64_MAX

/** How a context is made. All zero (but struct_size) means every default; a null pointer does too. */
typedef struct si_context_options {
    /** Set by the caller to sizeof(si_context_options). */
    uint32_t struct_size;
    /** Host threads to compute with. 0: the engine's default. */
    uint32_t threads;
    /** One of `SI_WAIT_*`. 0: SI_WAIT_HYBRID. */
    uint32_t wait_policy;
    /** Elements of buckets. */
    uint32_t bucket_count;
    /**
     * The model's buckets to prepare. Borrowed for the call. With none: all that the model has when the context is
     * prepared.
     */
    const si_bucket *buckets;
    /**
     * One of `SI_PRIORITY_*`. 0: SI_PRIORITY_NORMAL. Of kernels that wait for a place on the GPU, those of the higher priority get it;
     * what runs is not interrupted. It does nothing on the host device, where the host's own scheduler decides.
     */
    uint32_t priority;
    /** Zero. */
    uint32_t reserved;
} si_context_options;

/** One request. All zero (but struct_size) means every default; a null pointer does too. */
typedef struct si_submit_options {
    /** Set by the caller to sizeof(si_submit_options). */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** Comes back in `si_completion.token`. */
    uint64_t token;
    /** CLOCK_MONOTONIC nanoseconds; a request that has not started by then ends with SI_EXPIRED. 0: none. */
    uint64_t deadline_ns;
} si_submit_options;

/**
 * What a context's device and host write when a request ends: two lines of 128 bytes, so that the two writers never
 * share a cache line. Owned by the context, valid until it is freed; read-only for the host. Its layout is frozen.
 *
 * Read `done` and `failed_sequence` with acquire semantics (C11 `atomic_load_explicit`, GCC `__atomic_load_n`). They are
 * a hint for a host that spins: a request has ended when `si_context_poll`, `si_context_wait` or `si_engine_reap` says so.
 */
typedef struct si_completion_record {
    /** Line 1. Sequence number of the last request that was computed to its end. */
    uint32_t done;
    /** Zero. */
    uint32_t reserved;
    /** When the device started that request, in nanoseconds of the device's clock (CLOCK_MONOTONIC on the host device). */
    uint64_t start_ns;
    /** When its inputs were in place. */
    uint64_t inputs_ns;
    /** When its outputs were computed. */
    uint64_t compute_ns;
    /** When its outputs were visible to the host. */
    uint64_t done_ns;
    /** Zero. */
    uint64_t reserved_device[11];
    /** Line 2. Sequence number of the last request that failed. */
    uint32_t failed_sequence;
    /** Why it failed, an `si_result`. */
    int32_t status;
    /** Zero. */
    uint64_t reserved_host[15];
} si_completion_record;

/** Where the time of a context's last ended request went, in nanoseconds of CLOCK_MONOTONIC. */
typedef struct si_timings {
    /** Set by the caller to sizeof(si_timings). */
    uint32_t struct_size;
    /** The request. */
    uint32_t sequence;
    /** When it was submitted. */
    uint64_t submit_ns;
    /** When the device started it. */
    uint64_t start_ns;
    /** When its inputs were in place. */
    uint64_t inputs_ns;
    /** When its outputs were computed. */
    uint64_t compute_ns;
    /** When its outputs were visible to the host. */
    uint64_t done_ns;
} si_timings;

/**
 * Makes a context. It has no memory and no threads before si_context_prepare.
 *
 * @param model Borrowed for the call; the context keeps what it needs of it.
 * @param options Borrowed for the call; null means every default.
 * @param out_context Receives the context, owned by the caller, free with si_context_free.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_NO_BUCKET (an option names a bucket
 *     that the model has not), SI_LIMIT_REACHED, SI_DEVICE_LOST.
 * Threads: any. Since: 0.1.
 */
si_result si_context_new(si_model model,
                         const si_context_options *options,
                         si_context *out_context,
                         si_error *error);

/**
 * Makes an input of the target be an output of the source, on the device, without a copy or a host round trip. Every
 * request of the target starts after what the source had been given before, and the source's next request starts after the
 * target's. Bucket i of the target belongs to bucket i of the source. The source must be prepared; target and source may be
 * the same context, whose output then becomes its own next input (state that stays on the device, zero at first). The target
 * reads the whole of the bucket's output, also when the source's request was padded.
 *
 * @param target Borrowed for the call; not prepared yet. It keeps the source's memory alive.
 * @param input_index The target's input. It has no host memory of its own any more.
 * @param source Borrowed for the call; of the same engine.
 * @param output_index The source's output. It stays readable by the host.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (an index is too high, the input is linked or attached already, the engines differ), SI_INVALID_HANDLE,
 *     SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE, SI_SHAPE_MISMATCH (element type, number of buckets or a bucket's shape),
 *     SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
 * Threads: the rule of both contexts. Since: 0.1.
 */
si_result si_context_link(si_context target,
                          uint32_t input_index,
                          si_context source,
                          uint32_t output_index,
                          si_error *error);

/**
 * Takes all memory, starts the threads and makes the replay of every bucket. The first bucket is selected. Nothing is
 * allocated afterwards. After a failure the context is as before.
 *
 * @param context Borrowed for the call.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (prepared already), SI_NO_BUCKET (the model has
 *     none; the message names the open dimensions), SI_INVALID_ARGUMENT (a bucket was added, and an attached memory is too small for it),
 *     SI_TOO_LARGE, SI_OUT_OF_MEMORY, SI_WRONG_THREAD, SI_BUSY, SI_POISONED,
 *     SI_DRIVER, SI_DEVICE_LOST.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_prepare(si_context context,
                             si_error *error);

/**
 * Makes the calling thread the context's owner.
 *
 * @param context Borrowed for the call.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (this thread owns it already),
 *     SI_WRONG_THREAD (another does), SI_BUSY, SI_POISONED, SI_DRIVER, SI_DEVICE_LOST.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_bind(si_context context, si_error *error);

/**
 * Gives the context up again: any one thread at a time may use it.
 *
 * @param context Borrowed for the call.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not bound), SI_WRONG_THREAD, SI_BUSY,
 *     SI_POISONED, SI_DRIVER.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_unbind(si_context context,
                            si_error *error);

/**
 * Selects the prepared bucket for the next request. Exactly these shapes, or, along axes that the load options made
 * paddable, the smallest bucket that holds them; the views then have these shapes within the bucket's strides. Contents of
 * inputs and outputs are undefined afterwards.
 *
 * @param context Borrowed for the call.
 * @param bucket Borrowed for the call.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_NO_BUCKET, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not
 *     prepared), SI_IN_FLIGHT, SI_DRAINING, SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_shape(si_context context,
                           const si_bucket *bucket,
                           si_error *error);

/**
 * Says where an input lies. The host writes there while the context is idle.
 *
 * @param context Borrowed for the call.
 * @param input_index From 0.
 * @param out_view Receives the view, whose data is owned by the context. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE
 *     (not prepared, or the input is linked), SI_DRAINING, SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_input(si_context context,
                           uint32_t input_index,
                           si_tensor_view *out_view,
                           si_error *error);

/**
 * Says where an output lies. The host reads there after a request has ended with SI_OK and before the next submit.
 *
 * @param context Borrowed for the call.
 * @param output_index From 0.
 * @param out_view Receives the view, whose data is owned by the context. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE
 *     (not prepared), SI_DRAINING, SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_output(si_context context,
                            uint32_t output_index,
                            si_tensor_view *out_view,
                            si_error *error);

/**
 * Starts a request on the inputs as they are, and returns at once. The host leaves inputs and outputs alone until the
 * request has ended. It launches or refuses, it never queues, and a refusal uses no sequence number.
 *
 * @param context Borrowed for the call.
 * @param options Borrowed for the call; null means every default.
 * @param out_sequence Receives the request's number, from 1 upwards, never 0. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_AGAIN (the device's in-flight permits are out), SI_IN_FLIGHT, SI_DRAINING, SI_EXPIRED, SI_INVALID_ARGUMENT,
 *     SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not prepared), SI_WRONG_THREAD, SI_BUSY, SI_POISONED,
 *     SI_DRIVER, SI_DEVICE_LOST.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_submit(si_context context,
                            const si_submit_options *options,
                            uint32_t *out_sequence,
                            si_error *error);

/**
 * Gives the completion record, for a host that spins by itself.
 *
 * @param context Borrowed for the call.
 * @param out_record Receives a pointer that is owned by the context, valid until it is freed.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not prepared),
 *     SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_completion(si_context context,
                                const si_completion_record **out_record,
                                si_error *error);

/**
 * Says whether a request has ended, without waiting. For the last ended request it repeats the answer.
 *
 * @param context Borrowed for the call.
 * @param sequence The context's last request.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK (it has ended and its outputs may be read), SI_PENDING, SI_PARKED, or how it failed: SI_EXPIRED, SI_CANCELLED,
 *     SI_TIMEOUT, SI_DEVICE_LOST, or the failure of the computation. Of the call itself: SI_INVALID_ARGUMENT (not the last
 *     request), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not prepared), SI_WRONG_THREAD, SI_BUSY,
 *     SI_POISONED.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_poll(si_context context,
                          uint32_t sequence,
                          si_error *error);

/**
 * Waits until a request has ended, as the context's wait policy says.
 *
 * @param context Borrowed for the call.
 * @param sequence The context's last request.
 * @param timeout_ns At most this long; 0 polls, SI_TIMEOUT_INFINITE waits for good.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return As si_context_poll, without SI_PENDING (a timeout of 0 excepted), and SI_TIMEOUT when the time runs out: the request
 *     goes on, its memory must not be touched, and the context is draining until the device is done.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_wait(si_context context,
                          uint32_t sequence,
                          uint64_t timeout_ns,
                          si_error *error);

/**
 * Asks for a completion in the engine's queue instead of a waiting thread. Success promises exactly one completion, also
 * when the request has ended already, is cancelled, or its context is freed.
 *
 * @param context Borrowed for the call.
 * @param sequence The request in flight.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (not the last request), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (no
 *     request in flight, or parked already), SI_DRAINING, SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_park(si_context context,
                          uint32_t sequence,
                          si_error *error);

/**
 * Takes a parked request back.
 *
 * @param context Borrowed for the call.
 * @param sequence The parked request.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK (no completion will come; poll or wait again), SI_TOO_LATE (one will), SI_INVALID_ARGUMENT (not the last
 *     request), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (not parked), SI_WRONG_THREAD, SI_BUSY,
 *     SI_POISONED.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_unpark(si_context context,
                            uint32_t sequence,
                            si_error *error);

/**
 * Gives a request up. Whoever waits for it gets SI_CANCELLED at once. Its memory must not be touched, and the context is
 * draining, until the device is done: until si_context_input and si_context_output no longer answer SI_DRAINING.
 *
 * @param context Borrowed for the call.
 * @param sequence The request in flight.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_TOO_LATE (it has ended or was given up before), SI_INVALID_ARGUMENT (no such
 *     request yet), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any, also while another thread waits, also for a context bound elsewhere. Since: 0.1.
 */
si_result si_context_cancel(si_context context,
                            uint32_t sequence,
                            si_error *error);

/**
 * Submits and waits.
 *
 * @param context Borrowed for the call.
 * @param options Borrowed for the call; null means every default.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return As si_context_submit and si_context_wait without timeout.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_run(si_context context, const si_submit_options *options, si_error *error);

/**
 * Says where the time of the last ended request went.
 *
 * @param context Borrowed for the call.
 * @param out_timings Receives the time stamps. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (no request has ended yet,
 *     or one is in flight), SI_WRONG_THREAD, SI_BUSY, SI_POISONED.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_timings(si_context context,
                             si_timings *out_timings,
                             si_error *error);

/**
 * Frees a context. A request in flight is cancelled first; its memory and threads go when the device is done, and the call
 * does not wait for that. A thread that is inside a call on it leaves that call first. A freed memory that nothing else uses goes
 * with it: on a GPU, parked requests of the engine may be told of their ends later by the time that the driver takes for that.
 *
 * @param context Consumed. The zero handle is a no-op.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any, also for a context bound elsewhere. Since: 0.1.
 */
si_result si_context_free(si_context context,
                          si_error *error);

/* ---- Events -------------------------------------------------------------------------------------------------- */

/**
 * Makes an event, not recorded yet.
 *
 * @param engine Borrowed for the call; contexts of this engine may use the event.
 * @param out_event Receives the event, owned by the caller, free with si_event_free.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_LIMIT_REACHED, SI_DRIVER.
 * Threads: any. Since: 0.1.
 */
si_result si_event_new(si_engine engine, si_event *out_event, si_error *error);

/**
 * Moves the mark behind everything submitted to the context so far. Waits that were asked for earlier keep the mark that
 * they saw.
 *
 * @param event Borrowed for the call.
 * @param context Borrowed for the call; of the event's engine.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (different engines), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE,
 *     SI_WRONG_STATE (the context is not prepared), SI_WRONG_THREAD, SI_BUSY, SI_POISONED, SI_DEVICE_LOST.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_event_record(si_event event,
                          si_context context,
                          si_error *error);

/**
 * Lets the context's next submit start only after the mark. The call itself returns at once: the stream waits, not the
 * host.
 *
 * @param event Borrowed for the call.
 * @param context Borrowed for the call; of the event's engine.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_NOT_RECORDED, SI_INVALID_ARGUMENT (different engines), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE,
 *     SI_WRONG_STATE (the context is not prepared), SI_LIMIT_REACHED (too many waits before one submit), SI_WRONG_THREAD,
 *     SI_BUSY, SI_POISONED, SI_DEVICE_LOST.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_event_wait(si_event event,
                        si_context context,
                        si_error *error);

/**
 * Frees an event. Waits that were asked for stay in force.
 *
 * @param event Consumed. The zero handle is a no-op.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_event_free(si_event event, si_error *error);

/* ---- Batchers ------------------------------------------------------------------------------------------------ */

/** How a batcher is made. All zero (but struct_size) means every default; a null pointer does too. */
typedef struct si_batcher_options {
    /** Set by the caller to sizeof(si_batcher_options). */
    uint32_t struct_size;
    /** Contexts, each of which holds one batch that forms, runs or is read, at most 64. 0: 2. */
    uint32_t contexts;
    /** Host threads that each context computes with. 0: the engine's default. */
    uint32_t threads;
    /** Elements of buckets. */
    uint32_t bucket_count;
    /** The model's buckets to use. Borrowed for the call. With none: all that the model has now. */
    const si_bucket *buckets;
    /** How long a batch waits for more requests after its first. 0: a millisecond. */
    uint64_t delay_ns;
    /** One of `SI_PRIORITY_*`, as of a context. 0: SI_PRIORITY_NORMAL. */
    uint32_t priority;
    /** Zero. */
    uint32_t reserved;
} si_batcher_options;

/** What a batcher is at, and what has happened since it was made. */
typedef struct si_batch_stats {
    /** Set by the caller to sizeof(si_batch_stats). */
    uint32_t struct_size;
    /** Kinds of requests that are not merged with each other: the model's buckets, without their batch. */
    uint32_t class_count;
    /** Slots that are not given back. */
    uint32_t slots;
    /** Batches that take reservations or wait for their slots. */
    uint32_t forming;
    /** Batches on the device, or refused by it for now. */
    uint32_t running;
    /** Zero. */
    uint32_t reserved;
    /** Slots reserved. */
    uint64_t reservations;
    /** Reservations refused with SI_AGAIN. */
    uint64_t refusals;
    /** Slots that ended with SI_OK. */
    uint64_t completed;
    /** Slots abandoned. */
    uint64_t abandoned;
    /** Reservations refused and slots ended with SI_EXPIRED. */
    uint64_t expired;
    /** Slots ended with SI_CANCELLED or SI_TIMEOUT. */
    uint64_t cancelled;
    /** Slots whose batch failed. */
    uint64_t failed;
    /** Batches launched. */
    uint64_t batches;
    /** Rows that they ran for slots. */
    uint64_t rows;
    /** Rows that they ran for nobody. */
    uint64_t padding_rows;
} si_batch_stats;

/** Where the time of a slot's batch went. Moments are nanoseconds of CLOCK_MONOTONIC. */
typedef struct si_batch_timings {
    /** Set by the caller to sizeof(si_batch_timings). */
    uint32_t struct_size;
    /** Rows that the batch ran for slots. */
    uint32_t rows;
    /** Rows of the bucket that it ran in. */
    uint32_t bucket_rows;
    /** Zero. */
    uint32_t reserved;
    /** The batch: its batcher counts them from 1. */
    uint64_t batch;
    /** What its bucket usually took from submit to end, when it was closed. No moment but a time. */
    uint64_t service_ns;
    /** When its first slot was reserved. */
    uint64_t open_ns;
    /** When it closed. */
    uint64_t close_ns;
    /** When it was submitted. */
    uint64_t submit_ns;
    /** When the device started it. */
    uint64_t start_ns;
    /** When its inputs were in place. */
    uint64_t inputs_ns;
    /** When its outputs were computed. */
    uint64_t compute_ns;
    /** When its outputs were visible to the host. */
    uint64_t done_ns;
} si_batch_timings;

/**
 * Makes a batcher with its contexts, and measures how long each bucket takes: it runs each of them twice. Nothing is
 * allocated afterwards.
 *
 * @param model Borrowed for the call; the batcher keeps what it needs of it. It was loaded with one padding dimension of the kind
 *     SI_PADDING_BATCH, which every input but shape inputs has.
 * @param options Borrowed for the call; null means every default.
 * @param out_batcher Receives the batcher, owned by the caller, free with si_batcher_free.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_UNSUPPORTED (no batch dimension, more than one, or an input without it), SI_NO_BUCKET, SI_SHAPE_MISMATCH,
 *     SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_TOO_LARGE, SI_LIMIT_REACHED
 *     (si_engine_options.contexts_max, or no thread), SI_OUT_OF_MEMORY, SI_AGAIN, SI_DRIVER, SI_DEVICE_LOST.
 * Threads: any. Since: 0.1.
 */
si_result si_batcher_new(si_model model,
                         const si_batcher_options *options,
                         si_batcher *out_batcher,
                         si_error *error);

/**
 * Takes rows of a batch that forms. They are filled where the request is smaller than its bucket; what the request has of
 * them holds anything.
 *
 * @param batcher Borrowed for the call.
 * @param bucket The request's shapes, and the values of shape inputs. Borrowed for the call. Its batch is the number of rows to take, at
 *     most that of the largest bucket; other axes that the load options made paddable may be smaller than the bucket's, too.
 * @param deadline_ns CLOCK_MONOTONIC nanoseconds. The batch closes early enough that it usually ends by then; a slot that cannot
 *     have its result by then does not run. 0: none.
 * @param out_slot Receives the slot, owned by the caller, free with si_slot_abandon or, once committed, si_slot_release.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_AGAIN (every batch is full, running or being read), SI_EXPIRED (the deadline cannot be met),
 *     SI_NO_BUCKET, SI_SHAPE_MISMATCH (the number of inputs), SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE,
 *     SI_WRONG_STATE (the batcher is being freed), SI_POISONED (panics have left no context), SI_DEVICE_LOST.
 * Threads: any. Since: 0.1.
 */
si_result si_batcher_reserve(si_batcher batcher,
                             const si_bucket *bucket,
                             uint64_t deadline_ns,
                             si_slot *out_slot,
                             si_error *error);

/**
 * Counts what the batcher is at and has done.
 *
 * @param batcher Borrowed for the call.
 * @param out_stats Receives the figures. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_batcher_stats(si_batcher batcher, si_batch_stats *out_stats, si_error *error);

/**
 * Frees a batcher. Its slots are cancelled first: waiters return, and parked slots have their completions. Nobody may touch a
 * slot's memory any more. Contexts, memory and threads go when the device is done, and the call does not wait for that.
 *
 * @param batcher Consumed. The zero handle is a no-op.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_batcher_free(si_batcher batcher,
                          si_error *error);

/**
 * Says where a slot's rows of an input lie. Its owner writes there from si_batcher_reserve to si_slot_commit, in place: there is no
 * copy. A slot that has expired meanwhile keeps its rows until it is abandoned.
 *
 * @param slot Borrowed for the call.
 * @param input_index From 0.
 * @param out_view Receives the view, whose data is owned by the slot. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_WRONG_STATE (a shape input, whose values are the bucket's),
 *     SI_IN_FLIGHT (committed, and not ended), or how the slot ended; SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_input(si_slot slot,
                        uint32_t input_index,
                        si_tensor_view *out_view,
                        si_error *error);

/**
 * Says where a slot's rows of an output lie, or the whole of an output that does not depend on the batch. Its owner reads there
 * from the slot's end with SI_OK to si_slot_release.
 *
 * @param slot Borrowed for the call.
 * @param output_index From 0.
 * @param out_view Receives the view, whose data is owned by the slot. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (the index is too high), SI_WRONG_STATE (not committed), SI_IN_FLIGHT (not ended), or how the
 *     slot failed; SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_output(si_slot slot,
                         uint32_t output_index,
                         si_tensor_view *out_view,
                         si_error *error);

/**
 * Says where the time of the batch went in which a slot has run.
 *
 * @param slot Borrowed for the call.
 * @param out_timings Receives the times. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_WRONG_STATE (not committed), SI_IN_FLIGHT (not ended), or how the slot failed;
 *     SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_timings(si_slot slot,
                          si_batch_timings *out_timings,
                          si_error *error);

/**
 * Says that a slot's inputs are written: it runs with its batch. The call that completes a batch launches it.
 *
 * @param slot Borrowed for the call. Its owner leaves its memory alone until it has ended.
 * @param token Comes back in `si_completion.token`.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_EXPIRED (its batch has closed without it: abandon it), SI_IN_FLIGHT (committed before), SI_WRONG_STATE (it has
 *     ended with SI_OK), or how it ended; SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_commit(si_slot slot,
                         uint64_t token,
                         si_error *error);

/**
 * Gives a slot back that has not been committed. Its rows are another's at once, unless its batch runs.
 *
 * @param slot Consumed.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_IN_FLIGHT (committed: cancel it), SI_WRONG_STATE (it has ended: release it), SI_INVALID_HANDLE, SI_STALE_HANDLE,
 *     SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_abandon(si_slot slot,
                          si_error *error);

/**
 * Says whether a slot has ended, without waiting.
 *
 * @param slot Borrowed for the call.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK (it has ended and its outputs may be read), SI_PENDING, SI_PARKED (until its completion is reaped), or how it failed:
 *     SI_EXPIRED, SI_CANCELLED, SI_TIMEOUT, SI_DEVICE_LOST, or the failure of its batch. Of the call itself: SI_WRONG_STATE (not
 *     committed), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_poll(si_slot slot,
                       si_error *error);

/**
 * Waits until a slot has ended. The thread sleeps.
 *
 * @param slot Borrowed for the call.
 * @param timeout_ns At most this long; 0 polls, SI_TIMEOUT_INFINITE waits for good.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return As si_slot_poll, without SI_PENDING (a timeout of 0 excepted), and SI_TIMEOUT when the time runs out: the slot is given up,
 *     as by si_slot_cancel.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_wait(si_slot slot,
                       uint64_t timeout_ns,
                       si_error *error);

/**
 * Asks for a completion in the engine's queue instead of a waiting thread. Success promises exactly one, also when the slot has
 * ended already, is cancelled or released, or its batcher is freed.
 *
 * @param slot Borrowed for the call.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_WRONG_STATE (not committed, or asked for before), SI_EXPIRED (its batch has closed without it),
 *     SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_park(si_slot slot,
                       si_error *error);

/**
 * Gives a committed slot up. Whoever waits for it gets SI_CANCELLED at once; it can be released at once, too. Its rows are
 * nobody else's before its batch is over.
 *
 * @param slot Borrowed for the call.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_TOO_LATE (it has ended or was given up before), SI_WRONG_STATE (not committed: abandon it), SI_INVALID_HANDLE,
 *     SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any, also while another thread waits. Since: 0.1.
 */
si_result si_slot_cancel(si_slot slot,
                         si_error *error);

/**
 * Gives a slot back that has ended. Its memory is another's once all slots of its batch are given back and their completions
 * reaped.
 *
 * @param slot Consumed.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_IN_FLIGHT (not ended: cancel it first), SI_WRONG_STATE (not committed: abandon it), SI_INVALID_HANDLE,
 *     SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_slot_release(si_slot slot,
                          si_error *error);

/* ---- Memories ------------------------------------------------------------------------------------------------ */

/** Host memory that the library takes, zeroed: page-locked and mapped on a GPU, pages of their own on the host device. */
#define SI_MEMORY_PINNED 1

/** The host's own memory: page-locked and mapped on a GPU while it is registered. */
#define SI_MEMORY_REGISTERED 2

/** Rows of device memory, each of which begins where the device accesses it best; on the host device, with a cache line of 64 bytes. */
#define SI_MEMORY_PITCHED 3

/** Rows of device memory without gaps between them. */
#define SI_MEMORY_LINEAR 4

/** The host's own memory begins at a multiple of this. */
#define SI_MEMORY_PAGE_BYTES 4096

/** An input or output begins at a multiple of this in the memory that it is attached to. */
#define SI_MEMORY_ALIGNMENT 64

/** What memory is to be had. Fields that a kind has no use for are zero. */
typedef struct si_memory_options {
    /** Set by the caller to sizeof(si_memory_options). */
    uint32_t struct_size;
    /** One of `SI_MEMORY_*`. */
    uint32_t kind;
    /**
     * SI_MEMORY_REGISTERED: the first byte, at a multiple of SI_MEMORY_PAGE_BYTES. Owned by the caller, who keeps it mapped and writable
     * at this address until si_memory_free, and beyond if `attached_count` was not 0 then.
     */
    void *address;
    /** SI_MEMORY_PINNED and SI_MEMORY_REGISTERED: how many bytes. */
    uint64_t bytes;
    /** SI_MEMORY_PITCHED and SI_MEMORY_LINEAR: how many rows. */
    uint64_t row_count;
    /** SI_MEMORY_PITCHED and SI_MEMORY_LINEAR: bytes of a row. */
    uint64_t row_bytes;
    /** SI_MEMORY_PITCHED: bytes of the elements that the device will access rows by: 4, 8 or 16. 0: 16. */
    uint32_t element_bytes;
    /** Zero. */
    uint32_t reserved;
} si_memory_options;

/** A memory in figures. */
typedef struct si_memory_info {
    /** Set by the caller to sizeof(si_memory_info). */
    uint32_t struct_size;
    /** One of `SI_MEMORY_*`. */
    uint32_t kind;
    /**
     * Where the host reads and writes it in place; null for device memory. Owned by the memory (or, if it is registered, by the host), valid
     * until it is freed and no context uses it any more.
     */
    void *address;
    /** All its bytes, gaps between rows included. */
    uint64_t bytes;
    /** Rows; 1 for host memory. */
    uint64_t row_count;
    /** Bytes of a row; all for host memory. */
    uint64_t row_bytes;
    /** Bytes from the start of a row to that of the next. */
    uint64_t pitch_bytes;
    /**
     * Inputs and outputs that are attached to it. One counts until its context, and every context that is linked to that one, is freed
     * and drained. A host that wants its registered memory back frees the contexts, waits for 0, and frees this while no other thread
     * is inside a call with it.
     */
    uint32_t attached_count;
    /** Zero. */
    uint32_t reserved;
} si_memory_info;

/**
 * A part of rows of device memory, and how it lies in the host's. All zero (but struct_size) is everything, without gaps; a null pointer is,
 * too.
 */
typedef struct si_copy_options {
    /** Set by the caller to sizeof(si_copy_options). */
    uint32_t struct_size;
    /** Zero. */
    uint32_t reserved;
    /** The first row. */
    uint64_t row_index;
    /** How many rows. 0: all from the first on. */
    uint64_t row_count;
    /** The first byte of each row. */
    uint64_t byte_index;
    /** How many bytes of each row. 0: all from the first on. */
    uint64_t row_bytes;
    /** In the host's memory, bytes from the start of a row to that of the next. 0: as many as are copied of each. */
    uint64_t pitch_bytes;
} si_copy_options;

/**
 * Takes memory, or registers the host's own. This is for setting up: on a GPU, it and si_memory_free may wait for all that the GPU is
 * at, and hold up what others submit meanwhile.
 *
 * @param engine Borrowed for the call; contexts of this engine may use the memory.
 * @param options Borrowed for the call; required.
 * @param out_memory Receives the memory, owned by the caller, free with si_memory_free.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (a field of another kind is set, nothing is asked for, or a range is null, not aligned, not all there or
 *     registered already), SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_TOO_LARGE, SI_LIMIT_REACHED, SI_OUT_OF_MEMORY,
 *     SI_DRIVER, SI_DEVICE_LOST.
 * Threads: any. Since: 0.1.
 */
si_result si_memory_new(si_engine engine,
                        const si_memory_options *options,
                        si_memory *out_memory,
                        si_error *error);

/**
 * Describes a memory.
 *
 * @param memory Borrowed for the call.
 * @param out_info Receives the description. Owned by the caller.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_memory_describe(si_memory memory, si_memory_info *out_info, si_error *error);

/**
 * Copies rows from the host to device memory, and returns when they are there.
 *
 * @param memory Borrowed for the call; SI_MEMORY_PITCHED or SI_MEMORY_LINEAR.
 * @param options Which rows, and how they lie in data. Borrowed for the call; null means all of them, without gaps.
 * @param data Where the first byte of the first row is. Borrowed for the call; page-locked memory is faster.
 * @param data_bytes How many bytes may be read from there on.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (host memory, or rows or bytes that are not in the memory or in data), SI_INVALID_HANDLE,
 *     SI_STALE_HANDLE, SI_WRONG_TYPE, SI_DRIVER, SI_DEVICE_LOST.
 * Threads: any. Since: 0.1.
 */
si_result si_memory_write(si_memory memory,
                          const si_copy_options *options,
                          const uint8_t *data,
                          size_t data_bytes,
                          si_error *error);

/**
 * Copies rows from device memory to the host, and returns when they are there. Bytes between rows are left alone.
 *
 * @param memory Borrowed for the call; SI_MEMORY_PITCHED or SI_MEMORY_LINEAR.
 * @param options Which rows, and how they lie in out_data. Borrowed for the call; null means all of them, without gaps.
 * @param out_data Where the first byte of the first row goes. Owned by the caller; page-locked memory is faster.
 * @param data_bytes How many bytes may be written from there on.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (host memory, or rows or bytes that are not in the memory or in out_data), SI_INVALID_HANDLE,
 *     SI_STALE_HANDLE, SI_WRONG_TYPE, SI_DRIVER, SI_DEVICE_LOST. After the last two, what out_data holds is undefined.
 * Threads: any. Since: 0.1.
 */
si_result si_memory_read(si_memory memory,
                         const si_copy_options *options,
                         uint8_t *out_data,
                         size_t data_bytes,
                         si_error *error);

/**
 * Makes an input of a context lie in host memory of the host's choice: the device reads it there, and nothing is copied. What is there
 * stays, but for values of shape inputs and what padding fills. It needs as many bytes as the input has in the largest bucket.
 *
 * @param target The context. Borrowed for the call; not prepared yet. It keeps the memory until it, and every context that is
 *     linked to it, is freed and drained.
 * @param input_index The context's input. `si_context_input` then gives an address in the memory.
 * @param memory Borrowed for the call; SI_MEMORY_PINNED or SI_MEMORY_REGISTERED, of the context's engine.
 * @param byte_offset Where in the memory the input begins: a multiple of SI_MEMORY_ALIGNMENT.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_ARGUMENT (an index that is too high, an input that is linked or attached already, device memory, different
 *     engines, an offset that is not aligned, a memory that is too small, or a part of it that another input or output has),
 *     SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE, SI_WRONG_STATE (prepared already), SI_WRONG_THREAD, SI_BUSY, SI_POISONED,
 *     SI_DEVICE_LOST.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_attach_input(si_context target,
                                  uint32_t input_index,
                                  si_memory memory,
                                  uint64_t byte_offset,
                                  si_error *error);

/**
 * Makes an output of a context lie in host memory of the host's choice: the device writes it there, and nothing is copied.
 * si_context_prepare may write there, too. It needs as many bytes as the output has in the largest bucket.
 *
 * @param target The context. Borrowed for the call; not prepared yet. It keeps the memory until it, and every context that is
 *     linked to it, is freed and drained.
 * @param output_index The context's output. `si_context_output` then gives an address in the memory.
 * @param memory Borrowed for the call; SI_MEMORY_PINNED or SI_MEMORY_REGISTERED, of the context's engine.
 * @param byte_offset Where in the memory the output begins: a multiple of SI_MEMORY_ALIGNMENT.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return As si_context_attach_input.
 * Threads: the context's rule. Since: 0.1.
 */
si_result si_context_attach_output(si_context target,
                                   uint32_t output_index,
                                   si_memory memory,
                                   uint64_t byte_offset,
                                   si_error *error);

/**
 * Frees a memory, now or when the last context that it is attached to is freed and drained. On the host device a freed memory's
 * addresses lead to nothing, as those of a freed context's inputs. Registered memory is the host's own again at once if `attached_count`
 * was 0; if another thread is inside a call with this memory, when that call returns. Otherwise the end of the last context gives it
 * back, on a thread of the engine's: on a GPU, parked requests of the engine may be told of their ends later by the time that the
 * driver takes for it.
 *
 * @param memory Consumed. The zero handle is a no-op.
 * @param error Receives the failure. Owned by the caller, may be null.
 * @return SI_OK, SI_INVALID_HANDLE, SI_STALE_HANDLE, SI_WRONG_TYPE.
 * Threads: any. Since: 0.1.
 */
si_result si_memory_free(si_memory memory,
                         si_error *error);

/* ---- The other name of si_result ------------------------------------------------------------------------------- */

#ifndef si_status
/** The same as si_result, unless `<signal.h>`, which has a macro of this name, was included before. */
typedef si_result si_status;
#endif

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* STREAMINFER_H */
