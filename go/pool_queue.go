package streaminfer

import (
	"context"
	"errors"
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
	// due orders the queue; deadline is 0 for a request that has none.
	due, deadline time.Duration
	number        uint64
	// index in the queue, -1 outside.
	index int
	next  *waiter
}

// waiters is a heap, the one due first at its root. It is container/heap without interfaces, which would allocate.
type waiters []*waiter

func (q waiters) before(i, j int) bool {
	return q[i].due < q[j].due || q[i].due == q[j].due && q[i].number < q[j].number
}

func (q waiters) swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q waiters) up(i int) {
	for parent := (i - 1) / 2; i > 0 && q.before(i, parent); i, parent = parent, (parent-1)/2 {
		q.swap(i, parent)
	}
}

func (q waiters) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(q); child++ {
			if q.before(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		q.swap(i, least)
		i = least
	}
}

func (q *waiters) push(w *waiter) {
	w.index = len(*q)
	*q = append(*q, w)
	q.up(w.index)
}

func (q *waiters) remove(w *waiter) {
	i, last := w.index, len(*q)-1
	if i != last {
		q.swap(i, last)
	}
	(*q)[last] = nil
	*q = (*q)[:last]
	if i != last {
		q.down(i)
		q.up(i)
	}
	w.index = -1
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
		deadline = now + time.Until(at)
	}
	p.mu.Lock()
	p.stats.Requests++
	if err := p.admit(op, bucket, now, deadline); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	if l := p.take(bucket); l != nil {
		p.hold(l, bucket, now)
		p.mu.Unlock()
		return l, nil
	}
	w := p.waiter()
	w.bucket, w.deadline, w.due = bucket, deadline, deadline
	if deadline == 0 {
		w.due = now + patience
	}
	p.queue.push(w)
	p.stats.QueuedMax = max(p.stats.QueuedMax, len(p.queue))
	p.mu.Unlock()
	return p.await(ctx, op, w)
}

func (p *Pool) await(ctx context.Context, op string, w *waiter) (*lane, error) {
	select {
	case l := <-w.ready:
		return p.answer(op, w, l)
	case <-ctx.Done():
	}
	p.mu.Lock()
	if w.index >= 0 {
		p.queue.remove(w)
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
	err := leftQueue(op, ctx)
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

func (p *Pool) recycle(w *waiter) {
	w.bucket = nil
	w.next, p.free = p.free, w
}

// take returns an idle lane if one may be used, best the one whose last request had the same bucket.
func (p *Pool) take(bucket *poolBucket) *lane {
	if p.busy >= p.options.Sessions || len(p.idle) == 0 {
		return nil
	}
	last := len(p.idle) - 1
	at := last
	for i := last; i >= 0; i-- {
		if p.idle[i].bucket == bucket {
			at = i
			break
		}
	}
	l := p.idle[at]
	copy(p.idle[at:], p.idle[at+1:])
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return l
}

// hold marks the lane as handed out.
func (p *Pool) hold(l *lane, bucket *poolBucket, now time.Duration) {
	p.busy++
	p.stats.BusyMax = max(p.stats.BusyMax, p.busy)
	l.since, l.bucket, l.expected = now, bucket, bucket.service
	p.loans++
	l.heldBy.Store(p.loans)
}

// dispatch hands idle lanes to the waiters that are due first, one lane to one waiter. It is called after everything
// that may let one go on.
func (p *Pool) dispatch() {
	for len(p.queue) > 0 {
		first := p.queue[0]
		now := backend.Now()
		if p.options.Admission == AdmitFeasible && first.deadline > 0 && now+first.bucket.service > first.deadline {
			p.queue.remove(first)
			p.stats.Expired++
			first.refused = ErrDeadline
			first.ready <- nil
			continue
		}
		l := p.take(first.bucket)
		if l == nil {
			break
		}
		p.queue.remove(first)
		p.hold(l, first.bucket, now)
		first.ready <- l
	}
	p.settleQuiet()
}

// flush refuses everything that waits.
func (p *Pool) flush(why error) {
	for len(p.queue) > 0 {
		w := p.queue[0]
		p.queue.remove(w)
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
