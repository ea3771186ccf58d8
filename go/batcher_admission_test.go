package streaminfer

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

const ms = time.Millisecond

// judging is a batcher with two lanes of ten rows, of which each takes 20 ms, so that a row leaves the queue every millisecond.
func judging(t *testing.T, deadlines ...time.Duration) (*Batcher, *kind) {
	t.Helper()
	k := &kind{poolBucket: poolBucket{service: 20 * ms}, rows: 10, weight: 1}
	b := &Batcher{lanes: 2, options: BatcherOptions{QueueMax: 100}}
	for i, deadline := range deadlines {
		due := deadline
		if deadline == 0 {
			due = time.Hour
		}
		w := &ticket{batcher: b, kind: k, weight: 1, place: place{due: due, deadline: deadline, number: uint64(i)}, turn: make(chan struct{}, 1)}
		b.put(w)
	}
	return b, k
}

func arriving(b *Batcher, k *kind, deadline time.Duration, rows int64) *ticket {
	return &ticket{batcher: b, kind: k, weight: rows, place: place{due: deadline, deadline: deadline, number: 100}, turn: make(chan struct{}, 1)}
}

func TestBatcherLateness(t *testing.T) {
	// A lane is free within 10 ms; then one's own batch takes 20 ms, and 10 more for what is not as usual, if others are due earlier.
	for _, test := range []struct {
		name     string
		waiting  []time.Duration
		deadline time.Duration
		rows     int64
		want     time.Duration
	}{
		{"alone", nil, 30 * ms, 1, 0},
		{"alone, too late", nil, 29 * ms, 1, 1 * ms},
		{"behind three", []time.Duration{35 * ms, 36 * ms, 37 * ms}, 43 * ms, 1, 0},
		{"behind three, too late", []time.Duration{35 * ms, 36 * ms, 37 * ms}, 42 * ms, 1, 1 * ms},
		{"first", []time.Duration{300 * ms}, 30 * ms, 1, 0},
		{"before those due later", []time.Duration{35 * ms, 200 * ms, 300 * ms, 0}, 41 * ms, 1, 0},
		{"in the way of one that is just in time", []time.Duration{35 * ms, 50 * ms}, 45 * ms, 20, 1 * ms},
		{"in nobody's way", []time.Duration{35 * ms, 51 * ms}, 45 * ms, 20, 0},
	} {
		b, k := judging(t, test.waiting...)
		if got := max(b.lateness(arriving(b, k, test.deadline, test.rows), 0), 0); got != test.want {
			t.Errorf("%s: late by %v, not %v", test.name, got, test.want)
		}
	}
}

// A request is refused by admission before the queue is full, counted, and told how late it would be; one without deadline never is.
func TestBatcherAdmits(t *testing.T) {
	b, k := judging(t, 35*ms)
	late := arriving(b, k, 40*ms, 1)
	over := b.admit(late, 0)
	err := outOfQueue("infer", over, ErrDeadline)
	if over <= 0 || !errors.Is(err, ErrDeadline) || !errors.Is(err, context.DeadlineExceeded) || b.refusedDeadline != 1 {
		t.Errorf("%v, %d refused", err, b.refusedDeadline)
	}
	late.deadline = 0
	if over := b.admit(late, 0); over != 0 {
		t.Error("without deadline:", over)
	}
	late.deadline, b.options.Admission = 40*ms, AdmitAll
	if over := b.admit(late, 0); over != 0 {
		t.Error("all are admitted, but", over)
	}
	// So is the service time, if others wait, but none of its kind: only those that wait would teach it.
	b, k = judging(t, 0)
	k.waiting, b.queue[0].kind = 0, &kind{poolBucket: poolBucket{service: 20 * ms}, rows: 10, weight: 1, waiting: 1}
	b.pace.perUnit = float64(ms)
	for range 1000 {
		if b.admit(arriving(b, k, 15*ms, 1), 0) == 0 {
			break
		}
	}
	if k.service > 10*ms || b.pace.perUnit != float64(ms) {
		t.Errorf("behind others an estimate refuses for ever: %v, or others' pace is forgotten: %v", k.service, time.Duration(b.pace.perUnit))
	}
	// But not if those that wait are what makes it late.
	b.pace.perUnit, b.waiting = float64(time.Hour), 2
	b.queue[0].due = 1
	if before := k.service; b.admit(arriving(b, k, 15*ms, 1), 0) == 0 || k.service != before {
		t.Errorf("refused because of others it is doubted: %v, not %v", k.service, before)
	}
	// What refuses although nobody waits is doubted, until one is let through.
	b, k = judging(t)
	for range 1000 {
		if b.admit(arriving(b, k, 20*ms, 1), 0) == 0 {
			return
		}
	}
	t.Error("an estimate refuses for ever:", k.service)
}

