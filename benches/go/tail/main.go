// Command tail measures what concurrency does to the latency of requests: cells of one model, one load and one way to share
// the device, each run for some seconds after warming up, one after the other.
//
//	tail -models .cache/models -out target/bench-tail.jsonl
//
// Loads: closed loops of so many goroutines, each with its next request as soon as the last has ended; and open loops, whose
// requests come at random moments (Poisson) at a given part of the pool's own peak, whether or not others have ended, with
// latency counted from the moment that was intended, some with deadlines, at up to twice that peak. Ways: shared (one session and a mutex), request (a session made for
// each request), bound (workers with a thread each), pool.
//
// Each cell is one JSON line; those in the file already are not run again. A percentile p is given only where n (1 - p) is
// at least 100. Every request has random input and its output is compared with that of a session nobody else used.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// cell is one measurement to be made; it is also the key under which its result is found again.
type cell struct {
	Model string `json:"model"`
	Way   string `json:"way"`
	// Loop is "closed" or "open"; Load is an open one's part of the pool's peak.
	Loop       string  `json:"loop"`
	Load       float64 `json:"load,omitempty"`
	Goroutines int     `json:"goroutines"`
	// Deadline of each request, in times of the pool's service time at its peak; 0 is none.
	Deadline int `json:"deadline,omitempty"`
	Samples  int `json:"samples_min"`
}

// result is a cell's line.
type result struct {
	cell
	N           int     `json:"n"`
	Failed      int     `json:"failed"`
	Refused     int     `json:"refused,omitempty"`
	RefusedP99  float64 `json:"refused_p99_us,omitempty"`
	Rate        float64 `json:"requests_per_s"`
	P50         float64 `json:"p50_us,omitempty"`
	P99         float64 `json:"p99_us,omitempty"`
	P999        float64 `json:"p999_us,omitempty"`
	Max         float64 `json:"max_us"`
	Intended    float64 `json:"intended_per_s,omitempty"`
	Sessions    int     `json:"sessions"`
	GoMaxProcs  int     `json:"gomaxprocs"`
	Device      string  `json:"device"`
	LoadAverage string  `json:"load_average"`
	Go          string  `json:"go"`
	At          string  `json:"at"`
}

type options struct {
	models, out, device string
	only                string
	sessions            int
	time, warm          time.Duration
	full                bool
}

func main() {
	var o options
	flag.StringVar(&o.models, "models", ".cache/models", "folder of mlp.onnx and minilm.onnx")
	flag.StringVar(&o.out, "out", "bench-tail.jsonl", "file of results, which is continued")
	flag.StringVar(&o.device, "device", "host", "device to measure")
	flag.StringVar(&o.only, "only", "", "model, mlp or minilm, whose cells alone are run")
	flag.IntVar(&o.sessions, "sessions", max(2, runtime.GOMAXPROCS(0)), "sessions of the pool, and bound workers at most")
	flag.DurationVar(&o.time, "time", 10*time.Second, "time of a cell")
	flag.DurationVar(&o.warm, "warm", time.Second, "time before a cell that does not count")
	flag.BoolVar(&o.full, "full", false, "run the pool's and the bound workers' cells on to 270,336 samples")
	flag.Parse()
	if err := run(&o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tail:", err)
		os.Exit(1)
	}
}

// headline is the number of samples that a claim about P99 stands on.
const headline = 270_336

// plan lists the cells of a run, the pool's closed loops first: the open ones are relative to their peak.
func plan(o *options) []cell {
	return slices.DeleteFunc(allCells(o.full), func(c cell) bool { return o.only != "" && c.Model != o.only })
}

func allCells(full bool) (cells []cell) {
	samples := func(way string) int {
		if full && (way == "pool" || way == "bound") {
			return headline
		}
		return 0
	}
	for _, way := range []string{"pool", "bound", "shared", "request"} {
		for _, goroutines := range []int{1, 4, 16, 64, 1024} {
			cells = append(cells, cell{Model: "mlp", Way: way, Loop: "closed", Goroutines: goroutines, Samples: samples(way)})
		}
	}
	for _, way := range []string{"pool", "bound", "shared", "request"} {
		for _, goroutines := range []int{1, 4, 16, 64, 1024} {
			cells = append(cells, cell{Model: "mlp", Way: way, Loop: "open", Load: 0.5, Goroutines: goroutines, Samples: samples(way)})
		}
	}
	// Twice as much as the pool can do, half and all of it, each request to be answered within fifty service times.
	for _, load := range []float64{0.5, 1, 2} {
		cells = append(cells, cell{Model: "mlp", Way: "pool", Loop: "open", Load: load, Goroutines: 1024, Deadline: 50})
	}
	for _, way := range []string{"pool", "bound", "shared", "request"} {
		cells = append(cells, cell{Model: "minilm", Way: way, Loop: "closed", Goroutines: 16})
	}
	return cells
}

func run(o *options, text io.Writer) error {
	had, err := load(o.out)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(o.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	engine, err := streaminfer.Open(streaminfer.EngineOptions{Device: o.device})
	if err != nil {
		return err
	}
	defer engine.Close()
	models := map[string]*workload{}
	heading(text)
	for _, c := range plan(o) {
		r, done := had[c]
		if !done {
			w := models[c.Model]
			if w == nil {
				if w, err = loadModel(engine, o.models, c.Model); err != nil {
					return err
				}
				models[c.Model] = w
			}
			if r, err = measure(o, w, c, peak(had, c.Model)); err != nil {
				return fmt.Errorf("%+v: %w", c, err)
			}
			line, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if _, err := out.Write(append(line, '\n')); err != nil {
				return err
			}
			had[c] = r
		}
		row(text, &r)
	}
	return nil
}

// load reads the results that the file has.
func load(path string) (map[cell]result, error) {
	had := map[cell]result{}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return had, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for lines := json.NewDecoder(file); ; {
		var r result
		switch err := lines.Decode(&r); {
		case err == io.EOF:
			return had, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		had[r.cell] = r
	}
}

// peak is the most requests per second that the pool's closed loops have reached.
func peak(had map[cell]result, model string) (most float64) {
	for c, r := range had {
		if c.Model == model && c.Way == "pool" && c.Loop == "closed" {
			most = max(most, r.Rate)
		}
	}
	return most
}

func heading(text io.Writer) {
	fmt.Fprintf(text, "%-7s %-8s %-10s %10s %9s %10s %10s %10s %10s %11s\n", "model", "way", "loop", "goroutines", "n", "requests/s",
		"P50 us", "P99 us", "P99.9 us", "max us")
}

func row(text io.Writer, r *result) {
	number := func(value float64) string {
		if value == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f", value)
	}
	loop := r.Loop
	if r.Load > 0 {
		loop += fmt.Sprintf(" %.0f%%", 100*r.Load)
	}
	fmt.Fprintf(text, "%-7s %-8s %-10s %10d %9d %10.0f %10s %10s %10s %11s", r.Model, r.Way, loop, r.Goroutines, r.N, r.Rate,
		number(r.P50), number(r.P99), number(r.P999), number(r.Max))
	if r.Deadline > 0 {
		fmt.Fprintf(text, "  in time; %d refused, P99 of that %s us; %d failed", r.Refused, number(r.RefusedP99), r.Failed)
	}
	fmt.Fprintln(text)
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
