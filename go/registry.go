package streaminfer

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// registry is the part of an Engine that outlives it by a moment: what its reaper goroutine needs, and what Close must
// find. It refers to its children weakly, so that a forgotten one can still be collected.
type registry struct {
	backend   backend.Engine
	recording recording
	// bound counts the bound workers.
	bound atomic.Int64
	// workers are the threads of the library, as counted last.
	workers atomic.Int32

	mu       sync.Mutex
	closed   bool
	next     uint64
	children map[uint64]child
	reaping  sync.Once
	// stopped is closed when the reaper has ended: from then on no completion is delivered.
	stopped chan struct{}
}

// child is a session, model, event, batcher or memory of the engine, or who waits for a request of a batcher.
type child struct {
	closer func() io.Closer
	// done receives the completion of a session's parked request; nil for other children.
	done chan<- backend.Completion
}

// noCopy makes vet report a copy of what has it: the copy would be closed when the original is collected.
type noCopy struct{}

// Lock and Unlock are what vet looks for.
func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

func newRegistry(b backend.Engine) *registry {
	r := &registry{backend: b, children: map[uint64]child{}, recording: newRecording(), stopped: make(chan struct{})}
	registries.Store(r, nil)
	return r
}

// adopt registers a child, from when on the engine's Close may close it from another goroutine. So before that, own gives it its token,
// which is never reused, and all else that its Close needs.
func adopt[T any, P interface {
	*T
	io.Closer
}](r *registry, p P, done chan<- backend.Completion, own func(token uint64)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return &backend.Error{Status: int32(StatusStaleHandle), Message: "the engine is closed"}
	}
	pointer := weak.Make((*T)(p))
	r.next++
	own(r.next)
	r.children[r.next] = child{done: done, closer: func() io.Closer {
		if live := pointer.Value(); live != nil {
			return P(live)
		}
		return nil
	}}
	return nil
}

func (r *registry) forget(token uint64) {
	r.mu.Lock()
	delete(r.children, token)
	r.mu.Unlock()
}

// expect has completions with a token of its own, which is never reused, sent to done.
func (r *registry) expect(done chan<- backend.Completion) (token uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	r.children[r.next] = child{done: done, closer: func() io.Closer { return nil }}
	return r.next
}

// startReaper starts the goroutine that hands completions to waiting sessions. An engine that never parks needs none.
func (r *registry) startReaper() { r.reaping.Do(func() { go r.reap() }) }

func (r *registry) reap() {
	defer close(r.stopped)
	var batch [64]backend.Completion
	for {
		count, err := r.backend.Reap(batch[:])
		if err != nil || count == 0 {
			return
		}
		r.mu.Lock()
		for _, completion := range batch[:count] {
			// A session that has been closed receives nothing. Any other has room: it has one request in flight and
			// takes its completion before the next.
			if session, ok := r.children[completion.Token]; ok {
				select {
				case session.done <- completion:
				default:
				}
			}
		}
		r.mu.Unlock()
	}
}

func closeRegistry(r *registry) { _ = r.close() }

func (r *registry) close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		<-r.stopped
		return nil
	}
	r.closed = true
	registries.Delete(r)
	var open []io.Closer
	for _, c := range r.children {
		if live := c.closer(); live != nil {
			open = append(open, live)
		}
	}
	r.mu.Unlock()

	var failures []error
	for _, c := range open {
		failures = append(failures, c.Close())
	}
	failures = append(failures, r.backend.Close())
	r.countWorkers()
	// If the reaper was never started, nobody else will say that it has stopped.
	r.reaping.Do(func() { close(r.stopped) })
	<-r.stopped
	return errors.Join(failures...)
}
