//go:build linux && amd64

package capi

/*
#include "table.h"

// Only calls that are given a Go pointer have these: noescape keeps what it points to off the heap and needs nocallback, which
// costs two calls into the runtime. The calls of the hot path pass numbers alone.
#cgo noescape call_context_new
#cgo nocallback call_context_new
#cgo noescape call_completion
#cgo nocallback call_completion
#cgo noescape call_cancel
#cgo nocallback call_cancel
#cgo noescape call_context_free
#cgo nocallback call_context_free
*/
import "C"

import (
	"slices"
	"time"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

type context struct {
	*library
	model  *model
	handle C.si_context
	// scratch receives what calls write; Cancel and Free, which may come at any time, leave it alone. at is where it lies.
	scratch *C.scratch
	at      C.scratch_at
	record  *C.si_completion_record
	// selection is Shape's alone.
	selection selection
}

func (m *model) NewContext(options *backend.ContextOptions) (backend.Context, error) {
	var memory arena
	defer memory.free()
	raw := (*C.si_context_options)(memory.alloc(C.sizeof_si_context_options))
	*raw = C.si_context_options{struct_size: C.sizeof_si_context_options, threads: C.uint32_t(options.Threads),
		priority: C.uint32_t(options.Priority)}
	if count := len(options.Buckets); count > 0 {
		raw.bucket_count = C.uint32_t(count)
		raw.buckets = (*C.si_bucket)(memory.alloc(C.size_t(count) * C.sizeof_si_bucket))
		for i, b := range options.Buckets {
			if err := m.writeBucket(&memory, &unsafe.Slice(raw.buckets, count)[i], b); err != nil {
				return nil, err
			}
		}
	}
	c := &context{library: m.library, model: m, selection: newSelection(len(m.dtypes))}
	c.scratch = C.scratch_new(c.selection.bucket)
	c.at.address = C.uintptr_t(uintptr(unsafe.Pointer(c.scratch)))
	var failure C.si_error
	if err := failed(C.call_context_new(m.table, m.handle, raw, &c.handle, &failure), &failure); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

func (c *context) failed(status C.si_result) error { return failed(status, &c.scratch.error) }

func (c *context) Link(input int, source backend.Context, output int) error {
	from, ok := source.(*context)
	if !ok {
		return invalid("the source belongs to another kind of engine")
	}
	return c.failed(C.call_link(c.table, c.handle, C.uint32_t(input), from.handle, C.uint32_t(output), c.at))
}

func (c *context) Prepare() error {
	if err := c.failed(C.call_prepare(c.table, c.handle, c.at)); err != nil {
		return err
	}
	return c.failed(C.call_completion(c.table, c.handle, &c.record, c.at))
}

func (c *context) Bind() error   { return c.failed(C.call_bind(c.table, c.handle, c.at)) }
func (c *context) Unbind() error { return c.failed(C.call_unbind(c.table, c.handle, c.at)) }

func (c *context) Shape(b backend.Bucket) error {
	if len(b.Shapes) != len(c.selection.values) {
		return invalid("%d shapes for %d inputs", len(b.Shapes), len(c.selection.values))
	}
	if err := c.selection.write(c.model, b); err != nil {
		return err
	}
	return c.failed(C.call_shape(c.table, c.handle, c.at))
}

// selection is the bucket of Shape in C memory, written anew by each call.
type selection struct {
	bucket *C.si_bucket
	// values has the memory of each input's values, room its size.
	values []unsafe.Pointer
	room   []int
}

func newSelection(inputs int) selection {
	bucket := (*C.si_bucket)(C.calloc(1, C.sizeof_si_bucket))
	bucket.struct_size, bucket.input_count = C.sizeof_si_bucket, C.uint32_t(inputs)
	bucket.inputs = (*C.si_bucket_input)(C.calloc(C.size_t(max(inputs, 1)), C.sizeof_si_bucket_input))
	return selection{bucket: bucket, values: make([]unsafe.Pointer, inputs), room: make([]int, inputs)}
}

func (s *selection) write(m *model, b backend.Bucket) error {
	for i := range b.Shapes {
		to := &unsafe.Slice(s.bucket.inputs, len(b.Shapes))[i]
		if err := writeShape(to, b.Shapes[i]); err != nil {
			return err
		}
		size := len(b.Values[i]) * int(dtypeBytes(m.dtypes[i]))
		if size > s.room[i] {
			C.free(s.values[i])
			s.values[i], s.room[i] = C.malloc(C.size_t(size)), size
		}
		to.value, to.value_bytes = nil, C.uint64_t(size)
		if size > 0 {
			to.value = s.values[i]
			encode(unsafe.Slice((*byte)(to.value), size), b.Values[i], m.dtypes[i])
		}
	}
	return nil
}

func (s *selection) free() {
	for _, memory := range s.values {
		C.free(memory)
	}
	C.free(unsafe.Pointer(s.bucket.inputs))
	C.free(unsafe.Pointer(s.bucket))
}

func (c *context) Input(index int, view *backend.View) error {
	return c.view(C.call_context_input(c.table, c.handle, C.uint32_t(index), c.at), view)
}

func (c *context) Output(index int, view *backend.View) error {
	return c.view(C.call_context_output(c.table, c.handle, C.uint32_t(index), c.at), view)
}

func (c *context) view(status C.si_result, view *backend.View) error {
	if err := c.failed(status); err != nil {
		return err
	}
	describe(view, &c.scratch.view)
	return nil
}

// describe says in Go what a view of the library's says.
func describe(view *backend.View, raw *C.si_tensor_view) {
	view.DType, view.Shape, view.Strides = uint32(raw.dtype), view.Shape[:0], view.Strides[:0]
	// From the first element's begin to the last one's end. The capacity is that of the largest bucket.
	bytes := dtypeBytes(raw.dtype)
	for axis := range raw.rank {
		extent, stride := int64(raw.dims[axis]), int64(raw.strides_bytes[axis])
		view.Shape, view.Strides = append(view.Shape, extent), append(view.Strides, stride)
		bytes += (extent - 1) * stride
	}
	if slices.Contains(view.Shape, 0) {
		bytes = 0
	}
	view.Data = unsafe.Slice((*byte)(raw.data), min(uint64(bytes), uint64(raw.capacity_bytes)))
}

func dtypeBytes(dtype C.uint32_t) int64 {
	switch dtype {
	case C.SI_DTYPE_I64:
		return 8
	case C.SI_DTYPE_F32, C.SI_DTYPE_I32:
		return 4
	case C.SI_DTYPE_F16, C.SI_DTYPE_BF16:
		return 2
	}
	return 1
}

func (c *context) Submit(token uint64, timeout time.Duration) (uint32, error) {
	status := C.call_submit(c.table, c.handle, c.at, C.uint64_t(token), C.uint64_t(timeout))
	return uint32(c.scratch.sequence), c.failed(status)
}

func (c *context) Record() backend.Record {
	return backend.Record{Done: (*uint32)(&c.record.done), Failed: (*uint32)(&c.record.failed_sequence)}
}

func (c *context) Poll(sequence uint32) (int32, error) {
	status := C.call_poll(c.table, c.handle, C.uint32_t(sequence), c.at)
	return int32(status), c.failed(status)
}

func (c *context) Wait(sequence uint32) {
	C.call_wait(c.table, c.handle, C.uint32_t(sequence), c.at)
}

func (c *context) Park(sequence uint32) error {
	return c.failed(C.call_park(c.table, c.handle, C.uint32_t(sequence), c.at))
}

func (c *context) Unpark(sequence uint32) (int32, error) {
	status := C.call_unpark(c.table, c.handle, C.uint32_t(sequence), c.at)
	return int32(status), c.failed(status)
}

func (c *context) Cancel(sequence uint32) (int32, error) {
	var failure C.si_error
	status := C.call_cancel(c.table, c.handle, C.uint32_t(sequence), &failure)
	return int32(status), failed(status, &failure)
}

func (c *context) Drained() (bool, error) {
	status := C.call_context_output(c.table, c.handle, 0, c.at)
	if status == C.SI_DRAINING {
		return false, nil
	}
	return true, c.failed(status)
}

func (c *context) Timings() (backend.Stamps, error) {
	if err := c.failed(C.call_timings(c.table, c.handle, c.at)); err != nil {
		return backend.Stamps{}, err
	}
	t := &c.scratch.timings
	return backend.Stamps{Submitted: c.moment(t.submit_ns), Started: c.moment(t.start_ns), Inputs: c.moment(t.inputs_ns),
		Computed: c.moment(t.compute_ns), Done: c.moment(t.done_ns)}, nil
}

// Free may be called while no other call but Cancel is in progress.
func (c *context) Free() error {
	var failure C.si_error
	err := failed(C.call_context_free(c.table, c.handle, &failure), &failure)
	c.release()
	return err
}

func (c *context) release() {
	c.selection.free()
	C.free(unsafe.Pointer(c.scratch))
}
