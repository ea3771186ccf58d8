package streaminfer

import (
	"slices"
	"time"
)

// PoolStats are a pool's figures at one moment.
type PoolStats struct {
	// Sessions can serve, spares included; Busy of them serve a request, Draining ones are not finished with one that was
	// given up, the rest are idle. BusyMax is the most that were busy at once.
	Sessions, Busy, Draining, BusyMax int
	// Queued requests wait for a session; QueuedMax is the most that did at once.
	Queued, QueuedMax int
	// Requests have come, those apart whose tensors are not the model's. Each ends as one of the following.
	Requests uint64
	// Succeeded requests had their outputs copied or their function return nil.
	Succeeded uint64
	// RefusedDeadline were refused on arrival because they would have ended after their deadline, RefusedFull because the
	// queue was full, RefusedNoBucket because nobody had prepared their shape, RefusedClosed because the pool was closed.
	RefusedDeadline, RefusedFull, RefusedNoBucket, RefusedClosed uint64
	// Expired requests ran out of time, in the queue or on the device; Cancelled ones were given up by their context.
	Expired, Cancelled uint64
	// Failed requests had another error.
	Failed uint64
	// Replaced counts sessions that took the place of one that was lost.
	Replaced uint64
	// Spans say where the time of successful Infers went.
	Spans Spans
	// Buckets are the shapes that the pool serves.
	Buckets []BucketStats
}

// BucketStats are a pool's figures about one bucket.
type BucketStats struct {
	// Shapes of the inputs, in the model's order.
	Shapes [][]int64
	// Served requests succeeded.
	Served uint64
	// Service is the moving average of the time from getting a session to giving it back, by which requests are admitted.
	Service time.Duration
}

// Spans are the parts of a request's time, from the call of Infer to its return.
type Spans struct {
	// Queue is the time until the request had a session, or until its batch closed.
	Queue Histogram
	// In is the time until the inputs were in place on the device: copied from the caller, submitted, fetched.
	In Histogram
	// Compute is the time that the device computed.
	Compute Histogram
	// Out is the time until the outputs were visible to the host, and that of copying them to the caller.
	Out Histogram
	// Wake is the time from there until the waiting goroutine ran again.
	Wake Histogram
}

// add takes one more request into account.
func (s *Spans) add(m *moments) {
	at := &m.device
	if at.Done == 0 {
		return
	}
	s.Queue.Add(m.acquired - m.arrived)
	s.In.Add(at.Inputs - m.acquired)
	s.Compute.Add(at.Computed - at.Inputs)
	s.Out.Add(at.Done - at.Computed + m.ended - m.woke)
	s.Wake.Add(m.woke - at.Done)
}

// count takes a request that succeeded into account. It is called with the pool's lock, by the lane's holder.
func (s *PoolStats) count(infer bool, l *lane) {
	if infer {
		s.Spans.add(&l.moments)
	}
}

// Stats returns the pool's figures.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.stats
	stats.Sessions, stats.Busy, stats.Draining, stats.Queued = len(p.lanes), p.busy, p.draining, len(p.queue)
	for _, b := range *p.buckets.Load() {
		var shapes [][]int64
		for _, shape := range b.Shapes {
			shapes = append(shapes, slices.Clone(shape))
		}
		stats.Buckets = append(stats.Buckets, BucketStats{Shapes: shapes, Served: b.served, Service: b.service})
	}
	return stats
}
