package streaminfer_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// gated is a fake model that runs one request for each value sent to gate, and notes their order.
type gated struct {
	gate  chan struct{}
	mu    sync.Mutex
	order []float32
}

func newGated() *gated { return &gated{gate: make(chan struct{})} }

func (g *gated) run(x float32) (float32, error) {
	g.mu.Lock()
	g.order = append(g.order, x)
	g.mu.Unlock()
	<-g.gate
	return x, nil
}

func (g *gated) ran() []float32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.order)
}

// occupy starts n requests, of value 0, and waits until they are on the device.
func (g *gated) occupy(w *world, pool *streaminfer.Pool, group *sync.WaitGroup, n int) {
	for range n {
		group.Go(func() {
			if _, err := infer(context.Background(), pool, 0); err != nil {
				w.Error(err)
			}
		})
	}
	eventually(w, "requests to be on the device", func() bool { return len(g.ran()) == n })
}

func queued(w *world, pool *streaminfer.Pool, n int) {
	w.Helper()
	eventually(w, "requests to queue", func() bool { return pool.Stats().Queued == n })
}

func TestEarliestDeadlineFirst(t *testing.T) {
	g := newGated()
	w, pool := fakePool(t, scalars(g.run), streaminfer.PoolOptions{Sessions: 1, WarmUp: -1})
	var group sync.WaitGroup
	g.occupy(w, pool, &group, 1)
	// Without a deadline a request is due a second after its arrival: before hours, in the order of arrival.
	dues := []time.Duration{5 * time.Hour, 3 * time.Hour, 0, 4 * time.Hour, 0, 2 * time.Hour}
	for i, due := range dues {
		ctx := context.Background()
		if due > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, due)
			defer cancel()
		}
		group.Go(func() {
			if y, err := infer(ctx, pool, float32(i+1)); err != nil || y != float32(i+1) {
				w.Error(y, err)
			}
		})
		queued(w, pool, i+1)
	}
	close(g.gate)
	group.Wait()
	if want := []float32{0, 3, 5, 6, 2, 4, 1}; !slices.Equal(g.ran(), want) {
		w.Errorf("ran in the order %v, not %v", g.ran(), want)
	}
}

func TestQueueIsBoundedAndCanBeLeft(t *testing.T) {
	g := newGated()
	w, pool := fakePool(t, scalars(g.run), streaminfer.PoolOptions{Sessions: 1, QueueMax: 2, WarmUp: -1})
	var group sync.WaitGroup
	g.occupy(w, pool, &group, 1)
	failed := make(chan error)
	cancelled, cancel := context.WithCancel(context.Background())
	go func() { _, err := infer(cancelled, pool, 1); failed <- err }()
	queued(w, pool, 1)
	group.Go(func() {
		if _, err := infer(context.Background(), pool, 2); err != nil {
			w.Error(err)
		}
	})
	queued(w, pool, 2)

	_, err := infer(context.Background(), pool, 3)
	if !errors.Is(err, streaminfer.ErrQueueFull) || !errors.Is(err, streaminfer.StatusAgain) || w.executed(err) != streaminfer.ExecutedNo {
		w.Fatal(err)
	}
	cancel()
	err = <-failed
	if !errors.Is(err, context.Canceled) || !errors.Is(err, streaminfer.StatusCancelled) || w.executed(err) != streaminfer.ExecutedNo {
		w.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	_, err = infer(short, pool, 4)
	w.isLate(err)
	close(g.gate)
	group.Wait()
	if want := []float32{0, 2}; !slices.Equal(g.ran(), want) {
		w.Errorf("ran %v, not %v", g.ran(), want)
	}
	s := pool.Stats()
	if s.Succeeded != 2 || s.RefusedFull != 1 || s.Cancelled != 1 || s.Expired != 1 || s.QueuedMax != 2 {
		w.Errorf("%+v", s)
	}
}

// isLate fails the test unless err says that a request was not run because of its deadline.
func (w *world) isLate(err error) {
	w.Helper()
	if !errors.Is(err, streaminfer.ErrDeadline) || !errors.Is(err, context.DeadlineExceeded) || w.executed(err) != streaminfer.ExecutedNo {
		w.Fatalf("%v", err)
	}
}

// The model sleeps, so its service time is at least that, however slow the machine is.
func TestAdmission(t *testing.T) {
	const service = 40 * time.Millisecond
	var runs atomic.Int32
	gate := make(chan struct{})
	run := func(x float32) (float32, error) {
		if x < 0 {
			<-gate
			return x, nil
		}
		runs.Add(1)
		time.Sleep(service)
		return x, nil
	}
	w, pool := fakePool(t, scalars(run), streaminfer.PoolOptions{Sessions: 1, Spares: -1, WarmUp: 2})
	if got := pool.Stats().Buckets[0].Service; got < service {
		w.Fatalf("calibrated to %v", got)
	}
	warm := runs.Load()
	short, cancel := context.WithTimeout(context.Background(), service/2)
	defer cancel()
	_, err := infer(short, pool, 1)
	w.isLate(err)

	// With the session occupied at most 600 / 40 requests can end in 600 ms, whatever comes.
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := infer(context.Background(), pool, -1); err != nil {
			w.Error(err)
		}
	})
	eventually(w, "the session to be busy", func() bool { return pool.Stats().Busy == 1 })
	var late atomic.Int32
	for range 40 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 15*service)
			defer cancel()
			if _, err := infer(ctx, pool, 1); err != nil {
				late.Add(1)
				if !errors.Is(err, context.DeadlineExceeded) {
					w.Error(err)
				}
			}
		})
	}
	eventually(w, "everything to be decided", func() bool {
		s := pool.Stats()
		return s.Queued+int(s.RefusedDeadline)+int(s.Expired) == 41
	})
	if s := pool.Stats(); s.RefusedDeadline+s.Expired < 1+40-15 {
		w.Errorf("admitted too many: %+v", s)
	}
	close(gate)
	group.Wait()
	if served := runs.Load() - warm; served > 15 || served+late.Load() < 40 {
		w.Errorf("%d ran, %d were late", served, late.Load())
	}
}

