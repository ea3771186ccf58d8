package streaminfer_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/pipeline"
)

// item is what the pipelines of the tests move.
type item struct {
	*affineRequest
	number int
	sum    float32
}

func newItem(number int) *item {
	it := &item{affineRequest: newAffineRequest(1), number: number}
	it.randomize()
	return it
}

func newPipeline[T any](t testing.TB, stages ...pipeline.Stage[T]) *pipeline.Pipeline[T] {
	t.Helper()
	p, err := pipeline.New(stages...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

var errPlanted = errors.New("planted")

// Items that fail, by error or panic, leave alone; the others come through right.
func TestPipelineIsolatesFailures(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		pool := w.pool(w.load(affine), streaminfer.PoolOptions{Sessions: 2})
		p := newPipeline(w,
			pipeline.Stage[*item]{Name: "check", Workers: 2, Queue: 4, Run: func(_ context.Context, it *item) error {
				switch it.number % 10 {
				case 3:
					return errPlanted
				case 7:
					panic("planted, too")
				}
				return nil
			}},
			pipeline.Infer("model", pool, 8, func(it *item) (in, out []streaminfer.Tensor) { return it.in, it.out }),
			pipeline.Stage[*item]{Name: "sum", Queue: -1, Run: func(_ context.Context, it *item) error {
				for _, y := range it.y {
					it.sum += y
				}
				return nil
			}},
		)
		var group sync.WaitGroup
		for number := range 200 {
			group.Go(func() {
				it := newItem(number)
				err := p.Do(context.Background(), it)
				if bad := number%10 == 3 || number%10 == 7; bad {
					failed, ok := errors.AsType[*pipeline.StageError](err)
					if !ok || failed.Stage != "check" || errors.Is(err, errPlanted) != (number%10 == 3) {
						w.Errorf("item %d: %v", number, err)
					}
				} else if want := it.y[0] + it.y[1] + it.y[2] + it.y[3]; err != nil || !it.right() || it.sum != want {
					w.Errorf("item %d: %v, %v", number, err, it.y)
				}
			})
		}
		group.Wait()
		s := p.Stats()
		if s[0].Failed != 40 || s[0].Done != 160 || s[1].Done != 160 || s[2].Done != 160 || s[2].Busy != 0 || s[1].Time.Count != 160 {
			w.Errorf("%+v", s)
		}
	})
}

