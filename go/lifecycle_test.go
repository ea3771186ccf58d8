package streaminfer_test

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// executed returns what a failure says about retrying.
func (w *world) executed(err error) streaminfer.Executed {
	w.Helper()
	failure, ok := errors.AsType[*streaminfer.Error](err)
	if !ok {
		w.Fatalf("%v is no *Error", err)
	}
	return failure.Executed
}

func TestCancelFromElsewhere(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(endless))
		w.ok(s.Cancel()) // nothing to cancel
		w.ok(s.Submit(context.Background()))
		time.AfterFunc(2*time.Millisecond, func() { _ = s.Cancel() })
		err := s.Wait(context.Background())
		w.is(err, streaminfer.StatusCancelled)
		if w.executed(err) != streaminfer.ExecutedMaybe {
			w.Fatal(err)
		}
		w.release()
		w.ok(s.Drain(context.Background()))
		fast := w.session(w.load(affine))
		w.ok(fast.Run(context.Background()))
		w.ok(fast.Cancel()) // too late is no failure
	})
}

func TestOneGoroutineAtATime(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(endless))
		w.ok(s.Submit(context.Background()))
		ended := make(chan error)
		go func() {
			err := s.Wait(context.Background())
			for errors.Is(err, streaminfer.StatusBusy) { // a Poll was in its way
				err = s.Wait(context.Background())
			}
			ended <- err
		}()
		eventually(w, "two calls to meet", func() bool {
			_, err := s.Poll()
			return errors.Is(err, streaminfer.StatusBusy)
		})
		w.ok(s.Cancel())
		w.is(<-ended, streaminfer.StatusCancelled)
	})
}

func TestCloseDuringRun(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		for range 3 {
			s := w.session(model)
			w.ok(s.Submit(context.Background()))
			time.AfterFunc(2*time.Millisecond, func() { _ = s.Close() })
			err := s.Wait(context.Background())
			w.is(err, streaminfer.StatusStaleHandle)
			if w.executed(err) != streaminfer.ExecutedMaybe {
				w.Fatal(err)
			}
			w.is(s.Run(context.Background()), streaminfer.StatusStaleHandle)
			w.ok(s.Close())
		}
		w.release()
		w.settle(0)
	})
}

func TestCloseBetweenSubmitAndWait(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(affine))
		w.ok(s.Submit(context.Background()))
		w.ok(s.Close())
		_, polled := s.Poll()
		for _, err := range []error{s.Wait(context.Background()), polled} {
			w.is(err, streaminfer.StatusStaleHandle)
			if w.executed(err) != streaminfer.ExecutedMaybe {
				w.Fatal(err)
			}
		}
		if err := s.Run(context.Background()); w.executed(err) != streaminfer.ExecutedNo {
			w.Fatal(err)
		}
	})
}

func TestEngineCloseDuringRun(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		var sessions [4]*streaminfer.Session
		for i := range sessions {
			sessions[i] = w.session(model) // takes its time
		}
		var group sync.WaitGroup
		for _, s := range sessions {
			w.ok(s.Submit(context.Background()))
			group.Go(func() {
				if err := s.Wait(context.Background()); !errors.Is(err, streaminfer.StatusStaleHandle) {
					w.Errorf("a request survived its engine: %v", err)
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
		w.ok(w.engine.Close())
		group.Wait()
		_, err := w.engine.LoadBytes([]byte(affine), streaminfer.ModelOptions{})
		w.is(err, streaminfer.StatusStaleHandle)
		_, err = model.NewSession(streaminfer.SessionOptions{})
		w.is(err, streaminfer.StatusStaleHandle)
		_, err = w.engine.Stats()
		w.is(err, streaminfer.StatusStaleHandle)
	})
}

// settle waits until the engine has so many sessions.
func (w *world) settle(sessions int) {
	w.Helper()
	eventually(w, "sessions to go", func() bool {
		runtime.GC()
		stats, err := w.engine.Stats()
		w.ok(err)
		return stats.Sessions == sessions
	})
}

func TestForgottenObjectsAreCollected(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		func() {
			model := w.load(affine)
			for range 20 {
				w.ok(w.session(model).Run(context.Background()))
			}
			_, err := w.engine.NewEvent()
			w.ok(err)
		}()
		w.settle(0)
		eventually(w, "model and event to go", func() bool {
			runtime.GC()
			stats, err := w.engine.Stats()
			w.ok(err)
			return stats.Models == 0 && stats.Events == 0
		})
	})
}

