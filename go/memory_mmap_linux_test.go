package streaminfer_test

import (
	"context"
	"syscall"
	"testing"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// Memory that Go does not know is registered as its own is, and can be unmapped after Drain.
func TestMappedMemoryIsUnmapped(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		for _, closedFirst := range []bool{false, true} {
			mapped, err := syscall.Mmap(-1, 0, 2*streaminfer.MemoryPageBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
			w.ok(err)
			slice := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(mapped))), len(mapped)/4)
			lent, err := streaminfer.Register(w.engine, slice)
			w.ok(err)
			s := w.attached(model, streaminfer.Attachment{Input: "x", Memory: lent}, streaminfer.Attachment{Output: "y", Memory: lent, Offset: 4096})
			slice[2] = 3
			w.ok(s.Run(context.Background()))
			if slice[1024+2] != 7 {
				w.Errorf("got %v", slice[1024+2])
			}
			if closedFirst {
				w.ok(lent.Close())
			}
			w.ok(s.Close())
			w.ok(lent.Drain(context.Background()))
			w.ok(lent.Close())
			w.emptied()
			w.ok(syscall.Munmap(mapped))
			w.ok(w.session(model).Run(context.Background()))
		}
	})
}
