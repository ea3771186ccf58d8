// Package trace records what a service does with package streaminfer, and says in words what is wrong with it.
//
// Two rings are kept per engine. Spans are the parts of the time of requests to pools and batchers: one of many, and every one
// that was slow or failed. They are always recorded. Events are the calls on sessions and batchers with thread, label and
// check-out, and copies to and from device memory: they are recorded once that is asked for, by the environment (STREAMINFER_TRACE) or Engine.SetTrace, of one request
// in so many or of all.
//
//	t, err := engine.Trace()
//	for _, finding := range trace.Diagnose(t) {
//		log.Print(finding)
//	}
//	err = t.Write(file) // opens in Perfetto; streaminfer-doctor reads it, too
package trace

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what an event tells of.
type Kind string

// The kinds of events.
const (
	Create Kind = "create"
	// CreatePooled is a session made for a pool or a bound worker.
	CreatePooled Kind = "create pooled"

	Bind   Kind = "bind"
	Unbind Kind = "unbind"
	Submit Kind = "submit"
	Wait   Kind = "wait"
	Close  Kind = "close"
	// Infer is a request to a batcher, from call to return.
	Infer Kind = "infer"
	// Overlap is a call that found another goroutine in a call on the same session.
	Overlap Kind = "overlap"
	// Foreign is a call by somebody who does not hold the session: it is in its pool, lent to another, or bound to another
	// thread.
	Foreign Kind = "foreign"
	// Copy is a copy between device memory and memory that is page-locked, CopyPageable one with any other slice.
	Copy         Kind = "copy"
	CopyPageable Kind = "copy pageable"
	// Leaked is a session that was never closed and was found by the garbage collector.
	Leaked Kind = "leaked"
)

// Event is a call on a session, a batcher or a memory. Times are since the program began to run.
type Event struct {
	// Kind is what was called; At is when, and Took how long it took.
	Kind Kind          `json:"kind"`
	At   time.Duration `json:"at"`
	Took time.Duration `json:"took,omitempty"`
	// Session numbers sessions, batchers, models, events and memories of an engine in the order they were made.
	Session uint64 `json:"session"`
	// Checkout is the pool's number of the loan by which the session is held; 0 for a session without a pool. Of Infer it is the
	// batch's number, 0 if the request has not run.
	Checkout uint64 `json:"checkout,omitempty"`
	// Thread is the calling OS thread's number, 0 where it is not known; Goroutine only known under a full trace.
	Thread    int `json:"thread,omitempty"`
	Goroutine int `json:"goroutine,omitempty"`
	// Bytes are those of a copy.
	Bytes int64 `json:"bytes,omitempty"`
	// Label is the caller's, from WithLabel; of Create and of copies, the line of code that called.
	Label string `json:"label,omitempty"`
	// Note says more.
	Note string `json:"note,omitempty"`
}

// Span is one request through a pool or a batcher. Moments are since the program began to run; one that was not reached is 0.
//
// If a request left the queue without a session or a place in a batch, Session is 0 and Acquired the moment when it left. If it was
// in a batch and failed there, the batcher is known, but not the batch nor when that closed: Batch is 0, and Acquired the moment when
// the inputs were in place.
type Span struct {
	// Session and Checkout as in Event; a batched request has its batcher's number as Session.
	Session  uint64 `json:"session"`
	Checkout uint64 `json:"checkout"`
	// Batch is the number of the batch that the request ran in, from 1 for each batcher; 0 is none. Rows are those that the batch
	// had for requests, BucketRows all of the bucket that it ran in.
	Batch      uint64 `json:"batch,omitempty"`
	Rows       int    `json:"rows,omitempty"`
	BucketRows int    `json:"bucket_rows,omitempty"`
	Label      string `json:"label,omitempty"`
	// Error is why the request failed, empty if it did not.
	Error string `json:"error,omitempty"`
	// Service is what a request of this bucket was expected to take from Acquired to Ended; what its batch was, from Submitted to
	// Done.
	Service time.Duration `json:"service"`
	// Arrived, then Acquired a session, then Copied the inputs. A batched request copies its inputs into the batch that forms and
	// has Acquired the device when that batch closed.
	Arrived  time.Duration `json:"arrived"`
	Acquired time.Duration `json:"acquired"`
	Copied   time.Duration `json:"copied,omitempty"`
	// Submitted, Started, Inputs (in place), Computed, Done (outputs visible) are the device's, on the same clock.
	Submitted time.Duration `json:"submitted,omitempty"`
	Started   time.Duration `json:"started,omitempty"`
	Inputs    time.Duration `json:"inputs,omitempty"`
	Computed  time.Duration `json:"computed,omitempty"`
	Done      time.Duration `json:"done,omitempty"`
	// Woke is when the waiting goroutine ran again, Ended when the outputs were copied.
	Woke  time.Duration `json:"woke,omitempty"`
	Ended time.Duration `json:"ended"`
}

