package streaminfer_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// frames is a slice that Go's allocator gives pages of its own.
func frames(w *world) []float32 {
	slice := make([]float32, 16<<10)
	if uintptr(unsafe.Pointer(&slice[0]))%streaminfer.MemoryPageBytes != 0 {
		w.Fatal("a slice of 64 KiB does not begin with a page")
	}
	return slice
}

func (w *world) attached(model *streaminfer.Model, attachments ...streaminfer.Attachment) *streaminfer.Session {
	w.Helper()
	session, err := model.NewSession(streaminfer.SessionOptions{Attachments: attachments})
	w.ok(err)
	return session
}

// stays fails the test unless the engine has so many memories and bytes of both kinds.
func (w *world) stays(memories int, taken, registered uint64) {
	w.Helper()
	stats, err := w.engine.Stats()
	w.ok(err)
	if stats.Memories != memories || stats.MemoryBytes != taken || stats.RegisteredBytes != registered {
		w.Fatalf("%+v", stats)
	}
}

// emptied waits until the engine has no memories.
func (w *world) emptied() {
	w.Helper()
	eventually(w, "the memories to be given back", func() bool {
		stats, err := w.engine.Stats()
		return err == nil && stats.Memories == 0 && stats.MemoryBytes == 0 && stats.RegisteredBytes == 0
	})
}

func TestSessionsReadAndWriteMemoryOfTheProgram(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		slice := frames(w)
		lent, err := streaminfer.Register(w.engine, slice)
		w.ok(err)
		taken, err := w.engine.NewPinned(256)
		w.ok(err)
		if lent.Kind() != streaminfer.MemoryRegistered || taken.Kind() != streaminfer.MemoryPinned || taken.RowBytes() != 256 {
			w.Fatalf("%v %v %d", lent.Kind(), taken.Kind(), taken.RowBytes())
		}
		w.stays(2, 256, 64<<10)
		slice[1024] = 7 // what is there before is what the first request reads
		s := w.attached(model, streaminfer.Attachment{Input: "x", Memory: lent, Offset: 4096},
			streaminfer.Attachment{Output: "y", Memory: taken, Offset: 128})
		result, err := streaminfer.Elements[float32](taken)
		w.ok(err)
		w.ok(s.Run(context.Background()))
		if result[32] != 15 {
			w.Fatalf("got %v", result[32])
		}
		if x, y := input[float32](w, s, "x"), output[float32](w, s, "y"); &x.Data[0] != &slice[1024] || &y.Data[0] != &result[32] {
			w.Fatal("the views lie elsewhere")
		}
		for round := range 10 {
			slice[1024+3] = float32(round)
			w.ok(s.Run(context.Background()))
			if want := 2*float32(round) + 1; result[32+3] != want {
				w.Fatalf("got %v, want %v", result[32+3], want)
			}
		}
		// In any order.
		w.ok(lent.Close())
		w.ok(lent.Close())
		_, err = streaminfer.Elements[float32](lent)
		w.is(err, streaminfer.StatusStaleHandle)
		runtime.GC()
		slice[1024] = 2
		w.ok(s.Run(context.Background()))
		if result[32] != 5 {
			w.Fatalf("got %v", result[32])
		}
		w.ok(s.Close())
		w.ok(taken.Close())
		_, err = streaminfer.Elements[float32](taken)
		w.is(err, streaminfer.StatusStaleHandle)
		w.emptied()
		again, err := streaminfer.Register(w.engine, slice)
		w.ok(err)
		w.ok(again.Close())
		w.stays(0, 0, 0)
		_, err = model.NewSession(streaminfer.SessionOptions{Attachments: []streaminfer.Attachment{{Input: "x", Memory: again}}})
		w.is(err, streaminfer.StatusStaleHandle)
	})
}

