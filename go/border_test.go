package streaminfer

import (
	"context"
	"os"
	"testing"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// BenchmarkPoll is one call across the border and back, the library's guards included, on a session whose request has ended.
// Session.Poll knows that by itself and does not call. The floor is the same crossing to a function that answers a constant.
func BenchmarkPoll(b *testing.B) {
	folder := os.Getenv("STREAMINFER_MODELS")
	if folder == "" {
		b.Skip("STREAMINFER_MODELS names no folder with mlp.onnx")
	}
	engine, err := Open(EngineOptions{Device: "host"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { engine.Close() })
	model, err := engine.Load(folder+"/mlp.onnx", ModelOptions{Buckets: []Bucket{{Shapes: Shapes{"input": {1, 784}}}}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := model.NewSession(SessionOptions{})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Run(context.Background()); err != nil {
		b.Fatal(err)
	}
	sequence := s.sequence.Load()
	b.Run("floor", func(b *testing.B) {
		floor := s.context.(interface{ ABIVersion() uint32 })
		b.ReportAllocs()
		for b.Loop() {
			floor.ABIVersion()
		}
	})
	b.Run("si_context_poll", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if status, err := s.context.Poll(sequence); err != nil || status != backend.OK {
				b.Fatal(status, err)
			}
		}
	})
}
