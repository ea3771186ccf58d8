package streaminfer_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

func (w *world) bound(model *streaminfer.Model, options streaminfer.BoundOptions) *streaminfer.Bound {
	w.Helper()
	b, err := streaminfer.NewBound(model, options)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := b.Close(); err != nil {
			w.Error(err)
		}
	})
	return b
}

func TestBoundWorkerKeepsItsThread(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.bound(w.load(affine), streaminfer.BoundOptions{})
		var kept *streaminfer.Session
		var group sync.WaitGroup
		threads := map[int]int{} // only the worker writes it
		for round := range 40 {
			group.Go(func() {
				err := b.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error {
					threads[threadID()]++
					kept = s
					x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
					x.Data[1] = float32(round)
					if err := s.Run(ctx); err != nil || y.Data[1] != 2*float32(round)+1 {
						w.Errorf("%v: %v became %v", err, x.Data[1], y.Data[1])
					}
					return nil
				})
				if err != nil {
					w.Error(err)
				}
			})
		}
		group.Wait()
		if len(threads) != 1 {
			w.Errorf("the worker ran on the threads %v", threads)
		}
		// This goroutine is not locked, but it cannot be on a thread that is.
		w.is(kept.Run(context.Background()), streaminfer.StatusWrongThread)
	})
}

func TestBoundCallsCanBeGivenUp(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.bound(w.load(affine), streaminfer.BoundOptions{})
		started, gate, ended := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			ended <- b.Do(context.Background(), func(context.Context, *streaminfer.Session) error {
				close(started)
				<-gate
				return errPlanted
			})
		}()
		<-started
		never := func(context.Context, *streaminfer.Session) error { w.Error("it ran"); return nil }
		ctx, cancel := context.WithCancel(context.Background())
		go func() { ended <- b.Do(ctx, never) }()
		cancel()
		err := <-ended
		if w.is(err, streaminfer.StatusCancelled); w.executed(err) != streaminfer.ExecutedNo {
			w.Error(err)
		}
		short, cancel := context.WithTimeout(context.Background(), 1)
		defer cancel()
		w.isLate(b.Do(short, never))
		close(gate)
		if err := <-ended; err != errPlanted {
			w.Error(err)
		}
	})
}

func TestBoundWorkerSurvivesPanics(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.bound(w.load(affine), streaminfer.BoundOptions{})
		func() {
			defer func() {
				if value := recover(); value != errPlanted {
					w.Error("the panic became", value)
				}
			}()
			_ = b.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error {
				w.ok(s.Submit(ctx)) // left in flight
				panic(errPlanted)
			})
		}()
		w.ok(b.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error { return s.Run(ctx) }))
		w.ok(b.Close())
		w.ok(b.Close())
		w.is(b.Do(context.Background(), nil), streaminfer.StatusStaleHandle)
	})
}

// Goroutines that exit while bound, workers and sessions that are forgotten while bound: nothing of them is left.
func TestNothingBoundLeaks(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		w.ok(w.session(model).Close()) // the engine's reaper runs from now on
		before := runtime.NumGoroutine()
		for range 10 {
			b, err := streaminfer.NewBound(model, streaminfer.BoundOptions{})
			w.ok(err)
			err = b.Do(context.Background(), func(context.Context, *streaminfer.Session) error { runtime.Goexit(); return nil })
			w.is(err, streaminfer.StatusPanicked)
			w.is(b.Do(context.Background(), nil), streaminfer.StatusStaleHandle)
			w.ok(b.Close())
		}
		for range 10 { // forgotten workers
			b, err := streaminfer.NewBound(model, streaminfer.BoundOptions{})
			w.ok(err)
			w.ok(b.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error { return s.Run(ctx) }))
		}
		var group sync.WaitGroup
		for range 10 { // goroutines that end while bound, whose sessions nobody has
			group.Go(func() {
				s := w.session(model)
				if err := s.Bind(); err != nil {
					w.Error(err)
				}
				if err := s.Run(context.Background()); err != nil {
					w.Error(err)
				}
				runtime.Goexit()
			})
		}
		group.Wait()
		w.settle(0)
		eventually(w, "the workers to end", func() bool { return runtime.NumGoroutine() <= before })
	})
}

func TestBoundWorkerNeedsASession(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		_, err := streaminfer.NewBound(w.load(affine), streaminfer.BoundOptions{Session: streaminfer.SessionOptions{Threads: -1}})
		if !errors.Is(err, streaminfer.StatusInvalidArgument) {
			w.Error(err)
		}
	})
}

