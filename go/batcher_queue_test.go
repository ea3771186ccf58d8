package streaminfer_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
	"github.com/streaminfer/streaminfer/go/trace"
)

// fakeBatcher merges requests to a model of independent rows into batches of four.
func fakeBatcher(t *testing.T, options streaminfer.BatcherOptions, run func(x float32) (float32, error)) (*world, *streaminfer.Batcher) {
	engine := fake.NewEngine(fake.Model{Name: "rows",
		Inputs:  []streaminfer.TensorInfo{tensor("x", streaminfer.DTypeFloat32, streaminfer.Dynamic)},
		Outputs: []streaminfer.TensorInfo{tensor("y", streaminfer.DTypeFloat32, streaminfer.Dynamic)},
		Run: func(call *fake.Call) (err error) {
			y := fake.Out[float32](call, "y")
			for i, x := range fake.In[float32](call, "x") {
				if y[i], err = run(x); err != nil {
					return err
				}
			}
			return nil
		}})
	w := &world{T: t, isFake: true, engine: engine}
	finish(t, engine, runtime.NumGoroutine())
	model, err := engine.LoadBytes([]byte("rows"), streaminfer.ModelOptions{
		Buckets:  []streaminfer.Bucket{{Shapes: streaminfer.Shapes{"x": {4}}}},
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x", Axis: 0}}})
	w.ok(err)
	return w, w.batcher(model, options)
}

// inferRows runs a request of four rows, which fill a batch.
func inferRows(ctx context.Context, b *streaminfer.Batcher, x float32) error {
	return inferSome(ctx, b, x, 4)
}

func inferSome(ctx context.Context, b *streaminfer.Batcher, x float32, rows int) error {
	in, out := [4]float32{x, x, x, x}, [4]float32{}
	return b.Infer(ctx, []streaminfer.Tensor{streaminfer.NewTensor("x", in[:rows], int64(rows))},
		[]streaminfer.Tensor{streaminfer.NewTensor("y", out[:rows])})
}

// onArrival reports whether a request was refused at once.
func onArrival(err error) bool {
	failed, ok := errors.AsType[*streaminfer.Error](err)
	return ok && failed.OnArrival
}

// awaitQueued waits until so many requests wait for a batch.
func awaitQueued(w *world, b *streaminfer.Batcher, count int) {
	w.Helper()
	eventually(w, fmt.Sprint(count, " requests to wait"), func() bool { stats, err := b.Stats(); return err == nil && stats.Queued == count })
}

// What finds all batches taken is served in the order of deadlines, and one more than may wait is refused.
func TestBatcherQueueIsServedByDeadline(t *testing.T) {
	gate := make(chan struct{})
	var order []float32
	w, b := fakeBatcher(t, streaminfer.BatcherOptions{Batches: 1, QueueMax: 5, Delay: long}, func(x float32) (float32, error) {
		if x == 0 {
			<-gate
		}
		if len(order) == 0 || order[len(order)-1] != x {
			order = append(order, x) // one batch at a time
		}
		return x, nil
	})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	var group sync.WaitGroup
	group.Go(func() { w.ok(inferRows(context.Background(), b, 0)) })
	eventually(w, "a batch to run", func() bool { stats, _ := b.Stats(); return stats.Running == 1 })
	giving, giveUp := context.WithCancel(context.Background())
	for i, hours := range []int{3, 1, 0, 2, 4} {
		ctx, cancel := giving, context.CancelFunc(func() {})
		if hours > 0 && hours < 4 {
			ctx, cancel = context.WithTimeout(context.Background(), time.Duration(hours)*time.Hour)
		} else if hours == 0 {
			ctx = context.Background() // as if due in a second
		}
		t.Cleanup(cancel)
		group.Go(func() {
			err := inferRows(ctx, b, float32(hours+1))
			failed, ok := errors.AsType[*streaminfer.Error](err)
			if hours < 4 && err != nil || hours == 4 && (onArrival(err) || !errors.Is(err, context.Canceled) || !ok || failed.Executed != streaminfer.ExecutedNo) {
				w.Errorf("%d hours: %v", hours, err)
			}
		})
		awaitQueued(w, b, i+1)
	}
	if err := inferRows(context.Background(), b, 9); !errors.Is(err, streaminfer.ErrQueueFull) || !onArrival(err) {
		w.Errorf("one more: %v", err)
	}
	giveUp()
	awaitQueued(w, b, 4)
	open()
	group.Wait()
	if want := []float32{0, 1, 2, 3, 4}; !slices.Equal(order, want) {
		w.Errorf("served in the order %v, not %v", order, want)
	}
	stats, err := b.Stats()
	w.ok(err)
	if stats.Queued != 0 || stats.QueuedMax != 5 || stats.Slots != 0 || stats.Spans.Queue.Count != 5 {
		w.Errorf("%+v", stats)
	}
	// Who has left the queue is told from who was in a batch.
	record, err := w.engine.Trace()
	w.ok(err)
	left := 0
	for _, s := range record.Spans {
		if s.Error != "" {
			left++
			if s.Session != 0 || s.Batch != 0 || s.Acquired != s.Ended {
				w.Errorf("%+v", s)
			}
		}
	}
	if left != 1 {
		w.Errorf("%d have left the queue", left)
	}
}

// A batch whose requests were given up while it ran is idle again without anybody giving rows back then: who waits is served.
func TestBatcherQueueOutlivesWhoGivesUp(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.loadRows(heavy, 1), streaminfer.BatcherOptions{Batches: 1})
		infer := func(ctx context.Context) error {
			return b.Infer(ctx, []streaminfer.Tensor{streaminfer.NewTensor("x", make([]float32, slowSide), 1, slowSide)}, nil)
		}
		giving, giveUp := context.WithCancel(context.Background())
		defer giveUp()
		var first, second sync.WaitGroup
		first.Go(func() {
			if err := infer(giving); err != nil && !errors.Is(err, context.Canceled) { // on a busy machine it may have ended
				w.Error(err)
			}
		})
		eventually(w, "a batch to run", func() bool { stats, err := b.Stats(); return err == nil && stats.Running == 1 })
		served := make(chan error, 1)
		second.Go(func() { served <- infer(context.Background()) })
		eventually(w, "a request to wait, or to be served", func() bool {
			stats, err := b.Stats()
			return err == nil && (stats.Queued == 1 || len(served) > 0)
		})
		giveUp()
		first.Wait()
		eventually(w, "who waits to have looked in vain since", func() bool {
			stats, err := b.Stats()
			return err == nil && (stats.Refusals >= 2 || len(served) > 0)
		})
		w.release()
		eventually(w, "who waits to be served", func() bool { return len(served) > 0 })
		w.ok(<-served)
		second.Wait()
	})
}