func TestPipelineIsBounded(t *testing.T) {
	gate := make(chan struct{})
	var ran atomic.Int32
	p := newPipeline(t, pipeline.Stage[int]{Name: "gated", Queue: 2, Run: func(context.Context, int) error {
		<-gate
		ran.Add(1)
		return nil
	}}, pipeline.Stage[int]{Name: "end", Run: func(context.Context, int) error { return nil }})
	ended := make(chan error, 3)
	for range 3 {
		go func() { ended <- p.Do(context.Background(), 1) }()
	}
	eventually(t, "the stage to fill", func() bool { s := p.Stats()[0]; return s.Busy == 1 && s.Queued == 2 })
	if err := p.Try(context.Background(), 1); err != pipeline.ErrFull {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := p.Do(short, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := p.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := p.Do(context.Background(), 1); err != pipeline.ErrClosed {
		t.Error(err)
	}
	close(gate)
	if err := p.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-ended; err != nil {
			t.Error("a request that was inside when Drain came:", err)
		}
	}
	if ran.Load() != 3 {
		t.Error(ran.Load())
	}
}

func TestStagesHaveTheirOwnTime(t *testing.T) {
	p := newPipeline(t, pipeline.Stage[bool]{Name: "fast", Run: func(context.Context, bool) error { return nil }},
		pipeline.Stage[bool]{Name: "late", Timeout: time.Millisecond, Run: func(ctx context.Context, late bool) error {
			if late {
				<-ctx.Done()
			}
			return ctx.Err()
		}})
	err := p.Do(context.Background(), true)
	failed, ok := errors.AsType[*pipeline.StageError](err)
	if !ok || failed.Stage != "late" || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if s := p.Stats(); s[0].Done != 1 || s[1].Late != 1 || s[1].Failed != 1 {
		t.Errorf("%+v", s)
	}
}

// An item that waits between two stages is given up at once, and never reaches the next.
func TestPipelineGivesUpWhatWaits(t *testing.T) {
	gate := make(chan struct{})
	var mu sync.Mutex
	var reached []int
	p := newPipeline(t, pipeline.Stage[int]{Name: "first", Run: func(context.Context, int) error { return nil }},
		pipeline.Stage[int]{Name: "gated", Run: func(_ context.Context, n int) error {
			mu.Lock()
			reached = append(reached, n)
			mu.Unlock()
			<-gate
			return nil
		}})
	first := make(chan error)
	go func() { first <- p.Do(context.Background(), 0) }()
	eventually(t, "the gate to be reached", func() bool { return p.Stats()[1].Busy == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	given := make(chan error)
	go func() { given <- p.Do(ctx, 1) }()
	eventually(t, "an item to wait", func() bool { return p.Stats()[1].Queued == 1 })
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	last := make(chan error)
	go func() { last <- p.Do(context.Background(), 2) }()
	close(gate)
	if err := errors.Join(<-first, <-last); err != nil {
		t.Error(err)
	}
	if want := []int{0, 2}; !slices.Equal(reached, want) {
		t.Errorf("%v reached the second stage, not %v", reached, want)
	}
}

func TestPipelineCloses(t *testing.T) {
	before := runtime.NumGoroutine()
	gate := make(chan struct{})
	p := newPipeline(t, pipeline.Stage[int]{Name: "gated", Run: func(context.Context, int) error { <-gate; return nil }},
		pipeline.Stage[int]{Name: "end", Run: func(context.Context, int) error { return nil }})
	ended := make(chan error)
	for range 4 {
		go func() { ended <- p.Do(context.Background(), 0) }()
	}
	eventually(t, "the stage to be busy", func() bool { s := p.Stats()[0]; return s.Busy == 1 && s.Queued == 3 })
	go func() { ended <- p.Close() }()
	for range 3 {
		if err := <-ended; err != pipeline.ErrClosed {
			t.Error(err)
		}
	}
	close(gate)
	for range 2 { // Close, and the item that the stage had
		if err := <-ended; err != nil && err != pipeline.ErrClosed {
			t.Error(err)
		}
	}
	eventually(t, "the workers to end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestPipelineRefusesWhatCannotStart(t *testing.T) {
	run := func(context.Context, int) error { return nil }
	started := func() (func(context.Context, int) error, func() error, error) {
		return run, func() error { return errPlanted }, nil
	}
	fails := func() (func(context.Context, int) error, func() error, error) { return nil, nil, errPlanted }
	for name, stages := range map[string][]pipeline.Stage[int]{
		"none": {}, "empty": {{Name: "empty"}}, "both": {{Run: run, New: started}}, "failing": {{Run: run}, {New: fails}},
	} {
		if p, err := pipeline.New(stages...); err == nil {
			t.Errorf("%s: started", name)
			_ = p.Close()
		}
	}
	p, err := pipeline.New(pipeline.Stage[int]{Name: "own", New: started})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); !errors.Is(err, errPlanted) {
		t.Error("what releasing failed with is lost:", err)
	}
}

func TestLinkedModelsAreAStage(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(affine)
		p := newPipeline(w, pipeline.Linked("twice", 2, func(ctx context.Context, c *pipeline.Chain, it *item) error {
			x, err := streaminfer.Input[float32](c.Session(0), "x")
			if err != nil {
				return err
			}
			y, err := streaminfer.Output[float32](c.Session(1), "y")
			if err != nil {
				return err
			}
			copy(x.Data, it.x)
			err = c.Run(ctx)
			if err == nil {
				copy(it.y, y.Data)
			}
			return err
		}, pipeline.Link{Model: model}, pipeline.Link{Model: model, Inputs: map[string]string{"x": "y"}}))
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for number := range 20 {
					it := newItem(number)
					if err := p.Do(context.Background(), it); err != nil || it.y[2] != 2*(2*it.x[2]+1)+1 {
						w.Errorf("%v: %v became %v", err, it.x, it.y)
					}
				}
			})
		}
		group.Wait()
	})
}

func TestChainIsGivenUpAsAWhole(t *testing.T) {
	inBothWorlds(t, func(w *world) {
		model := w.load(endless)
		c, err := pipeline.NewChain(pipeline.Link{Model: model}, pipeline.Link{Model: model, Inputs: map[string]string{"x": "y"}})
		w.ok(err)
		for range 2 {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Millisecond)
			if err := c.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				w.Error(err)
			}
			cancel()
			if w.isFake {
				break // until released the next would only wait
			}
		}
		w.release()
		w.ok(c.Session(0).Drain(context.Background()))
		w.ok(c.Session(1).Drain(context.Background()))
		w.ok(c.Close())
		w.ok(c.Close())
		w.settle(0)
		_, err = pipeline.NewChain(pipeline.Link{Model: model, Inputs: map[string]string{"x": "y"}})
		if err == nil {
			w.Error("the first model is linked to nothing")
		}
	})
}