// Process is what the process looked like when the trace was taken.
type Process struct {
	// GoMaxProcs is how many threads run Go at once.
	GoMaxProcs int `json:"gomaxprocs"`
	// Threads of the process; 0 where they cannot be counted. EngineThreads are the library's, BoundWorkers those of Go
	// that have a thread of their own.
	Threads       int `json:"threads"`
	EngineThreads int `json:"engine_threads"`
	BoundWorkers  int `json:"bound_workers"`
	// Throttled is how long the control group's quota kept the process off its processors since the engine was opened, in
	// ThrottledPeriods periods.
	Throttled        time.Duration `json:"throttled"`
	ThrottledPeriods int           `json:"throttled_periods"`
}

// Trace is what was recorded, oldest first.
type Trace struct {
	// Process is what the process looked like at the end.
	Process Process `json:"process"`
	// Counts are exact, while Events may have been sampled and overwritten.
	Counts map[Kind]uint64 `json:"counts"`
	// Events are the calls, Spans the requests.
	Events []Event `json:"events"`
	Spans  []Span  `json:"spans"`
}

// Options say what is recorded.
type Options struct {
	// API records events: of one request in so many, and one copy in so many, of all if that is 1; 0 records none. What is rare or wrong is always
	// recorded, unless it is 0.
	API int
	// Spans records one of so many requests of pools and batchers, besides those that are slow or failed; 0 means 128.
	Spans int
}

// The rings' sizes, and the defaults of Options.
const (
	eventsMax    = 1 << 14
	spansMax     = 1 << 10
	spansDefault = 128
	apiDefault   = 16
)

// ParseOptions reads the environment variable STREAMINFER_TRACE: "" or "off", "api" (one request in 16), "api=full", or
// "api=N" (one in N).
func ParseOptions(text string) (Options, error) {
	name, value, set := strings.Cut(text, "=")
	switch {
	case text == "" || text == "off":
		return Options{}, nil
	case name != "api":
	case !set:
		return Options{API: apiDefault}, nil
	case value == "full":
		return Options{API: 1}, nil
	default:
		if n, err := strconv.Atoi(value); err == nil && n > 0 {
			return Options{API: n}, nil
		}
	}
	return Options{}, fmt.Errorf("trace: %q is none of off, api, api=full, api=N", text)
}

// Recorder has the rings of one engine. Its methods may be called from any goroutine. The zero value records what the zero
// Options say.
type Recorder struct {
	// every is 0 for spansDefault.
	api, every atomic.Int64
	requests   atomic.Int64

	mu     sync.Mutex
	counts map[Kind]uint64
	events ring[Event]
	spans  ring[Span]
}

// NewRecorder returns one that records what the options say.
func NewRecorder(o Options) *Recorder {
	r := &Recorder{}
	r.Set(o)
	return r
}

// Set changes what is recorded from now on.
func (r *Recorder) Set(o Options) {
	r.every.Store(int64(max(o.Spans, 0)))
	r.api.Store(int64(o.API))
}

// API reports whether events are recorded, and whether all are.
func (r *Recorder) API() (on, full bool) {
	every := r.api.Load()
	return every > 0, every == 1
}

// Event records a call; of the frequent kinds only those of every so-many-th request, whose number is given, and every so-many-th copy.
func (r *Recorder) Event(request uint32, e Event) {
	every := r.api.Load()
	if every <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[Kind]uint64{}
	}
	r.counts[e.Kind]++
	number := uint64(request)
	switch e.Kind {
	case Submit, Wait, Infer:
	case Copy, CopyPageable: // of no request: the first, and then one of so many
		number = r.counts[e.Kind] - 1
	default:
		number = 0
	}
	if number%uint64(every) == 0 {
		r.events.add(e, eventsMax)
	}
}

// Sampled reports whether it is the turn of one more request to have its span recorded.
func (r *Recorder) Sampled() bool {
	every := r.every.Load()
	if every == 0 {
		every = spansDefault
	}
	return r.requests.Add(1)%every == 0
}

// Span records a request.
func (r *Recorder) Span(s *Span) {
	r.mu.Lock()
	r.spans.add(*s, spansMax)
	r.mu.Unlock()
}

// Take returns what was recorded so far.
func (r *Recorder) Take() *Trace {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &Trace{Counts: map[Kind]uint64{}, Events: r.events.all(), Spans: r.spans.all()}
	for kind, count := range r.counts {
		t.Counts[kind] = count
	}
	return t
}

// ring keeps the last values. It takes its memory with the first.
type ring[T any] struct {
	next   int
	values []T
}

// add keeps a value, and with it as many as bound says, which is always the same.
func (r *ring[T]) add(value T, bound int) {
	if r.values == nil {
		r.values = make([]T, 0, bound)
	}
	if len(r.values) < bound {
		r.values = append(r.values, value)
		return
	}
	r.values[r.next] = value
	r.next = (r.next + 1) % bound
}

func (r *ring[T]) all() []T {
	return append(append([]T(nil), r.values[r.next:]...), r.values[:r.next]...)
}

type labelKey struct{}

// WithLabel gives the calls made with ctx a name, such as the handler's, that events and spans then carry.
func WithLabel(ctx context.Context, label string) context.Context {
	return context.WithValue(ctx, labelKey{}, label)
}

// Label returns the name that WithLabel gave, or "".
func Label(ctx context.Context) string {
	label, _ := ctx.Value(labelKey{}).(string)
	return label
}
