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
	in chan *job[T]

	mu    sync.Mutex
	stats StageStats
}

func newStage[T any](s Stage[T]) *stage[T] {
	s.Workers = max(s.Workers, 1)
	if s.Queue == 0 {
		s.Queue = QueueDefault
	}
	return &stage[T]{Stage: s, in: make(chan *job[T], max(s.Queue, 0))}
}

// work is one worker: it takes items from its stage's channel and hands them on.
func (p *Pipeline[T]) work(s, next *stage[T], started chan<- error) {
	run := s.Run
	if s.New != nil {
		own, release, err := s.New()
		if err != nil {
			started <- &StageError{s.Name, err}
			return
		}
		run = own
		if release != nil {
			defer func() {
				if err := release(); err != nil {
					p.mu.Lock()
					p.failures = append(p.failures, &StageError{s.Name, err})
					p.mu.Unlock()
				}
			}()
		}
	}
	started <- nil
	for {
		select {
		case <-p.stop:
			return
		case j := <-s.in:
			if !j.state.CompareAndSwap(waiting, running) {
				continue
			}
			if err := s.serve(run, j); err != nil || next == nil {
				j.done <- err
				continue
			}
			j.state.Store(waiting)
			select {
			case next.in <- j:
			case <-j.ctx.Done(): // who waits for the item takes it out
			case <-p.stop:
				return
			}
		}
	}
}

// serve runs the stage on one item.
func (s *stage[T]) serve(run func(context.Context, T) error, j *job[T]) error {
	s.mu.Lock()
	s.stats.Busy++
	s.mu.Unlock()
	ctx, cancel := j.ctx, context.CancelFunc(func() {})
	if s.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.Timeout)
	}
	started := time.Now()
	err := ctx.Err()
	if err == nil {
		err = s.guard(run, ctx, j.item)
	}
	took := time.Since(started)
	if err == nil {
		err = ctx.Err() // too late is late, though it ended well
	}
	cancel()
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
func (s *stage[T]) guard(run func(context.Context, T) error, ctx context.Context, item T) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	return run(ctx, item)
}

// Infer is a stage that runs a model by a pool. tensors says where an item has its inputs and outputs. Workers bounds the
// items that are in the pool at once: more than its sessions, so that it can choose by deadline.
func Infer[T any](name string, pool *streaminfer.Pool, workers int, tensors func(T) (in, out []streaminfer.Tensor)) Stage[T] {
	return Stage[T]{Name: name, Workers: workers, Run: func(ctx context.Context, item T) error {
		in, out := tensors(item)
		return pool.Infer(ctx, in, out)
	}}
}
