package streaminfer_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

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
	for { // if the machine stood still, the estimate is old, and a request or two may find out whether it is true
		short, cancel := context.WithTimeout(context.Background(), service/2)
		_, err := infer(short, pool, 1)
		cancel()
		if onArrival(err) {
			w.isLate(err)
			break
		}
	}
	warm := runs.Load()

	// With the session occupied at most 600 / 40 requests can end in 600 ms, whatever comes.
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := infer(context.Background(), pool, -1); err != nil {
			w.Error(err)
		}
	})
	eventually(w, "the session to be busy", func() bool { return pool.Stats().Busy == 1 })
	var late atomic.Int32
	ctx, cancel := context.WithTimeout(context.Background(), 15*service)
	defer cancel()
	for range 40 {
		group.Go(func() {
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

// A spell in which everything timed out is over, and the pool idle: the next request is let through, and those after it, too.
func TestPoolServesAfterAStall(t *testing.T) {
	var stalled atomic.Pointer[chan struct{}]
	run := func(x float32) (float32, error) {
		if gate := stalled.Load(); gate != nil {
			<-*gate
		}
		return x, nil
	}
	w, pool := fakePool(t, scalars(run), streaminfer.PoolOptions{Sessions: 4, Spares: 4})
	const left = 40 * time.Millisecond
	try := func(left time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), left)
		defer cancel()
		_, err := infer(ctx, pool, 1)
		return err
	}
	gate := make(chan struct{})
	stalled.Store(&gate)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := try(10 * left); err == nil {
				w.Error("served while the device stood still")
			}
		})
	}
	group.Wait()
	stalled.Store(nil)
	close(gate)
	eventually(w, "the pool to be idle", func() bool { s := pool.Stats(); return s.Draining == 0 && s.Busy == 0 })
	if pool.Stats().Buckets[0].Service < left {
		w.Fatal("the pool has learnt nothing")
	}
	time.Sleep(150 * time.Millisecond) // so long at least that the estimate is old
	if err := try(left); onArrival(err) {
		w.Fatal(err)
	} else if err != nil {
		w.Skip("the machine was too slow: ", err)
	}
	for range 5 {
		if err := try(left); onArrival(err) {
			w.Error(err)
		}
	}
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
