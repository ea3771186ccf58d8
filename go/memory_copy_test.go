package streaminfer_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
	"github.com/streaminfer/streaminfer/go/trace"
)

const copyRows, copyRowBytes = 1024, 8 << 10

// rows is device memory of 8 MiB: ten copies are a finding, if they are pageable.
func (w *world) rows() *streaminfer.Memory {
	w.Helper()
	memory, err := w.engine.NewLinear(copyRows, copyRowBytes)
	w.ok(err)
	return memory
}

// copies goes so many times to the device and back.
func (w *world) copies(rows *streaminfer.Memory, slice []byte, times int) {
	w.Helper()
	for range times {
		w.ok(rows.Write(streaminfer.Rectangle{}, slice))
		w.ok(rows.Read(streaminfer.Rectangle{}, slice))
	}
}

func TestPageableCopiesAreFound(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		rows := w.rows()
		slice := make([]byte, copyRows*copyRowBytes)
		w.copies(rows, slice, 1) // nobody asked for a record
		w.engine.SetTrace(trace.Options{API: 1})
		w.copies(rows, slice, 4)
		w.finds(w.traced()) // a program that fills its rows when it starts
		w.copies(rows, slice, 1)
		record := w.traced()
		w.finds(record, "pageable copies")
		what := trace.Diagnose(record)[0].What
		if !strings.HasPrefix(what, "10 copies ") || !strings.Contains(what, "moved 81920 KiB in ") || strings.Count(what, "memory_copy_test.go:") != 2 {
			w.Error(what)
		}
		for i, e := range record.Events {
			if e.Kind != trace.CopyPageable || e.Session == 0 || e.Goroutine == 0 || e.At <= 0 || e.Took <= 0 || e.Bytes != 8<<20 || e.Note != []string{"write", "read"}[i%2] {
				w.Errorf("%+v", e)
			}
		}
	})
}

// The first copy is recorded, then one of so many, all are counted, and those that fail are none.
func TestTraceOfCopiesIsSampled(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		rows := w.rows()
		w.engine.SetTrace(trace.Options{API: 4})
		slice := make([]byte, copyRows*copyRowBytes)
		w.is(rows.Write(streaminfer.Rectangle{}, slice[1:]), streaminfer.StatusInvalidArgument)
		w.copies(rows, slice, 5)
		record := w.traced()
		if len(record.Events) != 3 || record.Counts[trace.CopyPageable] != 10 || record.Counts[trace.Copy] != 0 {
			w.Errorf("%d of %v recorded", len(record.Events), record.Counts)
		}
		w.finds(record, "pageable copies")
	})
}

// Memory that the device reaches in place is copied from and to without a word: pinned or registered, also with another engine, and
// views of sessions.
func TestCopiesOfPageLockedMemoryAreSilent(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		w.engine.SetTrace(trace.Options{API: 1})
		rows := w.rows()
		taken, err := w.engine.NewPinned(copyRows * copyRowBytes)
		w.ok(err)
		pinned, err := streaminfer.Elements[byte](taken)
		w.ok(err)
		w.copies(rows, pinned, 5)
		own := make([]byte, copyRows*copyRowBytes)
		lent, err := streaminfer.Register(w.engine, own)
		w.ok(err)
		w.copies(rows, own, 5)
		another := fake.NewEngine()
		theirs := make([]byte, copyRows*copyRowBytes)
		borrowed, err := streaminfer.Register(another, theirs)
		w.ok(err)
		w.copies(rows, theirs, 5)
		s := w.session(w.load(slow))
		x := input[float32](w, s, "x").Data
		view := unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*len(x))
		part := streaminfer.Rectangle{Row: 1, Rows: 3, Byte: 8, Bytes: 5000, Pitch: 6000}
		w.ok(rows.Write(part, view[len(view)-17000:]))
		record := w.traced()
		w.finds(record)
		if record.Counts[trace.Copy] != 31 || record.Counts[trace.CopyPageable] != 0 || record.Events[len(record.Events)-1].Bytes != 15000 {
			w.Errorf("%v", record.Counts)
		}
		runtime.KeepAlive(borrowed) // a memory that nobody has any more is given back
		// What is no longer lent, or reaches beyond it, is pageable again.
		w.ok(lent.Close())
		w.ok(another.Close())
		w.ok(s.Close())
		w.copies(rows, own, 1)
		w.copies(rows, theirs, 1)
		half, err := streaminfer.Register(w.engine, own[:len(own)/2])
		w.ok(err)
		w.copies(rows, own, 1)
		if record := w.traced(); record.Counts[trace.Copy] != 31 || record.Counts[trace.CopyPageable] != 6 {
			w.Errorf("%v", record.Counts)
		}
		runtime.KeepAlive(taken)
		runtime.KeepAlive(half)
	})
}

// Copies may be recorded while sessions run, give out views and are closed.
func TestCopiesAreRecordedBesideSessions(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		w.engine.SetTrace(trace.Options{API: 1})
		rows, model := w.rows(), w.load(affine)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range 20 {
				s := w.session(model)
				input[float32](w, s, "x").Data[0] = 1
				w.ok(s.Run(context.Background()))
				w.ok(s.Close())
			}
		}()
		slice := make([]byte, 64)
		for range 200 {
			w.ok(rows.Write(streaminfer.Rectangle{Rows: 1, Bytes: 64}, slice))
		}
		<-ended
		if count := w.traced().Counts[trace.CopyPageable]; count != 200 {
			w.Error(count)
		}
	})
}

func TestCopiesWithoutATraceDoNotAllocateMore(t *testing.T) {
	if isInstrumented {
		t.Skip("instrumented programs allocate")
	}
	inBothWorlds(t, func(w *world) {
		rows, slice := w.rows(), make([]byte, 64)
		if count := testing.AllocsPerRun(200, func() { w.ok(rows.Write(streaminfer.Rectangle{Rows: 1, Bytes: 64}, slice)) }); count != 0 {
			w.Errorf("%v allocations", count)
		}
	})
}
