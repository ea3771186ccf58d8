// Package pipeline connects stages, such as preparing a request, one model, another model, by bounded queues.
//
// Each stage has its own workers, its own bound on what waits for it, and its own limit of time for one item. An item that
// fails leaves the pipeline at the stage where it failed, and no other item notices. When a stage is slow the queues
// before it fill, until the entrance makes callers wait or turns them away: nothing grows.
//
//	p, err := pipeline.New(
//		pipeline.Stage[*request]{Name: "tokens", Workers: 2, Run: tokenize},
//		pipeline.Infer("model", pool, 8, func(r *request) (in, out []streaminfer.Tensor) { return r.in, r.out }),
//		pipeline.Stage[*request]{Name: "rank", Timeout: time.Millisecond, Run: rank},
//	)
//	err = p.Do(ctx, r)
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

var (
	// ErrFull is what Try returns when the first stage has no room.
	ErrFull = errors.New("pipeline: the first stage has no room")
	// ErrClosed is what Do and Try return once the pipeline drains or is closed.
	ErrClosed = errors.New("pipeline: closed")
)

// QueueDefault is how many items wait for a stage unless it says otherwise.
const QueueDefault = 1024

// Stage is one step of a pipeline.
type Stage[T any] struct {
	// Name appears in errors and statistics.
	Name string
	// Workers is the number of items that the stage works on at once; 0 means 1.
	Workers int
	// Queue bounds the items that wait for the stage; 0 means QueueDefault, a negative number none: an item is handed
	// over when a worker is free. Only items that somebody still waits for count.
	Queue int
	// Timeout limits the time that the stage works on one item; 0 means that only the item's own context does.
	Timeout time.Duration
	// Run works on one item and returns when it no longer touches it, soon after ctx has ended. A panic in it fails the
	// item, and so does runtime.Goexit, after which another worker takes the place of the one that it ended.
	Run func(ctx context.Context, item T) error
	// New, instead of Run, makes a Run for each worker, with whatever the worker owns, and what releases that at the end.
	// It is called on the worker's goroutine, as are the two functions that it returns. A worker that takes another's place
	// calls it with its first item, which fails if New does.
	New func() (run func(ctx context.Context, item T) error, release func() error, err error)
}

// StageError says at which stage an item failed. It wraps why: the stage's error, or context.DeadlineExceeded.
type StageError struct {
	// Stage is the stage's name.
	Stage string
	// Err is why the item failed.
	Err error
}

// Error returns the stage and the reason.
func (e *StageError) Error() string { return fmt.Sprintf("pipeline: stage %s: %v", e.Stage, e.Err) }

// Unwrap returns the reason.
func (e *StageError) Unwrap() error { return e.Err }

// StageStats are a stage's figures at one moment.
type StageStats struct {
	// Name is the stage's, Workers its number of workers.
	Name    string
	Workers int
	// Queued items wait for the stage; Busy ones are worked on.
	Queued, Busy int
	// Done items went on to the next stage or to the end; Failed ones left here, Late ones of them because of time.
	Done, Failed, Late uint64
	// Time is what the stage took for each of them.
	Time streaminfer.Histogram
}

// Pipeline moves items of type T, usually pointers, through its stages. Its methods may be called from any goroutine.
type Pipeline[T any] struct {
	stages []*stage[T]
	// stop ends the workers.
	stop    chan struct{}
	workers sync.WaitGroup

	mu     sync.Mutex
	closed bool
	inside int
	// quiet is closed when the pipeline takes nothing more and nothing is inside.
	quiet    chan struct{}
	stopOnce sync.Once
	failures []error
}

// job is an item on its way.
type job[T any] struct {
	ctx   context.Context
	item  T
	state atomic.Uint32
	// done receives the outcome of a job that was not abandoned.
	done chan error
	// at is the stage whose queue the job is in, or was last.
	at atomic.Pointer[stage[T]]
	// queued says that the job is in that queue, between these two; the stage's lock guards them.
	queued       bool
	before, next *job[T]
}

const (
	// waiting: in a queue or on the way to one; who abandons it may, at any moment.
	waiting uint32 = iota
	// running: a worker has the item, which is nobody else's until it is done.
	running
	abandoned
)

// workersMax is more workers than are of use to a stage.
const workersMax = 1 << 20

