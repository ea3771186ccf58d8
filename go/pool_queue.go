package streaminfer

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// waiter is a request in a pool's queue. Who takes it out of the queue sends to ready exactly once, unless it is the
// request itself that leaves.
type waiter struct {
	// ready has room for the one lane, or nil for a refusal, so that nobody waits for the waiter.
	ready   chan *lane
	refused error
	bucket  *poolBucket
	place
	queued bool
	next   *waiter
}

// acquire returns a lane for a request, now or when it is its turn.
func (p *Pool) acquire(ctx context.Context, op string, bucket *poolBucket, now time.Duration) (*lane, error) {
	if ctx.Err() != nil {
		p.mu.Lock()
		p.stats.Requests++
		p.mu.Unlock()
		return nil, p.left(op, ctx)
	}
	var deadline time.Duration
	if at, ok := ctx.Deadline(); ok {
		deadline = dueAt(now, at)
	}
	p.mu.Lock()
	p.stats.Requests++
	isProbe, over, refused := p.admit(bucket, now, deadline)
	if refused != nil {
		p.mu.Unlock()
		return nil, p.refusal(op, over, refused)
	}
	if l := p.take(bucket); l != nil {
		p.hold(l, bucket, now)
		l.isProbe = isProbe
		p.mu.Unlock()
		return l, nil
	}
	w := p.waiter()
	w.bucket, w.deadline, w.due = bucket, deadline, deadline
	if deadline == 0 {
		w.due = now + patience
	}
	p.queue.push(w)
	w.queued = true
	p.stats.QueuedMax = max(p.stats.QueuedMax, len(p.queue))
	p.mu.Unlock()
	l, err := p.await(ctx, op, w)
	if err != nil {
		p.recordLeft(ctx, now, err)
	}
	return l, err
}

func (p *Pool) await(ctx context.Context, op string, w *waiter) (*lane, error) {
	select {
	case l := <-w.ready:
		return p.answer(op, w, l)
	case <-ctx.Done():
	}
	p.mu.Lock()
	if w.queued {
		p.leave(w)
		p.recycle(w)
		p.settleQuiet()
		p.mu.Unlock()
		return nil, p.left(op, ctx)
	}
	p.mu.Unlock()
	// Its turn came in the same moment. Whoever decided so has sent, or is about to.
	l, err := p.answer(op, w, <-w.ready)
	if err != nil {
		return nil, err
	}
	p.putBack(l)
	return nil, p.left(op, ctx)
}

// refusal gives a refusal on arrival its words, without the lock.
func (p *Pool) refusal(op string, over time.Duration, refused error) error {
	switch refused {
	case ErrDeadline:
		err := lateFor(op, over)
		err.OnArrival = true
		return err
	case ErrQueueFull:
		return &Error{Op: op, Status: StatusAgain, Message: "as many requests wait as may", cause: ErrQueueFull, OnArrival: true}
	}
	return refused
}

// answer reads what the waiter has been sent.
func (p *Pool) answer(op string, w *waiter, l *lane) (*lane, error) {
	refused := w.refused
	p.mu.Lock()
	p.recycle(w)
	p.mu.Unlock()
	if l != nil {
		return l, nil
	}
	if errors.Is(refused, ErrDeadline) {
		return nil, late(op, "its turn came too late")
	}
	return nil, refused
}

// left is the failure of a request whose context has ended before it got a session.
func (p *Pool) left(op string, ctx context.Context) error {
	err := notStarted(op, ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(err)
	return err
}

// What follows is called with the lock.

func (p *Pool) waiter() *waiter {
	w := p.free
	if w == nil {
		w = &waiter{ready: make(chan *lane, 1)}
	} else {
		p.free = w.next
	}
	p.arrived++
	w.number, w.refused, w.next = p.arrived, nil, nil
	return w
}

// leave takes a waiter out of the queue.
func (p *Pool) leave(w *waiter) {
	p.queue.remove(w)
	w.queued = false
}

func (p *Pool) recycle(w *waiter) {
	w.bucket = nil
	w.next, p.free = p.free, w
}

// take returns an idle lane if one may be used, best the one whose last request had the same bucket. Sessions that somebody
// closed who no longer held them are replaced.
func (p *Pool) take(bucket *poolBucket) *lane {
	for p.busy < p.options.Sessions && len(p.idle) > 0 {
		at := len(p.idle) - 1
		for i := at; i >= 0; i-- {
			if p.idle[i].bucket == bucket {
				at = i
				break
			}
		}
		l := p.idle[at]
		p.idle = slices.Delete(p.idle, at, at+1)
		if !l.session.broken() {
			return l
		}
		p.background.Add(1)
		go p.replace(l)
	}
	return nil
}

// hold marks the lane as handed out.
func (p *Pool) hold(l *lane, bucket *poolBucket, now time.Duration) {
	p.busy++
	p.stats.BusyMax = max(p.stats.BusyMax, p.busy)
	l.since, l.bucket, l.expected, l.isProbe = now, bucket, bucket.service, false
	p.loans++
	l.heldBy.Store(p.loans)
}

// dispatch hands idle lanes to the waiters that are due first, one lane to one waiter. It is called after everything
// that may let one go on.
func (p *Pool) dispatch() {
	for len(p.queue) > 0 {
		first := p.queue.first()
		now := backend.Now()
		if p.options.Admission == AdmitFeasible && first.deadline > 0 && now+first.bucket.service > first.deadline {
			p.leave(first)
			p.stats.Expired++
			first.refused = ErrDeadline
			first.ready <- nil
			continue
		}
		l := p.take(first.bucket)
		if l == nil {
			break
		}
		p.leave(first)
		p.hold(l, first.bucket, now)
		first.ready <- l
	}
	p.settleQuiet()
}

// flush refuses everything that waits.
func (p *Pool) flush(why error) {
	for len(p.queue) > 0 {
		w := p.queue.first()
		p.leave(w)
		p.stats.RefusedClosed++
		w.refused = why
		w.ready <- nil
	}
}

// settleQuiet tells Drain when nothing is left.
func (p *Pool) settleQuiet() {
	if p.refusing == nil || p.busy > 0 || len(p.queue) > 0 || p.draining > 0 && !p.closed {
		return
	}
	select {
	case <-p.quiet:
	default:
		close(p.quiet)
	}
}
