package fake

import (
	"errors"
	"fmt"
	"math"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

func (l *lane) Submit(token uint64, timeout time.Duration) (uint32, error) {
	if err := l.quiet(); err != nil {
		return 0, err
	}
	defer l.mu.Unlock()
	if !l.prepared {
		return 0, status(streaminfer.StatusWrongState, "the context is not prepared")
	}
	if admit := l.model.Admit; admit != nil {
		if err := admit(); err != nil {
			return 0, reported(err)
		}
	}
	if l.sequence++; l.sequence == 0 {
		l.sequence = 1
	}
	l.submitted.Store(l.sequence)
	r := request{sequence: l.sequence, token: token, bucket: l.bucket, waits: l.waits, submitted: backend.Now()}
	l.waits = nil
	if timeout > 0 {
		r.deadline = r.submitted + min(timeout, math.MaxInt64-r.submitted)
	}
	for _, link := range l.links {
		if link.source != l {
			r.waits = append(r.waits, link.source.last())
		}
	}
	for _, target := range l.targets {
		r.waits = append(r.waits, target.last())
	}
	l.phase, l.failure, l.running = inFlight, nil, r
	l.work <- r
	l.engine.count(func(s *backend.Stats) { s.InFlight++ })
	return l.sequence, nil
}

// last marks the end of everything submitted so far. It takes no lock: two linked lanes ask each other.
func (l *lane) last() mark { return mark{l, l.submitted.Load()} }

// execute is the lane's goroutine.
func (l *lane) execute() {
	defer l.engine.count(func(s *backend.Stats) { s.Threads-- })
	defer l.detach()
	call := &Call{lane: l}
	for r := range l.work {
		for _, m := range r.waits {
			m.wait()
		}
		call.bucket = &l.buckets[r.bucket]
		started := backend.Now()
		err := l.compute(call, r)
		done := backend.Now()
		l.finish(r, err, backend.Stamps{Submitted: r.submitted, Started: started, Inputs: started, Computed: done, Done: done})
	}
}

// compute runs the model; a panic in it fails the request, as it would in the library.
func (l *lane) compute(call *Call, r request) (err error) {
	if r.deadline > 0 && backend.Now() > r.deadline {
		return status(streaminfer.StatusExpired, "the deadline passed before the request was started")
	}
	defer func() {
		if value := recover(); value != nil {
			err = status(streaminfer.StatusPanicked, "%v", value)
		}
	}()
	if err := l.model.Run(call); err != nil {
		return ownFailure(err)
	}
	for _, link := range l.links {
		if link.source == l {
			copy(l.inputs[link.input], l.outputs[link.output])
		}
	}
	return nil
}

// finish ends a request, unless Cancel has done so before.
func (l *lane) finish(r request, err error, stamps backend.Stamps) {
	l.engine.count(func(s *backend.Stats) {
		s.InFlight--
		s.Requests++
		if err != nil {
			s.Failures++
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finished, l.stamps = r.sequence, stamps
	if l.phase == inFlight {
		l.end(err)
	} else {
		l.phase = idle
	}
	l.ended.Broadcast()
}

// end records how the request in flight ended and announces it if it is parked.
func (l *lane) end(err error) {
	l.phase, l.failure = idle, err
	if err == nil {
		store(&l.record.done, l.sequence)
	} else {
		store(&l.record.failed, l.sequence)
	}
	if l.parked {
		l.parked = false
		l.announce()
	}
}

func (l *lane) announce() {
	code := backend.OK
	if failed, ok := l.failure.(*backend.Error); ok {
		code = failed.Status
	}
	l.engine.announce(backend.Completion{Token: l.running.token, Sequence: l.sequence, Status: code})
}

func (l *lane) Poll(sequence uint32) (int32, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.mu.Unlock()
	switch {
	case sequence != l.sequence:
		return 0, status(streaminfer.StatusInvalidArgument, "the last request is %d, not %d", l.sequence, sequence)
	case l.parked:
		return backend.Parked, nil
	case l.phase == inFlight:
		return backend.Pending, nil
	}
	return backend.OK, l.failure
}

func (l *lane) Wait(sequence uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for sequence == l.sequence && l.phase == inFlight && !l.freed {
		l.ended.Wait()
	}
}

func (l *lane) Park(sequence uint32) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if sequence != l.sequence || l.parked {
		return status(streaminfer.StatusWrongState, "request %d cannot be parked", sequence)
	}
	if l.phase == inFlight {
		l.parked = true
	} else {
		l.announce()
	}
	return nil
}

func (l *lane) Unpark(sequence uint32) (int32, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.mu.Unlock()
	if sequence != l.sequence || !l.parked {
		return backend.TooLate, nil
	}
	l.parked = false
	return backend.OK, nil
}

func (l *lane) Cancel(sequence uint32) (int32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.freed {
		return 0, status(streaminfer.StatusStaleHandle, "the context is freed")
	}
	if l.phase != inFlight || sequence != l.sequence {
		return backend.TooLate, nil
	}
	l.end(status(streaminfer.StatusCancelled, "the request was cancelled"))
	l.phase = draining
	l.ended.Broadcast()
	return backend.OK, nil
}

func (l *lane) Drained() (bool, error) {
	if err := l.enter(); err != nil {
		return false, err
	}
	defer l.mu.Unlock()
	return l.phase != draining, nil
}

func (l *lane) Timings() (backend.Stamps, error) {
	if err := l.enter(); err != nil {
		return backend.Stamps{}, err
	}
	defer l.mu.Unlock()
	if l.sequence == 0 || l.phase != idle {
		return backend.Stamps{}, status(streaminfer.StatusWrongState, "no request has ended")
	}
	return l.stamps, nil
}

// reported gives an error of the model the form of one of the library.
func reported(err error) error {
	code := streaminfer.StatusInternal
	if s, ok := errors.AsType[streaminfer.Status](err); ok {
		code = s
	} else if e, ok := errors.AsType[*streaminfer.Error](err); ok {
		code = e.Status
	}
	return &backend.Error{Status: int32(code), Message: fmt.Sprint(err)}
}

// ownFailure is reported for the end of a request, which never is what only calls are refused with.
func ownFailure(err error) error {
	failed := reported(err).(*backend.Error)
	switch streaminfer.Status(failed.Status) {
	case streaminfer.StatusWrongThread, streaminfer.StatusBusy:
		failed.Status = int32(streaminfer.StatusInternal)
	}
	return failed
}

// event is a mark that can be moved.
type event struct {
	engine   *engine
	recorded bool
	mark     mark
}

func (e *engine) NewEvent() (backend.Event, error) {
	e.count(func(s *backend.Stats) { s.Events++ })
	return &event{engine: e}, nil
}

func (e *event) Record(c backend.Context) error {
	last := c.(*lane).last()
	e.engine.mu.Lock()
	e.recorded, e.mark = true, last
	e.engine.mu.Unlock()
	return nil
}

func (e *event) Wait(c backend.Context) error {
	e.engine.mu.Lock()
	recorded, place := e.recorded, e.mark
	e.engine.mu.Unlock()
	if !recorded {
		return status(streaminfer.StatusNotRecorded, "the event has not been recorded")
	}
	l := c.(*lane)
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	l.waits = append(l.waits, place)
	return nil
}

func (e *event) Free() error {
	e.engine.count(func(s *backend.Stats) { s.Events-- })
	return nil
}
