package streaminfer_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

func (w *world) pool(model *streaminfer.Model, options streaminfer.PoolOptions) *streaminfer.Pool {
	w.Helper()
	pool, err := streaminfer.NewPool(model, options)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := pool.Close(); err != nil && !errors.Is(err, streaminfer.StatusStaleHandle) {
			w.Errorf("closing the pool: %v", err)
		}
	})
	return pool
}

// scalars is a fake model of one float32 in, x, and one out, y.
func scalars(run func(x float32) (float32, error)) fake.Model {
	one := []streaminfer.TensorInfo{tensor("x", streaminfer.DTypeFloat32, 1)}
	y := []streaminfer.TensorInfo{tensor("y", streaminfer.DTypeFloat32, 1)}
	return fake.Model{Name: "scalars", Inputs: one, Outputs: y, Run: func(call *fake.Call) (err error) {
		fake.Out[float32](call, "y")[0], err = run(fake.In[float32](call, "x")[0])
		return err
	}}
}

// fakePool makes a pool of a model that only the fake has.
func fakePool(t *testing.T, model fake.Model, options streaminfer.PoolOptions) (*world, *streaminfer.Pool) {
	t.Helper()
	before := runtime.NumGoroutine()
	engine := fake.NewEngine(model)
	finish(t, engine, before)
	w := &world{T: t, isFake: true, engine: engine}
	loaded, err := engine.LoadBytes([]byte(model.Name), streaminfer.ModelOptions{})
	w.ok(err)
	return w, w.pool(loaded, options)
}

// infer runs x through a pool of scalars.
func infer(ctx context.Context, pool *streaminfer.Pool, x float32) (float32, error) {
	in, out := [1]float32{x}, [1]float32{-1}
	err := pool.Infer(ctx, []streaminfer.Tensor{streaminfer.NewTensor("x", in[:], 1)},
		[]streaminfer.Tensor{streaminfer.NewTensor("y", out[:])})
	return out[0], err
}

// affineRequest is a request of the affine model with random values, and its check.
type affineRequest struct {
	x, y    []float32
	in, out []streaminfer.Tensor
}

func newAffineRequest(rows int64) *affineRequest {
	r := &affineRequest{x: make([]float32, 4*rows), y: make([]float32, 4*rows)}
	r.in = []streaminfer.Tensor{streaminfer.NewTensor("x", r.x, rows, 4)}
	r.out = []streaminfer.Tensor{streaminfer.NewTensor("y", r.y)}
	return r
}

func (r *affineRequest) randomize() {
	for i := range r.x {
		r.x[i], r.y[i] = float32(rand.IntN(1000)), -1
	}
}

func (r *affineRequest) right() bool {
	for i := range r.y {
		if r.y[i] != 2*r.x[i]+1 {
			return false
		}
	}
	return slices.Equal(r.out[0].Shape, r.in[0].Shape)
}

func TestPoolServesManyGoroutines(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine, batch(1), batch(4)), streaminfer.PoolOptions{Sessions: 3})
		var group sync.WaitGroup
		for worker := range 32 {
			group.Go(func() {
				requests := []*affineRequest{newAffineRequest(1), newAffineRequest(4)}
				for round := range 50 {
					r := requests[(round+worker)%2]
					r.randomize()
					if err := pool.Infer(context.Background(), r.in, r.out); err != nil || !r.right() {
						w.Errorf("%v: %v became %v of shape %v", err, r.x, r.y, r.out[0].Shape)
						return
					}
				}
			})
		}
		group.Wait()
		stats := pool.Stats()
		if stats.Requests != 1600 || stats.Succeeded != 1600 || stats.Busy != 0 || stats.Queued != 0 || stats.BusyMax > 3 {
			w.Errorf("%+v", stats)
		}
		if b := stats.Buckets; len(b) != 2 || b[0].Served != 800 || b[1].Served != 800 || b[0].Service <= 0 {
			w.Errorf("%+v", b)
		}
		for _, span := range []streaminfer.Histogram{stats.Spans.Queue, stats.Spans.In, stats.Spans.Compute, stats.Spans.Out,
			stats.Spans.Wake} {
			if span.Count != 1600 || span.Quantile(0.5) > span.Max || span.Mean() > span.Max {
				w.Errorf("%d spans, mean %v, max %v", span.Count, span.Mean(), span.Max)
			}
		}
	})
}

