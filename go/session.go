package streaminfer

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// Priority says whose work a GPU begins first when several sessions have some to do. What has begun is not interrupted. It does
// nothing on the host device, where the system's scheduler decides.
type Priority uint32

// The priorities.
const (
	// PriorityLow: after the work of others.
	PriorityLow Priority = 1
	// PriorityNormal is that of sessions whose options do not say.
	PriorityNormal Priority = 2
	// PriorityHigh: before the work of others.
	PriorityHigh Priority = 3
)

// SessionOptions are the choices made when a session is created.
type SessionOptions struct {
	// Threads is the number of threads the host device computes this session's requests with; 0 means the engine's.
	Threads int
	// Priority is PriorityNormal unless set.
	Priority Priority
	// Buckets are those of the model's buckets to prepare; none means all.
	Buckets []Bucket
	// Links connect inputs of this session to device-side outputs of others.
	Links []Link
	// Attachments put inputs and outputs of this session into memory of the caller's choice.
	Attachments []Attachment
	// SpinBudget is how long Run may spend reading the completion record before the goroutine sleeps; a negative budget means to sleep
	// at once. 0 means 30 us, and for requests that usually take longer, up to a millisecond: until they end, while processors are
	// idle. That keeps a processor busy for every goroutine that waits so, at most GOMAXPROCS - 1 less the library's threads; 30 us
	// given here makes them sleep instead. docs/waiting.md says what either costs.
	SpinBudget time.Duration
	// Block lets Run and Wait block their thread in the library, while the session is bound, instead of spinning and putting
	// the goroutine to sleep: the thread is nobody else's, and waking it directly spares a visit to Go's scheduler. It needs
	// idle processors: a goroutine that comes back from a long call has to get one again. A context that can end then costs
	// some allocations per request.
	Block bool
}

// Link makes an input of a new session be the device-side output of another, so that the tensor never visits the host.
// The device keeps the order: the input waits for the source's request, and the source's next one for the input's use.
type Link struct {
	// Input is the input's name.
	Input string
	// Source is a session of the same engine; nil means the new session itself, whose output then is its state.
	Source *Session
	// Output is the name of the source's output.
	Output string
}

// Attachment puts an input or output of a new session into pinned or registered memory: the device reads or writes it there,
// and nothing is copied. [Input] and [Output] then are views of that memory. What an input's memory holds stays, but for values
// of shape inputs and what padding fills; NewSession may write to an output's. No two inputs or outputs overlap.
type Attachment struct {
	// Input or Output is the tensor's name; the other one is empty.
	Input, Output string
	// Memory is of the session's engine. It needs room for the tensor in the largest of the session's buckets.
	Memory *Memory
	// Offset is where in the memory the tensor begins: a multiple of [MemoryAlignment] bytes.
	Offset int
}

// Session is one lane of execution: an ordered stream, its own memory, and a replay per bucket. One goroutine at a
// time may use it; Cancel and Close may be called from any goroutine at any time.
type Session struct {
	model   *Model
	context backend.Context
	record  backend.Record
	token   uint64
	cleanup runtime.Cleanup

	// state decides between a call and Close with one word.
	state atomic.Uint32
	// closing is closed by a Close that finds the session in a call, to end its waiting.
	closing chan struct{}
	// memories that are attached are kept reachable: views lie in them. loans are the registered ones of them.
	memories []*Memory
	loans    []*loan
	// seen are the views of inputs, then of outputs, that were given out.
	seen []seen
	// done receives the completion of a parked request.
	done chan backend.Completion

	// holder is the number of the loan by which somebody has the session of a pool, 0 if nobody has; nil outside a pool.
	holder *atomic.Uint64

	// sequence is the last request's, 0 before the first. Cancel reads it from anywhere.
	sequence atomic.Uint32

	// What follows belongs to the goroutine that is in a call.
	inFlight bool
	draining bool
	bound    bool
	// workers says that the session is a Bound's, from when it has been bound.
	workers    bool
	poisoned   bool
	shadow     shadow
	block      bool
	spinBudget time.Duration
	typical    time.Duration
}

const (
	stateIdle uint32 = iota
	stateInCall
	// stateBorrowed: another session is being linked to this one. Calls wait for that, which is short.
	stateBorrowed
	// stateClosing: Close was called meanwhile; whose call it is will free the session.
	stateClosing
	stateClosed
)

// NewSession creates a session and prepares a replay for each of its buckets. Nothing is allocated afterwards.
//
// Errors: StatusNoBucket, StatusLimitReached, StatusOutOfMemory, StatusInvalidArgument (attachments), StatusShapeMismatch
// (links), StatusBusy and StatusWrongThread (a goroutine is in a call on a session to link to, or it is bound to another).
func (m *Model) NewSession(options SessionOptions) (*Session, error) {
	return m.newSession(options, trace.Create, nil)
}