func ExampleBound() {
	engine, model := double()
	defer engine.Close()
	worker, err := streaminfer.NewBound(model, streaminfer.BoundOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close()

	// Several calls in one visit to the worker's thread.
	err = worker.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error {
		x, err := streaminfer.Input[float32](s, "x")
		if err != nil {
			return err
		}
		y, err := streaminfer.Output[float32](s, "y")
		if err != nil {
			return err
		}
		copy(x.Data, []float32{1, 2, 3})
		for range 3 {
			if err := s.Run(ctx); err != nil {
				return err
			}
			copy(x.Data, y.Data)
		}
		fmt.Println(y.Data)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: [8 16 24]
}

// What one function leaves on the device is waited for before the next one runs, for as long as that one's context lasts.
func TestBoundNextCallFindsTheSessionDrained(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.bound(w.load(endless), streaminfer.BoundOptions{})
		touch := func(ctx context.Context, s *streaminfer.Session) error {
			x, err := streaminfer.Input[float32](s, "x")
			if err == nil {
				x.Write([]float32{1})
			}
			return err
		}
		giveUp := func() {
			w.ok(b.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error { return s.Submit(ctx) }))
		}
		giveUp()
		if w.isFake {
			short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			w.isLate(b.Do(short, touch))
		}
		w.release()
		for range 5 {
			w.ok(b.Do(context.Background(), touch))
			giveUp()
		}
		w.ok(b.Close())
	})
}

// A worker is closed although the device does not come to an end with what was given up.
func TestBoundIsClosedWhileItDrains(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.bound(w.load(endless), streaminfer.BoundOptions{})
		w.ok(b.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error { return s.Submit(ctx) }))
		waiting := started(func() error {
			return b.Do(context.Background(), func(context.Context, *streaminfer.Session) error { return nil })
		})
		w.ok(w.returns("Close", started(b.Close)))
		if err := w.returns("Do", waiting); err != nil { // nil if the device was quicker
			w.is(err, streaminfer.StatusStaleHandle)
		}
	})
}

func TestBoundSessionStaysBound(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.bound(w.load(affine), streaminfer.BoundOptions{})
		thread := 0
		err := b.Do(context.Background(), func(_ context.Context, s *streaminfer.Session) error {
			thread = threadID()
			return s.Unbind()
		})
		w.is(err, streaminfer.StatusWrongState)
		var kept *streaminfer.Session
		w.ok(b.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error {
			kept = s
			if now := threadID(); now != thread {
				w.Errorf("the worker has moved from thread %d to %d", thread, now)
			}
			return s.Run(ctx)
		}))
		w.is(kept.Run(context.Background()), streaminfer.StatusWrongThread)
	})
}

// A session that a panic of the library poisoned is replaced.
func TestBoundReplacesAPoisonedSession(t *testing.T) {
	engine := fake.NewEngine(scalars(func(x float32) (float32, error) {
		if x < 0 {
			return 0, streaminfer.StatusPoisoned
		}
		return x, nil
	}))
	finish(t, engine, runtime.NumGoroutine())
	w := &world{T: t, isFake: true, engine: engine}
	model, err := engine.LoadBytes([]byte("scalars"), streaminfer.ModelOptions{})
	w.ok(err)
	b := w.bound(model, streaminfer.BoundOptions{})
	var sessions []*streaminfer.Session
	run := func(value float32) error {
		return b.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error {
			sessions = append(sessions, s)
			input[float32](w, s, "x").Data[0] = value
			return s.Run(ctx)
		})
	}
	w.ok(run(1))
	w.is(run(-1), streaminfer.StatusPoisoned)
	w.ok(run(1))
	if sessions[0] != sessions[1] || sessions[1] == sessions[2] {
		w.Error("the wrong session was replaced")
	}
}

// A worker whose engine is closed says so, and its goroutine ends, which finish checks.
func TestBoundOfAClosedEngine(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b, err := streaminfer.NewBound(w.load(affine), streaminfer.BoundOptions{})
		w.ok(err)
		idle, err := streaminfer.NewBound(w.load(affine), streaminfer.BoundOptions{})
		w.ok(err)
		before := runtime.NumGoroutine()
		w.ok(w.engine.Close())
		eventually(w, "the workers to end", func() bool { return runtime.NumGoroutine() <= before-2 })
		for range 3 {
			err := b.Do(context.Background(), func(context.Context, *streaminfer.Session) error { w.Error("it ran"); return nil })
			w.is(err, streaminfer.StatusStaleHandle)
			if failed, _ := errors.AsType[*streaminfer.Error](err); failed.Message != "the engine is closed" {
				w.Error(err)
			}
		}
		w.ok(b.Close())
		runtime.KeepAlive(idle)
	})
}

func TestBindInFlight(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(affine))
		w.ok(s.Submit(context.Background()))
		w.is(s.Bind(), streaminfer.StatusInFlight)
		w.ok(s.Wait(context.Background()))
		w.ok(s.Bind())
		w.ok(s.Run(context.Background()))
		w.ok(s.Unbind())
	})
}
