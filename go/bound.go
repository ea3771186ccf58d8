package streaminfer

import (
	"context"
	"runtime"
	"sync/atomic"

	"github.com/streaminfer/streaminfer/go/trace"
)

// BoundOptions are the choices made when a bound worker is made.
type BoundOptions struct {
	// QueueMax bounds the calls that wait for the worker; one more waits until there is room, or its context ends. 0 means
	// 1024.
	QueueMax int
	// Session are the options of the worker's session.
	Session SessionOptions
}

// Bound is a worker: one goroutine, on one thread of its own, with one session bound to that thread. On a GPU the device's
// context then stays current on the thread, and no call has to switch to it and back; the price is that every request
// changes threads twice, to the worker and back, which costs some microseconds. So it pays for work of several calls,
// or where a library must always be called from the same thread; a [Pool] is better for single requests. The tests'
// benchmarks compare both.
//
// Its methods may be called from any goroutine.
type Bound struct {
	_ noCopy
	*boundWorker
	cleanup runtime.Cleanup
}

// boundWorker is the part of a Bound that its goroutine refers to, so that a forgotten Bound is collected.
type boundWorker struct {
	calls chan *boundCall
	// lifetime ends, by end, when the goroutine is asked to; ended is closed when it has, and failure says why if nobody asked.
	lifetime context.Context
	end      context.CancelFunc
	ended    chan struct{}
	failure  error
}

type boundCall struct {
	ctx   context.Context
	fn    func(context.Context, *Session) error
	taken atomic.Bool
	done  chan boundOutcome
}

type boundOutcome struct {
	err error
	// panicked says that fn panicked with value.
	panicked bool
	value    any
}

// NewBound starts a worker with a session of the model. Close it when done with it.
//
// Errors: as for [Model.NewSession] and [Session.Bind].
func NewBound(m *Model, o BoundOptions) (*Bound, error) {
	if err := checkCounts("new bound", option{"QueueMax", o.QueueMax}); err != nil {
		return nil, err
	}
	if o.QueueMax == 0 {
		o.QueueMax = queueDefault
	}
	// What finds no room waits for it, so that more room than this makes no difference but for the memory that it takes.
	w := &boundWorker{calls: make(chan *boundCall, min(o.QueueMax, queueRoomMax)), ended: make(chan struct{})}
	w.lifetime, w.end = context.WithCancel(context.Background())
	started := make(chan error)
	go w.run(m, o.Session, started)
	if err := <-started; err != nil {
		<-w.ended
		w.end()
		return nil, err
	}
	b := &Bound{boundWorker: w}
	b.cleanup = runtime.AddCleanup(b, func(w *boundWorker) { w.end() }, w)
	return b, nil
}

// run is the worker's goroutine. It never unlocks its thread before the session has been unbound; if a function makes it
// exit, the thread ends with it, which unbinds.
func (w *boundWorker) run(m *Model, options SessionOptions, started chan<- error) {
	defer close(w.ended)
	s, err := m.boundSession(options)
	started <- err
	if err != nil {
		return
	}
	w.failure = errExited
	m.engine.bound.Add(1)
	defer m.engine.bound.Add(-1)
	defer func() {
		if err := s.Close(); w.failure == nil {
			w.failure = err
		}
	}()
	for w.serve(m.engine.registry, s) {
		_ = s.Close()
		if fresh, err := m.boundSession(options); err == nil {
			s = fresh
		} else {
			w.failure = err
			return
		}
	}
}

// boundSession makes a session that is bound to the calling goroutine and stays so.
func (m *Model) boundSession(options SessionOptions) (*Session, error) {
	s, err := m.newSession(options, trace.CreatePooled, nil)
	if err != nil {
		return nil, err
	}
	if err := s.Bind(); err != nil {
		_ = s.Close()
		return nil, err
	}
	s.workers = true
	return s, nil
}

// serve does what it is given until there is a reason to end, which it leaves in failure, or to go on with another session.
func (w *boundWorker) serve(r *registry, s *Session) (goesOn bool) {
	for !s.poisoned {
		select {
		case <-w.lifetime.Done():
			w.failure = nil
			return false
		case <-r.stopped:
			w.failure = errBoundEngineClosed
			return false
		case call := <-w.calls:
			if call.taken.Swap(true) {
				continue // its caller has given up
			}
			if !s.isClosed() {
				call.serve(w.lifetime, s)
				call = nil
			}
			if s.isClosed() {
				w.failure = r.whyGone()
				if call != nil {
					call.done <- boundOutcome{err: w.failure}
				}
				return false
			}
		}
	}
	return true
}

