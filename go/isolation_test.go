package streaminfer_test

import (
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

func TestSessionsOfEveryPriorityAnswerAlike(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		for _, priority := range []streaminfer.Priority{0, streaminfer.PriorityLow, streaminfer.PriorityNormal, streaminfer.PriorityHigh} {
			s, err := model.NewSession(streaminfer.SessionOptions{Priority: priority})
			w.ok(err)
			w.ok(s.Run(t.Context()))
			w.ok(s.Close())
		}
	})
}

func TestMultiprocessorsAreTheDevices(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		load := func(multiprocessors int) (*streaminfer.Model, error) {
			file := []byte(affine)
			if !w.isFake {
				file = onnxFile(affine)
			}
			return w.engine.LoadBytes(file, streaminfer.ModelOptions{Multiprocessors: multiprocessors})
		}
		has := func(model *streaminfer.Model, wanted int) {
			if count, err := model.Multiprocessors(); err != nil || count != wanted {
				t.Errorf("%d multiprocessors, and not %d: %v", count, wanted, err)
			}
		}
		has(w.load(affine), 0)
		_, err := load(-1)
		w.is(err, streaminfer.StatusInvalidArgument)
		own, err := load(44)
		if w.isFake {
			w.ok(err)
			has(own, 44)
		} else {
			// The library computes on the host here.
			w.is(err, streaminfer.StatusUnsupported)
		}
	})
}
