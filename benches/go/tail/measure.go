package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
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
	if _, _, _, err := loop(way, c, rate, o.warm, 0); err != nil {
		return r, err
	}
	samples, failed, took, err := loop(way, c, rate, o.time, c.Samples)
	if err != nil {
		return r, err
	}
	slices.Sort(samples)
	r.N, r.Failed, r.Rate, r.Intended = len(samples), failed, float64(len(samples))/took.Seconds(), rate
	r.P50, r.P99, r.P999 = percentile(samples, 0.5), percentile(samples, 0.99), percentile(samples, 0.999)
	if len(samples) > 0 {
		r.Max = micros(samples[len(samples)-1])
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

// loop runs the cell's goroutines for a while, and on until there are so many samples. A wrong output is an error; a
// request that fails otherwise is counted.
func loop(way way, c cell, rate float64, duration time.Duration, samplesMin int) ([]time.Duration, int, time.Duration, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed int
	var wrong error
	started := time.Now()
	open := &arrivals{random: rand.New(rand.NewPCG(1, 2)), next: started, mean: time.Duration(float64(time.Second) / max(rate, 1e-9))}
	end := started.Add(duration)
	perGoroutine := (samplesMin + c.Goroutines - 1) / c.Goroutines
	var group sync.WaitGroup
	for number := range c.Goroutines {
		group.Go(func() {
			var own []time.Duration
			var bad int
			var first error
			one := way.worker(number)
			for {
				from := time.Now()
				if rate > 0 {
					from = open.take()
					time.Sleep(time.Until(from))
				}
				if (from.After(end) || time.Now().After(end)) && len(own)+bad >= perGoroutine {
					break
				}
				switch err := one(context.Background()); {
				case err == nil:
					own = append(own, time.Since(from))
				case err == errWrong:
					first = err
				default:
					bad++
				}
				if first != nil {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, own...), failed+bad
			if wrong == nil {
				wrong = first
			}
		})
	}
	group.Wait()
	return all, failed, time.Since(started), wrong
}