// newSession makes a session, one of a pool if there is a holder: see Session.holder.
func (m *Model) newSession(options SessionOptions, kind trace.Kind, holder *atomic.Uint64) (*Session, error) {
	const op = "new session"
	if err := checkCounts(op, option{"Threads", options.Threads}); err != nil {
		return nil, err
	}
	if options.Priority > PriorityHigh {
		return nil, refusal(op, StatusInvalidArgument, "the option Priority cannot be %d", options.Priority)
	}
	choices := backend.ContextOptions{Threads: options.Threads, Priority: uint32(options.Priority)}
	for _, bucket := range options.Buckets {
		ordered, err := m.order(op, bucket)
		if err != nil {
			return nil, err
		}
		choices.Buckets = append(choices.Buckets, ordered)
	}
	raw, err := m.model.NewContext(&choices)
	if err != nil {
		return nil, failure(op, ExecutedNo, err)
	}
	s := &Session{model: m, context: raw, spinBudget: options.SpinBudget, block: options.Block, closing: make(chan struct{}),
		done: make(chan backend.Completion, 1), shadow: newShadow(), holder: holder}
	if err := s.prepare(op, options.Links, options.Attachments); err != nil {
		_ = s.rest().Free()
		return nil, err
	}
	s.seen = make([]seen, len(m.inputs)+len(m.outputs))
	s.record = raw.Record()
	m.engine.startReaper()
	err = adopt(m.engine.registry, s, s.done, func(token uint64) {
		s.token = token
		s.cleanup = runtime.AddCleanup(s, forgotten.freeSession, forgotten{m.engine.registry, token, s.rest()})
	})
	if err != nil {
		_ = s.rest().Free()
		return nil, failure(op, ExecutedNo, err)
	}
	m.engine.countWorkers()
	s.traced(kind, nil, s.tracing(), "")
	return s, nil
}

func (s *Session) prepare(op string, links []Link, attachments []Attachment) error {
	for _, link := range links {
		source := link.Source
		if source == nil {
			source = s
		}
		input, err := indexOf(op, s.model.inputs, "input", link.Input)
		if err != nil {
			return err
		}
		output, err := indexOf(op, source.model.outputs, "output", link.Output)
		if err != nil {
			return err
		}
		if err := s.link(op, input, source, output); err != nil {
			return err
		}
	}
	for i := range attachments {
		if err := s.attach(op, &attachments[i]); err != nil {
			return err
		}
	}
	return failure(op, ExecutedNo, s.context.Prepare())
}

// link makes an input be an output of source. Nobody is in a call on source meanwhile: the library would refuse one of the two.
func (s *Session) link(op string, input int, source *Session, output int) error {
	if source != s {
		if err := source.borrow(op); err != nil {
			return err
		}
		defer source.giveBack()
	}
	return failure(op, ExecutedNo, s.context.Link(input, source.context, output))
}

func (s *Session) attach(op string, a *Attachment) error {
	if (a.Input == "") == (a.Output == "") || a.Memory == nil || a.Offset < 0 {
		return refusal(op, StatusInvalidArgument, "an attachment names an input (%q) or an output (%q), and where it lies", a.Input, a.Output)
	}
	name, kind, tensors, call := a.Input, "input", s.model.inputs, s.context.AttachInput
	if a.Output != "" {
		name, kind, tensors, call = a.Output, "output", s.model.outputs, s.context.AttachOutput
	}
	index, err := indexOf(op, tensors, kind, name)
	if err != nil {
		return err
	}
	err = a.Memory.attach(func(memory backend.Memory) error { return call(index, memory, a.Offset) })
	if err != nil {
		return failure(op, ExecutedNo, err)
	}
	s.memories = append(s.memories, a.Memory)
	if lent, ok := a.Memory.memory.(*loan); ok {
		s.loans = append(s.loans, lent)
	}
	return nil
}

// Model returns the session's model.
func (s *Session) Model() *Model { return s.model }

// Use selects the bucket of the following requests. It must be one of the model's buckets when the session was made, or, along axes that
// the model's options made paddable, smaller than one: the smallest that holds it then serves, and the views have the shapes asked for.
// Views fetched before keep their memory but not their shape: fetch them again.
//
// Errors: StatusNoBucket, StatusInFlight, StatusDraining, StatusBusy.
func (s *Session) Use(bucket Bucket) error {
	const op = "use"
	ordered, err := s.model.order(op, bucket)
	if err != nil {
		return err
	}
	if err := s.enter(op); err != nil {
		return err
	}
	defer s.leave()
	return failure(op, ExecutedNo, s.context.Shape(ordered))
}

