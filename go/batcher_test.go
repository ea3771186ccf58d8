package streaminfer_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// long is a delay that no test waits for.
const long = time.Hour

// batched loads the affine model for batches of up to so many rows.
func (w *world) batched(rows ...int64) *streaminfer.Model {
	w.Helper()
	return w.loadRows(affine, rows...)
}

// loadRows loads a model of independent rows, affine or heavy.
func (w *world) loadRows(name string, rows ...int64) *streaminfer.Model {
	w.Helper()
	var buckets []streaminfer.Bucket
	for _, n := range rows {
		bucket := batch(n)
		if name == heavy {
			bucket.Shapes["x"][1] = slowSide
		}
		buckets = append(buckets, bucket)
	}
	data := []byte(name)
	if !w.isFake {
		data = onnxFile(name)
	}
	model, err := w.engine.LoadBytes(data, streaminfer.ModelOptions{Buckets: buckets,
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x", Axis: 0}}})
	w.ok(err)
	return model
}

func (w *world) batcher(model *streaminfer.Model, options streaminfer.BatcherOptions) *streaminfer.Batcher {
	w.Helper()
	b, err := streaminfer.NewBatcher(model, options)
	w.ok(err)
	w.Cleanup(func() { w.ok(b.Close()) })
	return b
}

// inferAffine runs a random request of so many rows and checks what comes back. A request that has no place, or that a busy
// machine makes late for a deadline that has not passed, is made again.
func inferAffine(ctx context.Context, b *streaminfer.Batcher, rows int64) error {
	r := newAffineRequest(rows)
	_, hasDeadline := ctx.Deadline()
	for {
		r.randomize()
		err := b.Infer(ctx, r.in, r.out)
		if errors.Is(err, streaminfer.ErrQueueFull) || ctx.Err() == nil && hasDeadline && errors.Is(err, streaminfer.StatusExpired) {
			runtime.Gosched()
			continue
		}
		if err == nil && !r.right() {
			return errors.New("another request's result")
		}
		return err
	}
}

func TestBatcherGivesEveryoneHisOwn(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.batched(1, 4, 8), streaminfer.BatcherOptions{Batches: 3})
		var group sync.WaitGroup
		for worker := range 16 {
			group.Go(func() {
				for range 50 {
					if err := inferAffine(context.Background(), b, int64(1+worker%3)); err != nil {
						w.Error(err)
					}
				}
			})
		}
		group.Wait()
		stats, err := b.Stats()
		w.ok(err)
		if stats.Completed != 800 || stats.Batches >= 800 || stats.Slots != 0 || stats.Classes != 1 {
			w.Errorf("%+v", stats)
		}
	})
}

func TestBatcherRunsWhenItIsFull(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.batched(4), streaminfer.BatcherOptions{Delay: long})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { w.ok(inferAffine(context.Background(), b, 1)) })
		}
		group.Wait()
		stats, err := b.Stats()
		w.ok(err)
		if stats.Batches != 1 || stats.Rows != 4 || stats.PaddingRows != 0 {
			w.Errorf("%+v", stats)
		}
	})
}

func TestEngineCountsBatchers(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		count := func() int {
			stats, err := w.engine.Stats()
			w.ok(err)
			return stats.Batchers
		}
		model := w.batched(4)
		b := w.batcher(model, streaminfer.BatcherOptions{Batches: 2})
		w.batcher(model, streaminfer.BatcherOptions{})
		if count() != 2 {
			w.Errorf("%d batchers, not 2", count())
		}
		w.ok(b.Close())
		eventually(w, "a batcher to go", func() bool { return count() == 1 })
	})
}

func TestBatcherRefusals(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.batched(2), streaminfer.BatcherOptions{Batches: 1, Delay: long, QueueMax: -1})
		ctx := context.Background()
		r := newAffineRequest(3)
		w.is(b.Infer(ctx, r.in, r.out), streaminfer.ErrNoBucket)
		w.is(b.Infer(ctx, nil, nil), streaminfer.StatusInvalidArgument)

		passed, cancel := context.WithDeadline(ctx, time.Now().Add(time.Nanosecond))
		defer cancel()
		r = newAffineRequest(1)
		if err := b.Infer(passed, r.in, r.out); !errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("a deadline that has passed: %v", err)
		}

		// One request waits for a second one; a third has no place once two are there.
		waiting, giveUp := context.WithCancel(ctx)
		var group sync.WaitGroup
		group.Go(func() {
			if err := inferAffine(waiting, b, 1); !errors.Is(err, context.Canceled) {
				w.Errorf("given up: %v", err)
			}
		})
		eventually(w, "a slot", func() bool { stats, _ := b.Stats(); return stats.Slots == 1 })
		full := newAffineRequest(2)
		err := b.Infer(ctx, full.in, full.out)
		w.is(err, streaminfer.StatusAgain)
		failed, ok := errors.AsType[*streaminfer.Error](err)
		if !ok || !errors.Is(err, streaminfer.ErrQueueFull) || failed.Executed != streaminfer.ExecutedNo {
			w.Errorf("no place: %v", err)
		}
		giveUp()
		group.Wait()
		eventually(w, "no slot", func() bool { stats, _ := b.Stats(); return stats.Slots == 0 })

		model := w.load(affine, batch(2))
		_, err = streaminfer.NewBatcher(model, streaminfer.BatcherOptions{})
		w.is(err, streaminfer.StatusUnsupported)
		_, err = streaminfer.NewBatcher(model, streaminfer.BatcherOptions{Delay: -1})
		w.is(err, streaminfer.StatusInvalidArgument)
	})
}

