package streaminfer_test

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// cancelsDefault requests are given up in each world unless STREAMINFER_CANCELS says how many.
const cancelsDefault = 20_000

// quitter has requests given up at random moments of the time that they usually take.
type quitter struct {
	random *rand.Rand
	// buffers are used in turn, so what writes to one too late is found when its turn comes again.
	buffers [4]*affineRequest
	used    int
	ended   *endings
}

// endings are what became of all requests of a test, and what those take that end well, in nanoseconds.
type endings struct {
	counts [5]atomic.Int64
	usual  atomic.Int64
}

// cancelRows are those of a request, of which two fill a batch.
const cancelRows = 512

// How requests have ended.
const (
	endedWell = iota
	neverBegun
	givenUpInFlight
	overtakenByEnd
	turnedAway
)

func newQuitter(seed uint64, ended *endings) *quitter {
	q := &quitter{random: rand.New(rand.NewPCG(seed, 7)), ended: ended}
	for i := range q.buffers {
		q.buffers[i] = newAffineRequest(cancelRows)
		q.buffers[i].mark()
	}
	return q
}

// mark gives the output's memory the content that nobody may change before it is used again.
func (r *affineRequest) mark() {
	for i := range r.y {
		r.y[i] = -7
	}
}

func (r *affineRequest) isMarked() bool {
	for _, y := range r.y {
		if y != -7 {
			return false
		}
	}
	return true
}

