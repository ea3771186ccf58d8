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
		all, err := w.load(affine).Multiprocessors()
		w.ok(err)
		_, err = load(-1)
		w.is(err, streaminfer.StatusInvalidArgument)
		asked := all / 3 // whatever GPU it is
		switch {
		case w.isFake || device() == "host":
			if asked = 12; all != 0 {
				w.Errorf("%d multiprocessors where there is no GPU", all)
			}
		case asked == 0:
			w.Fatalf("a GPU of %d multiprocessors", all)
		}
		own, err := load(asked)
		if !w.isFake && device() == "host" {
			w.is(err, streaminfer.StatusUnsupported)
			return
		}
		w.ok(err)
		if count, err := own.Multiprocessors(); err != nil || count < asked || !w.isFake && count >= all {
			w.Errorf("%d of %d multiprocessors for a model that asked for %d: %v", count, all, asked, err)
		}
	})
}