func TestBatcherDeadlinesCloseBatches(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.batched(4), streaminfer.BatcherOptions{Delay: long})
		// Nobody else comes: without the deadline it would wait for an hour. A machine that is busy may miss one.
		for range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			err := inferAffine(ctx, b, 1)
			cancel()
			if err == nil {
				return
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				w.Fatal(err)
			}
		}
		w.Error("no request ran before its deadline")
	})
}

func TestBatcherCloseEndsTheWaiting(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		for _, closeEngine := range []bool{false, true} {
			b, err := streaminfer.NewBatcher(w.batched(8), streaminfer.BatcherOptions{Delay: long})
			w.ok(err)
			var group sync.WaitGroup
			for range 3 {
				group.Go(func() { w.is(inferAffine(context.Background(), b, 1), streaminfer.StatusStaleHandle) })
			}
			eventually(w, "three slots", func() bool { stats, _ := b.Stats(); return stats.Slots == 3 })
			if closeEngine {
				w.ok(w.engine.Close())
			} else {
				w.ok(b.Close())
			}
			group.Wait()
			r := newAffineRequest(1)
			w.is(b.Infer(context.Background(), r.in, r.out), streaminfer.StatusStaleHandle)
			w.ok(b.Close())
		}
	})
}

func TestBatcherSurvivesAStorm(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.batched(1, 2, 4, 8), streaminfer.BatcherOptions{Batches: 3, Delay: 300 * time.Microsecond})
		var group sync.WaitGroup
		for range 12 {
			group.Go(func() {
				for range 100 {
					ctx, cancel := context.WithCancel(context.Background())
					if rand.IntN(2) == 0 {
						ctx, cancel = context.WithTimeout(context.Background(), time.Duration(rand.IntN(3000))*time.Microsecond)
					}
					if rand.IntN(3) == 0 {
						time.AfterFunc(time.Duration(rand.IntN(500))*time.Microsecond, cancel)
					}
					err := inferAffine(ctx, b, int64(1+rand.IntN(3)))
					if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
						w.Error(err)
					}
					cancel()
				}
			})
		}
		group.Wait()
		eventually(w, "an empty batcher", func() bool {
			stats, err := b.Stats()
			return err == nil && stats.Slots == 0 && stats.Running == 0
		})
	})
}

// A deadline that is as far off as can be closes no batch, and ends no request.
func TestBatcherDeadlinesThatAreTooFarOff(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		ctx, cancel := context.WithTimeout(context.Background(), math.MaxInt64)
		defer cancel()
		b := w.batcher(w.batched(1, 4), streaminfer.BatcherOptions{Delay: long})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { w.ok(inferAffine(ctx, b, 1)) })
		}
		group.Wait()
		if stats, err := b.Stats(); err != nil || stats.Batches != 1 || stats.Rows != 4 {
			w.Errorf("%+v, %v", stats, err)
		}
	})
}

// A batch that fails fails the requests in it, and no others.
func TestBatcherFailuresStayInTheirBatch(t *testing.T) {
	failing := fake.Model{Name: "failing",
		Inputs:  []streaminfer.TensorInfo{tensor("x", streaminfer.DTypeFloat32, streaminfer.Dynamic)},
		Outputs: []streaminfer.TensorInfo{tensor("y", streaminfer.DTypeFloat32, streaminfer.Dynamic)},
		Run: func(call *fake.Call) error {
			copy(fake.Out[float32](call, "y"), fake.In[float32](call, "x"))
			if fake.In[float32](call, "x")[0] < 0 {
				return streaminfer.StatusDriver
			}
			return nil
		}}
	engine := fake.NewEngine(failing)
	w := &world{T: t, isFake: true, engine: engine}
	finish(t, engine, runtime.NumGoroutine())
	model, err := engine.LoadBytes([]byte("failing"), streaminfer.ModelOptions{
		Buckets:  []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {2}}}},
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x", Axis: 0}}})
	w.ok(err)
	b := w.batcher(model, streaminfer.BatcherOptions{})
	for _, x := range []float32{1, -1, 2} {
		in, out := [2]float32{x, x}, [2]float32{}
		err := b.Infer(context.Background(), []streaminfer.Tensor{streaminfer.NewTensor("x", in[:], 2)},
			[]streaminfer.Tensor{streaminfer.NewTensor("y", out[:])})
		if x < 0 {
			w.is(err, streaminfer.StatusDriver)
		} else if err != nil || out != in {
			t.Errorf("%v, %v", out, err)
		}
	}
}
