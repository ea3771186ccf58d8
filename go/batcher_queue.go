package streaminfer

import (
	"context"
	"errors"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// placed gives a request its place in the order: that of its deadline, or, if it has none, of a deadline that is a while off.
func (t *ticket) placed(ctx context.Context) {
	now := backend.Now()
	t.due, t.deadline = now+patience, 0
	if at, ok := ctx.Deadline(); ok {
		t.deadline = dueAt(now, at)
		t.due = t.deadline
	}
}

// lookAgainAfter is how long the first in the queue waits to be woken before it looks by itself.
const lookAgainAfter = time.Millisecond

// reserve takes rows of a batch that forms. While all batches are taken, or others wait for that who are due earlier, it waits for
// its turn. Whoever gives rows back wakes the first in the queue, who stays there until there is room for it, and then wakes the
// next: so nobody is overtaken by what is due later. There is one queue for requests of all kinds: the first, if it finds no room
// for its own, keeps those behind it waiting that would find some for theirs.
//
// A batch can become idle without anybody giving rows back: its owners gave up and have released their slots while it ran, and when
// the device is done it is the library alone that knows. So the first looks again from time to time, with one timer and no goroutine;
// the others need not, for whoever is first wakes the next.
func (t *ticket) reserve(ctx context.Context, op string) error {
	b := t.batcher
	for queued := false; ; {
		if ctx.Err() != nil {
			b.leaveQueue(t, false)
			return notStarted(op, ctx)
		}
		select {
		case <-b.closing:
			b.leaveQueue(t, false)
			return refusal(op, StatusStaleHandle, "the batcher was closed during the call")
		default:
		}
		vacated, isFirst, isTooLate := b.look(t)
		if isTooLate {
			b.leaveQueue(t, false)
			return late(op, "its turn came too late")
		}
		if isFirst {
			err := t.ticket.Reserve(t.request, remaining(ctx))
			if failed, ok := errors.AsType[*backend.Error](err); !ok || Status(failed.Status) != StatusAgain {
				b.leaveQueue(t, err == nil)
				return t.turnedAway(refused(op, err))
			}
		}
		if !queued {
			var over time.Duration
			var refused error
			if queued, over, refused = b.enqueue(t, vacated, isFirst); refused != nil {
				return t.turnedAway(outOfQueue(op, over, refused))
			}
			if !queued {
				continue
			}
			t.entered = true
		}
		t.awaitTurn(ctx, isFirst)
	}
}

// turnedAway notes that a refusal came at once.
func (t *ticket) turnedAway(err error) error {
	if failed, ok := err.(*Error); ok && !t.entered && (failed.Status == StatusExpired || failed.Status == StatusAgain) {
		failed.OnArrival = true
	}
	return err
}

// awaitTurn returns when it is time to look again: woken, after a while if t is the first, or because nothing is to be waited for.
func (t *ticket) awaitTurn(ctx context.Context, isFirst bool) {
	var paced <-chan time.Time
	if isFirst {
		if t.pace == nil {
			t.pace = time.NewTimer(lookAgainAfter)
		} else {
			t.pace.Reset(lookAgainAfter)
		}
		defer t.pace.Stop()
		paced = t.pace.C
	}
	select {
	case <-t.turn:
	case <-paced:
	case <-ctx.Done():
	case <-t.batcher.closing:
	}
}

// remaining is the time that a context leaves, 0 if it has no deadline.
func remaining(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), 1)
	}
	return 0
}

// look reports how often rows have been given back so far, whether nobody waits who is due before t, and whether t has been taken out of
// the queue because it is too late.
func (b *Batcher) look(t *ticket) (vacated uint64, isFirst, isTooLate bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.vacated, b.wouldBeFirst(t), t.isTooLate
}

// wouldBeFirst reports whether nobody in the queue, but perhaps t itself, is due before t. It is called with the lock.
func (b *Batcher) wouldBeFirst(t *ticket) bool {
	return len(b.queue) == 0 || b.queue.first().compare(&t.place) <= 0
}

// enqueue puts t in the queue, unless it is the first by now and has to look again: it was not when it looked, or rows have been given
// back since. Whoever gave them back, or was the first, woke somebody else. What refuses it, by how much it or another would be late, is
// for outOfQueue to word.
func (b *Batcher) enqueue(t *ticket, vacated uint64, isFirst bool) (queued bool, over time.Duration, refused error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wouldBeFirst(t) && (!isFirst || b.vacated != vacated) {
		return false, 0, nil
	}
	if over := b.admit(t, backend.Now()); over > 0 {
		return false, over, ErrDeadline
	}
	if len(b.queue) >= b.options.QueueMax {
		return false, 0, ErrQueueFull
	}
	if len(b.queue) == 0 {
		b.pace.begin(backend.Now())
	}
	b.put(t)
	return true, 0, nil
}

// outOfQueue gives a refusal its words, without the lock: under overload there are as many as requests.
func outOfQueue(op string, over time.Duration, refused error) error {
	if refused == ErrDeadline {
		return lateFor(op, over)
	}
	return &Error{Op: op, Status: StatusAgain, Message: "all batches are taken, and as many requests wait as may", cause: ErrQueueFull}
}

// put adds t to the queue. It is called with the lock.
func (b *Batcher) put(t *ticket) {
	b.queue.push(t)
	b.waiting += t.weight
	if t.kind != nil {
		t.kind.waiting++
	}
	b.queuedMax = max(b.queuedMax, len(b.queue))
}

// leaveQueue takes t out of the queue, if it is there, and wakes the next.
func (b *Batcher) leaveQueue(t *ticket, hasRows bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.take(t) && hasRows {
		b.measure(t, backend.Now())
	}
	select { // for its next request: turns come with the lock, and to the queue alone
	case <-t.turn:
	default:
	}
	b.wakeFirst()
}

// take takes t out of the queue, if it is there. It is called with the lock.
func (b *Batcher) take(t *ticket) (wasThere bool) {
	if wasThere = b.queue.remove(t); wasThere {
		b.waiting -= t.weight
		if t.kind != nil {
			t.kind.waiting--
		}
	}
	return wasThere
}

// vacate wakes the first after t has given its rows back. err is how it ended, nil also if it was not committed.
func (b *Batcher) vacate(t *ticket, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.left > 0 && t.committed {
		now := backend.Now()
		switch {
		case err == nil:
			if t.kind.learn(t.batch.Batch, b.took(t, now)) {
				b.pace.ran(int64(t.batch.Rows)*t.kind.weight, now, t.kind.service, b.lanes)
			}
		case errors.Is(err, context.DeadlineExceeded):
			t.kind.timedOut(t.left, now)
		}
	}
	b.vacated++
	b.wakeFirst()
}

// wakeFirst wakes whoever is first of those that are not too late. It is called with the lock.
func (b *Batcher) wakeFirst() {
	b.sweep()
	if len(b.queue) > 0 {
		b.queue.first().wake()
	}
}

// wake gives t its turn. One that has not been taken yet is enough.
func (t *ticket) wake() {
	select {
	case t.turn <- struct{}{}:
	default:
	}
}
