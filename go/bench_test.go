package streaminfer_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/fake"
)

// session prepares the affine model, a request that is all border and no work.
func session(b *testing.B, options streaminfer.SessionOptions) *streaminfer.Session {
	b.Helper()
	engine := openLibrary(b)
	b.Cleanup(func() { engine.Close() })
	model, err := engine.LoadBytes(onnxFile(affine), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{batch(1)}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := model.NewSession(options)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkRun(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, c := range []struct {
		name   string
		ctx    context.Context
		budget time.Duration
		bind   bool
	}{
		{"spin", context.Background(), 0, false},
		{"spin,bound", context.Background(), 0, true},
		{"spin,cancellable", ctx, 0, false},
		{"park", context.Background(), -1, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := session(b, streaminfer.SessionOptions{SpinBudget: c.budget})
			if c.bind {
				if err := s.Bind(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Run(c.ctx); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkBound compares a request on a bound worker's thread, waiting in Go or blocking in the library, with one on a
// pool's session that moves freely, and visits of ten requests each.
func BenchmarkBound(b *testing.B) {
	engine := openLibrary(b)
	defer engine.Close()
	model, err := engine.LoadBytes(onnxFile(affine), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{batch(1)}})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{Sessions: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	bound, err := streaminfer.NewBound(model, streaminfer.BoundOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer bound.Close()
	blocking, err := streaminfer.NewBound(model, streaminfer.BoundOptions{Session: streaminfer.SessionOptions{Block: true}})
	if err != nil {
		b.Fatal(err)
	}
	defer blocking.Close()
	for _, requests := range []int{1, 10} {
		visit := func(ctx context.Context, s *streaminfer.Session) error {
			for range requests {
				if err := s.Run(ctx); err != nil {
					return err
				}
			}
			return nil
		}
		for name, do := range map[string]func(context.Context, func(context.Context, *streaminfer.Session) error) error{
			"pool": pool.Do, "bound": bound.Do, "blocking": blocking.Do} {
			b.Run(fmt.Sprintf("%s/requests=%d", name, requests), func(b *testing.B) {
				for b.Loop() {
					if err := do(context.Background(), visit); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkFakeRun is what a service's tests pay.
func BenchmarkFakeRun(b *testing.B) {
	engine := fake.NewEngine(fakes(nil)...)
	defer engine.Close()
	model, err := engine.LoadBytes([]byte(affine), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{batch(1)}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := model.NewSession(streaminfer.SessionOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInfer is a request through a pool, copies, queue and figures included; BenchmarkRun's "spin" is the one in it.
func BenchmarkInfer(b *testing.B) {
	engine := openLibrary(b)
	defer engine.Close()
	model, err := engine.LoadBytes(onnxFile(affine), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{batch(1)}})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{Sessions: 2})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	r := newAffineRequest(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := pool.Infer(context.Background(), r.in, r.out); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWaiting compares ways to wait for a request of some ten microseconds: closed loops through a pool of 4 sessions.
func BenchmarkWaiting(b *testing.B) {
	for _, goroutines := range []int{1, 4, 16, 64, 1024} {
		for _, budget := range []time.Duration{0, -1, 10 * time.Microsecond, 30 * time.Microsecond, 100 * time.Microsecond} {
			name := fmt.Sprintf("goroutines=%d/spin=%v", goroutines, max(budget, 0))
			if budget == 0 {
				name = fmt.Sprintf("goroutines=%d/default", goroutines)
			}
			b.Run(name, func(b *testing.B) { waiting(b, goroutines, budget) })
		}
	}
}

func waiting(b *testing.B, goroutines int, budget time.Duration) {
	engine := openLibrary(b)
	defer engine.Close()
	model, err := engine.LoadBytes(onnxFile(affine), streaminfer.ModelOptions{Buckets: []streaminfer.Bucket{batch(4096)}})
	if err != nil {
		b.Fatal(err)
	}
	pool, err := streaminfer.NewPool(model, streaminfer.PoolOptions{Sessions: 4, QueueMax: goroutines,
		Session: streaminfer.SessionOptions{SpinBudget: budget}})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	var left atomic.Int64
	left.Store(int64(b.N))
	var mu sync.Mutex
	var all streaminfer.Histogram
	var group sync.WaitGroup
	b.ResetTimer()
	for range goroutines {
		group.Go(func() {
			var own streaminfer.Histogram
			ctx := context.Background()
			one := func(_ context.Context, s *streaminfer.Session) error { return s.Run(ctx) }
			for left.Add(-1) >= 0 {
				started := time.Now()
				if err := pool.Do(ctx, one); err != nil {
					b.Error(err)
				}
				own.Add(time.Since(started))
			}
			mu.Lock()
			all.Merge(&own)
			mu.Unlock()
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64(all.Quantile(0.5).Nanoseconds())/1e3, "p50-us")
	if all.Count >= 10_000 {
		b.ReportMetric(float64(all.Quantile(0.99).Nanoseconds())/1e3, "p99-us")
	}
}
