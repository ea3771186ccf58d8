//go:build linux && amd64

package capi

/*
#include "table.h"

#cgo noescape call_memory_new
#cgo nocallback call_memory_new
#cgo noescape call_memory_describe
#cgo nocallback call_memory_describe
#cgo noescape call_memory_write
#cgo nocallback call_memory_write
#cgo noescape call_memory_read
#cgo nocallback call_memory_read
#cgo noescape call_memory_free
#cgo nocallback call_memory_free
*/
import "C"

import (
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

type memory struct {
	*library
	handle C.si_memory
}

func (e *engine) NewMemory(options *backend.MemoryOptions) (backend.Memory, error) {
	var room arena
	defer room.free()
	raw := (*C.si_memory_options)(room.alloc(C.sizeof_si_memory_options))
	*raw = C.si_memory_options{struct_size: C.sizeof_si_memory_options, kind: C.uint32_t(options.Kind),
		bytes: C.uint64_t(options.Bytes), row_count: C.uint64_t(options.Rows), row_bytes: C.uint64_t(options.RowBytes),
		element_bytes: C.uint32_t(options.ElementBytes)}
	if options.Data != nil {
		// Pinned by the caller, so C may keep it.
		raw.address, raw.bytes = unsafe.Pointer(unsafe.SliceData(options.Data)), C.uint64_t(len(options.Data))
	}
	m := &memory{library: e.library}
	var failure C.si_error
	if err := failed(C.call_memory_new(e.table, e.handle, raw, &m.handle, &failure), &failure); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *memory) Info() (backend.MemoryInfo, error) {
	raw := C.si_memory_info{struct_size: C.sizeof_si_memory_info}
	var failure C.si_error
	if err := failed(C.call_memory_describe(m.table, m.handle, &raw, &failure), &failure); err != nil {
		return backend.MemoryInfo{}, err
	}
	info := backend.MemoryInfo{Bytes: int(raw.bytes), Rows: int(raw.row_count), RowBytes: int(raw.row_bytes),
		PitchBytes: int(raw.pitch_bytes), Attached: int(raw.attached_count)}
	if raw.address != nil {
		info.Data = unsafe.Slice((*byte)(raw.address), info.Bytes)
	}
	return info, nil
}

func (m *memory) Write(r backend.Rectangle, from []byte) error {
	options := rectangle(r)
	var failure C.si_error
	data := (*C.uint8_t)(unsafe.SliceData(from))
	return failed(C.call_memory_write(m.table, m.handle, &options, data, C.size_t(len(from)), &failure), &failure)
}

func (m *memory) Read(r backend.Rectangle, into []byte) error {
	options := rectangle(r)
	var failure C.si_error
	data := (*C.uint8_t)(unsafe.SliceData(into))
	return failed(C.call_memory_read(m.table, m.handle, &options, data, C.size_t(len(into)), &failure), &failure)
}

func rectangle(r backend.Rectangle) C.si_copy_options {
	return C.si_copy_options{struct_size: C.sizeof_si_copy_options, row_index: C.uint64_t(r.Row), row_count: C.uint64_t(r.Rows),
		byte_index: C.uint64_t(r.Byte), row_bytes: C.uint64_t(r.Bytes), pitch_bytes: C.uint64_t(r.Pitch)}
}

func (m *memory) Free() error {
	var failure C.si_error
	return failed(C.call_memory_free(m.table, m.handle, &failure), &failure)
}

func (c *context) AttachInput(index int, m backend.Memory, offset int) error {
	to, ok := m.(*memory)
	if !ok {
		return invalid("the memory belongs to another kind of engine")
	}
	return c.failed(C.call_attach_input(c.table, c.handle, C.uint32_t(index), to.handle, C.uint64_t(offset), c.at))
}

func (c *context) AttachOutput(index int, m backend.Memory, offset int) error {
	to, ok := m.(*memory)
	if !ok {
		return invalid("the memory belongs to another kind of engine")
	}
	return c.failed(C.call_attach_output(c.table, c.handle, C.uint32_t(index), to.handle, C.uint64_t(offset), c.at))
}
