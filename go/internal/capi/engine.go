//go:build linux && amd64

package capi

/*
#include "table.h"

#cgo noescape call_device_count
#cgo nocallback call_device_count
#cgo noescape call_device_describe
#cgo nocallback call_device_describe
#cgo noescape call_engine_open
#cgo nocallback call_engine_open
#cgo noescape call_engine_close
#cgo nocallback call_engine_close
#cgo noescape call_engine_stats
#cgo nocallback call_engine_stats
#cgo noescape call_engine_device
#cgo nocallback call_engine_device
#cgo noescape call_completion_fd
#cgo nocallback call_completion_fd
#cgo noescape call_reap
#cgo nocallback call_reap
#cgo noescape call_event_new
#cgo nocallback call_event_new
#cgo noescape call_event_record
#cgo nocallback call_event_record
#cgo noescape call_event_wait
#cgo nocallback call_event_wait
#cgo noescape call_event_free
#cgo nocallback call_event_free
*/
import "C"

import (
	"errors"
	"os"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// Devices describes the devices of this machine.
func Devices(options *backend.EngineOptions) ([]backend.Device, error) {
	l, err := find(options.Library)
	if err != nil {
		return nil, err
	}
	var count C.uint32_t
	var failure C.si_error
	if err := failed(C.call_device_count(l.table, &count, &failure), &failure); err != nil {
		return nil, err
	}
	devices := make([]backend.Device, count)
	for index := range devices {
		info := C.si_device_info{struct_size: C.sizeof_si_device_info}
		if err := failed(C.call_device_describe(l.table, C.uint32_t(index), &info, &failure), &failure); err != nil {
			return nil, err
		}
		devices[index] = described(&info)
	}
	return devices, nil
}

func described(info *C.si_device_info) backend.Device {
	kind := "host"
	if info.kind == C.SI_DEVICE_KIND_CUDA {
		kind = "cuda"
	}
	return backend.Device{ID: C.GoString(&info.id[0]), Name: C.GoString(&info.name[0]), Kind: kind,
		Processors: int(info.processors), MemoryBytes: uint64(info.memory_bytes)}
}

type engine struct {
	*library
	handle C.si_engine
	// completions is the library's eventfd: a goroutine that reads it waits in the netpoller and costs no thread.
	completions *os.File
	// What follows is the reaper's alone. reaped is C memory, freed when it stops.
	reaped *C.si_completion
	word   [8]byte
}

// Open finds the library and opens an engine.
func Open(options *backend.EngineOptions) (backend.Engine, error) {
	l, err := find(options.Library)
	if err != nil {
		return nil, err
	}
	var memory arena
	defer memory.free()
	raw := (*C.si_engine_options)(memory.alloc(C.sizeof_si_engine_options))
	*raw = C.si_engine_options{struct_size: C.sizeof_si_engine_options, threads: C.uint32_t(options.Threads),
		in_flight_max: C.uint32_t(options.InFlightMax), contexts_max: C.uint32_t(options.SessionsMax),
		memory_bytes_max: C.uint64_t(options.MemoryBytesMax), flags: engineFlags}
	if options.Device != "" {
		raw.device = memory.text(options.Device)
	}
	e := &engine{library: l}
	var failure C.si_error
	if err := failed(C.call_engine_open(l.table, raw, &e.handle, &failure), &failure); err != nil {
		return nil, err
	}
	var descriptor C.int32_t
	if err := failed(C.call_completion_fd(l.table, e.handle, &descriptor, &failure), &failure); err != nil {
		C.call_engine_close(l.table, e.handle, &failure)
		return nil, err
	}
	e.completions = os.NewFile(uintptr(descriptor), "streaminfer completions")
	return e, nil
}

func (e *engine) Device() (device backend.Device, passedOver, err error) {
	info := C.si_device_info{struct_size: C.sizeof_si_device_info}
	var reason, failure C.si_error
	if err := failed(C.call_engine_device(e.table, e.handle, &info, &reason, &failure), &failure); err != nil {
		return backend.Device{}, nil, err
	}
	return described(&info), failed(reason.status, &reason), nil
}

func (e *engine) Stats() (backend.Stats, error) {
	raw := C.si_stats{struct_size: C.sizeof_si_stats}
	var failure C.si_error
	err := failed(C.call_engine_stats(e.table, e.handle, &raw, &failure), &failure)
	return backend.Stats{DeviceState: int(raw.device_state), Models: int(raw.models), Contexts: int(raw.contexts),
		Events: int(raw.events), Batchers: int(raw.batchers), Threads: int(raw.threads), InFlight: int(raw.in_flight),
		Completions: int(raw.completions), WeightsBytes: uint64(raw.weights_bytes),
		RetainedBytes: uint64(raw.retained_bytes), ArenaBytes: uint64(raw.arena_bytes),
		PinnedBytes: uint64(raw.pinned_bytes), Memories: int(raw.memories), MemoryBytes: uint64(raw.memory_bytes),
		RegisteredBytes: uint64(raw.registered_bytes), Requests: uint64(raw.requests), Failures: uint64(raw.failures)}, err
}

// reapMax completions are taken with one call.
const reapMax = 64

func (e *engine) Reap(dst []backend.Completion) (int, error) {
	if e.reaped == nil {
		e.reaped = (*C.si_completion)(C.calloc(reapMax, C.sizeof_si_completion))
	}
	for {
		count, err := e.reap(min(len(dst), reapMax))
		if err == nil && count == 0 {
			if _, err = e.completions.Read(e.word[:]); err == nil {
				continue
			}
		}
		if err != nil {
			C.free(unsafe.Pointer(e.reaped))
			e.reaped = nil
			if errors.Is(err, os.ErrClosed) {
				err = nil
			}
			return 0, err
		}
		for i, c := range unsafe.Slice(e.reaped, count) {
			dst[i] = backend.Completion{Token: uint64(c.token), Sequence: uint32(c.sequence), Status: int32(c.status)}
		}
		return count, nil
	}
}

func (e *engine) reap(room int) (int, error) {
	var count C.uint32_t
	var failure C.si_error
	err := failed(C.call_reap(e.table, e.handle, e.reaped, C.uint32_t(room), &count, &failure), &failure)
	return int(count), err
}

func (e *engine) Close() error {
	_ = e.completions.Close() // a Read in progress returns os.ErrClosed
	var failure C.si_error
	return failed(C.call_engine_close(e.table, e.handle, &failure), &failure)
}

type event struct {
	*library
	handle C.si_event
}

func (e *engine) NewEvent() (backend.Event, error) {
	created := &event{library: e.library}
	var failure C.si_error
	if err := failed(C.call_event_new(e.table, e.handle, &created.handle, &failure), &failure); err != nil {
		return nil, err
	}
	return created, nil
}

func (e *event) Record(c backend.Context) error {
	var failure C.si_error
	return failed(C.call_event_record(e.table, e.handle, c.(*context).handle, &failure), &failure)
}

func (e *event) Wait(c backend.Context) error {
	var failure C.si_error
	return failed(C.call_event_wait(e.table, e.handle, c.(*context).handle, &failure), &failure)
}

func (e *event) Free() error {
	var failure C.si_error
	return failed(C.call_event_free(e.table, e.handle, &failure), &failure)
}
