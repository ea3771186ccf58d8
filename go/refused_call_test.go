package streaminfer_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// actor is a goroutine that does what it is given, until the test ends.
func (w *world) actor() func(func() error) error {
	work, done := make(chan func() error), make(chan error)
	go func() {
		for f := range work {
			done <- f()
		}
	}()
	w.Cleanup(func() { close(work) })
	return func(f func() error) error { work <- f; return <-done }
}

// What refuses a call says nothing about the request: it goes on, and its owner learns how it ends.
func TestRefusedCallLeavesTheRequestAlone(t *testing.T) {
	background := context.Background()
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		for _, options := range []streaminfer.SessionOptions{{}, {SpinBudget: -1}, {Block: true}} {
			for name, call := range map[string]func(*streaminfer.Session) error{
				"wait": func(s *streaminfer.Session) error { return s.Wait(background) },
				"poll": func(s *streaminfer.Session) error {
					ended, err := s.Poll()
					if ended {
						w.Error("what was refused says that the request has ended")
					}
					return err
				},
			} {
				s, err := model.NewSession(options)
				w.ok(err)
				owner, other := w.actor(), w.actor()
				w.ok(owner(s.Bind))
				w.ok(owner(func() error { return s.Submit(background) }))
				w.is(other(func() error { return call(s) }), streaminfer.StatusWrongThread)
				if err := owner(func() error { return s.Wait(background) }); err != nil {
					w.Fatalf("after a refused %s: %v", name, err)
				}
				for range 3 {
					w.ok(owner(func() error { return s.Run(background) }))
				}
				w.ok(owner(s.Close))
			}
		}
	})
}

func TestRefusedDrainLeavesTheSessionDraining(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		s := w.session(w.load(endless))
		owner, other := w.actor(), w.actor()
		w.ok(owner(s.Bind))
		w.ok(owner(func() error {
			if w.isFake {
				w.ok(s.Submit(context.Background()))
				w.ok(s.Cancel())
				w.is(s.Wait(context.Background()), streaminfer.StatusCancelled)
			} else {
				w.drainsWhileWatched(s)
			}
			return nil
		}))
		w.is(other(func() error { return s.Drain(context.Background()) }), streaminfer.StatusWrongThread)
		w.release()
		// A device that is still at work is waited for. A short deadline: the request itself would take seconds on the library.
		short, cancel := context.WithTimeout(context.Background(), slowTime)
		defer cancel()
		if err := owner(func() error { return s.Run(short) }); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			w.Error(err)
		}
		w.ok(owner(s.Close))
	})
}

// A session is not disturbed by others that are linked to it.
func TestLinkingToASessionInUse(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		for _, options := range []streaminfer.SessionOptions{{}, {SpinBudget: -1}} {
			source, err := model.NewSession(options)
			w.ok(err)
			var stop atomic.Bool
			var group sync.WaitGroup
			linked := 0
			group.Go(func() {
				for ; linked == 0 || linked < 200 && !stop.Load(); runtime.Gosched() {
					s, err := model.NewSession(streaminfer.SessionOptions{
						Links: []streaminfer.Link{{Input: "x", Source: source, Output: "y"}}})
					if err == nil {
						linked++
						err = s.Close()
					}
					if err != nil && !errors.Is(err, streaminfer.StatusBusy) {
						w.Error(err)
						return
					}
				}
			})
			for range 3000 {
				if err := source.Run(context.Background()); err != nil {
					w.Error(err)
					break
				}
			}
			stop.Store(true)
			group.Wait()
			w.ok(source.Run(context.Background()))
			w.ok(source.Close())
		}
	})
}

func TestLinkingToASessionThatRunsIsRefused(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		source := w.session(model)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error)
		go func() {
			err := error(streaminfer.StatusBusy)
			for errors.Is(err, streaminfer.StatusBusy) { // it met the look below
				err = source.Run(ctx)
			}
			ended <- err
		}()
		eventually(w, "the source to run", func() bool { _, err := source.Timings(); return errors.Is(err, streaminfer.StatusBusy) })
		_, err := model.NewSession(streaminfer.SessionOptions{Links: []streaminfer.Link{{Input: "x", Source: source, Output: "y"}}})
		w.is(err, streaminfer.StatusBusy)
		cancel()
		w.is(<-ended, streaminfer.StatusCancelled)
		w.release()
		w.ok(source.Drain(context.Background()))
	})
}

// What a function leaves behind with the help of other goroutines does not spoil the session for those who come next.
func TestLentSessionThatAnotherGoroutineTouched(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		run := func(ctx context.Context, s *streaminfer.Session) error { return s.Run(ctx) }
		touch := func(ctx context.Context, s *streaminfer.Session) error {
			if err := s.Submit(ctx); err != nil {
				return err
			}
			_, err := w.pollElsewhere(s)
			w.is(err, streaminfer.StatusWrongThread)
			return nil
		}
		pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{Sessions: 1, Spares: -1})
		w.ok(err)
		w.ok(pool.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error {
			w.ok(s.Bind())
			return touch(ctx, s)
		}))
		w.ok(pool.Do(context.Background(), run))
		// Bound to a goroutine that lives on: nobody else can use that session.
		owner := w.actor()
		w.ok(pool.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error {
			return errors.Join(owner(s.Bind), owner(func() error { return s.Submit(ctx) }))
		}))
		w.ok(pool.Do(context.Background(), run))
		if replaced := pool.Stats().Replaced; replaced != 1 {
			w.Errorf("%d sessions were replaced", replaced)
		}
		w.ok(pool.Close())
		b := w.bound(model, streaminfer.BoundOptions{})
		w.ok(b.Do(context.Background(), touch))
		w.ok(b.Do(context.Background(), run))
	})
}

func (w *world) pollElsewhere(s *streaminfer.Session) (ended bool, err error) {
	done := make(chan struct{})
	go func() { ended, err = s.Poll(); close(done) }()
	<-done
	return ended, err
}
