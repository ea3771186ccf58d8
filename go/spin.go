package streaminfer

import (
	"context"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

const (
	// spinBudgetDefault is a little more than what sleeping and being woken costs, so spinning at most doubles it.
	spinBudgetDefault = 30 * time.Microsecond
	// spinThroughMax is for how long a goroutine spins at most where processors have nothing else to do, twice the usual time of its
	// requests: beside longer ones, what sleeping and being woken costs is little.
	spinThroughMax = 2 * time.Millisecond
	// tightReads of the completion record happen between two looks at the clock.
	tightReads = 64
	// takenMin is above what an interrupt takes.
	takenMin = 50 * time.Microsecond
	// lookPause is the least time between two looks at the scheduler, of all goroutines that spin.
	lookPause = 20 * time.Microsecond
)

// spinning counts the goroutines that spin. One processor always is left to those that do not wait.
var spinning atomic.Int32

// spinnersMax is set when an engine is opened: asking for GOMAXPROCS takes a lock.
var spinnersMax atomic.Int32

// workers are the threads of all engines' libraries, as of the last session that was made or closed. On the host device they compute,
// and want processors of their own.
var workers atomic.Int32

// countWorkers brings workers up to date with an engine.
func (r *registry) countWorkers() {
	stats, err := r.backend.Stats()
	if err != nil {
		stats.Threads = 0
	}
	count := int32(stats.Threads)
	workers.Add(count - r.workers.Swap(count))
}

// spin reads the completion record until the request seems to have ended (true), or for as long as that is worth a processor (false): the
// budget that was asked for; or that by default; or, for requests that usually take longer, as long as no other goroutine wants the
// processor.
func (s *Session) spin(ctx context.Context, started time.Duration) bool {
	budget := s.spinBudget
	if budget == 0 {
		budget = spinBudgetDefault
	}
	// Twice, because what is typical includes being woken, and a session that has once slept shall find its way back.
	switch {
	case budget < 0:
		return false
	case s.typical <= 2*budget:
		return s.spinBetween(ctx, started+budget)
	case s.spinBudget == 0 && 2*s.typical <= spinThroughMax:
		return s.spinThrough(ctx, started+2*s.typical)
	}
	return false
}

// mustStop reports that the request is to be given up.
func (s *Session) mustStop(ctx context.Context) bool {
	return ctx.Err() != nil || s.state.Load() == stateClosing
}

// spinBetween lets other goroutines run between its looks.
func (s *Session) spinBetween(ctx context.Context, until time.Duration) bool {
	if spinning.Add(1) > spinnersMax.Load() {
		spinning.Add(-1)
		return s.hinted()
	}
	defer spinning.Add(-1)
	for range tightReads {
		if s.hinted() {
			return true
		}
	}
	for backend.Now() < until {
		runtime.Gosched()
		if s.hinted() {
			return true
		}
		if s.mustStop(ctx) {
			return false
		}
	}
	return false
}

// spinThrough keeps its processor while all others that want one have it. It does not call Gosched, which would wake an idle processor each
// time, to look for work that is not there, and might move the goroutine to that; it asks the scheduler instead.
func (s *Session) spinThrough(ctx context.Context, until time.Duration) bool {
	if spinning.Add(1) > spinnersMax.Load()-workers.Load() {
		spinning.Add(-1)
		return s.hinted()
	}
	defer spinning.Add(-1)
	for last := backend.Now(); ; {
		for range tightReads {
			if s.hinted() {
				return true
			}
		}
		now := backend.Now()
		if now >= until || isTaken(last, now) || s.mustStop(ctx) || demand.isShort(now) {
			return false
		}
		last = now
	}
}

// isTaken reports that between two looks at the clock, which take well below a microsecond, the system had something else to do on this
// processor: others want it that the scheduler does not know of.
func isTaken(last, now time.Duration) bool { return now-last > takenMin }

// hinted reads the completion record. It is two loads: no call, no lock.
func (s *Session) hinted() bool {
	sequence := s.sequence.Load()
	return atomic.LoadUint32(s.record.Done) == sequence || atomic.LoadUint32(s.record.Failed) == sequence
}

// demand is asked by all that spin.
var demand = newLookout()

// lookout asks the scheduler whether goroutines wait for a processor.
type lookout struct {
	next atomic.Int64

	mu      sync.Mutex
	samples []metrics.Sample
}

func newLookout() *lookout {
	return &lookout{samples: []metrics.Sample{{Name: "/sched/goroutines/runnable:goroutines"}, {Name: "/sched/goroutines/running:goroutines"}}}
}

// isShort reports that goroutines wait for a processor while all run some. Only one of those who ask gets an answer, once in a while: so
// one that spins gives way at a time, as many as are needed one after the other. Where a processor is idle, it is about to take what waits.
func (l *lookout) isShort(now time.Duration) bool {
	next := l.next.Load()
	if int64(now) < next || !l.next.CompareAndSwap(next, int64(now+lookPause)) || !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	metrics.Read(l.samples)
	runnable, running := l.samples[0].Value, l.samples[1].Value
	if runnable.Kind() != metrics.KindUint64 || running.Kind() != metrics.KindUint64 {
		return true // this Go does not tell
	}
	return runnable.Uint64() > 0 && running.Uint64() > uint64(spinnersMax.Load())
}
