//go:build linux && amd64

package capi

/*
#include "table.h"

#cgo noescape call_batcher_new
#cgo nocallback call_batcher_new
#cgo noescape call_batcher_stats
#cgo nocallback call_batcher_stats
#cgo noescape call_batcher_free
#cgo nocallback call_batcher_free
*/
import "C"

import (
	"time"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

type batcher struct {
	*library
	model  *model
	handle C.si_batcher
}

func (m *model) NewBatcher(options *backend.BatcherOptions) (backend.Batcher, error) {
	var memory arena
	defer memory.free()
	raw := (*C.si_batcher_options)(memory.alloc(C.sizeof_si_batcher_options))
	*raw = C.si_batcher_options{struct_size: C.sizeof_si_batcher_options, contexts: C.uint32_t(options.Contexts),
		threads: C.uint32_t(options.Threads), delay_ns: C.uint64_t(options.Delay), priority: C.uint32_t(options.Priority)}
	if count := len(options.Buckets); count > 0 {
		raw.bucket_count = C.uint32_t(count)
		raw.buckets = (*C.si_bucket)(memory.alloc(C.size_t(count) * C.sizeof_si_bucket))
		for i, b := range options.Buckets {
			if err := m.writeBucket(&memory, &unsafe.Slice(raw.buckets, count)[i], b); err != nil {
				return nil, err
			}
		}
	}
	b := &batcher{library: m.library, model: m}
	var failure C.si_error
	if err := failed(C.call_batcher_new(m.table, m.handle, raw, &b.handle, &failure), &failure); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *batcher) Stats() (backend.BatcherStats, error) {
	raw := C.si_batch_stats{struct_size: C.sizeof_si_batch_stats}
	var failure C.si_error
	err := failed(C.call_batcher_stats(b.table, b.handle, &raw, &failure), &failure)
	return backend.BatcherStats{Classes: int(raw.class_count), Slots: int(raw.slots), Forming: int(raw.forming),
		Running: int(raw.running), Reservations: uint64(raw.reservations), Refusals: uint64(raw.refusals),
		Completed: uint64(raw.completed), Abandoned: uint64(raw.abandoned), Expired: uint64(raw.expired),
		Cancelled: uint64(raw.cancelled), Failed: uint64(raw.failed), Batches: uint64(raw.batches), Rows: uint64(raw.rows),
		PaddingRows: uint64(raw.padding_rows)}, err
}

func (b *batcher) Free() error {
	var failure C.si_error
	return failed(C.call_batcher_free(b.table, b.handle, &failure), &failure)
}

// ticket has the C memory of one request at a time. It is not the batcher's: either may be freed first.
type ticket struct {
	*batcher
	slot      *C.slot_scratch
	at        C.slot_at
	selection selection
}

func (b *batcher) NewTicket() backend.Ticket {
	t := &ticket{batcher: b, selection: newSelection(len(b.model.dtypes))}
	t.slot = C.slot_scratch_new(t.selection.bucket)
	t.at.address = C.uintptr_t(uintptr(unsafe.Pointer(t.slot)))
	return t
}

func (t *ticket) failed(status C.si_result) error { return failed(status, &t.slot.error) }

func (t *ticket) Reserve(b backend.Bucket, timeout time.Duration) error {
	if len(b.Shapes) != len(t.selection.values) {
		return invalid("%d shapes for %d inputs", len(b.Shapes), len(t.selection.values))
	}
	if err := t.selection.write(t.model, b); err != nil {
		return err
	}
	return t.failed(C.call_batcher_reserve(t.table, t.handle, C.uint64_t(timeout), t.at))
}

func (t *ticket) Input(index int, view *backend.View) error {
	return t.view(C.call_slot_input(t.table, C.uint32_t(index), t.at), view)
}

func (t *ticket) Output(index int, view *backend.View) error {
	return t.view(C.call_slot_output(t.table, C.uint32_t(index), t.at), view)
}

func (t *ticket) view(status C.si_result, view *backend.View) error {
	if err := t.failed(status); err != nil {
		return err
	}
	describe(view, &t.slot.view)
	return nil
}

func (t *ticket) Timings() (backend.BatchStamps, error) {
	if err := t.failed(C.call_slot_timings(t.table, t.at)); err != nil {
		return backend.BatchStamps{}, err
	}
	raw := &t.slot.timings
	return backend.BatchStamps{Batch: uint64(raw.batch), Rows: int(raw.rows), BucketRows: int(raw.bucket_rows),
		Service: time.Duration(raw.service_ns), Opened: t.moment(raw.open_ns), Closed: t.moment(raw.close_ns),
		Stamps: backend.Stamps{Submitted: t.moment(raw.submit_ns), Started: t.moment(raw.start_ns), Inputs: t.moment(raw.inputs_ns),
			Computed: t.moment(raw.compute_ns), Done: t.moment(raw.done_ns)}}, nil
}

func (t *ticket) Commit(token uint64) error {
	return t.failed(C.call_slot_commit(t.table, C.uint64_t(token), t.at))
}

func (t *ticket) Cancel() (int32, error) {
	status := C.call_slot_cancel(t.table, t.at)
	return int32(status), t.failed(status)
}

func (t *ticket) Abandon() error { return t.failed(C.call_slot_abandon(t.table, t.at)) }
func (t *ticket) Release() error { return t.failed(C.call_slot_release(t.table, t.at)) }

func (t *ticket) Free() error {
	t.selection.free()
	C.free(unsafe.Pointer(t.slot))
	return nil
}
