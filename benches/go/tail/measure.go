package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// arrivals are the moments at which an open loop's requests are to begin, handed out in order.
type arrivals struct {
	mu     sync.Mutex
	random *rand.Rand
	next   time.Time
	mean   time.Duration
}

// take returns the next moment; the time to the one after is exponentially distributed, as it is when clients know
// nothing of each other.
func (a *arrivals) take() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.next
	a.next = at.Add(time.Duration(a.random.ExpFloat64() * float64(a.mean)))
	return at
}

// measure runs one cell.
func measure(o *options, w *workload, c cell, peak float64) (result, error) {
	way, sessions, err := newWay(w, c, o.sessions)
	if err != nil {
		return result{}, err
	}
	defer way.close()
	r := result{cell: c, Sessions: sessions, GoMaxProcs: runtime.GOMAXPROCS(0), Device: o.device, LoadAverage: loadAverage(),
		Go: runtime.Version(), At: time.Now().UTC().Format(time.RFC3339)}
	var rate float64
	if c.Loop == "open" {
		if rate = c.Load * peak; rate == 0 {
			return r, fmt.Errorf("no closed loop of the pool to be relative to")
		}
	}
	var deadline time.Duration
	if c.Deadline > 0 {
		deadline = time.Duration(float64(c.Deadline*sessions) / peak * float64(time.Second))
	}
	if _, err := loop(way, c, rate, deadline, o.warm, 0); err != nil {
		return r, err
	}
	got, err := loop(way, c, rate, deadline, o.time, c.Samples)
	if err != nil {
		return r, err
	}
	slices.Sort(got.took)
	slices.Sort(got.refused)
	r.N, r.Failed, r.Rate, r.Intended = len(got.took), got.failed, float64(len(got.took))/got.time.Seconds(), rate
	r.P50, r.P99, r.P999 = percentile(got.took, 0.5), percentile(got.took, 0.99), percentile(got.took, 0.999)
	r.Refused, r.RefusedP99 = len(got.refused), percentile(got.refused, 0.99)
	if r.N > 0 {
		r.Max = micros(got.took[r.N-1])
	}
	return r, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// percentile is 0 unless at least 100 of the sorted samples lie above it.
func percentile(sorted []time.Duration, p float64) float64 {
	above := float64(len(sorted)) * (1 - p)
	if above < 99.999 {
		return 0
	}
	return micros(sorted[len(sorted)-int(above+0.001)])
}

// outcome is what the requests of a loop, or of one goroutine of it, came to.
type outcome struct {
	// took has the latency of each request that ended well and in time, refused how long it took to refuse each that was.
	took, refused []time.Duration
	failed        int
	wrong         error
	time          time.Duration
}

func (o *outcome) requests() int { return len(o.took) + len(o.refused) + o.failed }

func (o *outcome) add(other *outcome) {
	o.took, o.refused = append(o.took, other.took...), append(o.refused, other.refused...)
	o.failed += other.failed
	o.wrong = cmp.Or(o.wrong, other.wrong)
}

// one runs a request that was to begin at from.
func (o *outcome) one(request func(context.Context) error, from time.Time, deadline time.Duration) {
	ctx := context.Background()
	if deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, from.Add(deadline))
		defer cancel()
	}
	began := time.Now()
	err := request(ctx)
	ended := time.Now()
	switch {
	case err == nil && (deadline == 0 || ended.Sub(from) <= deadline):
		o.took = append(o.took, ended.Sub(from))
	case err == errWrong:
		o.wrong = err
	case errors.Is(err, streaminfer.ErrDeadline) || errors.Is(err, streaminfer.ErrQueueFull):
		o.refused = append(o.refused, ended.Sub(began))
	default:
		o.failed++
	}
}

// loop runs the cell's goroutines for a while, and on until there are so many samples. A wrong output is an error; a
// request that fails otherwise, or is late, is counted.
func loop(way way, c cell, rate float64, deadline, duration time.Duration, samplesMin int) (*outcome, error) {
	var mu sync.Mutex
	all := &outcome{}
	started := time.Now()
	open := &arrivals{random: rand.New(rand.NewPCG(1, 2)), next: started, mean: time.Duration(float64(time.Second) / max(rate, 1e-9))}
	end := started.Add(duration)
	perGoroutine := (samplesMin + c.Goroutines - 1) / c.Goroutines
	var group sync.WaitGroup
	for number := range c.Goroutines {
		group.Go(func() {
			own := &outcome{}
			request := way.worker(number)
			for own.wrong == nil {
				from := time.Now()
				if rate > 0 {
					from = open.take()
					time.Sleep(time.Until(from))
				}
				if (from.After(end) || time.Now().After(end)) && own.requests() >= perGoroutine {
					break
				}
				own.one(request, from, deadline)
			}
			mu.Lock()
			all.add(own)
			mu.Unlock()
		})
	}
	group.Wait()
	all.time = time.Since(started)
	return all, all.wrong
}