// Only the library pads.
func TestPoolPadsWhereDeclared(t *testing.T) {
	engine := openLibrary(t)
	finish(t, engine, runtime.NumGoroutine())
	w := &world{T: t, engine: engine}
	model, err := engine.LoadBytes(onnxFile(affine), streaminfer.ModelOptions{
		Buckets:  []streaminfer.Bucket{batch(8), batch(32)},
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x"}},
	})
	w.ok(err)
	pool := w.pool(model, streaminfer.PoolOptions{Sessions: 1})
	for _, rows := range []int64{1, 7, 8, 9, 31, 32, 3} {
		r := newAffineRequest(rows)
		r.randomize()
		w.ok(pool.Infer(context.Background(), r.in, r.out))
		if !r.right() {
			w.Fatalf("%d rows: %v became %v", rows, r.x, r.y)
		}
	}
	if b := pool.Stats().Buckets; b[0].Served != 4 || b[1].Served != 3 {
		w.Errorf("%+v", b)
	}
	large := newAffineRequest(33)
	w.is(pool.Infer(context.Background(), large.in, large.out), streaminfer.ErrNoBucket)
}

func TestPoolRefusesTensorsThatAreNotTheModels(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 1})
		r := newAffineRequest(1)
		x, y := r.in[0], r.out[0]
		named := func(t streaminfer.Tensor, name string) streaminfer.Tensor { t.Name = name; return t }
		list := func(t ...streaminfer.Tensor) []streaminfer.Tensor { return t }
		for name, test := range map[string]struct {
			in, out []streaminfer.Tensor
			want    streaminfer.Status
		}{
			"no input":       {nil, list(y), streaminfer.StatusInvalidArgument},
			"unknown input":  {list(x, named(x, "z")), list(y), streaminfer.StatusInvalidArgument},
			"unknown output": {list(x), list(named(y, "z")), streaminfer.StatusInvalidArgument},
			"type":           {list(streaminfer.NewTensor("x", []int32{1, 2, 3, 4}, 1, 4)), list(y), streaminfer.StatusShapeMismatch},
			"output type":    {list(x), list(streaminfer.NewTensor("y", make([]int64, 4))), streaminfer.StatusShapeMismatch},
			"length":         {list(streaminfer.NewTensor("x", r.x[:3], 1, 4)), list(y), streaminfer.StatusShapeMismatch},
			"room":           {list(x), list(streaminfer.NewTensor("y", r.y[:3:3])), streaminfer.StatusShapeMismatch},
			"rank":           {list(streaminfer.NewTensor("x", r.x, 4)), list(y), streaminfer.ErrNoBucket},
			"shape":          {newAffineRequest(2).in, list(y), streaminfer.ErrNoBucket},
		} {
			err := pool.Infer(context.Background(), test.in, test.out)
			if !errors.Is(err, test.want) || w.executed(err) != streaminfer.ExecutedNo {
				w.Errorf("%s: got %v, want %v", name, err, test.want)
			}
		}
		w.ok(pool.Infer(context.Background(), list(named(x, "")), list(named(y, "")))) // by position
		w.ok(pool.Infer(context.Background(), r.in, nil))
	})
}

func TestPrepareReachesPools(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		pool := w.pool(model, streaminfer.PoolOptions{Sessions: 2})
		r := newAffineRequest(6)
		w.is(pool.Infer(context.Background(), r.in, r.out), streaminfer.ErrNoBucket)

		stop := make(chan struct{}) // traffic that must not notice
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				r := newAffineRequest(1)
				for {
					select {
					case <-stop:
						return
					default:
					}
					r.randomize()
					if err := pool.Infer(context.Background(), r.in, r.out); err != nil || !r.right() {
						w.Errorf("during Prepare: %v", err)
						return
					}
				}
			})
		}
		w.ok(model.Prepare(context.Background(), batch(6), batch(5)))
		close(stop)
		group.Wait()
		r.randomize()
		w.ok(pool.Infer(context.Background(), r.in, r.out))
		if !r.right() {
			w.Fatal(r.y)
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		w.is(model.Prepare(ended, batch(9)), streaminfer.StatusCancelled)
	})
}

func TestPlanningOnDemandIsBounded(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 1, PlanMax: 1})
		first, second := newAffineRequest(2), newAffineRequest(3)
		first.randomize()
		w.is(pool.Infer(context.Background(), first.in, first.out), streaminfer.ErrNoBucket)
		eventually(w, "the shape to be planned", func() bool {
			err := pool.Infer(context.Background(), first.in, first.out)
			if err != nil {
				w.is(err, streaminfer.ErrNoBucket)
			}
			return err == nil
		})
		if !first.right() {
			w.Fatal(first.y)
		}
		for range 3 {
			w.is(pool.Infer(context.Background(), second.in, second.out), streaminfer.ErrNoBucket)
		}
	})
}

