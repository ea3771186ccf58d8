package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/trace"
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
	a := newArrivals(start, []phase{{1000, 50 * time.Second}, {4000, 10 * time.Second}, {1000, time.Hour}})
	var last time.Time
	counts := map[int]int{}
	for last.Before(start.Add(110 * time.Second)) {
		at := a.take()
		if at.Before(last) {
			t.Fatal("not in order")
		}
		last = at
		counts[int(at.Sub(start)/(10*time.Second))]++
	}
	for tenth := range 11 {
		want := 10_000
		if tenth == 5 {
			want = 40_000
		}
		if got := counts[tenth]; got < want*96/100 || got > want*104/100 {
			t.Errorf("%d arrivals in the tenth second %d, not %d", got, tenth, want)
		}
	}
}

// A backlog that shrinks is over where windows are normal, and a single slow request is none.
func TestRecoveryIsFound(t *testing.T) {
	const usual = time.Millisecond
	after := func(slow, refused int) (all []moment) {
		for i := range 1000 {
			m := moment{at: time.Duration(i) * time.Millisecond, took: usual, isGood: i >= refused}
			if i < slow || i%100 == 50 {
				m.took = 5 * usual
			}
			all = append(all, m)
		}
		return all
	}
	for _, test := range []struct {
		slow, refused int
		want          time.Duration
		ok            bool
	}{{0, 0, 0, true}, {250, 0, 300 * time.Millisecond, true}, {205, 0, 200 * time.Millisecond, true}, {0, 101, 200 * time.Millisecond, true},
		{700, 0, 700 * time.Millisecond, true}, {750, 0, 0, false}, {1000, 0, 0, false}} {
		if from, ok := normalFrom(after(test.slow, test.refused), usual); ok != test.ok || ok && from != test.want {
			t.Errorf("%d slow, %d refused: normal from %v, %v, not %v", test.slow, test.refused, from, ok, test.want)
		}
	}
}

// Each claim holds at its bound and not beyond.
func TestClaims(t *testing.T) {
	o := &options{device: "cuda:0", precision: "fp16"}
	figures := func(beyond float64) map[cell]result {
		had := map[cell]result{}
		for _, c := range gpuCells(false) {
			c.settings = o.settings()
			r := result{cell: c, Rate: 1000, P50: 100, P99: 130 * beyond}
			switch {
			case c.Way == "pool" && c.Loop == "closed" && c.Goroutines == 16:
				r.P50, r.P99 = 105*beyond, 1.3*105*beyond*beyond
			case c.Way == "bound":
				r.Rate = 1000 / 0.95 * beyond
			case c.Loop == "open" && c.Load < 1:
				r.P99, r.Batch = 300*beyond, &batchFigures{Service: 100}
			case c.Loop == "open":
				r.Rate, r.RefusedP99 = 900/beyond, 1000*beyond
			case c.Loop == "recovery":
				seconds := 5 * beyond
				r.Recovery = &seconds
			}
			had[c] = r
		}
		return had
	}
	for _, beyond := range []float64{0.9999, 1.01} {
		all := claims(o, figures(beyond), "bert-base")
		if len(all) != 11 {
			t.Errorf("%d claims", len(all))
		}
		for _, c := range all {
			if c.holds != (beyond < 1) {
				t.Errorf("%+v", c)
			}
		}
	}
	for _, change := range []func(*options){func(o *options) { o.device = "host" }, func(o *options) { o.precision = "fp32" },
		func(o *options) { o.sessions++ }, func(o *options) { o.batches++ }, func(o *options) { o.seconds++ }} {
		other := *o
		change(&other)
		if all := claims(&other, figures(1), "bert-base"); len(all) != 0 {
			t.Errorf("claims from another run than %+v: %+v", other, all)
		}
	}
	procs := runtime.GOMAXPROCS(0)
	had := figures(1)
	runtime.GOMAXPROCS(procs + 1)
	defer runtime.GOMAXPROCS(procs)
	if all := claims(o, had, "bert-base"); len(all) != 0 {
		t.Errorf("claims from a run on another number of processors: %+v", all)
	}
}

// Who is refused at once and who has waited first are told apart.
func TestRefusalsAreToldApart(t *testing.T) {
	o, c := &outcome{}, &client{}
	for _, err := range []error{
		&streaminfer.Error{Status: streaminfer.ErrDeadline, OnArrival: true},
		&streaminfer.Error{Status: streaminfer.ErrDeadline},
		&streaminfer.Error{Status: streaminfer.ErrDeadline},
		&streaminfer.Error{Status: streaminfer.StatusDriver, OnArrival: true},
	} {
		c.run = func(context.Context) error { return err }
		if o.one(c, time.Now(), time.Hour) {
			t.Errorf("%v is good", err)
		}
	}
	var r result
	if r.fill(o); r.Refused != 1 || r.Expired != 2 || r.Failed != 1 || r.N != 0 {
		t.Errorf("%+v", r)
	}
}

