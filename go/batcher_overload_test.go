package streaminfer_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// gpu is a device whose batches run one after the other, as they do on a GPU that one of them fills, in the time of a bubble of synctest: it
// is the same on every machine.
type gpu struct {
	*world
	turn    chan struct{}
	noise   float64 // of the time of a batch, as its logarithm's deviation
	slower  float64
	stall   time.Duration // of the next batch of stalled rows
	stalled int64         // how long the rows are, 0 for any
	batcher *streaminfer.Batcher
}

// sinceBubble brings a bubble's clock, which begins with the year 2000, behind the beginning of this program.
const sinceBubble = 100 * 365 * 24 * time.Hour

// rowsMax is the largest batch, which takes batchTime; the smaller ones take at least batchTimeMin.
const (
	rowsMax      = 32
	batchTime    = 2850 * time.Microsecond
	batchTimeMin = 500 * time.Microsecond
)

// newGPU has a model of rows of those lengths, which all take the same time.
func newGPU(t *testing.T, options streaminfer.BatcherOptions, lengths ...int64) *gpu {
	t.Helper()
	time.Sleep(sinceBubble)
	g := &gpu{turn: make(chan struct{}, 1), slower: 1}
	random := rand.New(rand.NewPCG(5, 6))
	engine := fake.NewEngine(fake.Model{Name: "rows",
		Inputs:  []streaminfer.TensorInfo{tensor("x", streaminfer.DTypeFloat32, streaminfer.Dynamic, streaminfer.Dynamic)},
		Outputs: []streaminfer.TensorInfo{tensor("y", streaminfer.DTypeFloat32, streaminfer.Dynamic, streaminfer.Dynamic)},
		Run: func(call *fake.Call) error {
			shape, bucket := call.Shape("x"), int64(1)
			for bucket < shape[0] {
				bucket *= 2
			}
			g.turn <- struct{}{}
			time.Sleep(time.Duration(g.slower * math.Exp(g.noise*random.NormFloat64()) * float64(batchTimeMin+(batchTime-batchTimeMin)*time.Duration(bucket)/rowsMax)))
			if g.stalled == 0 || g.stalled == shape[1] {
				time.Sleep(g.stall)
				g.stall = 0
			}
			<-g.turn
			copy(fake.Out[float32](call, "y"), fake.In[float32](call, "x"))
			return nil
		}})
	g.world = &world{T: t, isFake: true, engine: engine}
	t.Cleanup(func() { g.ok(engine.Close()) })
	var buckets []streaminfer.Bucket
	for _, length := range append(lengths, 1) {
		for rows := int64(1); rows <= rowsMax; rows *= 2 {
			buckets = append(buckets, streaminfer.Bucket{Shapes: streaminfer.Shapes{"x": {rows, length}}})
		}
	}
	model, err := engine.LoadBytes([]byte("rows"), streaminfer.ModelOptions{Buckets: buckets,
		Paddings: []streaminfer.Padding{{Kind: streaminfer.PaddingBatch, Input: "x", Axis: 0}}})
	g.ok(err)
	g.batcher, err = streaminfer.NewBatcher(model, options)
	g.ok(err)
	return g
}

// change changes how batches run, between two of them: those of requests that were given up may run yet.
func (g *gpu) change(to func()) {
	g.turn <- struct{}{}
	to()
	<-g.turn
}

// infer runs a request of one row.
func (g *gpu) infer(ctx context.Context, length int64) error {
	return g.batcher.Infer(ctx, []streaminfer.Tensor{streaminfer.NewTensor("x", make([]float32, length), 1, length)}, nil)
}

// counts are what became of requests.
type counts struct {
	mu                              sync.Mutex
	inTime, refused, expired, other int
	refusedMost, longest            time.Duration
}

