package main

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPercentilesNeedSamples(t *testing.T) {
	samples := make([]time.Duration, 10_000)
	for i := range samples {
		samples[i] = time.Duration(i+1) * time.Microsecond
	}
	for _, test := range []struct {
		n    int
		p    float64
		want float64
	}{{10_000, 0.99, 9901}, {9_999, 0.99, 0}, {10_000, 0.999, 0}, {10_000, 0.5, 5001}, {200, 0.5, 101}, {199, 0.5, 0}} {
		if got := percentile(samples[:test.n], test.p); got != test.want {
			t.Errorf("P%v of %d is %v, not %v", 100*test.p, test.n, got, test.want)
		}
	}
}

func TestArrivalsAreAsManyAsIntended(t *testing.T) {
	start := time.Now()
	a := &arrivals{random: rand.New(rand.NewPCG(1, 1)), next: start, mean: time.Millisecond}
	var last time.Time
	for range 100_000 {
		at := a.take()
		if at.Before(last) {
			t.Fatal("not in order")
		}
		last = at
	}
	if took := last.Sub(start); took < 98*time.Second || took > 102*time.Second {
		t.Errorf("100,000 arrivals a millisecond apart take %v", took)
	}
}

// A short run of all cells of a real model; a second run finds all of them done.
func TestRunIsResumed(t *testing.T) {
	models := os.Getenv("STREAMINFER_MODELS")
	if _, err := os.Stat(filepath.Join(models, "mlp.onnx")); models == "" || err != nil {
		if os.Getenv("STREAMINFER_REQUIRE") == "1" {
			t.Fatal("STREAMINFER_MODELS names no folder with mlp.onnx")
		}
		t.Skip("STREAMINFER_MODELS names no folder with mlp.onnx")
	}
	o := &options{models: models, out: filepath.Join(t.TempDir(), "out.jsonl"), device: "host", only: "mlp", sessions: 2,
		time: 20 * time.Millisecond, warm: time.Millisecond}
	if err := run(o, io.Discard); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(o.out)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(string(lines), "\n"), len(plan(o)); got != want {
		t.Errorf("%d lines for %d cells", got, want)
	}
	var text strings.Builder
	if err := run(o, &text); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(o.out)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(lines) || strings.Count(text.String(), "\n") != len(plan(o))+1 {
		t.Error("cells were run twice")
	}
}
