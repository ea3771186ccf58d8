package streaminfer_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
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
	if !errors.Is(err, streaminfer.ErrQueueFull) || !errors.Is(err, streaminfer.StatusAgain) || !onArrival(err) || w.executed(err) != streaminfer.ExecutedNo {
		w.Fatal(err)
	}
	cancel()
	err = <-failed
	if !errors.Is(err, context.Canceled) || !errors.Is(err, streaminfer.StatusCancelled) || w.executed(err) != streaminfer.ExecutedNo {
		w.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), time.Second) // it has to come to the queue
	defer cancel()
	_, err = infer(short, pool, 4)
	w.isLate(err)
	if onArrival(err) {
		w.Errorf("who has waited was not refused on arrival: %v", err)
	}
	close(g.gate)
	group.Wait()
	if want := []float32{0, 2}; !slices.Equal(g.ran(), want) {
		w.Errorf("ran %v, not %v", g.ran(), want)
	}
	var left []string
	for _, span := range w.traced().Spans {
		if span.Session == 0 && span.Acquired > span.Arrived {
			left = append(left, span.Error)
		}
	}
	if len(left) != 2 || !strings.Contains(left[0], "cancel") || !strings.Contains(left[1], "deadline") {
		w.Errorf("left the queue: %q", left)
	}
	s := pool.Stats()
	if s.Succeeded != 2 || s.RefusedFull != 1 || s.Cancelled != 1 || s.Expired != 1 || s.QueuedMax != 2 {
		w.Errorf("%+v", s)
	}
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

// Whatever comes, so many wait and no more; the rest is turned away, and what waits is served.
func TestOverloadIsBounded(t *testing.T) {
	const sessions, room, come = 2, 32, 500
	g := newGated()
	w, pool := fakePool(t, scalars(g.run), streaminfer.PoolOptions{Sessions: sessions, QueueMax: room, WarmUp: -1})
	var group sync.WaitGroup
	g.occupy(w, pool, &group, sessions)
	var served, full atomic.Int32
	for range come {
		group.Go(func() {
			switch _, err := infer(context.Background(), pool, 1); {
			case err == nil:
				served.Add(1)
			case errors.Is(err, streaminfer.ErrQueueFull) && w.executed(err) == streaminfer.ExecutedNo:
				full.Add(1)
			default:
				w.Error(err)
			}
		})
	}
	eventually(w, "all to come", func() bool { return pool.Stats().Requests == sessions+come })
	if s := pool.Stats(); s.Queued != room || s.QueuedMax != room || s.Busy != sessions || s.RefusedFull != come-room {
		w.Errorf("%d wait, %d at most, %d are served, %d were refused", s.Queued, s.QueuedMax, s.Busy, s.RefusedFull)
	}
	close(g.gate)
	group.Wait()
	if served.Load() != room || full.Load() != come-room {
		w.Errorf("%d served, %d refused", served.Load(), full.Load())
	}
}
