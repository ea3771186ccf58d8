package streaminfer

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// recording is an engine's trace, and what its process was like when the engine was opened.
type recording struct {
	*trace.Recorder
	// file is where Close writes the trace; empty means nowhere.
	file             string
	throttledPeriods int
	throttled        time.Duration
}

// newRecording begins as the environment says. What is no option is taken for none: Open has refused it.
func newRecording() recording {
	options, _ := trace.ParseOptions(os.Getenv("STREAMINFER_TRACE"))
	r := recording{Recorder: trace.NewRecorder(options)}
	if options.API > 0 {
		r.file = traceFile(os.Getenv("STREAMINFER_TRACE_FILE"))
	}
	r.throttledPeriods, r.throttled = trace.Throttling(os.DirFS("/"))
	return r
}

// traceFiles counts the engines that have been opened for a trace file, by its name.
var traceFiles sync.Map

// traceFile is the file asked for, with a number before its extension if an engine of this process has that one already.
func traceFile(path string) string {
	if path == "" {
		return ""
	}
	count, _ := traceFiles.LoadOrStore(path, new(atomic.Int64))
	number := count.(*atomic.Int64).Add(1)
	if number == 1 {
		return path
	}
	extension := filepath.Ext(path)
	return strings.TrimSuffix(path, extension) + "." + strconv.FormatInt(number, 10) + extension
}

// SetTrace changes what is recorded from now on. An engine begins with what the environment variable STREAMINFER_TRACE
// says, which [trace.ParseOptions] describes; if that asks for events and STREAMINFER_TRACE_FILE names a file, Close writes
// the trace there. Of several engines in a process the second one opened writes to trace.2.json where the first one's file is
// trace.json, and so on.
func (e *Engine) SetTrace(options trace.Options) { e.recording.Set(options) }

// Trace returns what has been recorded, and the state of the process. [trace.Diagnose] reads it.
//
// Errors: as for Stats.
func (e *Engine) Trace() (*trace.Trace, error) {
	stats, err := e.Stats()
	if err != nil {
		return nil, err
	}
	root := os.DirFS("/")
	t := e.recording.Take()
	periods, stopped := trace.Throttling(root)
	t.Process = trace.Process{GoMaxProcs: runtime.GOMAXPROCS(0), Threads: trace.CountThreads(root), EngineThreads: stats.Threads,
		BoundWorkers: int(e.bound.Load()), Throttled: stopped - e.recording.throttled,
		ThrottledPeriods: periods - e.recording.throttledPeriods}
	return t, nil
}

func (e *Engine) writeTrace() error {
	if e.recording.file == "" {
		return nil
	}
	t, err := e.Trace()
	if err != nil {
		return nil // it is closed already
	}
	file, err := os.Create(e.recording.file)
	if err != nil {
		return err
	}
	if err := t.Write(file); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}

// tracing returns the time if calls are recorded, else -1.
func (s *Session) tracing() time.Duration {
	if on, _ := s.model.engine.recording.API(); !on {
		return -1
	}
	return backend.Now()
}

// traced records a call that began when tracing said. ctx is nil where the call has none.
func (s *Session) traced(kind trace.Kind, ctx context.Context, at time.Duration, note string) {
	if at < 0 {
		return
	}
	recorder := s.model.engine.recording
	event := trace.Event{Kind: kind, At: at, Took: backend.Now() - at, Session: s.token, Thread: threadID(), Note: note}
	isNew := kind == trace.Create || kind == trace.CreatePooled
	if s.holder != nil && !isNew {
		event.Checkout = s.holder.Load()
	}
	if ctx != nil {
		event.Label = trace.Label(ctx)
	}
	if _, full := recorder.API(); full {
		event.Goroutine = goroutineID()
	}
	if isNew {
		event.Label = callSite()
	}
	recorder.Event(s.sequence.Load(), event)
}

// misused records a call that should not have come.
func (s *Session) misused(kind trace.Kind, op, note string) {
	s.traced(kind, nil, s.tracing(), op+": "+note)
}

