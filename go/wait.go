package streaminfer

import (
	"context"
	"errors"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// The pauses between two looks at a draining session.
const drainPauseMin, drainPauseMax = 20 * time.Microsecond, time.Millisecond

// wait returns when the request in flight has ended, or gives it up when ctx or the session does.
func (s *Session) wait(ctx context.Context, op string) error {
	at := s.tracing()
	err := s.await(ctx, op)
	if at >= 0 {
		note := ""
		if err != nil {
			note = err.Error()
		}
		s.traced(trace.Wait, ctx, at, note)
	}
	return err
}

func (s *Session) await(ctx context.Context, op string) error {
	started := backend.Now()
	if s.block && s.bound {
		if err := s.blockThread(ctx, op); err != nil {
			return err
		}
		if ended, err := s.poll(op); ended || err != nil {
			return err
		}
	}
	for {
		if !s.spin(ctx, started) {
			if err := s.park(ctx, op); err != nil {
				return err
			}
		}
		ended, err := s.poll(op)
		if ended {
			s.typical += (backend.Now() - started - s.typical) / 8
		}
		if ended || err != nil {
			return err
		}
	}
}

// blockThread waits in the library. It returns an error if the request was given up here.
func (s *Session) blockThread(ctx context.Context, op string) error {
	sequence := s.sequence.Load()
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { _, _ = s.context.Cancel(sequence) })
		defer stop()
	}
	if s.state.Load() != stateClosing { // else Close came before there was anything to cancel
		s.context.Wait(sequence)
	}
	closing := s.state.Load() == stateClosing
	if ctx.Err() == nil && !closing {
		return nil
	}
	_, _ = s.context.Cancel(sequence)
	if _, err := s.context.Poll(sequence); !errors.Is(failure(op, ExecutedMaybe, err), StatusCancelled) {
		return nil // it has ended by itself after all: poll tells how
	}
	s.inFlight, s.draining = false, true
	if closing {
		return closedMeanwhile(op)
	}
	return givenUp(op, ExecutedMaybe, ctx)
}

// park sleeps until the reaper delivers the request's completion. It returns an error if the request was given up here.
func (s *Session) park(ctx context.Context, op string) error {
	refused := s.context.Park(s.sequence.Load())
	err := failure(op, ExecutedMaybe, refused)
	if errors.Is(err, StatusWrongState) || errors.Is(err, StatusDraining) {
		return nil // ended, or cancelled from elsewhere, since the last look: poll tells
	}
	if err != nil {
		if !isRefusedCall(refused) {
			s.inFlight, s.draining = false, true
		}
		return s.failed(op, ExecutedMaybe, refused)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return s.giveUp(op, givenUp(op, ExecutedMaybe, ctx))
	case <-s.closing:
		return s.giveUp(op, closedMeanwhile(op))
	case <-s.model.engine.stopped:
		return s.giveUp(op, closedMeanwhile(op))
	}
}

func closedMeanwhile(op string) error {
	return &Error{Op: op, Status: StatusStaleHandle, Message: "the session was closed during the call",
		Executed: ExecutedMaybe}
}

// giveUp cancels the parked request and returns why, unless it has ended after all (nil).
func (s *Session) giveUp(op string, why error) error {
	status, err := s.context.Unpark(s.sequence.Load())
	if status == backend.TooLate || errors.Is(failure(op, ExecutedMaybe, err), StatusWrongState) {
		// A completion is on its way, or with the reaper already. Take it, so that the next request does not find it.
		select {
		case <-s.done:
			return nil
		case <-s.model.engine.stopped:
		}
	}
	status, err = s.context.Cancel(s.sequence.Load())
	if err == nil && status == backend.TooLate {
		return nil
	}
	s.inFlight, s.draining = false, true
	return why
}

// drainFirst is drain for a request that is to be started afterwards.
func (s *Session) drainFirst(ctx context.Context, op string) error {
	err := s.drain(ctx, op)
	if errors.Is(err, StatusTimeout) {
		return notStarted(op, ctx)
	}
	return err
}

// drain waits for the device to finish a request that was given up, if there is one.
func (s *Session) drain(ctx context.Context, op string) error {
	if settled, err := s.settled(op); settled || err != nil {
		return err
	}
	timer := time.NewTimer(drainPauseMin)
	defer timer.Stop()
	for pause := drainPauseMin; ; pause = min(2*pause, drainPauseMax) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return givenUp(op, ExecutedNo, ctx)
		case <-s.closing:
			return closedMeanwhile(op)
		}
		if settled, err := s.settled(op); settled || err != nil {
			return err
		}
		timer.Reset(pause)
	}
}

// settled reports whether the memory of the session is the host's.
func (s *Session) settled(op string) (bool, error) {
	if !s.draining {
		return true, nil
	}
	drained, err := s.context.Drained()
	if isRefusedCall(err) {
		return false, s.failed(op, ExecutedNo, err)
	}
	if s.draining = !drained; drained {
		s.shadow.end()
	}
	return drained, failure(op, ExecutedNo, err)
}