// An estimate that keeps everything out is forgotten after a while, and found again.
func TestAdmissionRecovers(t *testing.T) {
	var pause atomic.Int64
	pause.Store(int64(20 * time.Millisecond))
	run := func(x float32) (float32, error) { time.Sleep(time.Duration(pause.Load())); return x, nil }
	w, pool := fakePool(t, scalars(run), streaminfer.PoolOptions{Sessions: 1, WarmUp: 2})
	pause.Store(0)
	eventually(w, "a request to be let through", func() bool {
		for range 100 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			_, err := infer(ctx, pool, 1)
			cancel()
			if err == nil {
				return true
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				w.Fatal(err)
			}
		}
		return false
	})
}

// Requests that time out on the device tell that it has become slower, though none of them ends.
func TestAdmissionLearnsFromTimeouts(t *testing.T) {
	var slow atomic.Bool
	stop := make(chan struct{})
	run := func(x float32) (float32, error) {
		if slow.Load() {
			<-stop
		}
		return x, nil
	}
	w, pool := fakePool(t, scalars(run), streaminfer.PoolOptions{Sessions: 1, Spares: 30, WarmUp: 2})
	defer close(stop)
	slow.Store(true)
	for range 30 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		_, err := infer(ctx, pool, 1)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			w.Fatal(err)
		}
		if pool.Stats().RefusedDeadline > 0 {
			return
		}
	}
	w.Errorf("%+v", pool.Stats().Buckets)
}

// A request that is given up on the device leaves at once; a spare takes the place of its session.
func TestSparesServeWhileSessionsDrain(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		const op = 2
		pool := w.pool(w.load(endless), streaminfer.PoolOptions{Sessions: 1, Spares: op, WarmUp: -1})
		for range op + 1 {
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
			if s := pool.Stats(); s.Draining != op+1 || s.Cancelled != op+1 {
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
		if s := pool.Stats(); s.Replaced != 1 || s.Failed != 3 {
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

// Requests end at random moments: refused, out of the queue, on the device, or well. None may see another's data, none
// may be stuck, no session may be lost. STREAMINFER_CANCELS says how many requests; it is a few seconds' worth otherwise.
func TestRandomCancels(t *testing.T) {
	total := int64(20_000)
	if n, err := strconv.ParseInt(os.Getenv("STREAMINFER_CANCELS"), 10, 64); err == nil {
		total = n
	}
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine, batch(1), batch(16)), streaminfer.PoolOptions{Sessions: 4, Spares: 2, QueueMax: 30,
			Admission: streaminfer.AdmitAll})
		var left, ended atomic.Int64
		left.Store(total)
		var group sync.WaitGroup
		for worker := range 32 {
			group.Go(func() {
				random := rand.New(rand.NewPCG(7, uint64(worker)))
				requests := []*affineRequest{newAffineRequest(1), newAffineRequest(16)}
				for left.Add(-1) >= 0 {
					r := requests[random.IntN(2)]
					r.randomize()
					ctx, cancel := context.WithCancel(context.Background())
					if random.IntN(2) == 0 {
						ctx, cancel = context.WithTimeout(context.Background(), time.Duration(random.IntN(400))*time.Microsecond)
					}
					if random.IntN(2) == 0 {
						time.AfterFunc(time.Duration(random.IntN(200))*time.Microsecond, cancel)
					}
					err := pool.Infer(ctx, r.in, r.out)
					cancel()
					ended.Add(1)
					switch {
					case err == nil && !r.right():
						w.Errorf("%v became %v", r.x, r.y)
					case err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) &&
						!errors.Is(err, streaminfer.ErrQueueFull):
						w.Error(err)
					}
				}
			})
		}
		group.Wait()
		w.ok(pool.Drain(context.Background()))
		s := pool.Stats()
		if sum := s.Succeeded + s.RefusedDeadline + s.RefusedFull + s.RefusedClosed + s.Expired + s.Cancelled + s.Failed; s.Sessions != 6 ||
			s.Draining != 0 || s.Failed != 0 || sum != s.Requests || ended.Load() != total {
			w.Errorf("%d ended of %d: %+v", ended.Load(), total, s)
		}
		w.Logf("%d well, %d cancelled, %d expired, %d refused", s.Succeeded, s.Cancelled, s.Expired, s.RefusedDeadline+s.RefusedFull)
		w.ok(pool.Close())
		w.settle(0)
	})
}
