package streaminfer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

func TestContextEndedBeforeRun(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(affine))
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		err := s.Run(ctx)
		w.is(err, streaminfer.StatusCancelled)
		if !errors.Is(err, context.Canceled) || w.executed(err) != streaminfer.ExecutedNo {
			w.Fatalf("%v, executed %v", err, w.executed(err))
		}
		late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
		defer cancel()
		err = s.Run(late)
		w.is(err, streaminfer.ErrDeadline) // as from a pool
		if !errors.Is(err, context.DeadlineExceeded) || w.executed(err) != streaminfer.ExecutedNo {
			w.Fatalf("%v, executed %v", err, w.executed(err))
		}
		input[float32](w, s, "x").Data[0] = 1 // nothing is draining
		w.ok(s.Run(context.Background()))
	})
}

func TestContextEndedDuringRunLeavesTheSessionDraining(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		var sessions []*streaminfer.Session
		for _, budget := range []time.Duration{time.Microsecond, time.Millisecond, 20 * time.Millisecond} {
			s := w.session(model)
			sessions = append(sessions, s)
			// The request itself has no deadline, so it cannot expire before it is started.
			w.ok(s.Submit(context.Background()))
			ctx, cancel := context.WithTimeout(context.Background(), budget)
			err := s.Wait(ctx)
			cancel()
			w.is(err, streaminfer.StatusTimeout)
			if !errors.Is(err, context.DeadlineExceeded) || w.executed(err) != streaminfer.ExecutedMaybe {
				w.Fatalf("%v, executed %v", err, w.executed(err))
			}
			if w.isFake {
				w.isDraining(s)
			}
		}
		w.release()
		for _, s := range sessions {
			w.ok(s.Drain(context.Background()))
			input[float32](w, s, "x").Data[0] = 7
		}
		if !w.isFake {
			w.drainsWhileWatched(sessions[0])
		}
	})
}

// isDraining fails the test unless the device is still at work on a request that was given up.
func (w *world) isDraining(s *streaminfer.Session) {
	w.Helper()
	_, err := streaminfer.Input[float32](s, "x")
	w.is(err, streaminfer.StatusDraining)
	_, err = streaminfer.Output[float32](s, "y")
	w.is(err, streaminfer.StatusDraining)
	short, cancel := context.WithTimeout(context.Background(), time.Microsecond)
	defer cancel()
	w.is(s.Drain(short), streaminfer.StatusTimeout)
}

// drainsWhileWatched gives requests up until one is seen at work afterwards: the library may stop before the test looks.
func (w *world) drainsWhileWatched(s *streaminfer.Session) {
	w.Helper()
	eventually(w, "a request at work after it was given up", func() bool {
		w.ok(s.Drain(context.Background()))
		w.ok(s.Submit(context.Background()))
		time.Sleep(2 * time.Millisecond) // most likely it is in the middle of a step
		w.ok(s.Cancel())
		_, err := streaminfer.Output[float32](s, "y")
		if err != nil {
			w.is(err, streaminfer.StatusDraining)
		}
		w.is(s.Wait(context.Background()), streaminfer.StatusCancelled)
		return err != nil
	})
}

// A deadline that Run hands on may pass before the device starts the request, or after.
func TestDeadlineDuringRun(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		for _, budget := range []time.Duration{time.Microsecond, time.Millisecond, 20 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(context.Background(), budget)
			err := w.session(model).Run(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				w.Fatal(err)
			}
			if w.executed(err) == streaminfer.ExecutedMaybe || !errors.Is(err, streaminfer.StatusExpired) {
				w.is(err, streaminfer.StatusTimeout)
			}
		}
	})
}

func TestRunDrainsFirst(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(slow))
		x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
		x.Data[0] = 7
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		w.ok(s.Submit(context.Background()))
		if err := s.Wait(ended); err != nil { // nil if the machine stood still
			w.is(err, streaminfer.StatusCancelled)
		}
		w.ok(s.Run(context.Background()))
		if y.Data[0] != 7 {
			w.Fatal(y.Data[0])
		}
	})
}

// A race between completion and the end of ctx must end in one of two ways, and leave no completion behind that a
// later request would take for its own.
func TestContextRacesCompletion(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		s, err := model.NewSession(streaminfer.SessionOptions{SpinBudget: -1})
		w.ok(err)
		x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
		for round := range 2000 {
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
	})
}

// A request that has to wait for the device first, and for whom there is no permit, has not been started either.
func TestDeadlineBeforeTheStart(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		if !w.isFake {
			w.Skip("the library may be done before the test looks")
		}
		s := w.session(w.load(endless))
		w.ok(s.Submit(context.Background()))
		w.ok(s.Cancel())
		w.is(s.Wait(context.Background()), streaminfer.StatusCancelled)
		short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		w.isLate(s.Run(short))
		w.release()
	})
	busy := scalars(func(x float32) (float32, error) { return x, nil })
	busy.Admit = func() error { return streaminfer.StatusAgain }
	w, pool := fakePool(t, busy, streaminfer.PoolOptions{Sessions: 1, WarmUp: -1})
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := infer(short, pool, 1)
	w.isLate(err)
}

// Whoever says that time ran out: it is the context's deadline that did.
func TestTimeoutIsTheContextsDeadline(t *testing.T) {
	model := twoOutputs()
	model.Run = func(*fake.Call) error { return streaminfer.StatusTimeout }
	engine := fake.NewEngine(model)
	defer engine.Close()
	w := &world{T: t, isFake: true, engine: engine}
	loaded, err := engine.LoadBytes([]byte("two"), streaminfer.ModelOptions{
		Buckets:  []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {1}}}},
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x"}}})
	w.ok(err)
	w.inBothWays(loaded, func(way string, by inferer) {
		err := by.Infer(context.Background(), []streaminfer.Tensor{streaminfer.NewTensor("x", []float32{0}, 1)}, nil)
		if w.is(err, streaminfer.StatusTimeout); !errors.Is(err, context.DeadlineExceeded) || w.executed(err) != streaminfer.ExecutedMaybe {
			w.Errorf("%s: %v", way, err)
		}
	})
}
