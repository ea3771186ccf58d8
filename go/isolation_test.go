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
		onHost := !w.isFake && device() == "host"
		if w.isFake || onHost {
			has(w.load(affine), 0)
		}
		_, err := load(-1)
		w.is(err, streaminfer.StatusInvalidArgument)
		own, err := load(44)
		if onHost {
			w.is(err, streaminfer.StatusUnsupported)
			return
		}
		w.ok(err)
		if count, err := own.Multiprocessors(); err != nil || count < 44 {
			t.Errorf("%d multiprocessors, and not 44 or more: %v", count, err)
		}
	})
}
