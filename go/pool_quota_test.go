package streaminfer_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// A pool's sessions and queue are its quota: whatever comes to one pool, another of the same engine admits, orders and serves its
// requests as if it were alone.
func TestPoolsDoNotStarveEachOther(t *testing.T) {
	storm, calm := newGated(), newGated()
	stormy, quiet := scalars(storm.run), scalars(calm.run)
	stormy.Name, quiet.Name = "stormy", "quiet"
	engine := fake.NewEngine(stormy, quiet)
	w := &world{T: t, isFake: true, engine: engine}
	pool := func(name string, options streaminfer.PoolOptions) *streaminfer.Pool {
		model, err := engine.LoadBytes([]byte(name), streaminfer.ModelOptions{})
		w.ok(err)
		return w.pool(model, options)
	}
	flooded := pool("stormy", streaminfer.PoolOptions{Sessions: 2, QueueMax: 8, WarmUp: -1})
	other := pool("quiet", streaminfer.PoolOptions{Sessions: 1, QueueMax: 8, WarmUp: -1})

	// The storm: two requests are on the device, eight wait, the others are refused.
	var group sync.WaitGroup
	refused := make(chan error, 40)
	storm.occupy(w, flooded, &group, 2)
	for range cap(refused) + 8 {
		group.Go(func() {
			if _, err := infer(context.Background(), flooded, 1); err != nil {
				refused <- err
			}
		})
	}
	for range cap(refused) {
		if err := <-refused; !errors.Is(err, streaminfer.ErrQueueFull) {
			w.Error(err)
		}
	}
	queued(w, flooded, 8)

	// Meanwhile the other pool takes as many as it may, and serves them in the order of deadlines.
	var others sync.WaitGroup
	calm.occupy(w, other, &others, 1)
	hours := []int{5, 3, 8, 1, 2, 7, 4, 6}
	for i, hour := range hours {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(hour)*time.Hour)
		t.Cleanup(cancel)
		others.Go(func() {
			if _, err := infer(ctx, other, float32(hour)); err != nil {
				w.Errorf("%d hours: %v", hour, err)
			}
		})
		queued(w, other, i+1)
	}
	for range 1 + len(hours) {
		calm.gate <- struct{}{}
	}
	others.Wait()
	if want := []float32{0, 1, 2, 3, 4, 5, 6, 7, 8}; !slices.Equal(calm.ran(), want) {
		w.Errorf("ran in the order %v, not %v", calm.ran(), want)
	}
	if s := other.Stats(); s.Succeeded != 9 || s.RefusedFull+s.RefusedDeadline+s.Expired != 0 {
		w.Errorf("%+v", s)
	}
	if s := flooded.Stats(); s.Busy != 2 || s.Queued != 8 || s.Succeeded != 0 || s.RefusedFull != 40 {
		w.Errorf("%+v", s)
	}
	close(storm.gate)
	group.Wait()
}
