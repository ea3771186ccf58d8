package streaminfer_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// A request that is given up on the device leaves at once; a spare takes the place of its session.
func TestSparesServeWhileSessionsDrain(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		const spares = 2
		pool := w.pool(w.load(endless), streaminfer.PoolOptions{Sessions: 1, Spares: spares, WarmUp: -1})
		for range spares + 1 {
			ctx, cancel := context.WithCancel(context.Background())
			err := pool.Do(ctx, func(ctx context.Context, s *streaminfer.Session) error {
				if err := s.Submit(ctx); err != nil {
					return err
				}
				cancel()
				return s.Wait(ctx)
			})
			w.is(err, streaminfer.StatusCancelled)
			if !errors.Is(err, context.Canceled) || w.executed(err) != streaminfer.ExecutedMaybe {
				w.Fatal(err)
			}
		}
		if w.isFake {
			if s := pool.Stats(); s.Draining != spares+1 || s.Cancelled != spares+1 {
				w.Fatalf("%+v", s)
			}
		}
		w.release()
		eventually(w, "sessions to drain", func() bool { return pool.Stats().Draining == 0 })
		w.ok(pool.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error { return nil }))
	})
}

func TestDoTidiesUp(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 1, Spares: -1})
		background := context.Background()
		works := func() {
			w.Helper()
			w.ok(pool.Do(background, func(ctx context.Context, s *streaminfer.Session) error {
				x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
				x.Data[0] = 3
				if err := s.Run(ctx); err != nil || y.Data[0] != 7 {
					w.Errorf("%v: %v", err, y.Data[0])
				}
				return nil
			}))
		}
		works()
		w.ok(pool.Do(background, func(ctx context.Context, s *streaminfer.Session) error { return s.Submit(ctx) }))
		works()
		w.ok(pool.Do(background, func(_ context.Context, s *streaminfer.Session) error { return s.Bind() }))
		works()
		w.ok(pool.Do(background, func(_ context.Context, s *streaminfer.Session) error { return s.Close() }))
		works()
		var kept *streaminfer.Session
		w.ok(pool.Do(background, func(_ context.Context, s *streaminfer.Session) error { kept = s; return nil }))
		w.ok(kept.Close()) // by one who does not hold it any more
		works()
		own := errors.New("the function's own")
		if err := pool.Do(background, func(context.Context, *streaminfer.Session) error { return own }); err != own {
			w.Error(err)
		}
		func() {
			defer func() {
				if recover() == nil {
					w.Error("the panic is lost")
				}
			}()
			_ = pool.Do(background, func(context.Context, *streaminfer.Session) error { panic("in the function") })
		}()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = pool.Do(background, func(context.Context, *streaminfer.Session) error { runtime.Goexit(); return nil })
		}()
		<-gone
		works()
		if s := pool.Stats(); s.Replaced != 2 || s.Failed != 3 {
			w.Errorf("%+v", s)
		}
	})
}

// A session that a panic of the library poisoned is replaced; the other requests do not notice.
func TestPoisonedSessionsAreReplaced(t *testing.T) {
	run := func(x float32) (float32, error) {
		if x < 0 {
			panic("planted")
		}
		return x, nil
	}
	w, pool := fakePool(t, scalars(run), streaminfer.PoolOptions{Sessions: 2})
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for round := range 25 {
				x := float32(worker*25 + round)
				if round%5 == 4 {
					_, err := infer(context.Background(), pool, -x-1)
					if !errors.Is(err, streaminfer.StatusPanicked) {
						w.Error(err)
					}
				} else if y, err := infer(context.Background(), pool, x); err != nil || x != y {
					w.Error(y, err)
				}
			}
		})
	}
	group.Wait()
	eventually(w, "sessions to be replaced", func() bool { s := pool.Stats(); return s.Replaced == 20 && s.Failed == 20 })
}

func TestPoolDrains(t *testing.T) {
	g := newGated()
	w, pool := fakePool(t, scalars(g.run), streaminfer.PoolOptions{Sessions: 1, WarmUp: -1})
	var group sync.WaitGroup
	g.occupy(w, pool, &group, 1)
	group.Go(func() {
		if _, err := infer(context.Background(), pool, 1); err != nil {
			w.Error("a request that waited when Drain came:", err)
		}
	})
	queued(w, pool, 1)
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	w.is(pool.Drain(short), streaminfer.StatusTimeout)
	_, err := infer(context.Background(), pool, 2)
	if !errors.Is(err, streaminfer.ErrPoolClosed) || !errors.Is(err, streaminfer.StatusStaleHandle) || w.executed(err) != streaminfer.ExecutedNo {
		w.Error(err)
	}
	close(g.gate)
	w.ok(pool.Drain(context.Background()))
	group.Wait()
	w.ok(pool.Drain(context.Background()))
	w.ok(pool.Close())
	w.ok(pool.Close())
	w.settle(0)
}

func TestCloseRefusesWhatWaits(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		for _, closer := range []string{"pool", "engine"} {
			model := w.load(endless)
			pool := w.pool(model, streaminfer.PoolOptions{Sessions: 2, WarmUp: -1})
			failed := make(chan error, 6)
			for range cap(failed) {
				go func() {
					failed <- pool.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error { return s.Run(ctx) })
				}()
			}
			eventually(w, "requests to come", func() bool { s := pool.Stats(); return s.Busy == 2 && s.Queued == 4 })
			if closer == "pool" {
				w.ok(pool.Close())
			} else {
				w.ok(w.engine.Close())
			}
			for range cap(failed) {
				w.is(<-failed, streaminfer.StatusStaleHandle)
			}
			eventually(w, "the pool to know", func() bool {
				err := pool.Do(context.Background(), func(ctx context.Context, s *streaminfer.Session) error { return s.Run(ctx) })
				return errors.Is(err, streaminfer.StatusStaleHandle)
			})
		}
		w.release()
	})
}