// callSite is the first line of code above this package.
func callSite() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "github.com/streaminfer/streaminfer/go.") || !more {
			return frame.File[strings.LastIndexByte(frame.File, '/')+1:] + ":" + strconv.Itoa(frame.Line)
		}
	}
}

// goroutineID reads the goroutine's number where Go tells it: in a stack trace.
func goroutineID() int {
	var buffer [64]byte
	text := bytes.TrimPrefix(buffer[:runtime.Stack(buffer[:], false)], []byte("goroutine "))
	number, _, _ := bytes.Cut(text, []byte(" "))
	id, _ := strconv.Atoi(string(number))
	return id
}

// lentKey is the key by which a context says which loan of a pool its user has.
type lentKey struct{}

// checkLoan notes a call with the context of a loan that has ended.
func (s *Session) checkLoan(ctx context.Context, op string) {
	if s.holder == nil || s.tracing() < 0 {
		return
	}
	if loan, ok := ctx.Value(lentKey{}).(uint64); ok && loan != s.holder.Load() {
		s.misused(trace.Foreign, op, "lent to another by now")
	}
}

// record keeps the span of a request that was slow or failed, and of others now and then. It is called by the lane's holder.
func (p *Pool) record(ctx context.Context, l *lane, now time.Duration, err error) {
	recorder := p.model.engine.recording
	slow := l.expected > 0 && now-l.since > 2*l.expected+slowMargin
	if err == nil && !slow && !recorder.Sampled() {
		return
	}
	m := &l.moments
	span := trace.Span{Session: l.session.token, Checkout: l.heldBy.Load(), Label: trace.Label(ctx), Service: l.expected,
		Arrived: m.arrived, Acquired: m.acquired, Copied: m.copied, Submitted: m.device.Submitted, Started: m.device.Started,
		Inputs: m.device.Inputs, Computed: m.device.Computed, Done: m.device.Done, Woke: m.woke, Ended: now}
	if err != nil {
		span.Error = err.Error()
	}
	recorder.Span(&span)
}

// recordLeft keeps the span of a request that waited and got no session.
func (p *Pool) recordLeft(ctx context.Context, arrived time.Duration, err error) {
	now := backend.Now()
	p.model.engine.recording.Span(&trace.Span{Label: trace.Label(ctx), Error: err.Error(), Arrived: arrived, Acquired: now, Ended: now})
}

// slowMargin, and twice the usual service time, make a request a slow one.
const slowMargin = 500 * time.Microsecond

// record keeps the span of a request to a batcher as Pool.record does that of one to a pool, and the call if calls are recorded. A
// request that was refused at once has no span: under overload they would be all that there is.
func (t *ticket) record(ctx context.Context, err error) {
	recorder, m := t.batcher.model.engine.recording, &t.moments
	label, failed := trace.Label(ctx), ""
	if err != nil {
		failed = err.Error()
	}
	if on, full := recorder.API(); on {
		event := trace.Event{Kind: trace.Infer, At: m.arrived, Took: m.ended - m.arrived, Session: t.batcher.token,
			Checkout: t.batch.Batch, Thread: threadID(), Label: label, Note: failed}
		if full {
			event.Goroutine = goroutineID()
		}
		recorder.Event(uint32(t.number), event)
	}
	slow := t.batch.Service > 0 && m.ended-t.batch.Closed > 2*t.batch.Service+slowMargin
	if !t.entered || err == nil && !slow && !recorder.Sampled() {
		return
	}
	span := trace.Span{Session: t.batcher.token, Batch: t.batch.Batch, Rows: t.batch.Rows, BucketRows: t.batch.BucketRows,
		Label: label, Error: failed, Service: t.batch.Service, Arrived: m.arrived, Acquired: m.acquired, Copied: m.copied,
		Submitted: m.device.Submitted, Started: m.device.Started, Inputs: m.device.Inputs, Computed: m.device.Computed,
		Done: m.device.Done, Woke: m.woke, Ended: m.ended}
	switch {
	case t.batch.Batch != 0:
	case t.committed: // its batch failed or it was given up there, and the library does not tell when that batch closed
		span.Acquired = m.copied
	default:
		span.Session, span.Acquired = 0, m.ended
	}
	recorder.Span(&span)
}
