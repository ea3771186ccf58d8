package streaminfer

import (
	"context"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// PoolOptions are the choices made when a pool is made. The zero value is right for a start.
type PoolOptions struct {
	// Sessions is the number of requests that the pool has on the device at once, its quota there; 0 means GOMAXPROCS.
	Sessions int
	// Spares are further sessions that take the place of those that drain after a request was given up; 0 means a quarter
	// of Sessions and at least 1, a negative number none.
	Spares int
	// QueueMax bounds the requests that wait; one more gets ErrQueueFull. 0 means 1024, a negative number that none waits.
	QueueMax int
	// WarmUp is the number of requests that each bucket is warmed up and calibrated with; 0 means 3, a negative number
	// none. The inputs are zero.
	WarmUp int
	// Admission says whether requests are refused that cannot be expected to end by their deadline; see [Pool].
	Admission Admission
	// PlanMax is the number of shapes that may be planned because requests asked for them: the request itself gets
	// ErrNoBucket, and planning goes on beside the traffic. 0 means that only Model.Prepare adds shapes.
	PlanMax int
	// Name appears in CPU profiles, if ProfileLabels says so: goroutines in Infer and Do then carry the label
	// streaminfer_pool, and afterwards those of their own context.
	Name          string
	ProfileLabels bool
	// Session are the options of each session, its priority among them. Its Links and Attachments are not possible in a pool.
	Session SessionOptions
}

// Admission is a rule for requests that have a deadline.
type Admission uint8

const (
	// AdmitFeasible refuses a request at once when measured service times and the queue say that it, or one that waits
	// already, would end too late. It is the default.
	AdmitFeasible Admission = iota
	// AdmitAll lets every request wait as long as its deadline has not passed.
	AdmitAll
)

const (
	// sessionsMax is as many as any engine of the library's has.
	sessionsMax     = 16384
	queueDefault    = 1024
	queueRoomMax    = 1 << 16
	warmUpDefault   = 3
	warmUpTimeMax   = time.Second
	againPauseMin   = 50 * time.Microsecond
	againPauseMax   = time.Millisecond
	replacePauseMin = 10 * time.Millisecond
	replacePauseMax = time.Second
	// patience is after how long a request without deadline is as urgent as one whose deadline is now, so that it is not
	// overtaken for ever.
	patience = time.Second
)

// Pool serves any number of goroutines from a fixed number of sessions of one model.
//
// A request that finds all sessions busy waits in a bounded queue and is served in the order of deadlines, those without
// as if due a second after their arrival. A session that becomes free is handed to exactly one of the waiting. When its
// context ends a request leaves at once: out of the queue, or off the device, whose session then drains while a spare
// takes its place.
//
// Admission: the pool knows each bucket's service time, a moving average of what requests took from getting a session to
// giving it back. A request with a deadline is expected to wait for the session that will be free first, and then for its
// share of the service time of those queued with an earlier deadline; if that, its own service time and, where it has to
// wait, a margin of half as much end after its deadline, or if one that waits already would become late because of it, it is
// refused at once with [ErrDeadline], while the caller still has time for something else. One that turns out to be too late when
// its turn comes is refused instead of served. A service time that keeps a session idle is put to the test: a request
// is let through once there has been no news of it for a tenth of a second, and for as long as that request has until its deadline. So an overloaded pool spends its device on requests that are in time.
//
// Several pools share an engine's device, each with a quota: its sessions, and a queue of its own. A storm of requests to one
// fills that pool's sessions and queue and no others; what the others notice is a device that is as busy as those sessions make it.
//
// Its methods may be called from any goroutine.
type Pool struct {
	model   *Model
	options PoolOptions
	// lifetime ends with Close.
	lifetime context.Context
	end      context.CancelFunc
	// labels has the profile labels; nil if there are none to set.
	labels context.Context
	// background counts the goroutines that drain, replace or plan.
	background sync.WaitGroup
	// buckets is replaced as a whole when the model has got more.
	buckets atomic.Pointer[[]*poolBucket]
	// renewal has room for the one Prepare that exchanges sessions.
	renewal chan struct{}

	mu    sync.Mutex
	lanes []*lane
	// idle lanes, the one used last at the end.
	idle []*lane
	// busy counts the lanes handed out, draining those whose device is still at work on a request that was given up.
	busy, draining int
	queue          queue[*waiter] // has room for all that may wait, up to queueRoomMax
	// free are waiters for reuse.
	free *waiter
	// arrived and loans number the waiters and the loans of sessions.
	arrived, loans uint64
	// refusing is what new requests get once the pool drains, is closed or has lost its engine.
	refusing error
	closed   bool
	// quiet is closed when a draining pool has nothing left to do.
	quiet chan struct{}
	stats PoolStats
	// planned are the shapes that were planned because requests asked for them.
	planned []string
	// direct is the service time of Do.
	direct poolBucket
}

// NewPool makes the sessions of a pool, and measures what requests take. It is a control call. Close the pool when done
// with it; closing its engine closes it, too.
//
// Errors: as for [Model.NewSession].
func NewPool(m *Model, o PoolOptions) (*Pool, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Pool{model: m, options: o, quiet: make(chan struct{}), renewal: make(chan struct{}, 1),
		queue: make(queue[*waiter], 0, min(o.QueueMax, queueRoomMax))}
	p.lifetime, p.end = context.WithCancel(context.Background())
	if o.ProfileLabels {
		p.labels = pprof.WithLabels(context.Background(), pprof.Labels("streaminfer_pool", o.Name))
	}
	buckets := m.poolBuckets(o.Session.Buckets, nil)
	p.buckets.Store(&buckets)
	for range o.Sessions + o.Spares {
		l, err := newLane(p)
		if err != nil {
			p.Close()
			return nil, err
		}
		p.lanes, p.idle = append(p.lanes, l), append(p.idle, l)
	}
	p.warmUp()
	m.addPool(p)
	return p, nil
}

func (o *PoolOptions) complete() error {
	const op = "new pool"
	if err := checkCounts(op, option{"Sessions", o.Sessions}, option{"Spares", max(o.Spares, 0)}); err != nil {
		return err
	}
	if err := o.Admission.check(op); err != nil {
		return err
	}
	if len(o.Session.Attachments) > 0 {
		return refusal(op, StatusInvalidArgument, "all sessions of a pool cannot be attached to the same memory")
	}
	if len(o.Session.Links) > 0 {
		return refusal(op, StatusInvalidArgument, "the sessions of a pool cannot be linked")
	}
	if o.Sessions == 0 {
		o.Sessions = runtime.GOMAXPROCS(0)
	}
	if o.Spares == 0 {
		o.Spares = max(o.Sessions/4, 1)
	}
	if o.QueueMax == 0 {
		o.QueueMax = queueDefault
	}
	if o.WarmUp == 0 {
		o.WarmUp = warmUpDefault
	}
	o.Spares, o.QueueMax = max(o.Spares, 0), max(o.QueueMax, 0)
	if o.Sessions > sessionsMax || o.Spares > sessionsMax {
		return refusal(op, StatusLimitReached, "the options Sessions and Spares cannot be %d and %d: there are %d sessions at most",
			o.Sessions, o.Spares, sessionsMax)
	}
	return nil
}

// Infer runs one request: it copies in to a session's inputs, runs, and copies the outputs that out names. Every input
// must be given, in any order; in and out are the caller's again when Infer returns, whatever it returns. It allocates
// nothing while the context is one that has been waited for before, and at most the context's own channel otherwise.
//
// A shape must be one of the pool's buckets, or fit into one along axes that the model's options made paddable.
//
// Errors: [ErrDeadline] if the request was refused or not started because of its deadline, StatusTimeout if it was on the device when that
// passed (both match context.DeadlineExceeded); [ErrQueueFull], [ErrNoBucket], [ErrPoolClosed]; StatusInvalidArgument and
// StatusShapeMismatch for tensors that are not the model's; StatusCancelled; else as for [Session.Run]. Where Error.Executed is ExecutedNo the
// request has not run and repeating it is safe.
func (p *Pool) Infer(ctx context.Context, in, out []Tensor) error {
	arrived := backend.Now()
	bucket, err := p.bucketOf(in, out)
	if err != nil {
		return err
	}
	l, err := p.acquire(ctx, "infer", bucket, arrived)
	if err != nil {
		return err
	}
	l.moments = moments{arrived: arrived, acquired: backend.Now()}
	if p.labels != nil {
		pprof.SetGoroutineLabels(p.labels)
	}
	err = l.infer(ctx, in, out)
	if p.labels != nil {
		pprof.SetGoroutineLabels(ctx)
	}
	p.release(ctx, l, bucket, err)
	return err
}

// Do lends a session to fn, which uses it in place: no copy. The session is fn's until it returns and has the bucket
// selected that its last user had, so call [Session.Use] first where the model has several. What fn leaves in flight is
// cancelled, what it leaves bound is unbound; a session that it closes is replaced. A panic in fn goes on to the caller.
//
// Errors: as for Infer, and what fn returns.
func (p *Pool) Do(ctx context.Context, fn func(context.Context, *Session) error) (err error) {
	arrived := backend.Now()
	l, err := p.acquire(ctx, "do", &p.direct, arrived)
	if err != nil {
		return err
	}
	l.moments = moments{arrived: arrived, acquired: backend.Now()}
	l.selected = false
	lent := ctx
	if l.session.tracing() >= 0 {
		lent = context.WithValue(ctx, lentKey{}, l.heldBy.Load())
	}
	ended := false
	if p.labels != nil {
		pprof.SetGoroutineLabels(p.labels)
		defer pprof.SetGoroutineLabels(ctx)
	}
	defer func() {
		if !ended {
			err = errPanicked
		}
		l.session.tidy()
		p.release(ctx, l, &p.direct, err)
	}()
	err = fn(lent, l.session)
	ended = true
	return err
}

// errPanicked stands for a panic, or Goexit, of a function that a session was lent to.
var errPanicked = &Error{Op: "do", Status: StatusPanicked, Message: "the function did not return", Executed: ExecutedMaybe}

// Drain refuses new requests with [ErrPoolClosed] and returns when all others have ended, or with ctx's error when that
// ends first. The pool stays to be closed.
func (p *Pool) Drain(ctx context.Context) error {
	p.mu.Lock()
	if p.refusing == nil {
		p.refusing = errPoolClosed
	}
	p.settleQuiet()
	p.mu.Unlock()
	select {
	case <-p.quiet:
		return nil
	case <-ctx.Done():
		return givenUp("drain", ExecutedNo, ctx)
	}
}

// Close closes the pool and its sessions. Requests that wait get [ErrPoolClosed], those on the device StatusStaleHandle;
// to let them end, Drain first. Closing again does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	if p.refusing == nil {
		p.refusing = errPoolClosed
	}
	p.flush(p.refusing)
	lanes := p.lanes
	p.settleQuiet()
	p.mu.Unlock()
	p.model.removePool(p)
	p.end()
	var failed error
	for _, l := range lanes {
		if err := l.close(); err != nil {
			failed = err
		}
	}
	p.background.Wait()
	return failed
}

// Model returns the pool's model.
func (p *Pool) Model() *Model { return p.model }