// one makes a request that is given up, which may have ended by then. It reports whether all was as it should be.
func (q *quitter) one(w *world, infer func(context.Context, *affineRequest) error) bool {
	q.used++
	r := q.buffers[q.used%len(q.buffers)]
	if !r.isMarked() {
		w.Error("memory was written to after its request had returned")
		return false
	}
	first := q.random.IntN(1 << 20)
	for i := range r.x {
		r.x[i] = float32(first + i)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if q.random.IntN(50) == 0 {
		cancel() // before it begins
	}
	began := time.Now()
	if q.random.IntN(4) > 0 { // what the others take is to be known
		defer time.AfterFunc(time.Duration(1.5*q.random.Float64()*float64(q.ended.usual.Load())), cancel).Stop()
	}
	defer cancel()
	err := infer(ctx, r)
	failed, isOurs := errors.AsType[*streaminfer.Error](err)
	switch {
	case err == nil && !r.right():
		w.Errorf("%v became %v", r.x, r.y)
		return false
	case err == nil && ctx.Err() != nil:
		q.ended.counts[overtakenByEnd].Add(1)
	case err == nil:
		q.ended.counts[endedWell].Add(1)
		q.ended.usual.Add((int64(time.Since(began)) - q.ended.usual.Load()) / 16)
	case errors.Is(err, streaminfer.StatusAgain):
		q.ended.counts[turnedAway].Add(1)
	case !errors.Is(err, context.Canceled) || !isOurs:
		w.Error(err)
		return false
	case failed.Executed == streaminfer.ExecutedNo:
		q.ended.counts[neverBegun].Add(1)
	default:
		q.ended.counts[givenUpInFlight].Add(1)
	}
	r.mark()
	return true
}

func cancels(t *testing.T) int {
	count, err := strconv.Atoi(cmp.Or(os.Getenv("STREAMINFER_CANCELS"), strconv.Itoa(cancelsDefault)))
	if err != nil {
		t.Fatal("STREAMINFER_CANCELS:", err)
	}
	if isInstrumented && os.Getenv("STREAMINFER_CANCELS") == "" {
		return count / 10
	}
	return count
}

// Requests are given up at random moments: whatever returns well is right, nothing is written to once it has been given back, nobody waits
// for ever, and nothing is left behind.
func TestCancelsAtRandomMoments(t *testing.T) {
	for _, way := range []string{"pool", "session", "batcher"} {
		t.Run(way, func(t *testing.T) { inBothWorlds(t, func(w *world) { w.cancels(way, cancels(t)/3) }) })
	}
}

func (w *world) cancels(way string, count int) {
	const workers = 8
	model := w.batched(cancelRows, 2*cancelRows)
	var infer func(worker int) func(context.Context, *affineRequest) error
	var pool *streaminfer.Pool
	var batcher *streaminfer.Batcher
	switch way {
	case "pool":
		pool = w.pool(model, streaminfer.PoolOptions{Sessions: 2, QueueMax: workers})
		infer = func(int) func(context.Context, *affineRequest) error {
			return func(ctx context.Context, r *affineRequest) error { return pool.Infer(ctx, r.in, r.out) }
		}
	case "batcher":
		batcher = w.batcher(model, streaminfer.BatcherOptions{Batches: 2, QueueMax: workers, Delay: 100 * time.Microsecond})
		infer = func(int) func(context.Context, *affineRequest) error {
			return func(ctx context.Context, r *affineRequest) error { return batcher.Infer(ctx, r.in, r.out) }
		}
	case "session":
		infer = func(int) func(context.Context, *affineRequest) error { return w.inPlace(model) }
	}
	before, err := w.engine.Stats()
	w.ok(err)
	var ended endings
	ended.usual.Store(int64(100 * time.Microsecond))
	of := func(how int) int64 { return ended.counts[how].Load() }
	given := func() int64 { return of(overtakenByEnd) + of(givenUpInFlight) + of(neverBegun) }
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			q, one := newQuitter(uint64(worker), &ended), infer(worker)
			for given() < int64(count) && q.one(w, one) {
			}
		})
	}
	watch(&group, func() int64 { return given() + of(endedWell) + of(turnedAway) })
	w.Logf("%d were given up: %d in flight, %d before they began, %d ended well before that; %d others ended well, %d were turned away", given(),
		of(givenUpInFlight), of(neverBegun), of(overtakenByEnd), of(endedWell), of(turnedAway))
	if of(givenUpInFlight) == 0 || of(neverBegun) == 0 || of(endedWell)+of(overtakenByEnd) == 0 {
		w.Error("some moments are missing")
	}
	eventually(w, "nothing to be left behind", func() bool {
		after, err := w.engine.Stats()
		isQuiet := err == nil && after.InFlight == 0 && after.Completions == 0
		if pool != nil {
			s := pool.Stats()
			isQuiet = isQuiet && s.Busy+s.Queued+s.Draining == 0 && s.Failed == 0 && s.Succeeded+s.Cancelled == uint64(given()+of(endedWell))
		}
		if batcher != nil {
			s, err := batcher.Stats()
			isQuiet = isQuiet && err == nil && s.Slots+s.Queued+s.Forming+s.Running == 0 && s.Failed == 0
		}
		return isQuiet && (way == "session" || after.Sessions == before.Sessions && after.ArenaBytes == before.ArenaBytes && after.PinnedBytes == before.PinnedBytes)
	})
}

// watch waits for a group, and panics, so that all goroutines are seen, if nothing moves on: a request is stuck.
func watch(group *sync.WaitGroup, progress func() int64) {
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	for last := int64(-1); ; {
		select {
		case <-done:
			return
		case <-time.After(20 * time.Second):
			if progress() == last {
				panic("a request is stuck")
			}
			last = progress()
		}
	}
}

// inPlace is a session of one's own, whose views are written and read in place.
func (w *world) inPlace(model *streaminfer.Model) func(context.Context, *affineRequest) error {
	s, err := model.NewSession(streaminfer.SessionOptions{Buckets: []streaminfer.Bucket{batch(cancelRows)}})
	if err != nil {
		w.Error(err)
		return func(context.Context, *affineRequest) error { return err }
	}
	x, y := input[float32](w, s, "x"), output[float32](w, s, "y")
	return func(ctx context.Context, r *affineRequest) error {
		if err := s.Drain(context.Background()); err != nil {
			return err
		}
		x.Write(r.x)
		err := s.Run(ctx)
		if err == nil {
			y.Read(r.y)
			r.out[0].Shape = append(r.out[0].Shape[:0], r.in[0].Shape...)
		}
		return err
	}
}
