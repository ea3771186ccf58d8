/*
 * streaminfer @MAJOR@.@MINOR@.@PATCH@ - predictable neural-network inference for services.
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

#define SI_VERSION_MAJOR @MAJOR@
#define SI_VERSION_MINOR @MINOR@
#define SI_VERSION_PATCH @PATCH@

#ifdef __cplusplus
extern "C" {
#endif