func TestBadAttachmentsAreRefused(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		memory, err := w.engine.NewPinned(128)
		w.ok(err)
		rows, err := w.engine.NewPitched(4, 64, 4)
		w.ok(err)
		type attachments = []streaminfer.Attachment
		for _, bad := range []attachments{
			{{Memory: memory}},
			{{Input: "x"}},
			{{Input: "x", Output: "y", Memory: memory}},
			{{Input: "z", Memory: memory}},
			{{Output: "x", Memory: memory}},
			{{Input: "x", Memory: memory, Offset: -64}},
			{{Input: "x", Memory: memory, Offset: 8}},
			{{Input: "x", Memory: memory, Offset: 128}},
			{{Input: "x", Memory: rows}},
			{{Input: "x", Memory: memory}, {Input: "x", Memory: memory, Offset: 64}},
			{{Input: "x", Memory: memory}, {Output: "y", Memory: memory}},
		} {
			_, err := model.NewSession(streaminfer.SessionOptions{Attachments: bad})
			w.is(err, streaminfer.StatusInvalidArgument)
		}
		first := w.session(model)
		_, err = model.NewSession(streaminfer.SessionOptions{Links: []streaminfer.Link{{Input: "x", Source: first, Output: "y"}},
			Attachments: attachments{{Input: "x", Memory: memory}}})
		w.is(err, streaminfer.StatusInvalidArgument)
		large := w.load(affine, batch(1000))
		_, err = large.NewSession(streaminfer.SessionOptions{Attachments: attachments{{Output: "y", Memory: memory}}})
		w.is(err, streaminfer.StatusInvalidArgument)
		_, err = streaminfer.NewPool(model, streaminfer.PoolOptions{
			Session: streaminfer.SessionOptions{Attachments: attachments{{Input: "x", Memory: memory}}}})
		w.is(err, streaminfer.StatusInvalidArgument)
		// None of the refusals holds on to the memory.
		w.ok(w.attached(model, attachments{{Input: "x", Memory: memory}, {Output: "y", Memory: memory, Offset: 64}}...).Close())
	})
}

func TestSlicesAreRegisteredOnceAndWhole(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		slice := frames(w)
		register := func(part []float32) error {
			memory, err := streaminfer.Register(w.engine, part)
			if err == nil {
				w.ok(memory.Close())
			}
			return err
		}
		w.is(register(nil), streaminfer.StatusInvalidArgument)
		w.is(register(slice[:0]), streaminfer.StatusInvalidArgument)
		w.is(register(slice[16:]), streaminfer.StatusInvalidArgument)
		first, err := streaminfer.Register(w.engine, slice[:1025])
		w.ok(err)
		w.is(register(slice), streaminfer.StatusInvalidArgument)
		w.is(register(slice[1024:]), streaminfer.StatusInvalidArgument)
		w.ok(register(slice[2048:]))
		elements, err := streaminfer.Elements[int64](first)
		w.ok(err)
		if len(elements) != 512 {
			w.Fatalf("%d whole elements", len(elements))
		}
		w.ok(first.Close())
		w.ok(register(slice))
		for _, bytes := range []int{0, -1} {
			_, err := w.engine.NewPinned(bytes)
			w.is(err, streaminfer.StatusInvalidArgument)
		}
		w.stays(0, 0, 0)
	})
}

func TestRowsOfDeviceMemoryAreCopied(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pitched, err := w.engine.NewPitched(5, 100, 8)
		w.ok(err)
		linear, err := w.engine.NewLinear(5, 100)
		w.ok(err)
		if pitched.Pitch() < 100 || pitched.Pitch()%64 != 0 || linear.Pitch() != 100 || linear.Rows() != 5 || linear.RowBytes() != 100 {
			w.Fatalf("pitches %d and %d", pitched.Pitch(), linear.Pitch())
		}
		for _, memory := range []*streaminfer.Memory{pitched, linear} {
			from, into := make([]byte, 500), make([]byte, 500)
			for i := range from {
				from[i] = byte(i)
			}
			w.ok(memory.Write(streaminfer.Rectangle{}, from))
			w.ok(memory.Read(streaminfer.Rectangle{}, into))
			if !bytes.Equal(from, into) {
				w.Fatal("what is read is not what was written")
			}
			w.ok(memory.Write(streaminfer.Rectangle{Row: 1, Rows: 2, Byte: 10, Bytes: 2, Pitch: 3}, []byte{1, 2, 0, 3, 4}))
			part := make([]byte, 8)
			w.ok(memory.Read(streaminfer.Rectangle{Row: 1, Rows: 2, Byte: 9, Bytes: 4}, part))
			if want := []byte{109, 1, 2, 112, 209, 3, 4, 212}; !bytes.Equal(part, want) {
				w.Fatalf("got %v, want %v", part, want)
			}
			for _, bad := range []streaminfer.Rectangle{{Row: -1}, {Row: 4, Rows: 2}, {Byte: 99, Bytes: 2}, {Pitch: 99}, {Pitch: 101}} {
				w.is(memory.Read(bad, into), streaminfer.StatusInvalidArgument)
			}
			_, err := streaminfer.Elements[byte](memory)
			w.is(err, streaminfer.StatusInvalidArgument)
		}
		host, err := w.engine.NewPinned(64)
		w.ok(err)
		w.is(host.Write(streaminfer.Rectangle{}, make([]byte, 64)), streaminfer.StatusInvalidArgument)
		for _, element := range []int{0, 5} {
			_, err = w.engine.NewPitched(4, 64, element)
			w.is(err, streaminfer.StatusInvalidArgument)
		}
		_, err = w.engine.NewLinear(0, 64)
		w.is(err, streaminfer.StatusInvalidArgument)
		w.ok(pitched.Close())
		w.is(pitched.Read(streaminfer.Rectangle{}, make([]byte, 500)), streaminfer.StatusStaleHandle)
	})
}

