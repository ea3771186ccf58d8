package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/trace"
)

// client makes one request at a time, into memory of its own.
type client struct {
	w   *workload
	k   int
	got []float32
	// run makes request k.
	run func(ctx context.Context) error
	// tolerance as in workload.isRight.
	tolerance float64
}

func newClient(w *workload) *client { return &client{w: w, got: make([]float32, len(w.wanted[0]))} }

// request makes a request with one of the inputs.
func (c *client) request(ctx context.Context) error {
	c.k = rand.IntN(inputsKept)
	return c.run(ctx)
}

func (c *client) isRight() bool { return c.w.isRight(c.k, c.got, c.tolerance) }

// runOn makes the request on a session: in, run, out.
func (c *client) runOn(ctx context.Context, s *streaminfer.Session) error {
	output, err := c.w.runOn(ctx, s, c.k)
	if err == nil {
		copy(c.got, output)
	}
	return err
}

// way is one way to share the device.
type way interface {
	// client returns who makes the requests of the goroutine of this number.
	client(number int) *client
	// batches says how requests met in batches; nil where there are none.
	batches() *batchFigures
	close()
}

// single is what the ways without batches have in common.
type single struct{}

func (single) batches() *batchFigures { return nil }

func newWay(w *workload, c cell, o *options) (way, int, error) {
	switch c.Way {
	case "pool":
		p, err := streaminfer.NewPool(w.model, streaminfer.PoolOptions{Sessions: o.sessions, QueueMax: max(c.Goroutines, 1024)})
		return &pooled{w: w, pool: p}, o.sessions, err
	case "bound":
		b := &bound{w: w}
		for range min(c.Goroutines, o.sessions) {
			worker, err := streaminfer.NewBound(w.model, streaminfer.BoundOptions{QueueMax: max(c.Goroutines, 1024)})
			if err != nil {
				b.close()
				return nil, 0, err
			}
			b.workers = append(b.workers, worker)
		}
		return b, len(b.workers), nil
	case "shared":
		s, err := w.model.NewSession(streaminfer.SessionOptions{})
		return &shared{w: w, session: s}, 1, err
	case "request":
		return &perRequest{w: w}, c.Goroutines, nil
	case "batch":
		return newBatched(w, c, o)
	}
	return nil, 0, fmt.Errorf("no way %q", c.Way)
}

// infer makes a client of what takes tensors.
func infer(w *workload, infer func(ctx context.Context, in, out []streaminfer.Tensor) error) *client {
	c := newClient(w)
	out := []streaminfer.Tensor{streaminfer.NewTensor(w.output, c.got)}
	c.run = func(ctx context.Context) error { return infer(ctx, w.inputs[c.k], out) }
	return c
}

type pooled struct {
	single
	w    *workload
	pool *streaminfer.Pool
}

func (p *pooled) client(int) *client { return infer(p.w, p.pool.Infer) }
func (p *pooled) close()             { _ = p.pool.Close() }

type bound struct {
	single
	w       *workload
	workers []*streaminfer.Bound
}

func (b *bound) client(number int) *client {
	worker, c := b.workers[number%len(b.workers)], newClient(b.w)
	c.run = func(ctx context.Context) error { return worker.Do(ctx, c.runOn) }
	return c
}

func (b *bound) close() {
	for _, worker := range b.workers {
		_ = worker.Close()
	}
}

type shared struct {
	single
	w       *workload
	mu      sync.Mutex
	session *streaminfer.Session
}

func (s *shared) client(int) *client {
	c := newClient(s.w)
	c.run = func(ctx context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return c.runOn(ctx, s.session)
	}
	return c
}

func (s *shared) close() { _ = s.session.Close() }

type perRequest struct {
	single
	w *workload
}

func (p *perRequest) client(int) *client {
	c := newClient(p.w)
	c.run = func(ctx context.Context) error {
		s, err := p.w.model.NewSession(streaminfer.SessionOptions{})
		if err != nil {
			return err
		}
		defer s.Close()
		return c.runOn(ctx, s)
	}
	return c
}

func (p *perRequest) close() {}

// batched merges requests.
type batched struct {
	w       *workload
	batcher *streaminfer.Batcher
}

func newBatched(w *workload, c cell, o *options) (way, int, error) {
	batcher, err := streaminfer.NewBatcher(w.model, streaminfer.BatcherOptions{Batches: o.batches, QueueMax: max(c.Goroutines, 1024)})
	return &batched{w: w, batcher: batcher}, o.batches, err
}

func (b *batched) client(int) *client {
	c := infer(b.w, b.batcher.Infer)
	c.tolerance = b.w.tolerance
	return c
}

func (b *batched) close() {
	_ = b.batcher.Close()
}

// batchFigures say how requests met in batches.
type batchFigures struct {
	// RowsMean is the mean of the rows that batches ran for requests.
	RowsMean float64 `json:"rows_mean"`
	// Modal is the bucket, by its rows, that most of the last requests ran in of which there are spans, and Service what it took from
	// submit to end: the median, in microseconds.
	Modal   int     `json:"modal_rows"`
	Service float64 `json:"modal_service_us"`
}

// slowMargin, and twice the usual service time, have a span recorded whether or not it is its turn.
const slowMargin = 500 * time.Microsecond

// isSampled reports whether a span is one of those that are recorded now and then. The slow ones are recorded all: among the others
// they would be too many.
func isSampled(s *trace.Span) bool {
	return s.Batch != 0 && (s.Service == 0 || s.Ended-s.Acquired <= 2*s.Service+slowMargin)
}

// batches reads the spans that were recorded of the last requests.
func (b *batched) batches() *batchFigures {
	recorded, err := b.w.engine.Trace()
	if err != nil {
		return nil
	}
	stats, err := b.batcher.Stats()
	if err != nil || stats.Batches == 0 {
		return nil
	}
	// Of the last batcher alone: sessions are numbered in the order they were made.
	newest := uint64(0)
	for _, s := range recorded.Spans {
		if s.Batch != 0 {
			newest = max(newest, s.Session)
		}
	}
	took := map[int][]time.Duration{}
	for _, s := range recorded.Spans {
		if s.Session == newest && isSampled(&s) {
			took[s.BucketRows] = append(took[s.BucketRows], s.Done-s.Submitted)
		}
	}
	f := &batchFigures{RowsMean: float64(stats.Rows) / float64(stats.Batches)}
	for rows, times := range took {
		if n := len(took[f.Modal]); len(times) > n || len(times) == n && rows < f.Modal {
			slices.Sort(times)
			f.Modal, f.Service = rows, micros(times[len(times)/2])
		}
	}
	return f
}