func TestCollectorRunsDuringRequests(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		var group sync.WaitGroup
		for worker := range 4 {
			group.Go(func() {
				for round := range 20 {
					s, err := model.NewSession(streaminfer.SessionOptions{})
					if err != nil {
						w.Error(err)
						return
					}
					x, _ := streaminfer.Input[float32](s, "x")
					y, _ := streaminfer.Output[float32](s, "y")
					for step := range 5 {
						x.Data[3] = float32(worker + round + step)
						runtime.GC()
						if err := s.Run(context.Background()); err != nil || y.Data[3] != 2*x.Data[3]+1 {
							w.Errorf("%v: %v became %v", err, x.Data[3], y.Data[3])
						}
					}
					if round%2 == 0 { // the other half is left to the net
						s.Close()
					}
				}
			})
		}
		group.Wait()
		w.settle(0)
	})
}

func TestRunDoesNotAllocate(t *testing.T) {
	if isInstrumented {
		t.Skip("instrumented programs allocate")
	}
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		for _, budget := range []time.Duration{0, -1} {
			s, err := model.NewSession(streaminfer.SessionOptions{SpinBudget: budget})
			w.ok(err)
			ctx := context.Background()
			if allocations := testing.AllocsPerRun(500, func() { w.ok(s.Run(ctx)) }); allocations != 0 {
				w.Errorf("%v allocations per Run with a spin budget of %v", allocations, budget)
			}
		}
	})
}

func TestBind(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(affine))
		w.ok(s.Bind())
		w.is(s.Bind(), streaminfer.StatusWrongState)
		w.ok(s.Run(context.Background()))
		elsewhere := make(chan error)
		go func() { elsewhere <- s.Run(context.Background()) }()
		w.is(<-elsewhere, streaminfer.StatusWrongThread)
		go func() { elsewhere <- s.Unbind() }()
		w.is(<-elsewhere, streaminfer.StatusWrongThread)
		go func() { elsewhere <- s.Bind() }()
		w.is(<-elsewhere, streaminfer.StatusWrongThread)
		w.ok(s.Unbind())
		w.is(s.Unbind(), streaminfer.StatusWrongState)
		go func() { elsewhere <- s.Run(context.Background()) }()
		w.ok(<-elsewhere)

		w.ok(s.Bind())
		go func() { elsewhere <- s.Close() }()
		w.ok(<-elsewhere)
		w.is(s.Run(context.Background()), streaminfer.StatusStaleHandle)
		runtime.UnlockOSThread() // Close from elsewhere cannot
	})
}

func TestGoroutineThatEndsBoundReleasesTheSession(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(affine))
		bound, ended := make(chan error), make(chan struct{})
		defer close(ended)
		for attempt := 0; attempt < 10; {
			go func() {
				if onFirstThread() { // stay there, so that the next one is not
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					bound <- errFirstThread
					<-ended
					return
				}
				bound <- s.Bind()
			}()
			switch err := <-bound; {
			case err == errFirstThread:
				time.Sleep(time.Millisecond)
			case errors.Is(err, streaminfer.StatusWrongThread): // the last thread is still ending
				time.Sleep(time.Millisecond)
			default:
				w.ok(err)
				attempt++
			}
		}
		eventually(w, "the thread to end", func() bool { return s.Run(context.Background()) == nil })
	})
}

var errFirstThread = errors.New("on the process's first thread")
