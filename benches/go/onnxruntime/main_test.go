package main

import (
	"os"
	"testing"
	"time"
)

const affine = "../crossing/testdata/affine.onnx"

// The figures mean something only if all ways compute the same, and a goroutine's request its own numbers.
func TestPeersAgree(t *testing.T) {
	library := os.Getenv("ONNXRUNTIME_LIBRARY")
	if library == "" {
		if os.Getenv("STREAMINFER_REQUIRE") == "1" {
			t.Fatal("ONNXRUNTIME_LIBRARY names no libonnxruntime.so")
		}
		t.Skip("ONNXRUNTIME_LIBRARY names no libonnxruntime.so")
	}
	end, err := initialize(library)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	m := model{"affine", affine, []int64{1, 4}, 4, 4}
	for _, goroutines := range []int{1, 8} {
		peers, err := peersOf(m, goroutines)
		if err != nil {
			t.Fatal(err)
		}
		if err := agree(peers); err != nil {
			t.Error(err)
		}
		for _, p := range peers {
			copy(p.input(goroutines-1), []float32{1, 2, 3, 4})
			f, err := measure(p, goroutines, 20*time.Millisecond)
			if err != nil || f.rate <= 0 || f.p99 < f.p50 {
				t.Errorf("%s: %+v, %v", p.name(), f, err)
			}
			for i, y := range p.output(goroutines - 1) {
				if want := float32(2*(i+1) + 1); y != want {
					t.Errorf("%s: y[%d] is %v, not %v", p.name(), i, y, want)
				}
			}
			if err := p.close(); err != nil {
				t.Error(err)
			}
		}
	}
}