func TestPoolWaitsForPermits(t *testing.T) {
	var refusals atomic.Int32
	model := scalars(func(x float32) (float32, error) { return x, nil })
	model.Admit = func() error {
		if refusals.Add(1)%4 != 0 {
			return streaminfer.StatusAgain
		}
		return nil
	}
	w, pool := fakePool(t, model, streaminfer.PoolOptions{Sessions: 1, WarmUp: -1})
	for x := range 5 {
		y, err := infer(context.Background(), pool, float32(x))
		w.ok(err)
		if y != float32(x) {
			w.Fatal(y)
		}
	}
	model.Admit = func() error { return streaminfer.StatusAgain }
	w, pool = fakePool(t, model, streaminfer.PoolOptions{Sessions: 1, WarmUp: -1})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(time.Millisecond, cancel)
	_, err := infer(ctx, pool, 1)
	if w.is(err, streaminfer.StatusCancelled); w.executed(err) != streaminfer.ExecutedNo {
		w.Fatal(err)
	}
}

func TestInferDoesNotAllocate(t *testing.T) {
	if isInstrumented {
		t.Skip("instrumented programs allocate")
	}
	inBothWorlds(t, func(w *world) {
		for _, budget := range []time.Duration{0, -1} {
			pool := w.pool(w.load(affine, batch(1), batch(4)), streaminfer.PoolOptions{Sessions: 1,
				Session: streaminfer.SessionOptions{SpinBudget: budget}})
			requests := []*affineRequest{newAffineRequest(1), newAffineRequest(4)}
			reused, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			for name, ctx := range map[string]context.Context{"background": context.Background(), "deadline": reused} {
				turn := 0
				if allocations := testing.AllocsPerRun(500, func() { // the bucket changes with each request
					turn++
					r := requests[turn%2]
					w.ok(pool.Infer(ctx, r.in, r.out))
				}); allocations != 0 {
					w.Errorf("%v allocations per Infer with a %s context, spin budget %v", allocations, name, budget)
				}
			}
			var fresh []context.Context
			for range 502 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
				defer cancel()
				fresh = append(fresh, ctx)
			}
			if allocations := testing.AllocsPerRun(500, func() {
				w.ok(pool.Infer(fresh[0], requests[0].in, requests[0].out))
				fresh = fresh[1:]
			}); allocations > 1 {
				w.Errorf("%v allocations per Infer with a fresh context, spin budget %v", allocations, budget)
			}
		}
	})
}

// Only the library has operators whose result's shape a small input decides.
func TestPoolSelectsByValuesOfShapeInputs(t *testing.T) {
	engine := openLibrary(t)
	finish(t, engine, runtime.NumGoroutine())
	w := &world{T: t, engine: engine}
	expand := graph{nodes: []message{node("Expand", "y", "x", "n")},
		inputs: []message{value("x", onnxFloat, 1), value("n", onnxInt64, 1)}, outputs: []message{value("y", onnxFloat, "m")}}
	var buckets []streaminfer.Bucket
	for _, n := range []int64{2, 5} {
		buckets = append(buckets, streaminfer.Bucket{Values: map[string][]int64{"n": {n}}})
	}
	model, err := engine.LoadBytes(expand.model(), streaminfer.ModelOptions{Buckets: buckets})
	w.ok(err)
	pool := w.pool(model, streaminfer.PoolOptions{Sessions: 1, Spares: -1})
	for _, n := range []int64{2, 5, 5, 2, 3, 5} {
		y := make([]float32, 8)
		in := []streaminfer.Tensor{streaminfer.NewTensor("n", []int64{n}), streaminfer.NewTensor("x", []float32{float32(n)}, 1)}
		out := []streaminfer.Tensor{streaminfer.NewTensor("y", y)}
		err := pool.Infer(context.Background(), in, out)
		if n == 3 {
			w.is(err, streaminfer.ErrNoBucket)
			continue
		}
		w.ok(err)
		if !slices.Equal(out[0].Shape, []int64{n}) || len(out[0].Data) != 4*int(n) || y[0] != float32(n) || y[n-1] != float32(n) || y[n] != 0 {
			t.Fatalf("%d: %v of shape %v", n, y, out[0].Shape)
		}
	}
	if b := pool.Stats().Buckets; b[0].Served != 2 || b[1].Served != 3 {
		t.Errorf("%+v", b)
	}
}
