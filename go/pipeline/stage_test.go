package pipeline_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streaminfer/streaminfer/go/pipeline"
)

// soon is what a hang is told by.
const soon = 20 * time.Second

func outcome[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(soon):
		t.Fatalf("%s hangs", what)
		panic("unreachable")
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !condition(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

type worker = func(context.Context, int) error

// An item that makes its worker's goroutine exit fails, and the stage goes on with another worker.
func TestGoexitFailsTheItem(t *testing.T) {
	run := func(_ context.Context, n int) error {
		if n%2 == 1 {
			runtime.Goexit()
		}
		return nil
	}
	var owned, made atomic.Int32
	for name, s := range map[string]pipeline.Stage[int]{"Run": {Name: "exits", Run: run},
		"New": {Name: "exits", Workers: 2, New: func() (worker, func() error, error) {
			made.Add(1)
			owned.Add(1)
			return run, func() error { owned.Add(-1); return nil }, nil
		}}} {
		t.Run(name, func(t *testing.T) {
			p, err := pipeline.New(s, pipeline.Stage[int]{Name: "end", Run: func(context.Context, int) error { return nil }})
			if err != nil {
				t.Fatal(err)
			}
			for n := range 10 {
				ended := make(chan error, 1)
				go func() { ended <- p.Do(context.Background(), n) }()
				err := outcome(t, "Do", ended)
				failed, ok := errors.AsType[*pipeline.StageError](err)
				if exits := n%2 == 1; exits != ok || exits && (failed.Stage != "exits" || !strings.Contains(err.Error(), "Goexit")) {
					t.Errorf("item %d: %v", n, err)
				}
			}
			if s := p.Stats()[0]; s.Busy != 0 || s.Failed != 5 || s.Done != 5 {
				t.Errorf("%+v", s)
			}
			closed := make(chan error, 1)
			go func() { closed <- p.Close() }()
			if err := outcome(t, "Close", closed); err != nil {
				t.Error(err)
			}
		})
	}
	if owned.Load() != 0 || made.Load() < 3 {
		t.Errorf("%d workers' things are left of %d", owned.Load(), made.Load())
	}
}

// A worker that takes another's place and cannot make what it needs fails its items until it can.
func TestReplacementThatCannotStart(t *testing.T) {
	planted := errors.New("planted")
	calls := 0 // of one worker after another
	p, err := pipeline.New(pipeline.Stage[int]{Name: "s", New: func() (worker, func() error, error) {
		if calls++; calls == 2 {
			return nil, nil, planted
		}
		return func(_ context.Context, n int) error {
			if n == 0 {
				runtime.Goexit()
			}
			return nil
		}, nil, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for n, want := range []func(error) bool{func(err error) bool { return err != nil },
		func(err error) bool { return errors.Is(err, planted) }, func(err error) bool { return err == nil }} {
		ended := make(chan error, 1)
		go func() { ended <- p.Do(context.Background(), n) }()
		if err := outcome(t, "Do", ended); !want(err) {
			t.Errorf("item %d: %v", n, err)
		}
	}
}

func TestNewThatDoesNotReturn(t *testing.T) {
	released := false
	for name, made := range map[string]func() (worker, func() error, error){
		"goexit": func() (worker, func() error, error) { runtime.Goexit(); return nil, nil, nil },
		"no run": func() (worker, func() error, error) { return nil, func() error { released = true; return nil }, nil },
	} {
		failed := make(chan error, 1)
		go func() {
			_, err := pipeline.New(pipeline.Stage[int]{Name: name, New: made})
			failed <- err
		}()
		err := outcome(t, "New", failed)
		if failed, ok := errors.AsType[*pipeline.StageError](err); !ok || failed.Stage != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !released {
		t.Error("what a worker without Run owned is not released")
	}
}

// Queue is a bound alone: nothing is taken for it in advance.
func TestQueueOfAnyLength(t *testing.T) {
	p, err := pipeline.New(pipeline.Stage[int]{Name: "s", Queue: math.MaxInt, Run: func(context.Context, int) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Try(context.Background(), 1); err != nil {
		t.Error(err)
	}
}

// Items that were given up have no place in a queue, the first stage's or another's.
func TestGivenUpItemsLeaveTheQueue(t *testing.T) {
	for name, before := range map[string][]pipeline.Stage[int]{"first stage": nil,
		"later stage": {{Name: "before", Workers: 4, Run: func(context.Context, int) error { return nil }}}} {
		t.Run(name, func(t *testing.T) {
			gate, reached := make(chan struct{}), make(chan int, 10)
			p, err := pipeline.New(append(before, pipeline.Stage[int]{Name: "gated", Queue: 2, Run: func(_ context.Context, n int) error {
				reached <- n
				<-gate
				return nil
			}})...)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			release := sync.OnceFunc(func() { close(gate) })
			defer release()
			stats := func() pipeline.StageStats { return p.Stats()[len(before)] }
			do := func(ctx context.Context, n int) <-chan error {
				ended := make(chan error, 1)
				go func() { ended <- p.Do(ctx, n) }()
				return ended
			}
			live := []<-chan error{do(context.Background(), 0)}
			outcome(t, "the gate", reached)
			live = append(live, do(context.Background(), 1))
			eventually(t, "an item to wait", func() bool { return stats().Queued == 1 })
			for range 3 {
				ctx, cancel := context.WithCancel(context.Background())
				ended := do(ctx, 9)
				eventually(t, "the queue to be full", func() bool { return stats().Queued == 2 })
				cancel()
				if err := outcome(t, "Do", ended); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				if queued := stats().Queued; queued != 1 {
					t.Errorf("%d items are queued after one was given up", queued)
				}
			}
			ended := make(chan error, 1)
			go func() { ended <- p.Try(context.Background(), 2) }()
			eventually(t, "room for another", func() bool { return stats().Queued == 2 || len(ended) > 0 })
			release()
			for n, ended := range append(live, ended) {
				if err := outcome(t, "Do", ended); err != nil {
					t.Errorf("item %d: %v", n, err)
				}
			}
			for want := range 2 {
				if n := outcome(t, "the stage", reached); n != want+1 {
					t.Errorf("item %d came, not %d", n, want+1)
				}
			}
		})
	}
}

// Many items, of which many are given up, go through short queues: each has one outcome, and nothing is left.
func TestGivingUpUnderLoad(t *testing.T) {
	stage := func(name string, queue int) pipeline.Stage[int] {
		return pipeline.Stage[int]{Name: name, Workers: 2, Queue: queue, Run: func(context.Context, int) error { runtime.Gosched(); return nil }}
	}
	p, err := pipeline.New(stage("a", 1), stage("b", 2), stage("c", -1), stage("d", 1))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var done atomic.Uint64
	for g := range 16 {
		group.Go(func() {
			for n := range 300 {
				ctx, cancel := context.WithCancel(context.Background())
				if (n+g)%3 == 0 {
					go cancel()
				}
				switch err := p.Do(ctx, n); {
				case err == nil:
					done.Add(1)
				case !errors.Is(err, context.Canceled):
					t.Error(err)
				}
				cancel()
			}
		})
	}
	group.Wait()
	ended := make(chan error, 1)
	go func() { ended <- p.Drain(context.Background()) }()
	if err := outcome(t, "Drain", ended); err != nil {
		t.Error(err)
	}
	for _, s := range p.Stats() {
		if s.Queued != 0 {
			t.Errorf("%s: %d are queued", s.Name, s.Queued)
		}
	}
	if s := p.Stats()[3]; s.Done < done.Load() {
		t.Errorf("%d are done, and %d ended well", s.Done, done.Load())
	}
	go func() { ended <- p.Close() }()
	if err := outcome(t, "Close", ended); err != nil {
		t.Error(err)
	}
}
