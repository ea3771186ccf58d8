package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// samplesTimes is how much longer than its time a cell runs to get its samples.
const samplesTimes = 4

// measure runs one cell.
func (b *bench) measure(w *workload, c cell) (result, error) {
	way, sessions, err := newWay(w, c, b.options)
	if err != nil {
		return result{}, err
	}
	defer way.close()
	r := result{cell: c, Sessions: sessions, LoadAverage: loadAverage(), Go: runtime.Version(), At: time.Now().UTC().Format(time.RFC3339)}
	l := traffic{cell: c, way: way, duration: duration(b.seconds), samples: int64(c.Samples), longest: duration(samplesTimes * b.seconds)}
	if b.full {
		l.longest = time.Hour
	}
	if b.budget > 0 {
		l.longest = min(l.longest, time.Until(b.ends)-duration(b.warm))
	}
	if c.Loop != "closed" {
		top := peak(b.had, c)
		if top == 0 {
			return r, errors.New("no closed loop to be relative to")
		}
		l.phases = []phase{{c.Load * top, time.Hour}}
		l.deadline = time.Duration(float64(c.Deadline*sessions*rowsMax(c)) / top * float64(time.Second))
		r.Intended = c.Load * top
	}
	warm := l
	warm.duration, warm.samples = duration(b.warm), 0
	if _, err := warm.run(); err != nil {
		return r, err
	}
	if c.Loop == "recovery" {
		err = l.recover(&r)
	} else if got, failed := l.run(); failed != nil {
		err = failed
	} else {
		r.fill(got)
		r.Batch = way.batches()
	}
	return r, err
}

// rowsMax is how many requests a session, or a batch, serves at once at most.
func rowsMax(c cell) int {
	if c.Way == "batch" {
		return int(slices.Max(batchRows))
	}
	return 1
}

// fill writes down what the requests of a loop came to.
func (r *result) fill(got *outcome) {
	slices.Sort(got.took)
	slices.Sort(got.refused)
	slices.Sort(got.expired)
	r.N, r.Failed, r.Rate, r.Seconds = len(got.took), got.failed, float64(len(got.took))/got.time.Seconds(), got.time.Seconds()
	r.P50, r.P99, r.P999 = percentile(got.took, 0.5), percentile(got.took, 0.99), percentile(got.took, 0.999)
	r.Refused, r.RefusedP99 = len(got.refused), percentile(got.refused, 0.99)
	r.Expired, r.ExpiredP99 = len(got.expired), percentile(got.expired, 0.99)
	if r.N > 0 {
		r.Max = micros(got.took[r.N-1])
	}
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

// traffic is the requests of a cell, and for how long they come.
type traffic struct {
	cell
	way way
	// phases of an open loop; none is a closed one.
	phases   []phase
	deadline time.Duration
	// duration is how long requests come at least, samples how many end well at least, unless that takes longest.
	duration, longest time.Duration
	samples           int64
	// traced keeps each request's moment.
	traced bool
}

// moment is what became of a request that was to begin at a time since the loop's begin.
type moment struct {
	at, took time.Duration
	isGood   bool
}

// outcome is what the requests of a loop, or of one goroutine of it, came to.
type outcome struct {
	// took has the latency of each request that ended well and in time, refused how long it took to refuse each that was on arrival,
	// expired each that had waited.
	took, refused, expired []time.Duration
	failed                 int
	moments                []moment
	wrong                  error
	time                   time.Duration
}

func (o *outcome) add(other *outcome) {
	o.took, o.refused = append(o.took, other.took...), append(o.refused, other.refused...)
	o.expired = append(o.expired, other.expired...)
	o.moments = append(o.moments, other.moments...)
	o.failed += other.failed
	o.wrong = cmp.Or(o.wrong, other.wrong)
}

// one runs a request that was to begin at from, and checks its output outside of its time. It reports whether it ended well.
func (o *outcome) one(client *client, from time.Time, deadline time.Duration) (isGood bool) {
	ctx := context.Background()
	if deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, from.Add(deadline))
		defer cancel()
	}
	began := time.Now()
	err := client.request(ctx)
	ended := time.Now()
	switch {
	case err == nil && !client.isRight():
		o.wrong = errWrong
	case err == nil && (deadline == 0 || ended.Sub(from) <= deadline):
		o.took = append(o.took, ended.Sub(from))
		return true
	case errors.Is(err, streaminfer.ErrDeadline) || errors.Is(err, streaminfer.ErrQueueFull):
		to := &o.expired
		if failed, ok := errors.AsType[*streaminfer.Error](err); ok && failed.OnArrival {
			to = &o.refused
		}
		*to = append(*to, ended.Sub(began))
	default:
		o.failed++
	}
	return false
}

// run has the goroutines make their requests. A wrong output is an error; a request that fails otherwise, or is late, is counted.
func (l *traffic) run() (*outcome, error) {
	var mu sync.Mutex
	var good atomic.Int64
	all := &outcome{}
	started := time.Now()
	open := newArrivals(started, l.phases)
	isOver := func(at time.Time) bool {
		since := at.Sub(started)
		return since > l.duration && (good.Load() >= l.samples || since > l.longest)
	}
	var group sync.WaitGroup
	for number := range l.Goroutines {
		group.Go(func() {
			own := &outcome{}
			client := l.way.client(number)
			for own.wrong == nil {
				from := time.Now()
				if len(l.phases) > 0 {
					from = open.wait(isOver)
				}
				if isOver(from) || isOver(time.Now()) {
					break
				}
				isGood := own.one(client, from, l.deadline)
				if isGood {
					good.Add(1)
				}
				if l.traced {
					own.moments = append(own.moments, moment{from.Sub(started), time.Since(from), isGood})
				}
			}
			mu.Lock()
			all.add(own)
			mu.Unlock()
		})
	}
	group.Wait()
	all.time = time.Since(started)
	return all, cmp.Or(all.wrong, nothing(all))
}

// nothing is an error if no request ended well nor was refused: then there is nothing to be measured.
func nothing(all *outcome) error {
	if len(all.took)+len(all.refused)+len(all.expired) == 0 && all.failed > 0 {
		return fmt.Errorf("all %d requests failed", all.failed)
	}
	return nil
}
