//go:build linux && amd64

package capi

/*
#include "table.h"

*/
import "C"

import (
	"bytes"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// library is an opened shared library. It is never closed.
type library struct {
	// table is where the table lies, in C memory, so that a call passes no Go pointer.
	table C.table_at
	// epoch is CLOCK_MONOTONIC, which the library's stamps are of, when backend.Now was zero. Go's clock is the same.
	epoch time.Duration
}

// synchronise finds the epoch. Of several looks at both clocks that with the least time in between says it best.
func (l *library) synchronise() {
	for best, look := time.Duration(-1), 0; look < 16; look++ {
		before := backend.Now()
		now := time.Duration(C.monotonic_ns())
		after := backend.Now()
		if best < 0 || after-before < best {
			best = after - before
			l.epoch = now - (before+after)/2
		}
	}
}

// moment is a stamp of the library by the clock of backend.Now; 0 stays 0.
func (l *library) moment(ns C.uint64_t) time.Duration {
	if ns == 0 {
		return 0
	}
	return time.Duration(ns) - l.epoch
}

var libraries = struct {
	sync.Mutex
	byPath map[string]*library
}{byPath: map[string]*library{}}

// find opens the first usable library among the candidates.
func find(option string) (*library, error) {
	paths := candidates(option)
	if linked {
		paths = []string{"the library linked by pkg-config"}
	}
	failure := &backend.LibraryError{}
	for _, path := range paths {
		found, err := load(path)
		if err == nil {
			return found, nil
		}
		failure.Tried = append(failure.Tried, backend.LibraryAttempt{Path: path, Reason: err.Error()})
	}
	return nil, failure
}

func load(path string) (*library, error) {
	libraries.Lock()
	defer libraries.Unlock()
	if known, ok := libraries.byPath[path]; ok {
		return known, nil
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	memory := C.calloc(1, C.sizeof_table)
	l := &library{table: C.table_at{address: C.uintptr_t(uintptr(memory))}}
	err := fill((*C.table)(memory), name)
	if err == nil {
		err = l.check()
	}
	if err != nil {
		C.free(memory)
		return nil, err
	}
	l.synchronise()
	libraries.byPath[path] = l
	return l, nil
}

func fill(table *C.table, name *C.char) error {
	if reason := C.table_load(name, table); reason != nil {
		defer C.free(unsafe.Pointer(reason))
		return fmt.Errorf("%s", C.GoString(reason))
	}
	return nil
}

// check compares what both sides believe about the binary interface before the first call relies on it.
func (l *library) check() error {
	if version := l.ABIVersion(); version != C.SI_ABI_VERSION {
		return fmt.Errorf("it has ABI version %d, this package needs %d", version, C.SI_ABI_VERSION)
	}
	for _, s := range structs {
		bytes := C.call_struct_bytes(l.table, s.id)
		if bytes < s.bytes || s.frozen && bytes != s.bytes {
			return fmt.Errorf("its %s has %d bytes, this package needs %d: they are of different versions", s.name, bytes, s.bytes)
		}
	}
	return nil
}

// ABIVersion asks the library for its version: the shortest call there is.
func (l *library) ABIVersion() uint32 { return uint32(C.call_abi_version(l.table)) }

// structs are those that cross the border. A library may be newer and know more fields; a frozen layout is fixed.
var structs = []struct {
	name   string
	id     C.uint32_t
	bytes  C.uint32_t
	frozen bool
}{
	{"si_error", C.SI_STRUCT_ERROR, C.sizeof_si_error, true},
	{"si_completion", C.SI_STRUCT_COMPLETION, C.sizeof_si_completion, true},
	{"si_completion_record", C.SI_STRUCT_COMPLETION_RECORD, C.sizeof_si_completion_record, true},
	{"si_device_info", C.SI_STRUCT_DEVICE_INFO, C.sizeof_si_device_info, false},
	{"si_engine_options", C.SI_STRUCT_ENGINE_OPTIONS, C.sizeof_si_engine_options, false},
	{"si_stats", C.SI_STRUCT_STATS, C.sizeof_si_stats, false},
	{"si_model_options", C.SI_STRUCT_MODEL_OPTIONS, C.sizeof_si_model_options, false},
	{"si_bucket", C.SI_STRUCT_BUCKET, C.sizeof_si_bucket, false},
	{"si_bucket_input", C.SI_STRUCT_BUCKET_INPUT, C.sizeof_si_bucket_input, false},
	{"si_padding", C.SI_STRUCT_PADDING, C.sizeof_si_padding, false},
	{"si_model_info", C.SI_STRUCT_MODEL_INFO, C.sizeof_si_model_info, false},
	{"si_tensor_info", C.SI_STRUCT_TENSOR_INFO, C.sizeof_si_tensor_info, false},
	{"si_tensor_view", C.SI_STRUCT_TENSOR_VIEW, C.sizeof_si_tensor_view, false},
	{"si_context_options", C.SI_STRUCT_CONTEXT_OPTIONS, C.sizeof_si_context_options, false},
	{"si_submit_options", C.SI_STRUCT_SUBMIT_OPTIONS, C.sizeof_si_submit_options, false},
	{"si_timings", C.SI_STRUCT_TIMINGS, C.sizeof_si_timings, false},
	{"si_batcher_options", C.SI_STRUCT_BATCHER_OPTIONS, C.sizeof_si_batcher_options, false},
	{"si_batch_stats", C.SI_STRUCT_BATCH_STATS, C.sizeof_si_batch_stats, false},
	{"si_batch_timings", C.SI_STRUCT_BATCH_TIMINGS, C.sizeof_si_batch_timings, false},
	{"si_memory_options", C.SI_STRUCT_MEMORY_OPTIONS, C.sizeof_si_memory_options, false},
	{"si_memory_info", C.SI_STRUCT_MEMORY_INFO, C.sizeof_si_memory_info, false},
	{"si_copy_options", C.SI_STRUCT_COPY_OPTIONS, C.sizeof_si_copy_options, false},
}

// failed gives a failure its Go form. OK and the statuses that are no failure give nil.
func failed(status C.si_result, e *C.si_error) error {
	if status < firstFailure {
		return nil
	}
	return failure(status, e)
}

// failure is not part of failed, so that failed is short enough to be part of its callers.
func failure(status C.si_result, e *C.si_error) error {
	// Not C.GoString, which would move every si_error to the heap.
	message := unsafe.Slice((*byte)(unsafe.Pointer(&e.message)), len(e.message))
	if end := bytes.IndexByte(message, 0); end >= 0 {
		message = message[:end]
	}
	return &backend.Error{Status: int32(status), Native: int32(e.native), Message: string(message)}
}

// firstFailure is the lowest status that is a failure.
const firstFailure = 100

// arena is C memory for the arguments of one call, which may hold pointers to each other.
type arena []unsafe.Pointer

func (a *arena) alloc(bytes C.size_t) unsafe.Pointer {
	memory := C.calloc(1, max(bytes, 1))
	*a = append(*a, memory)
	return memory
}

func (a *arena) text(s string) *C.char {
	text := C.CString(s)
	*a = append(*a, unsafe.Pointer(text))
	return text
}

func (a *arena) free() {
	for _, memory := range *a {
		C.free(memory)
	}
}
