package main

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
)

// spinTime is for how long before a request its goroutine looks at the clock instead of sleeping: a sleep may take a millisecond
// longer than it should, which would be counted as the request's. Only where there are processors to spare.
const (
	spinTime       = 1500 * time.Microsecond
	processorsSpin = 4
)

// phase is a time in which so many requests come per second.
type phase struct {
	rate     float64
	duration time.Duration
}

// arrivals are the moments at which an open loop's requests are to begin, handed out in order.
type arrivals struct {
	mu     sync.Mutex
	random *rand.Rand
	next   time.Time
	phases []phase
	// ends is when the present phase does.
	ends time.Time
}

func newArrivals(started time.Time, phases []phase) *arrivals {
	a := &arrivals{random: rand.New(rand.NewPCG(1, 2)), next: started, phases: phases}
	if len(phases) > 0 {
		a.ends = started.Add(phases[0].duration)
	}
	return a
}

// take returns the next moment; the time to the one after is exponentially distributed, as it is when clients know
// nothing of each other. It is called with the lock.
func (a *arrivals) take() time.Time {
	at := a.next
	for len(a.phases) > 1 && at.After(a.ends) {
		a.phases = a.phases[1:]
		a.ends = a.ends.Add(a.phases[0].duration)
	}
	a.next = at.Add(time.Duration(a.random.ExpFloat64() / a.phases[0].rate * float64(time.Second)))
	return at
}

// wait returns at the next moment, or at once if everything is over by then. One goroutine waits for the moment, the others for
// that goroutine.
func (a *arrivals) wait(isOver func(time.Time) bool) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.take()
	if isOver(at) {
		return at
	}
	spin := time.Duration(0)
	if runtime.GOMAXPROCS(0) >= processorsSpin {
		spin = spinTime
	}
	time.Sleep(time.Until(at) - spin)
	for time.Now().Before(at) {
		runtime.Gosched()
	}
	return at
}
