package streaminfer

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// tickets are in the order in which they are due, the first at the end, where it is taken from.
type tickets []*ticket

func (t *ticket) compare(other *ticket) int {
	return cmp.Or(cmp.Compare(other.due, t.due), cmp.Compare(other.number, t.number))
}

func (q *tickets) push(t *ticket) {
	at, _ := slices.BinarySearchFunc(*q, t, (*ticket).compare)
	*q = slices.Insert(*q, at, t)
}

func (q *tickets) remove(t *ticket) {
	if at, found := slices.BinarySearchFunc(*q, t, (*ticket).compare); found {
		*q = slices.Delete(*q, at, at+1)
	}
}

func (q tickets) first() *ticket { return q[len(q)-1] }

// placed gives a request its place in the order: that of its deadline, or, if it has none, of a deadline that is a while off.
func (t *ticket) placed(ctx context.Context) {
	now := backend.Now()
	t.due = now + patience
	if at, ok := ctx.Deadline(); ok {
		t.due = now + time.Until(at)
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
			b.leaveQueue(t)
			return leftQueue(op, ctx)
		}
		select {
		case <-b.closing:
			b.leaveQueue(t)
			return refusal(op, StatusStaleHandle, "the batcher was closed during the call")
		default:
		}
		vacated, isFirst := b.look(t)
		if isFirst {
			err := t.ticket.Reserve(t.request, remaining(ctx))
			if failed, ok := errors.AsType[*backend.Error](err); !ok || Status(failed.Status) != StatusAgain {
				b.leaveQueue(t)
				return t.turnedAway(refused(op, err))
			}
		}
		if !queued {
			var err error
			if queued, err = b.enqueue(t, op, vacated, isFirst); err != nil {
				return t.turnedAway(err)
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

// look reports how often rows have been given back so far, and whether nobody waits who is due before t.
func (b *Batcher) look(t *ticket) (vacated uint64, isFirst bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.vacated, b.wouldBeFirst(t)
}

// wouldBeFirst reports whether nobody in the queue, but perhaps t itself, is due before t. It is called with the lock.
func (b *Batcher) wouldBeFirst(t *ticket) bool {
	return len(b.queue) == 0 || b.queue.first().compare(t) <= 0
}

// enqueue puts t in the queue, unless it is the first by now and has to look again: it was not when it looked, or rows have been given
// back since. Whoever gave them back, or was the first, woke somebody else.
func (b *Batcher) enqueue(t *ticket, op string, vacated uint64, isFirst bool) (queued bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wouldBeFirst(t) && (!isFirst || b.vacated != vacated) {
		return false, nil
	}
	if len(b.queue) >= b.options.QueueMax {
		return false, &Error{Op: op, Status: StatusAgain, Message: "all batches are taken, and as many requests wait as may", cause: ErrQueueFull}
	}
	b.queue.push(t)
	b.queuedMax = max(b.queuedMax, len(b.queue))
	return true, nil
}

// leaveQueue takes t out of the queue, if it is there, and wakes the next.
func (b *Batcher) leaveQueue(t *ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue.remove(t)
	select { // for its next request: turns come with the lock, and to the queue alone
	case <-t.turn:
	default:
	}
	b.wakeFirst()
}

// vacate wakes the first after rows have been given back.
func (b *Batcher) vacate() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.vacated++
	b.wakeFirst()
}

// wakeFirst is called with the lock. A turn that has not been taken yet is enough.
func (b *Batcher) wakeFirst() {
	if len(b.queue) > 0 {
		select {
		case b.queue.first().turn <- struct{}{}:
		default:
		}
	}
}
