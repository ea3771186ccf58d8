// Command tail measures what concurrency does to the latency of requests: cells of one model, one load and one way to share
// the device, each run for some seconds after warming up, one after the other.
//
//	tail -models .cache/models -out target/bench-tail.jsonl
//	tail -models MODELS -out tail.jsonl -device cuda:0 -precision fp16 -seconds 3 -budget 150
//
// Loads: closed loops of so many goroutines, each with its next request as soon as the last has ended; and open loops, whose
// requests come at random moments (Poisson) at a given part of the peak that the way's own closed loops have reached (the pool's,
// for all ways but batch), whether or not others have ended, with latency counted from the moment that was intended; some with
// deadlines, at up to twice that peak. The loop "recovery" goes from half the peak to twice the peak and back, and measures how
// long after that requests are late or refused.
//
// Ways: shared (one session and a mutex), request (a session made for each request), bound (workers with a thread each), pool, and
// batch (a batcher behind a bounded queue). In each of them a request copies its inputs to the device's memory and its outputs from there.
//
// Each cell is one JSON line; those in the file already are not run again, if they were run with the same settings, nor those that
// the budget's rest would not hold. A percentile p is given only where n (1 - p) is at least 100. Every request has random input and its output is compared with
// that of a session nobody else used: bit by bit, or within the precision's tolerance where it ran in a batch. At the end each figure
// stands beside what is asked of it. A cell that fails has no line; the others are run, and the program ends with 1.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
)

// settings are those of a run: figures of another are not this one's.
type settings struct {
	Device      string `json:"device"`
	Precision   string `json:"precision"`
	SessionsMax int    `json:"sessions_max"`
	Batches     int    `json:"batches"`
	// SecondsMin is how long a cell is measured at least.
	SecondsMin float64 `json:"seconds_min"`
	GoMaxProcs int     `json:"gomaxprocs"`
}

// cell is one measurement to be made; it is also the key under which its result is found again.
type cell struct {
	settings
	Model string `json:"model"`
	Way   string `json:"way"`
	// Loop is "closed", "open" or "recovery"; Load is an open one's part of the peak.
	Loop       string  `json:"loop"`
	Load       float64 `json:"load,omitempty"`
	Goroutines int     `json:"goroutines"`
	// Deadline of each request, in times of the service time at the peak: what is served at once, by requests per second. 0 is none.
	Deadline int `json:"deadline,omitempty"`
	Samples  int `json:"samples_min"`
}

// result is a cell's line.
type result struct {
	cell
	N      int `json:"n"`
	Failed int `json:"failed"`
	// Refused on arrival; Expired ones were refused when they had waited.
	Refused    int     `json:"refused,omitempty"`
	RefusedP99 float64 `json:"refused_p99_us,omitempty"`
	Expired    int     `json:"expired,omitempty"`
	ExpiredP99 float64 `json:"expired_p99_us,omitempty"`
	Rate       float64 `json:"requests_per_s"`
	P50        float64 `json:"p50_us,omitempty"`
	P99        float64 `json:"p99_us,omitempty"`
	P999       float64 `json:"p999_us,omitempty"`
	Max        float64 `json:"max_us"`
	Intended   float64 `json:"intended_per_s,omitempty"`
	// Batch has what is known of the way batch's batches.
	Batch *batchFigures `json:"batch,omitempty"`
	// Recovery is how long after the overload's end requests were late or refused; Normal is what late is measured by: the P99 of
	// those before the overload. -1: they still were when the cell ended.
	Recovery    *float64 `json:"recovery_s,omitempty"`
	Normal      float64  `json:"normal_p99_us,omitempty"`
	Seconds     float64  `json:"seconds"`
	Sessions    int      `json:"sessions"`
	LoadAverage string   `json:"load_average"`
	Go          string   `json:"go"`
	At          string   `json:"at"`
}

type options struct {
	models, out, device, precision string
	only                           string
	cells                          string
	selected                       *regexp.Regexp
	sessions, batches              int
	seconds, warm, budget          float64
	full                           bool
}

func main() {
	var o options
	flag.StringVar(&o.models, "models", ".cache/models", "folder of mlp.onnx, minilm.onnx and, for a GPU, bert-base.onnx")
	flag.StringVar(&o.out, "out", "bench-tail.jsonl", "file of results, which is continued")
	flag.StringVar(&o.device, "device", "host", "device to measure")
	flag.StringVar(&o.precision, "precision", "fp32", "fp32, tf32, fp16 or bf16")
	flag.StringVar(&o.only, "only", "", "model, mlp, minilm or bert-base, whose cells alone are run")
	flag.StringVar(&o.cells, "cells", "", "regular expression: cells alone are run whose name it finds, as in \"mlp pool closed 16\"; an open loop needs the results of the closed ones")
	flag.IntVar(&o.sessions, "sessions", 0, "sessions of the pool, and bound workers at most; 0 means 16 on a GPU, else GOMAXPROCS and at least 2")
	flag.IntVar(&o.batches, "batches", 3, "batches that form, run or are read at once in the way batch")
	flag.Float64Var(&o.seconds, "seconds", 10, "time of a cell; those whose P99 is asked for run on to 10,000 samples, but at most four times as long")
	flag.Float64Var(&o.warm, "warm", 1, "seconds before a cell that do not count")
	flag.Float64Var(&o.budget, "budget", 0, "seconds for everything; a cell is not begun that would not end in them; 0 means no bound")
	flag.BoolVar(&o.full, "full", false, "run the pool's and the bound workers' cells on to 270,336 samples")
	flag.Parse()
	if err := run(&o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tail:", err)
		os.Exit(1)
	}
}