// Who gets in wakes the next, until there is no room left: a batch that ends once is enough for all who fit in.
func TestBatcherQueueFillsABatch(t *testing.T) {
	gate := make(chan struct{})
	w, b := fakeBatcher(t, streaminfer.BatcherOptions{Batches: 1, Delay: long}, func(x float32) (float32, error) { <-gate; return x, nil })
	var group sync.WaitGroup
	group.Go(func() { w.ok(inferRows(context.Background(), b, 0)) })
	eventually(w, "a batch to run", func() bool { stats, _ := b.Stats(); return stats.Running == 1 })
	for i := range 4 {
		group.Go(func() { w.ok(inferSome(context.Background(), b, 1, 1)) })
		awaitQueued(w, b, i+1)
	}
	close(gate)
	group.Wait()
	if stats, err := b.Stats(); err != nil || stats.Batches != 2 || stats.Rows != 8 {
		w.Errorf("%+v, %v", stats, err)
	}
}

// A small request does not take the rows that one which is due before it waits for.
func TestBatcherQueueIsNotOvertaken(t *testing.T) {
	w, b := fakeBatcher(t, streaminfer.BatcherOptions{Batches: 1, Delay: long}, func(x float32) (float32, error) { return x, nil })
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	giving, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	var first, group sync.WaitGroup
	first.Go(func() { // half a batch, which nobody completes
		if err := inferSome(giving, b, 1, 2); !errors.Is(err, context.Canceled) {
			w.Error(err)
		}
	})
	eventually(w, "half a batch", func() bool { stats, _ := b.Stats(); return stats.Slots == 1 })
	group.Go(func() { w.ok(inferRows(ctx, b, 2)) })
	awaitQueued(w, b, 1)
	for i := range 2 {
		later, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
		defer cancel()
		group.Go(func() { w.ok(inferSome(later, b, 3, 2)) })
		awaitQueued(w, b, i+2)
	}
	giveUp()
	first.Wait()
	group.Wait()
	if stats, err := b.Stats(); err != nil || stats.Batches != 2 || stats.Rows != 8 {
		w.Errorf("%+v, %v", stats, err)
	}
}

// However few batches there are, everyone gets a turn: nobody is forgotten, and nobody is refused.
func TestBatcherQueueForgetsNobody(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		b := w.batcher(w.batched(1, 2, 4), streaminfer.BatcherOptions{Batches: 1, Delay: 100 * time.Microsecond})
		var group sync.WaitGroup
		for worker := range 64 {
			group.Go(func() {
				r := newAffineRequest(int64(1 + worker%4))
				for range 10 {
					r.randomize()
					if err := b.Infer(context.Background(), r.in, r.out); err != nil || !r.right() {
						w.Errorf("worker %d: %v", worker, err)
						return
					}
				}
			})
		}
		group.Wait()
	})
}

func TestBatcherCloseEndsTheQueue(t *testing.T) {
	gate := make(chan struct{})
	w, b := fakeBatcher(t, streaminfer.BatcherOptions{Batches: 1, Delay: long}, func(x float32) (float32, error) { <-gate; return x, nil })
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { w.is(inferRows(context.Background(), b, 1), streaminfer.StatusStaleHandle) })
	}
	awaitQueued(w, b, 3)
	w.ok(b.Close())
	group.Wait()
	close(gate)
}

// A batched request allocates nothing of its own, its span included.
func TestBatcherDoesNotAllocate(t *testing.T) {
	if isInstrumented {
		t.Skip("instrumented programs allocate")
	}
	onLibrary(t, func(w *world) {
		w.engine.SetTrace(trace.Options{Spans: 1})
		b := w.batcher(w.batched(1), streaminfer.BatcherOptions{})
		r := newAffineRequest(1)
		if allocations := testing.AllocsPerRun(500, func() { w.ok(b.Infer(context.Background(), r.in, r.out)) }); allocations != 0 {
			w.Errorf("%v allocations", allocations)
		}
	})
}
