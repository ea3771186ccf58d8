package trace

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// chromeEvent is one event of the Chrome trace format, which Perfetto reads. Times are microseconds.
type chromeEvent struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	At    float64        `json:"ts"`
	Took  *float64       `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   uint64         `json:"tid"`
	ID    string         `json:"id,omitempty"`
	Cat   string         `json:"cat,omitempty"`
	Scope string         `json:"s,omitempty"`
	Args  map[string]any `json:"args,omitempty"`
}

// The tracks: calls by thread, requests on the host and the device by session, requests in batches and batches by batcher, all on
// one clock.
const (
	trackCalls = iota + 1
	trackHost
	trackDevice
	trackBatched
	trackBatches
)

type file struct {
	TraceEvents []chromeEvent `json:"traceEvents"`
	TimeUnit    string        `json:"displayTimeUnit"`
	// Streaminfer is the trace as it was recorded: viewers ignore it, Read takes it.
	Streaminfer *Trace `json:"streaminfer"`
}

// Write writes the trace as JSON in the Chrome trace format: Perfetto and chrome://tracing show it, Read reads it back.
func (t *Trace) Write(w io.Writer) error {
	f := file{TimeUnit: "ns", Streaminfer: t}
	for pid, name := range map[int]string{trackCalls: "calls, by thread", trackHost: "requests on the host, by session",
		trackDevice: "requests on the device, by session", trackBatched: "requests in batches", trackBatches: "batches on the device"} {
		f.TraceEvents = append(f.TraceEvents, chromeEvent{Name: "process_name", Phase: "M", PID: pid, Args: map[string]any{"name": name}})
	}
	for i := range t.Events {
		e := &t.Events[i]
		args := map[string]any{"session": e.Session, "checkout": e.Checkout, "label": e.Label, "note": e.Note}
		if e.Bytes != 0 {
			args["bytes"] = e.Bytes
		}
		f.TraceEvents = append(f.TraceEvents, slice(string(e.Kind), trackCalls, uint64(e.Thread), e.At, e.At+e.Took, args))
	}
	batches := map[[2]uint64]bool{}
	for i := range t.Spans {
		s := &t.Spans[i]
		if !s.isBatched() {
			f.TraceEvents = append(f.TraceEvents, s.chrome(i)...)
			continue
		}
		f.TraceEvents = append(f.TraceEvents, s.chromeBatched(i)...)
		if key := [2]uint64{s.Session, s.Batch}; s.Batch != 0 && !batches[key] { // several requests tell of the same
			batches[key] = true
			f.TraceEvents = append(f.TraceEvents, s.chromeBatch()...)
		}
	}
	return json.NewEncoder(w).Encode(f)
}

// Read reads what Write wrote.
func Read(r io.Reader) (*Trace, error) {
	var f file
	if err := json.NewDecoder(r).Decode(&f); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if f.Streaminfer == nil {
		return nil, fmt.Errorf("trace: the file was not written by this package")
	}
	return f.Streaminfer, nil
}

func slice(name string, pid int, tid uint64, from, to time.Duration, args map[string]any) chromeEvent {
	took := max(float64(to-from)/1e3, 0)
	return chromeEvent{Name: name, Phase: "X", At: float64(from) / 1e3, Took: &took, PID: pid, TID: tid, Args: args}
}

func (s *Span) chrome(number int) []chromeEvent {
	args := map[string]any{"checkout": s.Checkout, "label": s.Label, "service_us": float64(s.Service) / 1e3}
	if s.Error != "" {
		args["error"] = s.Error
	}
	// Queueing requests overlap, and belong to no session yet.
	queue := chromeEvent{Name: "queue", Cat: "queue", PID: trackHost, ID: fmt.Sprint(number), Args: args}
	begin, end := queue, queue
	begin.Phase, begin.At = "b", float64(s.Arrived)/1e3
	end.Phase, end.At = "e", float64(s.Acquired)/1e3
	events := []chromeEvent{begin, end}
	if s.Session == 0 {
		return events
	}
	events = append(events, slice("request", trackHost, s.Session, s.Acquired, s.Ended, args))
	add := func(name string, pid int, from, to time.Duration) {
		if from > 0 && to > 0 {
			events = append(events, slice(name, pid, s.Session, from, to, nil))
		}
	}
	add("copy in", trackHost, s.Acquired, s.Copied)
	add("device queue", trackDevice, s.Submitted, s.Started)
	add("in", trackDevice, s.Started, s.Inputs)
	add("compute", trackDevice, s.Inputs, s.Computed)
	add("out", trackDevice, s.Computed, s.Done)
	add("wake", trackHost, s.Done, s.Woke)
	if s.Woke > 0 {
		add("copy out", trackHost, s.Woke, s.Ended)
	}
	return events
}

// isBatched reports whether a request was in a batch. The number of one that failed is not known, but loans of pools have numbers.
func (s *Span) isBatched() bool {
	return s.Batch != 0 || s.Session != 0 && s.Checkout == 0 && s.Error != ""
}

// chromeBatched shows a request in a batch. Those of one batch overlap, so each has a line of its own.
func (s *Span) chromeBatched(number int) (events []chromeEvent) {
	args := map[string]any{"batcher": s.Session, "batch": s.Batch, "rows": s.Rows, "bucket_rows": s.BucketRows, "label": s.Label,
		"service_us": float64(s.Service) / 1e3}
	if s.Error != "" {
		args["error"] = s.Error
	}
	line := chromeEvent{Cat: "batched", PID: trackBatched, ID: fmt.Sprint(number)}
	add := func(name string, from, to time.Duration, args map[string]any) {
		events = append(events, line.pair(name, from, to, args)...)
	}
	add("request", s.Arrived, s.Ended, args)
	add("queue", s.Arrived, s.Acquired, nil)
	if s.Batch == 0 {
		add("batch that failed", s.Acquired, s.Ended, nil)
		return events
	}
	add("batch", s.Acquired, s.Done, nil)
	add("wake", s.Done, s.Woke, nil)
	add("copy out", s.Woke, s.Ended, nil)
	return events
}

// chromeBatch shows the batch itself.
func (s *Span) chromeBatch() (events []chromeEvent) {
	line := chromeEvent{Cat: "batch", PID: trackBatches, ID: fmt.Sprintf("%d.%d", s.Session, s.Batch)}
	args := map[string]any{"batcher": s.Session, "rows": s.Rows, "bucket_rows": s.BucketRows}
	events = append(events, line.pair(fmt.Sprintf("batch %d", s.Batch), s.Acquired, s.Done, args)...)
	events = append(events, line.pair("device queue", s.Submitted, s.Started, nil)...)
	events = append(events, line.pair("in", s.Started, s.Inputs, nil)...)
	events = append(events, line.pair("compute", s.Inputs, s.Computed, nil)...)
	return append(events, line.pair("out", s.Computed, s.Done, nil)...)
}

// pair is a stretch of time on a line, on which stretches nest.
func (line chromeEvent) pair(name string, from, to time.Duration, args map[string]any) []chromeEvent {
	begin, end := line, line
	begin.Name, begin.Phase, begin.At, begin.Args = name, "b", float64(from)/1e3, args
	end.Name, end.Phase, end.At = name, "e", float64(max(from, to))/1e3
	return []chromeEvent{begin, end}
}
