package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// stage is a Stage at work.
type stage[T any] struct {
	Stage[T]
	// room, ready and hand are as queue.go says.
	room, ready chan struct{}
	hand        chan *job[T]

	mu sync.Mutex
	// first and last of the queue.
	first, last *job[T]
	stats       StageStats
}

func newStage[T any](s Stage[T]) *stage[T] {
	s.Workers = max(s.Workers, 1)
	if s.Queue < 0 {
		return &stage[T]{Stage: s, hand: make(chan *job[T])}
	}
	if s.Queue == 0 {
		s.Queue = QueueDefault
	}
	return &stage[T]{Stage: s, room: make(chan struct{}, s.Queue), ready: make(chan struct{}, s.Queue)}
}

// worker is one goroutine of a stage.
type worker[T any] struct {
	stage, next *stage[T]
	// run is nil until the worker has what it owns.
	run     func(ctx context.Context, item T) error
	release func() error
}

var errExited = errors.New("runtime.Goexit was called")

// start is the goroutine of a worker from the beginning on. What New fails with it tells.
func (p *Pipeline[T]) start(s, next *stage[T], started chan<- error) {
	w := &worker[T]{stage: s, next: next}
	err := errExited // unless it returns
	func() {
		defer func() {
			if err != nil {
				started <- &StageError{s.Name, err}
			} else {
				started <- nil
			}
		}()
		err = w.own()
	}()
	if err == nil {
		p.work(w)
	} else {
		p.disown(w)
	}
}

// own makes what the worker owns, if it has not.
func (w *worker[T]) own() error {
	switch {
	case w.run != nil:
	case w.stage.New == nil:
		w.run = w.stage.Run
	default:
		run, release, err := w.stage.New()
		if err != nil {
			return err
		}
		w.run, w.release = run, release
		if run == nil {
			return errors.New("New made no function")
		}
	}
	return nil
}

func (p *Pipeline[T]) disown(w *worker[T]) {
	if w.release == nil {
		return
	}
	if err := w.release(); err != nil {
		p.mu.Lock()
		p.failures = append(p.failures, &StageError{w.stage.Name, err})
		p.mu.Unlock()
	}
}

// work takes items from the stage's queue and hands them on. If the stage makes the goroutine exit, another worker begins.
func (p *Pipeline[T]) work(w *worker[T]) {
	exited := true
	defer func() {
		if exited {
			p.workers.Go(func() { p.work(&worker[T]{stage: w.stage, next: w.next}) })
		}
	}()
	defer p.disown(w)
	for {
		var j *job[T]
		select {
		case <-p.stop:
			exited = false
			return
		case <-w.stage.ready:
			if j = w.stage.pop(); j == nil {
				continue
			}
		case j = <-w.stage.hand:
		}
		if !j.state.CompareAndSwap(waiting, running) {
			continue
		}
		if err := w.serve(j); err != nil || w.next == nil {
			j.done <- err
			continue
		}
		j.state.Store(waiting)
		if w.next.offer(j) {
			continue
		}
		select {
		case w.next.room <- struct{}{}:
			w.next.push(j)
		case w.next.hand <- j:
		case <-j.ctx.Done(): // who waits for the item takes it out
		case <-p.stop:
			exited = false
			return
		}
	}
}

// serve runs the stage on one item. If the stage makes the goroutine exit, the item has its outcome before.
func (w *worker[T]) serve(j *job[T]) (err error) {
	s := w.stage
	s.mu.Lock()
	s.stats.Busy++
	s.mu.Unlock()
	ctx, cancel := j.ctx, context.CancelFunc(func() {})
	if s.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.Timeout)
	}
	started, exited := time.Now(), true
	defer func() {
		took := time.Since(started)
		switch {
		case exited:
			err = errExited
		case err == nil:
			err = ctx.Err() // too late is late, though it ended well
		}
		cancel()
		if err = s.count(took, err); exited {
			j.done <- err
		}
	}()
	if err = ctx.Err(); err == nil {
		err = w.guard(ctx, j.item)
	}
	exited = false
	return err
}

// count notes how an item fared in the stage.
func (s *stage[T]) count(took time.Duration, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Busy--
	s.stats.Time.Add(took)
	if err == nil {
		s.stats.Done++
		return nil
	}
	s.stats.Failed++
	if errors.Is(err, context.DeadlineExceeded) {
		s.stats.Late++
	}
	return &StageError{s.Name, err}
}

// guard keeps a panic with the item that caused it.
func (w *worker[T]) guard(ctx context.Context, item T) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	if err := w.own(); err != nil {
		return err
	}
	return w.run(ctx, item)
}

// Infer is a stage that runs a model by a pool. tensors says where an item has its inputs and outputs. Workers bounds the
// items that are in the pool at once: more than its sessions, so that it can choose by deadline.
func Infer[T any](name string, pool *streaminfer.Pool, workers int, tensors func(T) (in, out []streaminfer.Tensor)) Stage[T] {
	return Stage[T]{Name: name, Workers: workers, Run: func(ctx context.Context, item T) error {
		in, out := tensors(item)
		return pool.Infer(ctx, in, out)
	}}
}
