package streaminfer

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// kind is a class of requests that are merged with each other, by its largest bucket. The bucket's service time is what a request takes
// from the moment it leaves the queue until it has given its rows back, but for the delay of a batch that waited for more. It is learnt from requests that have waited, since the others may
// have had a device and a batch for themselves; until there was one it is 0, and everything is admitted.
type kind struct {
	poolBucket
	rows int64
	// batch is the one whose requests give their rows back, longest what they have taken so far.
	batch   uint64
	longest time.Duration
	// lengthened is when the service time was last made longer because of a request that timed out.
	lengthened time.Duration
	// waiting is how many are in the queue.
	waiting int
	// weight is what a row takes of the device, compared with those of other kinds: its elements.
	weight int64
}

// learn takes into account what a request of a batch has taken. A batch counts once, by the last of its requests; those of older batches that
// give their rows back among them count as of that.
func (k *kind) learn(batch uint64, took time.Duration) (isNew bool) {
	if isNew = batch > k.batch; isNew {
		if k.longest > 0 {
			k.observe(k.longest)
		}
		k.batch, k.longest = batch, 0
	}
	k.longest = max(k.longest, took)
	if k.service == 0 {
		k.service = took
	}
	return isNew
}

// timedOut takes into account that a request, which left the queue then, has timed out in a batch. Those of one batch do so together, and
// those of others that run do for the same reason: only one that has left since the last says more than that one did.
func (k *kind) timedOut(left, now time.Duration) {
	if left >= k.lengthened {
		k.lengthen(now - left)
		k.lengthened = now
	}
}

// pace is how fast the queue moves: what a unit of weight takes while others wait. It is measured over spans of time in which the queue
// was never empty. So it knows of everything that holds batches up, be it the device or processors that are busy with other things.
type pace struct {
	// perUnit is in nanoseconds, 0 before the first measurement; measured is when it was made.
	perUnit  float64
	measured time.Duration
	// since is when the present span began, left the weight of what has left the queue for a batch since.
	since time.Duration
	left  int64
}

const (
	// spanMin is how long the pace is measured at least, but for two service times, of which each has a batch end.
	spanMin = time.Millisecond
	// spansValid is for how many of those times a measurement is right, whatever else is known.
	spansValid = 2
)

func span(service time.Duration) time.Duration { return max(2*service, spanMin) }

// begin starts a span: the queue was empty before.
func (p *pace) begin(now time.Duration) { p.since, p.left = now, 0 }

// leave counts a request that leaves the queue for a batch. How long a span is to be is not known before a service time is: so the first one
// begins with the last request that left before, as all others do that follow one. From when the queue began, nothing left it for as long as
// the batches that were taken had to go yet, and a pace that counts that would be a batch too slow.
func (p *pace) leave(weight int64, now, service time.Duration) {
	if service == 0 {
		p.begin(now)
		return
	}
	p.left += weight
	if now-p.since < span(service) {
		return
	}
	p.follow(float64(now-p.since) / float64(p.left))
	p.measured = now
	p.begin(now)
}

// ran tells of a batch, of which some lanes take as long as service. A pace that is wrongly slow keeps the queue short, so it gets empty
// before a span is over, and nothing is measured: then what batches do run counts, if it was faster.
func (p *pace) ran(weight int64, now, service time.Duration, lanes int64) {
	perUnit := float64(service) / float64(lanes*weight)
	if perUnit < p.perUnit && now-p.measured > spansValid*span(service) {
		p.follow(perUnit)
	}
}

func (p *pace) follow(perUnit float64) {
	if p.perUnit == 0 {
		p.perUnit = perUnit
	}
	p.perUnit += (perUnit - p.perUnit) / 4
}

// kinds sorts buckets, of which each kind has its largest.
func (m *Model) kinds(only []Bucket) (all []*kind) {
	for _, b := range m.poolBuckets(only, nil) {
		k := &kind{poolBucket: poolBucket{Bucket: b.Bucket, volume: b.volume}, rows: m.rows(b.Bucket)}
		k.weight = max(k.volume/k.rows, 1)
		at := slices.IndexFunc(all, func(other *kind) bool { return sameButRows(other.Bucket, b.Bucket) })
		switch {
		case at < 0:
			all = append(all, k)
		case k.rows > all[at].rows:
			all[at] = k
		}
	}
	slices.SortStableFunc(all, func(a, b *kind) int { return cmp.Compare(a.weight, b.weight) })
	return all
}

func sameButRows(a, b backend.Bucket) bool {
	same := func(a, b []int64) bool { return slices.Equal(a[min(len(a), 1):], b[min(len(b), 1):]) }
	return slices.EqualFunc(a.Shapes, b.Shapes, same) && slices.EqualFunc(a.Values, b.Values, slices.Equal)
}

// rows is the outermost extent of a bucket's inputs, which have the same but for shape inputs; at least 1.
func (m *Model) rows(b backend.Bucket) int64 {
	for i := range m.inputs {
		if !m.inputs[i].ShapeInput && len(b.Shapes[i]) > 0 {
			return max(b.Shapes[i][0], 1)
		}
	}
	return 1
}