// expiring is a library's batcher in which seven have expired.
type expiring struct{ backend.Batcher }

func (expiring) Stats() (backend.BatcherStats, error) { return backend.BatcherStats{Expired: 7}, nil }

// Those at the front that are too late for a full batch make way for those behind them, but for the last.
func TestBatcherSweeps(t *testing.T) {
	now := backend.Now()
	b, _ := judging(t, now+1*ms, now+20*ms, now+time.Hour, now+2*time.Hour)
	b.batcher = expiring{}
	all := slices.Clone(b.queue)
	b.wakeFirst()
	for i, want := range []bool{false, false, true, true} { // the queue has the first at its end
		if w := all[i]; w.isTooLate != want || len(w.turn) != map[int]int{0: 0, 1: 1, 2: 1, 3: 1}[i] {
			t.Errorf("due %v from now: too late %v, %d turns", w.due-now, w.isTooLate, len(w.turn))
		}
	}
	if len(b.queue) != 2 || b.waiting != 2 {
		t.Errorf("%d wait, of weight %d", len(b.queue), b.waiting)
	}
	if stats, err := b.Stats(); err != nil || stats.Expired != 7+2 || stats.RefusedDeadline != 0 {
		t.Errorf("%v, %+v", err, stats)
	}
	b, _ = judging(t, now+1*ms)
	if b.wakeFirst(); len(b.queue) != 1 || b.queue[0].isTooLate {
		t.Error("the last one is not left to the library")
	}
	b, _ = judging(t, now+1*ms, 0)
	b.take(b.queue[0])
	b.put(arriving(b, &kind{poolBucket: poolBucket{service: 20 * ms}, rows: 10, weight: 1}, now+time.Hour, 1))
	if b.wakeFirst(); len(b.queue) != 2 || b.queue.first().isTooLate {
		t.Error("the last one of its kind is not left to the library")
	}
}

// Requests that time out together, in one batch or several, are one sign that the service time is longer.
func TestTimeoutsOfABatchCountOnce(t *testing.T) {
	_, k := judging(t)
	for range 32 {
		k.timedOut(100*ms, 200*ms)
		k.timedOut(150*ms, 210*ms)
	}
	once := 20*ms*3/2 + 100*ms/32
	if k.service != once {
		t.Errorf("%v after one batch", k.service)
	}
	if k.timedOut(200*ms, 300*ms); k.service != once*3/2+100*ms/32 {
		t.Errorf("%v after another one", k.service)
	}
}

// What a batch waits for more requests is no part of what they take; what they were copied for is, and so is all of a full batch.
func TestServiceTimesAreWithoutDelay(t *testing.T) {
	b, k := judging(t)
	for _, test := range []struct {
		delay, left, closed time.Duration
		rows                int
		want                time.Duration
	}{
		{50 * ms, 100 * ms, 140 * ms, 9, 20 * ms}, {50 * ms, 100 * ms, 140 * ms, 10, 60 * ms}, {50 * ms, 145 * ms, 140 * ms, 9, 15 * ms},
		{10 * ms, 100 * ms, 140 * ms, 9, 50 * ms}, {0, 100 * ms, 140 * ms, 9, 59 * ms},
	} {
		b.options.Delay = test.delay
		late := &ticket{kind: k, left: test.left, batch: backend.BatchStamps{Closed: test.closed, Rows: test.rows}}
		if got := b.took(late, 160*ms); got != test.want {
			t.Errorf("%+v: took %v", test, got)
		}
	}
}

