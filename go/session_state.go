package streaminfer

import (
	"context"
	"runtime"

	"github.com/streaminfer/streaminfer/go/trace"
)

func (s *Session) enter(op string) error {
	if s.holder != nil && s.holder.Load() == 0 {
		s.misused(trace.Foreign, op, "the session is in its pool")
		return refusal(op, StatusWrongState, "the session is in its pool: nobody holds it")
	}
	if s.state.CompareAndSwap(stateIdle, stateInCall) {
		return nil
	}
	if s.state.Load() == stateInCall {
		s.misused(trace.Overlap, op, "another goroutine is in a call")
		return refusal(op, StatusBusy, "another goroutine is in a call on this session")
	}
	return refusal(op, StatusStaleHandle, "the session is closed")
}

func (s *Session) cutOff(refused error) error {
	if failed, ok := refused.(*Error); ok && s.state.Load() == stateClosed && s.inFlight {
		failed.Executed = ExecutedMaybe
	}
	return refused
}

func (s *Session) leave() {
	if !s.state.CompareAndSwap(stateInCall, stateIdle) {
		s.state.Store(stateClosed)
		_ = s.free()
	}
}

func (s *Session) Cancel() error {
	sequence := s.sequence.Load()
	if sequence == 0 {
		return nil
	}
	_, err := s.context.Cancel(sequence)
	runtime.KeepAlive(s)
	return failure("cancel", ExecutedNo, err)
}

func (s *Session) Drain(ctx context.Context) error {
	if err := s.enter("drain"); err != nil {
		return err
	}
	defer s.leave()
	return s.drain(ctx, "drain")
}

func (s *Session) Close() error {
	for {
		switch state := s.state.Load(); state {
		case stateIdle:
			if s.state.CompareAndSwap(state, stateClosed) {
				return failure("close", ExecutedNo, s.free())
			}
		case stateInCall:
			if s.state.CompareAndSwap(state, stateClosing) {
				close(s.closing)
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
	return s.context.Free()
}
