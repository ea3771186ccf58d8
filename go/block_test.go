package streaminfer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// blocking makes a session that is bound to the calling goroutine and blocks its thread.
func (w *world) blocking(model *streaminfer.Model) *streaminfer.Session {
	w.Helper()
	s, err := model.NewSession(streaminfer.SessionOptions{Block: true})
	w.ok(err)
	w.ok(s.Bind())
	return s
}

func TestBlockedThreadsCompute(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.blocking(w.load(affine))
		x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
		deadline, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		for round := range 200 {
			x.Data[0] = float32(round)
			w.ok(s.Run([]context.Context{context.Background(), deadline}[round%2]))
			if y.Data[0] != 2*float32(round)+1 {
				w.Fatal(round, y.Data[0])
			}
		}
		w.ok(s.Unbind())
		w.ok(s.Run(context.Background())) // without a thread of its own it does not block one
		w.ok(s.Close())
	})
}

func TestBlockedThreadsAreReleased(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		for name, end := range map[string]struct {
			how  func(*streaminfer.Session, context.CancelFunc)
			want streaminfer.Status
		}{
			"context": {func(_ *streaminfer.Session, cancel context.CancelFunc) { cancel() }, streaminfer.StatusCancelled},
			"cancel":  {func(s *streaminfer.Session, _ context.CancelFunc) { w.ok(s.Cancel()) }, streaminfer.StatusCancelled},
			"close":   {func(s *streaminfer.Session, _ context.CancelFunc) { w.ok(s.Close()) }, streaminfer.StatusStaleHandle},
		} {
			s := w.blocking(model)
			ctx, cancel := context.WithCancel(context.Background())
			w.ok(s.Submit(context.Background()))
			go func() {
				time.Sleep(2 * time.Millisecond) // most likely the thread is blocked by then
				end.how(s, cancel)
			}()
			err := s.Wait(ctx)
			if !errors.Is(err, end.want) || w.executed(err) != streaminfer.ExecutedMaybe ||
				errors.Is(err, context.Canceled) != (name == "context") {
				w.Errorf("%s: %v", name, err)
			}
			cancel()
			w.ok(s.Close())
		}
		w.release()
		w.settle(0)
	})
}

// A race between completion and the end of ctx ends in one of two ways.
func TestBlockedThreadsRaceCancels(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.blocking(w.load(affine))
		x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
		for round := range 1000 {
			ctx, cancel := context.WithCancel(context.Background())
			x.Data[0] = float32(round)
			w.ok(s.Submit(ctx))
			go cancel()
			if err := s.Wait(ctx); err != nil {
				w.is(err, streaminfer.StatusCancelled)
				w.ok(s.Drain(context.Background()))
			} else if y.Data[0] != 2*float32(round)+1 {
				w.Fatalf("round %d: %v", round, y.Data[0])
			}
			cancel()
		}
		w.ok(s.Close())
	})
}