// New starts a pipeline. Close it when done with it.
func New[T any](stages ...Stage[T]) (*Pipeline[T], error) {
	if len(stages) == 0 {
		return nil, errors.New("pipeline: no stages")
	}
	p := &Pipeline[T]{stop: make(chan struct{}), quiet: make(chan struct{})}
	for i, s := range stages {
		if (s.Run == nil) == (s.New == nil) {
			return nil, fmt.Errorf("pipeline: stage %d (%s) needs one of Run and New", i, s.Name)
		}
		if s.Workers > workersMax {
			return nil, fmt.Errorf("pipeline: stage %d (%s) cannot have %d workers", i, s.Name, s.Workers)
		}
		p.stages = append(p.stages, newStage(s))
	}
	started := make(chan error)
	count := 0
	for i, s := range p.stages {
		var next *stage[T]
		if i+1 < len(p.stages) {
			next = p.stages[i+1]
		}
		for range s.Workers {
			count++
			p.workers.Go(func() { p.start(s, next, started) })
		}
	}
	var failed error
	for range count {
		if err := <-started; err != nil {
			failed = err
		}
	}
	if failed != nil {
		_ = p.Close()
		return nil, failed
	}
	return p, nil
}

// Do moves one item through all stages and returns when it has left the pipeline. While the first stage has no room it
// waits for some. When ctx ends Do returns as soon as no stage touches the item, at once if it waits between two.
//
// Errors: *StageError, ErrClosed, or ctx's.
func (p *Pipeline[T]) Do(ctx context.Context, item T) error { return p.do(ctx, item, true) }

// Try is Do for an item that may be turned away: it returns ErrFull if the first stage has no room.
func (p *Pipeline[T]) Try(ctx context.Context, item T) error { return p.do(ctx, item, false) }

func (p *Pipeline[T]) do(ctx context.Context, item T, wait bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !p.enter() {
		return ErrClosed
	}
	defer p.leave()
	j := &job[T]{ctx: ctx, item: item, done: make(chan error, 1)}
	first := p.stages[0]
	if !first.offer(j) {
		if !wait {
			return ErrFull
		}
		select {
		case first.room <- struct{}{}:
			first.push(j)
		case first.hand <- j:
		case <-ctx.Done():
			return ctx.Err()
		case <-p.stop:
			return ErrClosed
		}
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return p.abandon(j, ctx.Err())
	case <-p.stop:
		return p.abandon(j, ErrClosed)
	}
}

// abandon takes a job out of the pipeline if it waits; if a stage has the item, the outcome is that of the stage.
func (p *Pipeline[T]) abandon(j *job[T], why error) error {
	for !j.state.CompareAndSwap(waiting, abandoned) {
		select {
		case err := <-j.done:
			return err
		case <-time.After(time.Millisecond): // it may be on its way to the next stage by then
		}
	}
	// A stage that it is on its way to writes itself down first and then looks at the state, so one of the two sees the other.
	if s := j.at.Load(); s != nil {
		s.remove(j)
	}
	return why
}

func (p *Pipeline[T]) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.inside++
	return true
}

func (p *Pipeline[T]) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inside--; p.inside == 0 && p.closed {
		close(p.quiet)
	}
}

func (p *Pipeline[T]) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		if p.inside == 0 {
			close(p.quiet)
		}
	}
}

// Drain refuses new items and returns when all others have left, or with ctx's error when that ends first. The pipeline
// stays to be closed.
func (p *Pipeline[T]) Drain(ctx context.Context) error {
	p.refuse()
	select {
	case <-p.quiet:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close refuses new items, fails those that wait with ErrClosed, lets each stage end the item that it works on, and stops
// the workers. It returns what releasing their own things failed with. Closing again does nothing.
func (p *Pipeline[T]) Close() error {
	p.refuse()
	p.stopOnce.Do(func() { close(p.stop) })
	p.workers.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.failures...)
}

// Stats returns the figures of each stage, in order.
func (p *Pipeline[T]) Stats() []StageStats {
	stats := make([]StageStats, len(p.stages))
	for i, s := range p.stages {
		s.mu.Lock()
		stats[i] = s.stats
		s.mu.Unlock()
		stats[i].Name, stats[i].Workers = s.Name, s.Workers
	}
	return stats
}
