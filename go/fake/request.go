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
	for _, link := range l.links {
		if ran := link.source.ran.Load(); link.source != l && link.source.submitted.Load() != 0 && ran != int64(l.bucket) {
			return 0, status(streaminfer.StatusWrongState, "the linked source ran bucket %d, and bucket %d is selected here", ran, l.bucket)
		}
	}
	if admit := l.model.Admit; admit != nil {
		if err := admit(); err != nil {
			return 0, reported(err)
		}
	}
	if l.sequence++; l.sequence == 0 {
		l.sequence = 1
	}
	l.ran.Store(int64(l.bucket))
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
	l.phase, l.parking, l.failure, l.running = inFlight, nobody, nil, r
	l.work <- r
	l.engine.count(func(s *backend.Stats) { s.InFlight++ })
	return l.sequence, nil
}

// last marks the end of everything submitted so far. It takes no lock: two linked lanes ask each other.
func (l *lane) last() mark { return mark{l, l.submitted.Load()} }

// execute is the lane's goroutine. If the model makes it exit, another takes its place.
func (l *lane) execute() {
	call := &Call{lane: l}
	for r := range l.work {
		for _, m := range r.waits {
			m.wait()
		}
		call.bucket = &l.buckets[r.bucket]
		l.serve(call, r)
	}
	l.detach()
	l.engine.count(func(s *backend.Stats) { s.Threads-- })
}

// serve runs one request to its end.
func (l *lane) serve(call *Call, r request) {
	stamps := backend.Stamps{Submitted: r.submitted, Started: backend.Now()}
	err, exited := errExited, true
	defer func() {
		stamps.Inputs, stamps.Computed = stamps.Started, backend.Now()
		stamps.Done = stamps.Computed
		l.finish(r, err, stamps)
		if exited {
			go l.execute()
		}
	}()
	err = l.compute(call, r)
	exited = false
}

// errExited is how a request fails whose model calls runtime.Goexit, as testing.T's FailNow does.
var errExited = status(streaminfer.StatusPanicked, "the model called runtime.Goexit")

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
	}
	l.ended.Broadcast()
}

// end records how the request in flight ended, and announces it if somebody waits for that. The caller is yet to be told.
func (l *lane) end(err error) {
	l.failure = err
	if err == nil {
		store(&l.record.done, l.sequence)
	} else {
		store(&l.record.failed, l.sequence)
	}
	if l.parking == promised {
		l.announce()
	}
}

func (l *lane) announce() {
	l.parking = queued
	code := backend.OK
	if failed, ok := l.failure.(*backend.Error); ok {
		code = failed.Status
	}
	l.engine.announce(delivery{backend.Completion{Token: l.running.token, Sequence: l.sequence, Status: code}, l})
}

// reaped tells the caller of a completion.
func (l *lane) reaped(sequence uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sequence != l.sequence || l.parking != queued {
		return
	}
	l.parking = nobody
	if l.phase == inFlight {
		l.phase = told
	}
}

// named fails unless a request is the last one.
func (l *lane) named(sequence uint32) error {
	if sequence != l.sequence || sequence == 0 {
		return status(streaminfer.StatusInvalidArgument, "the last request is %d, not %d", l.sequence, sequence)
	}
	return nil
}

func (l *lane) Poll(sequence uint32) (int32, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.mu.Unlock()
	if err := l.named(sequence); err != nil {
		return 0, err
	}
	if l.phase == inFlight {
		switch {
		case l.parking != nobody:
			return backend.Parked, nil
		case !l.hasEnded():
			return backend.Pending, nil
		}
		l.phase = told
	}
	return backend.OK, l.failure
}

func (l *lane) Wait(sequence uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for sequence == l.sequence && l.phase == inFlight && !l.hasEnded() && !l.freed {
		l.ended.Wait()
	}
}

func (l *lane) Park(sequence uint32) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if err := l.named(sequence); err != nil {
		return err
	}
	switch {
	case l.phase == told:
		return status(streaminfer.StatusWrongState, "request %d has ended: there is nothing to park", sequence)
	case l.phase == givenUp:
		return status(streaminfer.StatusDraining, "request %d was given up", sequence)
	case l.parking != nobody:
		return status(streaminfer.StatusWrongState, "request %d is parked already", sequence)
	}
	if l.parking = promised; l.hasEnded() {
		l.announce()
	}
	return nil
}

func (l *lane) Unpark(sequence uint32) (int32, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.mu.Unlock()
	if err := l.named(sequence); err != nil {
		return 0, err
	}
	switch l.parking {
	case promised:
		l.parking = nobody
		return backend.OK, nil
	case queued:
		return backend.TooLate, nil
	}
	return 0, status(streaminfer.StatusWrongState, "request %d is not parked", sequence)
}

func (l *lane) Cancel(sequence uint32) (int32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.freed {
		return 0, status(streaminfer.StatusStaleHandle, "the context is freed")
	}
	if l.phase != inFlight || sequence != l.sequence || l.hasEnded() {
		return backend.TooLate, nil
	}
	l.phase = givenUp
	l.end(status(streaminfer.StatusCancelled, "the request was cancelled"))
	l.ended.Broadcast()
	return backend.OK, nil
}

func (l *lane) Drained() (bool, error) {
	if err := l.enter(); err != nil {
		return false, err
	}
	defer l.mu.Unlock()
	return l.settled() == nil, nil
}

func (l *lane) Timings() (backend.Stamps, error) {
	if err := l.enter(); err != nil {
		return backend.Stamps{}, err
	}
	defer l.mu.Unlock()
	switch {
	case l.sequence == 0:
		return backend.Stamps{}, status(streaminfer.StatusWrongState, "no request has ended yet")
	case l.phase == inFlight || !l.hasEnded() || l.parking == queued:
		return backend.Stamps{}, status(streaminfer.StatusWrongState, "request %d is in flight", l.sequence)
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
