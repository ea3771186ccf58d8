package streaminfer

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// inFlight is a session whose request ends when end is called.
func inFlight() (s *Session, end func()) {
	var done, failed uint32
	s = &Session{record: backend.Record{Done: &done, Failed: &failed}}
	s.sequence.Store(1)
	return s, func() { atomic.StoreUint32(&done, 1) }
}

// withProcessors runs a test with so many processors, as far as the scheduler knows, and threads of the library.
func withProcessors(t *testing.T, count int, threads int32) {
	t.Helper()
	before, max := runtime.GOMAXPROCS(count), spinnersMax.Swap(int32(count-1))
	had := workers.Swap(threads)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(before)
		spinnersMax.Store(max)
		workers.Store(had)
	})
}

const far = time.Hour

func eventuallyTrue(t *testing.T, condition func() bool) {
	t.Helper()
	for range 1000 {
		if condition() {
			return
		}
	}
	t.Error("never")
}

func TestSpinThroughSeesTheEnd(t *testing.T) {
	withProcessors(t, 4, 2)
	s, end := inFlight()
	go end()
	// On a busy machine it stops early, as it should; but not always.
	eventuallyTrue(t, func() bool { return s.spinThrough(context.Background(), backend.Now()+far) })
	if spinning.Load() != 0 {
		t.Error("it still counts as spinning")
	}
}

func TestSpinThroughStops(t *testing.T) {
	withProcessors(t, 4, 2)
	s, _ := inFlight()
	ended, end := context.WithCancel(context.Background())
	end()
	if s.spinThrough(ended, backend.Now()+far) || s.spinThrough(context.Background(), backend.Now()-1) {
		t.Error("it has not ended")
	}
	// As many spin as may: processors that the library's threads or others want are left to them.
	spinning.Add(1)
	defer spinning.Add(-1)
	if s.spinThrough(context.Background(), backend.Now()+far) || spinning.Load() != 1 {
		t.Error("there is no processor left to spin on")
	}
}

// One that spins without calling the scheduler gives way to goroutines that wait for a processor, though its request never ends.
func TestSpinThroughGivesWay(t *testing.T) {
	withProcessors(t, 2, 0)
	var stop atomic.Bool
	defer stop.Store(true)
	for range 4 {
		go func() {
			for !stop.Load() {
			}
		}()
	}
	s, _ := inFlight()
	if s.spinThrough(context.Background(), backend.Now()+far) {
		t.Error("it has not ended")
	}
}

// A look that took long says that the system has given the processor to somebody else.
func TestSpinSeesThatItsProcessorIsTaken(t *testing.T) {
	if isTaken(far, far+takenMin) || !isTaken(far, far+takenMin+1) {
		t.Error("taken is what is away for longer than an interrupt")
	}
}

// Where a processor is idle nobody gives way.
func TestNobodyGivesWayToNobody(t *testing.T) {
	withProcessors(t, 64, 0)
	l := newLookout()
	for i := range 1000 {
		if l.isShort(time.Duration(i+1) * lookPause) {
			t.Fatal("a processor is idle")
		}
	}
	if l.isShort(1000*lookPause + lookPause/2) {
		t.Error("asked again too early")
	}
}

// How long is spun for follows from what was asked for and what is usual.
func TestSpinBudget(t *testing.T) {
	withProcessors(t, 4, 0)
	for _, test := range []struct {
		budget, typical time.Duration
		want            bool
	}{
		{-1, 0, false},
		{0, 0, true}, {0, 2 * spinBudgetDefault, true}, {0, 2*spinBudgetDefault + 1, true}, {0, spinThroughMax / 2, true},
		{0, spinThroughMax/2 + 1, false}, {0, time.Second, false},
		{time.Millisecond, 2 * time.Millisecond, true}, {time.Millisecond, 2*time.Millisecond + 1, false}, {10, 500 * time.Microsecond, false},
	} {
		s, end := inFlight()
		end()
		s.spinBudget, s.typical = test.budget, test.typical
		if got := s.spin(context.Background(), backend.Now()); got != test.want {
			t.Errorf("budget %v, usually %v: seen to end: %v", test.budget, test.typical, got)
		}
	}
}
