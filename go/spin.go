package streaminfer

import (
	"context"
	"math"
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
	// spinBudgetMax is no bound, but what can be added and doubled.
	spinBudgetMax = time.Duration(math.MaxInt64 / 4)
	// spinThroughMax is for how long a goroutine spins at most where processors have nothing else to do, twice the usual time of its
	// requests: beside longer ones, what sleeping and being woken costs is little.
	spinThroughMax = 2 * time.Millisecond
	// tightReads of the completion record happen between two looks at the clock.
	tightReads = 64
	// takenMin is above what an interrupt takes.
	takenMin = 50 * time.Microsecond
	// lookPause is the least time between two looks at the scheduler, of all goroutines that spin.
	lookPause = 20 * time.Microsecond
	// followPause is the least time between two looks at GOMAXPROCS, of all that might spin.
	followPause = 10 * time.Millisecond
)

// spinning counts the goroutines that spin. One processor always is left to those that do not wait.
var spinning atomic.Int32

// spinnersMax is GOMAXPROCS - 1 as of the last look: Go changes it by itself when what the system lets the process have changes.
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
	budget := min(s.spinBudget, spinBudgetMax)
	if budget == 0 {
		budget = spinBudgetDefault
	}
	demand.follow(started)
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

// spinThrough keeps its processor while another one is idle. It does not call Gosched, which would wake an idle processor each
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

// lookout asks the scheduler whether a processor is idle, and how many there are.
type lookout struct {
	next, following atomic.Int64

	mu                  sync.Mutex
	samples, processors []metrics.Sample
}

func newLookout() *lookout {
	const running, processors = "/sched/goroutines/running:goroutines", "/sched/gomaxprocs:threads"
	return &lookout{samples: []metrics.Sample{{Name: running}, {Name: processors}}, processors: []metrics.Sample{{Name: processors}}}
}

// begins reports that it is time to look. Only one of those who ask is told so, once in a while, and is to unlock mu.
func (l *lookout) begins(next *atomic.Int64, now, pause time.Duration) bool {
	due := next.Load()
	return int64(now) >= due && next.CompareAndSwap(due, int64(now+pause)) && l.mu.TryLock()
}

// isShort reports that no processor is idle. Only one of those who ask gets an answer, so one that spins gives way at a time, as many as are
// needed one after the other. That no goroutine waits to run does not matter: those whose connections or timers are ready do not count until
// an idle processor finds them, and there would be none to.
func (l *lookout) isShort(now time.Duration) bool {
	if !l.begins(&l.next, now, lookPause) {
		return false
	}
	defer l.mu.Unlock()
	metrics.Read(l.samples)
	running, processors := l.samples[0].Value, l.samples[1].Value
	if running.Kind() != metrics.KindUint64 || processors.Kind() != metrics.KindUint64 {
		return true // this Go does not tell
	}
	spinnersMax.Store(int32(processors.Uint64()) - 1)
	return running.Uint64() >= processors.Uint64()
}

// follow brings spinnersMax up to date also where nobody may spin, and so nobody looks. Asking for GOMAXPROCS itself would take a lock.
func (l *lookout) follow(now time.Duration) {
	if !l.begins(&l.following, now, followPause) {
		return
	}
	defer l.mu.Unlock()
	metrics.Read(l.processors)
	if processors := l.processors[0].Value; processors.Kind() == metrics.KindUint64 {
		spinnersMax.Store(int32(processors.Uint64()) - 1)
	}
}
