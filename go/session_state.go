package streaminfer

import (
	"context"
	"runtime"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// enter claims the session for one call.
func (s *Session) enter(op string) error {
	if s.holder != nil && s.holder.Load() == 0 {
		s.misused(trace.Foreign, op, "the session is in its pool")
		return refusal(op, StatusWrongState, "the session is in its pool: nobody holds it")
	}
	if s.state.CompareAndSwap(stateIdle, stateInCall) {
		return nil
	}
	return s.claim(op, stateInCall)
}

// claim is the way from idle to a state of somebody's. Who links to the session is waited for; who is in a call is not.
func (s *Session) claim(op string, state uint32) error {
	for !s.state.CompareAndSwap(stateIdle, state) {
		switch s.state.Load() {
		case stateIdle:
		case stateBorrowed:
			runtime.Gosched()
		case stateInCall:
			s.misused(trace.Overlap, op, "another goroutine is in a call")
			return refusal(op, StatusBusy, "another goroutine is in a call on this session")
		default:
			return refusal(op, StatusStaleHandle, "the session is closed")
		}
	}
	return nil
}

// borrow claims the session while another one is linked to it.
func (s *Session) borrow(op string) error {
	if s.holder != nil && s.holder.Load() == 0 {
		return refusal(op, StatusWrongState, "the session is in its pool: nobody holds it")
	}
	return s.claim(op, stateBorrowed)
}

// giveBack ends what borrow began.
func (s *Session) giveBack() { s.leaveFrom(stateBorrowed) }

// cutOff is the refusal to enter a call that learns how a request ended. One that was in flight when Close came may
// have run. Nobody writes inFlight once the session is closed.
func (s *Session) cutOff(refused error) error {
	if failed, ok := refused.(*Error); ok && s.state.Load() == stateClosed && s.inFlight {
		failed.Executed = ExecutedMaybe
	}
	return refused
}

// leave ends the call; if Close came meanwhile, it does what Close would have done.
func (s *Session) leave() { s.leaveFrom(stateInCall) }

func (s *Session) leaveFrom(state uint32) {
	if !s.state.CompareAndSwap(state, stateIdle) {
		s.state.Store(stateClosed)
		_ = s.free()
	}
}

// isClosed says that Close has been called.
func (s *Session) isClosed() bool { return s.state.Load() >= stateClosing }

// Cancel gives up the request in flight, if there is one: a goroutine in Run or Wait returns with StatusCancelled, and
// the session is draining. It may be called from any goroutine.
func (s *Session) Cancel() error {
	sequence := s.sequence.Load()
	if sequence == 0 {
		return nil
	}
	_, err := s.context.Cancel(sequence)
	runtime.KeepAlive(s)
	return failure("cancel", ExecutedNo, err)
}

// Drain waits until the device has finished with a request that was given up, so that the views may be touched again.
// It does nothing if there is none.
func (s *Session) Drain(ctx context.Context) error {
	if err := s.enter("drain"); err != nil {
		return err
	}
	defer s.leave()
	return s.drain(ctx, "drain")
}

// Close frees the session. It may be called from any goroutine at any time: a request in flight is cancelled, a
// goroutine in Run or Wait returns with StatusStaleHandle, and the memory is released when the device has finished
// with it. The views must not be touched any more: see "Misuse" in the package's comment. A session bound to the calling goroutine is unbound first. Closing
// again does nothing.
func (s *Session) Close() error {
	for {
		switch state := s.state.Load(); state {
		case stateIdle:
			if s.state.CompareAndSwap(state, stateClosed) {
				return failure("close", ExecutedNo, s.free())
			}
		case stateInCall, stateBorrowed:
			if s.state.CompareAndSwap(state, stateClosing) {
				close(s.closing)
				if s.block {
					_, _ = s.context.Cancel(s.sequence.Load()) // a thread may be blocked in the library
				}
				return nil
			}
		default:
			return nil
		}
	}
}

func (s *Session) free() error {
	s.traced(trace.Close, nil, s.tracing(), "")
	s.cleanup.Stop()
	s.unbindIfOurs()
	s.model.engine.forget(s.token)
	defer s.model.engine.countWorkers()
	return s.rest().Free()
}

// remains are what is to be freed of a session.
type remains struct {
	context backend.Context
	loans   []*loan
}

func (s *Session) rest() remains { return remains{s.context, s.loans} }

func (r remains) Free() error {
	err := r.context.Free()
	for _, lent := range r.loans {
		lent.letGo()
	}
	return err
}