// whyGone is the failure of a worker whose session is closed.
func (r *registry) whyGone() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errBoundEngineClosed
	}
	return errExited
}

var (
	errExited            = &Error{Op: "bound", Status: StatusStaleHandle, Message: "a function ended the worker's goroutine or session"}
	errBoundClosed       = &Error{Op: "bound", Status: StatusStaleHandle, Message: "the worker is closed"}
	errBoundEngineClosed = &Error{Op: "bound", Status: StatusStaleHandle, Message: "the engine is closed"}
)

// serve runs the function once the device is done with what an earlier one left behind.
func (c *boundCall) serve(lifetime context.Context, s *Session) {
	if err := c.await(lifetime, s); err != nil {
		c.done <- boundOutcome{err: err}
		return
	}
	outcome := boundOutcome{err: errPanicked, panicked: true}
	returned := false
	defer func() {
		if !returned {
			// A panic has a value; runtime.Goexit has none and goes on through this function.
			outcome.value = recover()
			outcome.panicked = outcome.value != nil
		}
		s.tidyBound()
		c.done <- outcome
	}()
	outcome.err = c.fn(c.ctx, s)
	outcome.panicked, returned = false, true
}

// await waits until the session is no longer draining. The worker's end is not kept waiting for that.
func (c *boundCall) await(lifetime context.Context, s *Session) error {
	const op = "bound do"
	if err := s.enter(op); err != nil {
		return err
	}
	defer s.leave()
	if settled, err := s.settled(op); settled || err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer context.AfterFunc(lifetime, cancel)()
	err := s.drain(ctx, op)
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		return notStarted(op, c.ctx)
	case lifetime.Err() != nil:
		return errBoundClosed
	}
	return err
}

// Do runs fn on the worker's thread, with the worker's session, after the calls that came before. It returns when fn has,
// so fn should heed ctx, as [Session.Run] does; a call that still waits when ctx ends returns at once and never runs. What
// fn leaves in flight is cancelled, and the next call waits, as long as its ctx lets it, until the device is done with that. The session
// stays bound: its Unbind is StatusWrongState. A panic in fn goes on to the caller. fn must not call Do of the same worker.
//
// Errors: what fn returns; StatusStaleHandle if the worker or its engine is closed; StatusCancelled or [ErrDeadline] if ctx ended first.
func (b *Bound) Do(ctx context.Context, fn func(context.Context, *Session) error) error {
	const op = "bound do"
	defer runtime.KeepAlive(b)
	if ctx.Err() != nil {
		return notStarted(op, ctx)
	}
	call := &boundCall{ctx: ctx, fn: fn, done: make(chan boundOutcome, 1)}
	select {
	case b.calls <- call:
	case <-b.ended:
		return b.gone()
	case <-ctx.Done():
		return notStarted(op, ctx)
	}
	var outcome boundOutcome
	select {
	case outcome = <-call.done:
	case <-b.ended:
		if !call.taken.Swap(true) {
			return b.gone()
		}
		outcome = <-call.done // sent before the goroutine ended
	case <-ctx.Done():
		if !call.taken.Swap(true) {
			return notStarted(op, ctx)
		}
		outcome = <-call.done
	}
	if outcome.panicked {
		panic(outcome.value)
	}
	return outcome.err
}

// gone is the failure of a call that the worker did not live to see.
func (b *Bound) gone() error {
	if b.failure != nil {
		return b.failure
	}
	return errBoundClosed
}

// Close ends the worker after the call that it is in, and frees its session and thread. Calls that wait fail with
// StatusStaleHandle. It must not be called from a function of Do. Closing again does nothing.
func (b *Bound) Close() error {
	b.cleanup.Stop()
	b.end()
	<-b.ended
	if b.failure == errExited || b.failure == errBoundEngineClosed {
		return nil
	}
	return b.failure
}

// tidyBound is tidy for a session that stays bound.
func (s *Session) tidyBound() {
	if s.enter("tidy") != nil {
		return
	}
	defer s.leave()
	s.abandon()
}
