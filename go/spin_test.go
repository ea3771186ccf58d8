package streaminfer

import (
	"context"
	"math"
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

// Where no processor is idle, one that spins gives way, be it that others wait to run or not: there would be nobody to find those that are ready.
func TestTheLastProcessorIsNotSpunOn(t *testing.T) {
	withProcessors(t, 2, 0)
	for _, busy := range []int{1, 4} {
		var stop atomic.Bool
		for range busy {
			go func() {
				for !stop.Load() {
				}
			}()
		}
		l, short := newLookout(), 0
		for i := 1; i <= 1<<20 && short == 0; i++ { // the others may have to be woken first
			if l.isShort(time.Duration(i) * lookPause) {
				short++
			}
		}
		stop.Store(true)
		if short == 0 {
			t.Errorf("nobody gives way to %d", busy)
		}
	}
}

// A Go that does not tell what its processors do is not spun on.
func TestSpinNeedsTheScheduler(t *testing.T) {
	withProcessors(t, 64, 0)
	for i := range 2 {
		l := newLookout()
		if l.isShort(1) {
			t.Error("a processor is idle")
		}
		l.samples[i].Name = "/no/such:metric"
		if !l.isShort(far) {
			t.Errorf("without sample %d it spins on", i)
		}
	}
}

// GOMAXPROCS changes while engines are open: whoever spins, would like to, or looks for others, sees it.
func TestSpinFollowsGOMAXPROCS(t *testing.T) {
	withProcessors(t, 2, 0)
	l := newLookout()
	for i, look := range []func(){
		func() { l.isShort(lookPause) },
		func() { l.follow(followPause) },
		func() {
			s, end := inFlight()
			end()
			s.spin(context.Background(), time.Duration(demand.following.Load()))
		},
	} {
		runtime.GOMAXPROCS(3 + i)
		if look(); spinnersMax.Load() != int32(2+i) {
			t.Errorf("look %d: %d may spin on %d processors", i, spinnersMax.Load(), 3+i)
		}
	}
	runtime.GOMAXPROCS(2)
	if l.follow(2*followPause - 1); spinnersMax.Load() != 4 {
		t.Error("asked again too early")
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
		{math.MaxInt64, time.Hour, true}, {time.Millisecond, 2 * time.Millisecond, true}, {time.Millisecond, 2*time.Millisecond + 1, false}, {10, 500 * time.Microsecond, false},
	} {
		s, end := inFlight()
		end()
		s.spinBudget, s.typical = test.budget, test.typical
		if got := s.spin(context.Background(), backend.Now()); got != test.want {
			t.Errorf("budget %v, usually %v: seen to end: %v", test.budget, test.typical, got)
		}
	}
}