// The spans of slow requests, which are all recorded, do not make the service time of a batch longer.
func TestSlowSpansAreLeftOut(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		span trace.Span
		want bool
	}{
		{trace.Span{Batch: 1, Service: ms, Acquired: ms, Ended: 3 * ms}, true},
		{trace.Span{Batch: 1, Service: ms, Acquired: ms, Ended: 4 * ms}, false},
		{trace.Span{Batch: 1, Acquired: ms, Ended: 9 * ms}, true},
		{trace.Span{Service: ms, Acquired: ms, Ended: 2 * ms}, false},
	} {
		if got := isSampled(&test.span); got != test.want {
			t.Errorf("%+v: %v", test.span, got)
		}
	}
}

func modelsFolder(t *testing.T) string {
	models := os.Getenv("STREAMINFER_MODELS")
	if _, err := os.Stat(filepath.Join(models, "mlp.onnx")); models == "" || err != nil {
		if os.Getenv("STREAMINFER_REQUIRE") == "1" {
			t.Fatal("STREAMINFER_MODELS names no folder with mlp.onnx")
		}
		t.Skip("STREAMINFER_MODELS names no folder with mlp.onnx")
	}
	return models
}

// A short run of all cells of a real model; a second run finds all of them done. Without time nothing is begun.
func TestRunIsResumed(t *testing.T) {
	o := &options{models: modelsFolder(t), out: filepath.Join(t.TempDir(), "out.jsonl"), device: "host", precision: "fp32", only: "mlp",
		sessions: 2, batches: 2, seconds: 0.02, warm: 0.001, budget: 0.01}
	var none strings.Builder
	if err := run(o, &none); err != nil {
		t.Fatal(err)
	}
	if lines, err := os.ReadFile(o.out); err != nil || len(lines) != 0 || !strings.Contains(none.String(), fmt.Sprintf("the budget is spent, the same command again goes on with the %d cells", len(plan(o)))) {
		t.Errorf("%s, %v, %s", lines, err, none.String())
	}
	o.budget = 0
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
	had, err := load(o.out)
	if err != nil {
		t.Fatal(err)
	}
	if o.cells = "^mlp pool closed"; run(o, io.Discard) != nil || len(plan(o)) != 5 {
		t.Errorf("of %q: %v", o.cells, plan(o))
	}
	if o.cells = "("; run(o, io.Discard) == nil {
		t.Errorf("%q is an expression", o.cells)
	}
	o.cells, o.selected = "", nil
	for _, change := range []func(*options){func(o *options) { o.sessions++ }, func(o *options) { o.batches++ }, func(o *options) { o.seconds *= 2 }} {
		other := *o
		change(&other)
		for _, c := range plan(&other) {
			if _, found := had[c]; found {
				t.Errorf("%s is taken from a run with other settings", c)
			}
		}
	}
	if string(again) != string(lines) || !strings.Contains(text.String(), "requests/s / bound's") {
		t.Errorf("cells were run twice, or nothing was compared: %s", text.String())
	}
}

// An output of another request is found, whether or not it ran in a batch.
func TestWrongOutputsAreFound(t *testing.T) {
	b := &bench{options: &options{models: modelsFolder(t), out: os.DevNull, device: "host", precision: "fp32", sessions: 2, batches: 2, seconds: 1}}
	engine, err := streaminfer.Open(streaminfer.EngineOptions{Device: "host"})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	b.engine = engine
	for _, name := range []string{"pool", "bound", "shared", "request", "batch"} {
		c := cell{Model: "mlp", Way: name, Loop: "closed", Goroutines: 2}
		w, err := b.load(c)
		if err != nil {
			t.Fatal(err)
		}
		way, _, err := newWay(w, c, b.options)
		if err != nil {
			t.Fatal(err)
		}
		loop := traffic{cell: c, way: way, duration: 20 * time.Millisecond, longest: time.Second, samples: 10}
		if _, err := loop.run(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		w.wanted[0], w.wanted[1] = w.wanted[1], w.wanted[0]
		loop.samples = 10_000
		if _, err := loop.run(); err != errWrong {
			t.Errorf("%s: exchanged outputs are not found: %v", name, err)
		}
		way.close()
	}
}