// Owners of several batches give their rows back in any order: each batch counts once.
func TestBatchesAreLearntOfOnce(t *testing.T) {
	var k kind
	for range 3 {
		k.learn(1, 20*ms)
		k.learn(2, 30*ms)
		k.learn(1, 40*ms)
	}
	if k.served != 1 || k.service != 20*ms || k.batch != 2 || k.longest != 40*ms {
		t.Errorf("%+v", k)
	}
}

func TestPace(t *testing.T) {
	const service = 10 * ms
	var p pace
	p.begin(100 * ms)
	for i := range 40 { // one each half millisecond, 20 ms in all
		p.leave(1, 100*ms+time.Duration(i+1)*ms/2, service)
	}
	if got := time.Duration(p.perUnit); got != ms/2 {
		t.Errorf("%v for each", got)
	}
	// What leaves while no service time is known says nothing but when.
	var early pace
	early.begin(0)
	early.leave(1, 20*ms, 0)
	if early.leave(10, 40*ms, service); early.perUnit != float64(2*ms) {
		t.Errorf("%v for each at first", time.Duration(early.perUnit))
	}
	// Slower by four: a quarter of the difference is believed at a time.
	p.leave(10, 140*ms, service)
	if got := time.Duration(p.perUnit); got != ms/2+(2*ms-ms/2)/4 {
		t.Errorf("%v for each after a slower span", got)
	}
	// What batches run says something only if nothing was measured for a while, and if it is faster.
	before := p.perUnit
	if p.ran(100, 150*ms, service, 1); p.perUnit != before {
		t.Error("what was measured just now is not believed")
	}
	if p.ran(1, time.Hour, service, 1); p.perUnit != before {
		t.Error("a small batch makes the pace slower")
	}
	for range 100 {
		p.ran(100, time.Hour, service, 1)
	}
	if got := time.Duration(p.perUnit).Round(time.Microsecond); got != service/100 {
		t.Errorf("%v for each, though batches of a hundred run", got)
	}
	// A queue that was empty begins anew: nothing is known of that time.
	p.begin(2 * time.Hour)
	before = p.perUnit
	if p.leave(1, 2*time.Hour+ms, service); p.perUnit != before {
		t.Error("a span is not over yet")
	}
}

// Of the batch sizes of one kind the largest counts, and kinds differ in what is not the batch.
func TestKindsOfRequests(t *testing.T) {
	m := &Model{inputs: []TensorInfo{{Name: "x", Shape: []int64{Dynamic, Dynamic}}, {Name: "mask", Shape: []int64{Dynamic, Dynamic}}}}
	for axis := range 2 {
		for input := range 2 {
			m.padded = append(m.padded, backend.Padding{Input: input, Axis: axis})
		}
	}
	for _, shape := range [][]int64{{1, 128}, {8, 128}, {4, 128}, {2, 16}, {16, 16}} {
		m.remember(backend.Bucket{Shapes: [][]int64{shape, shape}, Values: make([][]int64, 2)})
	}
	b := &Batcher{model: m, kinds: m.kinds(nil)}
	if len(b.kinds) != 2 || b.kinds[0].rows != 16 || b.kinds[0].weight != 32 || b.kinds[1].rows != 8 || b.kinds[1].weight != 256 {
		t.Fatalf("%+v", b.kinds)
	}
	for _, test := range []struct {
		shape []int64
		want  *kind
	}{{[]int64{3, 16}, b.kinds[0]}, {[]int64{16, 9}, b.kinds[0]}, {[]int64{3, 17}, b.kinds[1]}, {[]int64{9, 17}, nil}, {[]int64{1, 129}, nil}} {
		in := []Tensor{{Name: "x", Shape: test.shape}, {Name: "mask", Shape: test.shape}}
		if got := b.kindOf(in); got != test.want {
			t.Errorf("%v: %+v", test.shape, got)
		}
	}
}