// Memories that are forgotten without Close are freed, their slices unpinned: runtime.Pinner ends the program otherwise.
func TestForgottenMemoriesAreFreed(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		func() {
			for range 3 {
				_, err := streaminfer.Register(w.engine, frames(w))
				w.ok(err)
				_, err = w.engine.NewPinned(64)
				w.ok(err)
			}
		}()
		eventually(w, "the memories to be freed", func() bool {
			runtime.GC()
			stats, err := w.engine.Stats()
			return err == nil && stats.Memories == 0
		})
	})
}

// A session that is closed in flight goes on using the slice; it is given back when its device is done.
func TestASliceOutlivesASessionClosedInFlight(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		func() {
			lent, err := streaminfer.Register(w.engine, make([]float32, slowSide*slowSide))
			w.ok(err)
			s := w.attached(model, streaminfer.Attachment{Output: "y", Memory: lent})
			w.ok(s.Submit(context.Background()))
			w.ok(s.Close())
			w.ok(lent.Close())
		}()
		runtime.GC()
		w.release()
		eventually(w, "the slice to be given back", func() bool {
			stats, err := w.engine.Stats()
			return err == nil && stats.RegisteredBytes == 0 && stats.Memories == 0
		})
	})
}

// Drain returns when no session is attached and the device has finished: before Close, and of registered memory after it, too.
func TestMemoryIsDrained(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		ended, end := context.WithCancel(context.Background())
		end()
		for _, closedFirst := range []bool{false, true} {
			lent, err := streaminfer.Register(w.engine, make([]float32, slowSide*slowSide))
			w.ok(err)
			w.ok(lent.Drain(ended))
			s := w.attached(model, streaminfer.Attachment{Output: "y", Memory: lent})
			if closedFirst {
				w.ok(lent.Close())
			}
			if err := lent.Drain(ended); !errors.Is(err, context.Canceled) {
				w.Errorf("drained while it is attached: %v", err)
			}
			w.ok(s.Submit(context.Background()))
			w.ok(s.Close())
			w.release()
			w.ok(lent.Drain(context.Background()))
			w.ok(lent.Close())
			w.ok(lent.Drain(ended))
			w.emptied()
		}
		taken, err := w.engine.NewPinned(256)
		w.ok(err)
		w.ok(taken.Drain(ended))
		w.ok(taken.Close())
		w.is(taken.Drain(ended), streaminfer.StatusStaleHandle)
	})
}

// A refused session lets go of the memory, and so does one that is forgotten.
func TestRefusedAndForgottenSessionsLetGoOfMemory(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		lent, err := streaminfer.Register(w.engine, frames(w))
		w.ok(err)
		model := w.load(affine)
		_, err = model.NewSession(streaminfer.SessionOptions{
			Attachments: []streaminfer.Attachment{{Input: "x", Memory: lent}, {Output: "y", Memory: lent}}})
		w.is(err, streaminfer.StatusInvalidArgument) // they overlap
		w.attached(model, streaminfer.Attachment{Input: "x", Memory: lent})
		w.ok(lent.Close())
		eventually(w, "the memory to be given back", func() bool {
			runtime.GC()
			stats, err := w.engine.Stats()
			return err == nil && stats.Memories == 0 && stats.RegisteredBytes == 0
		})
	})
}