// precisions by their names.
var precisions = map[string]streaminfer.Precision{"fp32": streaminfer.FP32, "tf32": streaminfer.TF32, "fp16": streaminfer.FP16, "bf16": streaminfer.BF16}

// complete checks the options and fills in what depends on the device.
func (o *options) complete() error {
	if precisions[o.precision] == 0 {
		return fmt.Errorf("-precision %s is none of fp32, tf32, fp16, bf16", o.precision)
	}
	if o.seconds <= 0 || o.warm < 0 || o.budget < 0 || o.sessions < 0 || o.batches < 1 {
		return errors.New("-seconds and -batches must be above 0, -warm, -budget and -sessions not below")
	}
	var err error
	if o.selected, err = regexp.Compile(o.cells); err != nil {
		return fmt.Errorf("-cells: %w", err)
	}
	if o.sessions == 0 {
		if o.sessions = max(2, runtime.GOMAXPROCS(0)); o.device != "host" {
			o.sessions = 16
		}
	}
	return nil
}

// settings of a run whose options are complete.
func (o *options) settings() settings {
	return settings{Device: o.device, Precision: o.precision, SessionsMax: o.sessions, Batches: o.batches, SecondsMin: o.seconds,
		GoMaxProcs: runtime.GOMAXPROCS(0)}
}

// bench is one run of the program.
type bench struct {
	*options
	engine *streaminfer.Engine
	loaded map[string]loaded
	had    map[cell]result
	out    *os.File
	text   io.Writer
	ends   time.Time
	// left are the cells that the budget would not hold.
	left []string
}

// loaded is a model, or why there is none.
type loaded struct {
	*workload
	err error
}

func run(o *options, text io.Writer) error {
	if err := o.complete(); err != nil {
		return err
	}
	b := &bench{options: o, loaded: map[string]loaded{}, text: text, ends: time.Now().Add(duration(o.budget))}
	var err error
	if b.had, err = load(o.out); err != nil {
		return err
	}
	if b.out, err = os.OpenFile(o.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return err
	}
	defer b.out.Close()
	if b.engine, err = streaminfer.Open(streaminfer.EngineOptions{Device: o.device}); err != nil {
		return err
	}
	defer b.engine.Close()
	heading(text)
	var failed error
	for _, c := range plan(o) {
		if err := b.cell(c); err != nil { // the others may do
			err = fmt.Errorf("%s: %w", c, err)
			fmt.Fprintln(text, err)
			failed = errors.Join(failed, err)
		}
	}
	if len(b.left) > 0 {
		fmt.Fprintf(text, "the budget is spent, the same command again goes on with the %d cells left: %s\n", len(b.left), strings.Join(b.left, ", "))
	}
	summary(text, o, b.had)
	return failed
}

// cell runs a cell unless it has been run, and prints it.
func (b *bench) cell(c cell) error {
	r, done := b.had[c]
	if !done {
		if b.budget > 0 && time.Until(b.ends) < duration(b.needs(c)) {
			b.left = append(b.left, c.String())
			return nil
		}
		w, err := b.workload(c)
		if err != nil {
			return err
		}
		if r, err = b.measure(w, c); err != nil {
			return err
		}
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := b.out.Write(append(line, '\n')); err != nil {
			return err
		}
		b.had[c] = r
	}
	row(b.text, &r)
	return nil
}

// needs is what a cell takes at least, with its sessions made.
func (b *bench) needs(c cell) float64 {
	needs := b.seconds + b.warm + 1
	if c.Loop == "recovery" {
		needs += 2*b.seconds + recoveryMax
	}
	return needs
}

// workload loads a model the first time it is needed: for batches with buckets of its own.
func (b *bench) workload(c cell) (*workload, error) {
	key := c.Model
	if c.Way == "batch" {
		key += " in batches"
	}
	if had, ok := b.loaded[key]; ok {
		return had.workload, had.err
	}
	started := time.Now()
	w, err := b.load(c)
	if err == nil {
		fmt.Fprintf(b.text, "%s: loaded in %.1f s\n", key, time.Since(started).Seconds())
	}
	b.loaded[key] = loaded{w, err}
	return w, err
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

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
