package streaminfer_test

import (
	"context"
	"runtime/debug"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// faults reports whether a memory access is a fault, which debug.SetPanicOnFault makes a panic that can be recovered from.
func faults(access func()) (faulted bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { faulted = recover() != nil }()
	access()
	return
}

// touched keeps the compiler from leaving a read out.
var touched float32

// ends has accesses to the first and the last element of a view: to read, and to write what is there.
func ends(data []float32) (reads, writes []func()) {
	for _, at := range []int{0, len(data) - 1} {
		reads = append(reads, func() { touched = data[at] })
		writes = append(writes, func() { data[at] = 1 })
	}
	return reads, writes
}

func (w *world) all(what string, accesses []func(), fault bool) {
	w.Helper()
	for _, access := range accesses {
		if faults(access) != fault {
			w.Errorf("%s faults: %v, want %v", what, !fault, fault)
		}
	}
}

// onLibrary runs a test whose memory is the library's.
func onLibrary(t *testing.T, test func(w *world)) {
	engine := openLibrary(t)
	t.Cleanup(func() { engine.Close() })
	test(&world{t, false, engine, func() {}})
}

func TestViewsOfAClosedSessionFault(t *testing.T) {
	needsHost(t)
	onLibrary(t, func(w *world) {
		model := w.load(affine, batch(4096))
		s := w.session(model)
		readIn, writeIn := ends(input[float32](w, s, "x").Data)
		readOut, writeOut := ends(output[float32](w, s, "y").Data)
		w.ok(s.Run(context.Background()))
		for _, accesses := range [][]func(){readIn, writeIn, readOut, writeOut} {
			w.all("a live view", accesses, false)
		}
		w.ok(s.Close())
		// Others that come after it do not get its addresses.
		for range 10 {
			other := w.session(model)
			defer other.Close()
			for _, accesses := range [][]func(){readIn, writeIn, readOut, writeOut} {
				w.all("a view of a closed session", accesses, true)
			}
		}
	})
}

func TestViewsStayUntilTheDeviceIsDone(t *testing.T) {
	needsHost(t)
	onLibrary(t, func(w *world) {
		s := w.session(w.load(slow))
		reads, _ := ends(input[float32](w, s, "x").Data)
		w.ok(s.Submit(context.Background()))
		w.ok(s.Close())
		eventually(w, "the memory to go", func() bool { return faults(reads[0]) })
	})
}

// Without the build tag streaminfer_debug a request in flight is not protected from writes, nor slowed by the protection.
func TestInputsInFlight(t *testing.T) {
	onLibrary(t, func(w *world) {
		quick := w.session(w.load(affine, batch(4)))
		_, writes := ends(input[float32](w, quick, "x").Data)
		for range 2 {
			w.ok(quick.Run(context.Background()))
			w.all("writing after", writes, false)
		}
		s := w.session(w.load(endless))
		reads, writes := ends(input[float32](w, s, "x").Data)
		w.all("writing before", writes, false)
		w.ok(s.Submit(context.Background()))
		w.all("reading in flight", reads, false)
		w.all("writing in flight", writes, guarded)
		w.ok(s.Cancel())
		w.is(s.Wait(context.Background()), streaminfer.StatusCancelled)
		w.ok(s.Drain(context.Background()))
		w.all("writing after draining", writes, false)
	})
}