// open makes requests at random moments, so many a second for so long, each with its deadline, and returns when all have ended.
func (g *gpu) open(perSecond float64, lasting, deadline time.Duration) *counts {
	g.Helper()
	c, random := &counts{}, rand.New(rand.NewPCG(1, 2))
	var group sync.WaitGroup
	end := time.Now().Add(lasting)
	for time.Now().Before(end) {
		group.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithDeadline(context.Background(), began.Add(deadline))
			defer cancel()
			err := g.infer(ctx, 1)
			c.add(err, time.Since(began), deadline, time.Now().Before(end))
		})
		time.Sleep(time.Duration(random.ExpFloat64() / perSecond * float64(time.Second)))
	}
	group.Wait()
	return c
}

func (c *counts) add(err error, took, deadline time.Duration, counts bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && took <= deadline:
		if counts { // while there still is an overload
			c.inTime++
		}
		c.longest = max(c.longest, took)
	case err != nil && onArrival(err):
		c.refused++
		c.refusedMost = max(c.refusedMost, took)
	case errors.Is(err, context.DeadlineExceeded):
		c.expired++
	default:
		c.other++
	}
}

// peak is how many requests a second closed loops get.
func (g *gpu) peak(goroutines int, lasting time.Duration) float64 {
	g.Helper()
	var group sync.WaitGroup
	var mu sync.Mutex
	all, end := 0, time.Now().Add(lasting)
	for range goroutines {
		group.Go(func() {
			own := 0
			for time.Now().Before(end) {
				g.ok(g.infer(context.Background(), 1))
				if time.Now().Before(end) {
					own++
				}
			}
			mu.Lock()
			all += own
			mu.Unlock()
		})
	}
	group.Wait()
	return float64(all) / lasting.Seconds()
}

// At twice the peak the batches stay full, nearly whoever cannot be in time is told so at once, and few wait in vain, be the batches' times
// steady or not.
func TestBatcherUnderOverload(t *testing.T) {
	const ms, lasting = time.Millisecond, 600 * time.Millisecond
	for _, test := range []struct {
		batches  int
		deadline time.Duration
		noise    float64
	}{{3, 70 * ms, 0}, {3, 20 * ms, 0}, {1, 40 * ms, 0}, {3, 70 * ms, 0.3}, {2, 200 * ms, 0.6}} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGPU(t, streaminfer.BatcherOptions{Batches: test.batches, QueueMax: 1 << 13})
				g.noise = test.noise
				peak := g.peak(1024, time.Second/2)
				before, err := g.batcher.Stats()
				g.ok(err)
				c := g.open(2*peak, lasting, test.deadline)
				time.Sleep(time.Second) // batches whose requests were given up end
				after, err := g.batcher.Stats()
				g.ok(err)
				part, rows := float64(c.inTime)/lasting.Seconds()/peak, float64(after.Rows-before.Rows)/float64(after.Batches-before.Batches)
				t.Logf("peak %.0f, in time %.3f of it, %d refused within %v, %d expired, %d other, %.1f rows a batch", peak, part,
					c.refused, c.refusedMost, c.expired, c.other, rows)
				if part < 0.9 || rows < 0.9*rowsMax || c.refusedMost > 0 || c.other > 0 || float64(c.expired) > (0.01+test.noise/5)*float64(c.inTime) {
					t.Error("not as it should be")
				}
				g.ok(g.batcher.Close())
			})
		})
	}
}

// An overload is held from the first request on, before anything is known of how long they take.
func TestBatcherStartsUnderOverload(t *testing.T) {
	const ms, lasting = time.Millisecond, time.Second / 2
	for _, test := range []struct {
		batches  int
		deadline time.Duration
		slower   float64
		least    float64
	}{{3, 20 * ms, 1, 0.98}, {3, 70 * ms, 1, 0.98}, {1, 100 * ms, 7, 0.95}, {2, 100 * ms, 7, 0.95}, {2, 200 * ms, 7, 0.95}} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGPU(t, streaminfer.BatcherOptions{Batches: test.batches, QueueMax: 1 << 13})
				g.slower = test.slower
				peak := float64(rowsMax) * float64(time.Second) / (float64(batchTime) * test.slower)
				c := g.open(2*peak, lasting, test.deadline)
				part := float64(c.inTime) / lasting.Seconds() / peak
				t.Logf("in time %.3f of the peak, %d refused, %d expired, %d other", part, c.refused, c.expired, c.other)
				if part < test.least || c.other > 0 {
					t.Error("not as it should be")
				}
				time.Sleep(time.Second)
				g.ok(g.batcher.Close())
			})
		})
	}
}