// rowsOf is the outermost extent of a request's inputs; 1 if the request does not say.
func (m *Model) rowsOf(in []Tensor) int64 {
	for i := range m.inputs {
		if t := find(in, i, m.inputs[i].Name); !m.inputs[i].ShapeInput && len(t.Shape) > 0 {
			return max(t.Shape[0], 0)
		}
	}
	return 1
}

// kindOf is the kind of a request that has been described; nil if there is none, which is left to the library to say.
func (b *Batcher) kindOf(in []Tensor) *kind {
	for _, k := range b.kinds {
		if b.model.fits(in, &k.poolBucket) {
			return k
		}
	}
	return nil
}

// ahead is how long it takes until so much weight has left the queue. Before that was measured: as if all batches were full, and taken
// for the service time. It is called with the lock.
func (b *Batcher) ahead(k *kind, weight int64) time.Duration {
	perUnit := b.pace.perUnit
	if perUnit == 0 {
		perUnit = float64(k.service) / float64(b.lanes*k.rows*k.weight)
	}
	return time.Duration(float64(weight) * perUnit)
}

// took is what a request, which has waited and whose batch has run, took of its service. A batch that is not full may have waited for more
// requests. That is no part of what another one takes: full batches do not wait, nor do others for longer than deadlines allow.
func (b *Batcher) took(t *ticket, now time.Duration) time.Duration {
	took := now - t.left
	if int64(t.batch.Rows) < t.kind.rows {
		delay := b.options.Delay
		if delay == 0 {
			delay = delayDefault
		}
		took -= min(max(t.batch.Closed-t.left, 0), delay)
	}
	return took
}

// measure notes that t leaves the queue for a batch. It is called with the lock.
func (b *Batcher) measure(t *ticket, now time.Duration) {
	if t.kind != nil {
		t.left = now
		b.pace.leave(t.weight, now, t.kind.service)
	}
}

// doubt lets estimates that keep everything out shrink until a request is let through, whose time then is the truth: the service time of a
// kind of which none waits, since only those that wait teach what it is, if a shorter one would let a request in that is late by so
// much; and the pace if nobody waits at all.
func (b *Batcher) doubt(k *kind, over time.Duration) {
	if k.waiting == 0 && over <= k.service/time.Duration(b.lanes)+k.service*3/2 {
		k.forget()
	}
	if len(b.queue) == 0 {
		b.pace.perUnit -= b.pace.perUnit / 64
	}
}

// admit says by how much a request that finds all batches taken is refused because it, or one that waits, would end too late; 0 if it is
// let in. It is called with the lock.
func (b *Batcher) admit(t *ticket, now time.Duration) (over time.Duration) {
	if !b.isJudged(t) {
		return 0
	}
	if over = b.lateness(t, now); over <= 0 {
		return 0
	}
	b.doubt(t.kind, over)
	b.refusedDeadline++
	return over
}

func lateFor(op string, over time.Duration) *Error {
	return late(op, fmt.Sprint("it, or one that waits, would end ", over, " after its deadline"))
}

func (b *Batcher) isJudged(t *ticket) bool {
	return b.options.Admission == AdmitFeasible && t.deadline > 0 && t.kind != nil && t.kind.service > 0
}

// lateness is by how much a request that has to wait would miss its deadline, or make one miss it that waits, if things go as they did;
// 0 or less if all are in time. The next batch becomes free within one lane's part of the service time; then the pace says how long those
// take that are due earlier. After that the request's own batch is taken, for half as long again as is usual if others are due earlier: under
// overload everyone that is let in is just in time, so estimates that err a little would let in many that turn out to be late. That costs
// nothing but a shorter queue. For who would be first there is nothing to guess but its own batch.
func (b *Batcher) lateness(t *ticket, now time.Duration) time.Duration {
	own, before := b.ahead(t.kind, t.weight), b.waiting
	at := now + t.kind.service/time.Duration(b.lanes)
	for _, w := range b.queue {
		if w.compare(&t.place) > 0 {
			break
		}
		before -= w.weight
		if w.deadline == 0 || w.kind == nil {
			continue
		}
		if end := at + b.ahead(t.kind, before) + w.kind.service; end <= w.deadline && end+own > w.deadline {
			return end + own - w.deadline
		}
	}
	end := at + b.ahead(t.kind, before) + t.kind.service
	if before > 0 {
		end += t.kind.service / 2
	}
	return end - t.deadline
}

// isTooLate says of the first in the queue that a batch with those behind it could not be sure to end by its deadline: the library would
// close the batch for it before it is full, which costs the others more than it is worth. The only one of its kind may run in a smaller
// one, which the library knows better, and is how an estimate that is wrong is found out. It is called with the lock.
func (b *Batcher) isTooLate(t *ticket, now time.Duration) bool {
	return b.isJudged(t) && t.kind.waiting > 1 && now+t.kind.service*5/4 > t.deadline
}

// sweep takes those out of the queue's front that are too late. It is called with the lock.
func (b *Batcher) sweep() {
	if len(b.queue) < 2 {
		return // as at most ends of requests: the clock need not be read
	}
	for now := backend.Now(); len(b.queue) > 0; {
		first := b.queue.first()
		if !b.isTooLate(first, now) {
			return
		}
		b.take(first)
		b.swept++
		first.isTooLate = true
		first.wake()
	}
}
