package streaminfer_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// served is a model with its pool, exchanged as one.
type served struct {
	model *streaminfer.Model
	pool  *streaminfer.Pool
}

// retire lets the requests end that are inside, then frees everything.
func (s *served) retire() error {
	return errors.Join(s.pool.Drain(context.Background()), s.pool.Close(), s.model.Close())
}

// A model is reloaded again and again under load: no request fails, none sees another's data, nothing is left of the old ones.
func TestReloadLosesNothing(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		load := func() *served {
			model := w.load(affine)
			return &served{model, w.pool(model, streaminfer.PoolOptions{Sessions: 2, Spares: -1, WarmUp: 1})}
		}
		var current atomic.Pointer[served]
		current.Store(load())
		stop := make(chan struct{})
		var done atomic.Int64
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				r := newAffineRequest(1)
				for {
					select {
					case <-stop:
						return
					default:
					}
					r.randomize()
					err := current.Load().pool.Infer(context.Background(), r.in, r.out)
					for errors.Is(err, streaminfer.ErrPoolClosed) { // it was exchanged in this moment
						err = current.Load().pool.Infer(context.Background(), r.in, r.out)
					}
					if err != nil || !r.right() {
						w.Errorf("%v: %v became %v", err, r.x, r.y)
						return
					}
					done.Add(1)
				}
			})
		}
		for range 30 {
			before := done.Load()
			w.ok(current.Swap(load()).retire())
			eventually(w, "requests to go on", func() bool { return w.Failed() || done.Load() > before })
		}
		close(stop)
		group.Wait()
		w.ok(current.Load().retire())
		w.settle(0)
		stats, err := w.engine.Stats()
		w.ok(err)
		if stats.Models != 0 {
			w.Errorf("%+v", stats)
		}
	})
}

// A pool is exchanged for that of a new version of its model while requests come.
func ExamplePool_Drain() {
	engine, first := double()
	defer engine.Close()
	var current atomic.Pointer[streaminfer.Pool]
	pool, err := streaminfer.NewPool(first, streaminfer.PoolOptions{Sessions: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	current.Store(pool)

	// A handler retries when the pool that it has read was exchanged in that moment: its request has not run.
	handle := func(x, y []float32) error {
		in := []streaminfer.Tensor{streaminfer.NewTensor("x", x, 3)}
		out := []streaminfer.Tensor{streaminfer.NewTensor("y", y)}
		for {
			err := current.Load().Infer(context.Background(), in, out)
			if !errors.Is(err, streaminfer.ErrPoolClosed) {
				return err
			}
		}
	}

	second, err := engine.Load("double.onnx", streaminfer.ModelOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	renewed, err := streaminfer.NewPool(second, streaminfer.PoolOptions{Sessions: 2}) // warm before it gets a request
	if err != nil {
		fmt.Println(err)
		return
	}
	old := current.Swap(renewed)
	if err := errors.Join(old.Drain(context.Background()), old.Close(), first.Close()); err != nil {
		fmt.Println(err)
	}
	y := make([]float32, 3)
	fmt.Println(handle([]float32{1, 2, 3}, y), y)
	// Output: <nil> [2 4 6]
}
