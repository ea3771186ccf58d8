package streaminfer_test

import (
	"context"
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

// BenchmarkPoll is one call across the border and back, guards included, on a session whose request has ended.
func BenchmarkPoll(b *testing.B) {
	s := session(b, streaminfer.SessionOptions{})
	if err := s.Run(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if ended, err := s.Poll(); !ended || err != nil {
			b.Fatal(ended, err)
		}
	}
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