// Run executes one request on what the inputs hold and returns when the outputs can be read. It is Submit and Wait.
//
// When ctx ends first, Run returns an error that wraps ctx.Err(), and the session is draining if Error.Executed is
// ExecutedMaybe: its views belong to the device until the next Run or Drain has returned.
//
// Errors: StatusAgain, StatusBusy, StatusInFlight, StatusWrongThread, StatusDeviceLost; StatusExpired ([ErrDeadline]) if ctx's deadline
// passed before the request was started, StatusTimeout if after, StatusCancelled. The last three match ctx.Err().
func (s *Session) Run(ctx context.Context) error {
	if err := s.enter("run"); err != nil {
		return err
	}
	defer s.leave()
	s.checkLoan(ctx, "run")
	if err := s.submit(ctx, "run"); err != nil {
		return err
	}
	return s.wait(ctx, "run")
}

// Submit starts a request and returns. It never queues: when the device has no permit left it returns StatusAgain. A
// session that is draining is drained first. A deadline of ctx also is the time by which the request must have started.
func (s *Session) Submit(ctx context.Context) error {
	if err := s.enter("submit"); err != nil {
		return err
	}
	defer s.leave()
	s.checkLoan(ctx, "submit")
	return s.submit(ctx, "submit")
}

func (s *Session) submit(ctx context.Context, op string) error {
	at := s.tracing()
	err := s.start(ctx, op)
	if at >= 0 && err == nil {
		s.traced(trace.Submit, ctx, at, "")
	}
	return err
}

func (s *Session) start(ctx context.Context, op string) error {
	if ctx.Err() != nil {
		return notStarted(op, ctx)
	}
	if s.inFlight {
		return refusal(op, StatusInFlight, "the session's last request has not been waited for")
	}
	if err := s.drainFirst(ctx, op); err != nil {
		return err
	}
	var timeout time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), 1)
	}
	sequence, err := s.context.Submit(s.token, timeout)
	if err != nil {
		return s.failed(op, ExecutedNo, err)
	}
	s.sequence.Store(sequence)
	s.inFlight = true
	s.shadow.begin()
	return nil
}

// Wait returns when the submitted request has ended, or gives it up when ctx ends. Errors as for Run.
func (s *Session) Wait(ctx context.Context) error {
	if err := s.enter("wait"); err != nil {
		return s.cutOff(err)
	}
	defer s.leave()
	if !s.inFlight {
		return refusal("wait", StatusWrongState, "no request is in flight")
	}
	return s.wait(ctx, "wait")
}

// Poll reports whether the submitted request has ended, and how. A session with nothing in flight has ended. An error with ended
// false is a refusal of the call: the request goes on.
func (s *Session) Poll() (ended bool, err error) {
	if err := s.enter("poll"); err != nil {
		return false, s.cutOff(err)
	}
	ended, err = s.poll("poll")
	s.leave()
	return ended, err
}

func (s *Session) poll(op string) (ended bool, err error) {
	if !s.inFlight {
		return true, nil
	}
	status, err := s.context.Poll(s.sequence.Load())
	if err == nil {
		if s.inFlight = status != backend.OK; !s.inFlight {
			s.shadow.end()
		}
		return !s.inFlight, nil
	}
	if isRefusedCall(err) {
		return false, s.failed(op, ExecutedMaybe, err)
	}
	// A request that was cancelled from elsewhere leaves the device at work.
	s.inFlight, s.draining = false, true
	if reported, ok := err.(*backend.Error); ok && Status(reported.Status) == StatusExpired {
		return true, failure(op, ExecutedNo, err)
	}
	return true, s.failed(op, ExecutedMaybe, err)
}

// isRefusedCall says of an error of the backend that it is of the call alone: the caller is not whose turn it is. Requests do not end so.
func isRefusedCall(err error) bool {
	reported, ok := err.(*backend.Error)
	return ok && (Status(reported.Status) == StatusWrongThread || Status(reported.Status) == StatusBusy)
}

// failed is failure, which notes whether the session can go on.
func (s *Session) failed(op string, executed Executed, err error) error {
	if reported, ok := err.(*backend.Error); ok {
		switch Status(reported.Status) {
		case StatusPanicked, StatusPoisoned, StatusStaleHandle:
			s.poisoned = true
		case StatusWrongThread:
			s.misused(trace.Foreign, op, "bound to another thread")
		}
	}
	return failure(op, executed, err)
}

// Timings are the stages of a session's last ended request.
type Timings struct {
	// Queue is the time from submit to start; Inputs until the inputs were in place; Compute until the outputs were
	// computed; Outputs until the host could see them.
	Queue, Inputs, Compute, Outputs time.Duration
}

// Timings says where the time of the last ended request went.
//
// Errors: StatusWrongState if none has ended yet or one is in flight.
func (s *Session) Timings() (Timings, error) {
	if err := s.enter("timings"); err != nil {
		return Timings{}, err
	}
	defer s.leave()
	at, err := s.context.Timings()
	return Timings{Queue: at.Started - at.Submitted, Inputs: at.Inputs - at.Started, Compute: at.Computed - at.Inputs,
		Outputs: at.Done - at.Computed}, failure("timings", ExecutedNo, err)
}
