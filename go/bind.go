package streaminfer

import (
	"runtime"

	"github.com/streaminfer/streaminfer/go/trace"
)

// Bind ties the session to the calling goroutine, and that goroutine to its thread (runtime.LockOSThread), until
// Unbind or Close. On a GPU it makes the device's context current on the thread once instead of on every call. Calls
// from other goroutines, Cancel and Close excepted, then get StatusWrongThread. Several sessions may be bound to one
// goroutine; binding one twice is an error.
//
// A goroutine that ends while bound takes its thread with it, which releases the session: it can be bound again. Only
// the process's first thread never ends; a session left bound to it has to be closed.
//
// Errors: StatusWrongState if it is bound to this goroutine, StatusWrongThread if to another, StatusInFlight.
func (s *Session) Bind() error {
	if err := s.enter("bind"); err != nil {
		return err
	}
	defer s.leave()
	if s.inFlight {
		return refusal("bind", StatusInFlight, "the session's last request has not been waited for")
	}
	runtime.LockOSThread()
	if err := s.context.Bind(); err != nil {
		runtime.UnlockOSThread()
		return failure("bind", ExecutedNo, err)
	}
	s.bound = true
	s.traced(trace.Bind, nil, s.tracing(), "")
	return nil
}

// Unbind undoes Bind. It must be called by the goroutine that is bound.
//
// Errors: StatusWrongState if the session is not bound or is that of a [Bound], StatusWrongThread if it is bound to another goroutine.
func (s *Session) Unbind() error {
	if err := s.enter("unbind"); err != nil {
		return err
	}
	defer s.leave()
	if !s.bound {
		return refusal("unbind", StatusWrongState, "the session is not bound")
	}
	if s.workers {
		return refusal("unbind", StatusWrongState, "the session is a worker's, whose thread it keeps")
	}
	return s.unbind()
}

func (s *Session) unbind() error {
	if err := s.context.Unbind(); err != nil {
		return failure("unbind", ExecutedNo, err)
	}
	s.bound = false
	s.traced(trace.Unbind, nil, s.tracing(), "")
	runtime.UnlockOSThread()
	return nil
}

// unbindIfOurs unbinds a session that is being freed by its bound goroutine, so that the thread is unlocked too.
func (s *Session) unbindIfOurs() {
	if s.bound {
		// Freed by another goroutine the answer is StatusWrongThread: the bound thread stays locked until its
		// goroutine ends, and freeing works all the same.
		_ = s.unbind()
	}
}