// After an overload requests are served as before it; at four fifths of the peak nobody is refused whose deadline leaves time.
func TestBatcherAfterOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGPU(t, streaminfer.BatcherOptions{Batches: 3})
		peak := g.peak(1024, time.Second/2)
		before := g.open(0.8*peak, time.Second/2, time.Second)
		g.open(2*peak, time.Second/2, 50*time.Millisecond)
		after := g.open(0.8*peak, time.Second/2, time.Second)
		for _, c := range []*counts{before, after} {
			if c.refused+c.expired+c.other > 0 || c.longest > 10*batchTime {
				t.Errorf("at four fifths of the peak: %d refused, %d expired, %d other, at most %v", c.refused, c.expired, c.other, c.longest)
			}
		}
		// What had to be learnt in a bad spell is unlearnt.
		g.change(func() { g.noise, g.slower = 0, 20 })
		g.open(peak, time.Second/2, 50*time.Millisecond)
		g.change(func() { g.slower = 1 })
		if c := g.open(0.8*peak, time.Second/2, 50*time.Millisecond); float64(c.inTime) < 0.7*peak/2 {
			t.Errorf("after a bad spell %d are in time, %d refused, %d expired, of %.0f", c.inTime, c.refused, c.expired, 0.8*peak/2)
		}
		time.Sleep(time.Second)
		g.ok(g.batcher.Close())
	})
}

// A device that stands still for a while leaves nothing behind: estimates that are too long by then do not keep themselves in use.
func TestBatcherAfterAStall(t *testing.T) {
	for _, deadline := range []time.Duration{20 * time.Millisecond, 70 * time.Millisecond, 300 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			g := newGPU(t, streaminfer.BatcherOptions{Batches: 3})
			peak := g.peak(1024, time.Second/2)
			g.change(func() { g.stall = time.Second / 4 })
			g.open(2*peak, time.Second/2, deadline)
			c := g.open(2*peak, time.Second/2, deadline)
			if part := 2 * float64(c.inTime) / peak; part < 0.9 {
				t.Errorf("deadlines of %v: %.3f of the peak in time, %d refused, %d expired", deadline, part, c.refused, c.expired)
			}
			time.Sleep(time.Second)
			g.ok(g.batcher.Close())
		})
	}
}

// One batch of short requests that stands still does not keep them out for good, though long ones without deadlines always wait, so that
// the queue is never empty.
func TestBatcherAfterAStallOfOneKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lasting, deadline, perSecond = time.Second, 100 * time.Millisecond, 500
		g := newGPU(t, streaminfer.BatcherOptions{Batches: 3}, 8)
		var group sync.WaitGroup
		long, stop := context.WithCancel(context.Background())
		for range 256 {
			group.Go(func() {
				for long.Err() == nil {
					if err := g.infer(long, 8); err != nil && !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(time.Second / 4)
		g.change(func() { g.stall, g.stalled = 150*time.Millisecond, 1 })
		time.Sleep(batchTime / 2) // all batches are taken again: it waits, so its time counts
		first, cancel := context.WithTimeout(context.Background(), time.Second/2)
		defer cancel()
		g.ok(g.infer(first, 1))
		g.open(perSecond, lasting, deadline) // some are refused until one is let in
		c := g.open(perSecond, lasting, deadline)
		t.Logf("%d in time, %d refused, %d expired, %d other", c.inTime, c.refused, c.expired, c.other)
		if part := float64(c.inTime) / (lasting.Seconds() * perSecond); part < 0.8 || c.other > 0 {
			t.Errorf("%.3f of the short ones in time", part)
		}
		stop()
		group.Wait()
		time.Sleep(time.Second)
		g.ok(g.batcher.Close())
	})
}
