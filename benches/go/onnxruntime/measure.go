package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
)

// figures of one round: microseconds, calls a second, allocations of Go's a call.
type figures struct {
	p50, p99, mean, rate, allocations float64
}

// measure has goroutines call as often as they can for a while. Latencies are those of single calls, and each
// has one look at the clock in it, of all peers alike; the mean is that of the round.
func measure(p peer, goroutines int, span time.Duration) (figures, error) {
	const samplesMax = 1 << 20
	samples := make([][]time.Duration, goroutines)
	for i := range samples {
		samples[i] = make([]time.Duration, 0, samplesMax/goroutines)
	}
	failures := make([]error, goroutines)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var group sync.WaitGroup
	started := time.Now()
	end := started.Add(span)
	for i := range goroutines {
		group.Go(func() {
			mine := samples[i]
			for at := time.Now(); at.Before(end) && len(mine) < cap(mine); {
				if failures[i] = p.run(i); failures[i] != nil {
					break
				}
				now := time.Now()
				mine = append(mine, now.Sub(at))
				at = now
			}
			samples[i] = mine
		})
	}
	group.Wait()
	took := time.Since(started)
	runtime.ReadMemStats(&after)
	for _, err := range failures {
		if err != nil {
			return figures{}, err
		}
	}
	merged := slices.Concat(samples...)
	if len(merged) == 0 {
		return figures{}, fmt.Errorf("no call ended within %v", span)
	}
	slices.Sort(merged)
	at := func(share float64) float64 {
		return float64(merged[int(share*float64(len(merged)-1))].Nanoseconds()) / 1e3
	}
	calls := float64(len(merged))
	return figures{p50: at(0.5), p99: at(0.99), mean: took.Seconds() * 1e6 * float64(goroutines) / calls,
		rate: calls / took.Seconds(), allocations: float64(after.Mallocs-before.Mallocs) / calls}, nil
}

// agree has each peer run the same numbers, and compares what they make of them.
func agree(peers []peer) error {
	var first []float32
	for _, p := range peers {
		for i := range p.input(0) {
			p.input(0)[i] = float32(i%17)/16 - 0.5
		}
		if err := p.run(0); err != nil {
			return err
		}
		out := p.output(0)
		if first == nil {
			first = slices.Clone(out)
		}
		for i, value := range out {
			if len(out) != len(first) || math.Abs(float64(value-first[i])) > 1e-4*math.Max(1, math.Abs(float64(first[i]))) {
				return fmt.Errorf("%s gives %v, where %s gives %v", p.name(), out, peers[0].name(), first)
			}
		}
	}
	return nil
}
