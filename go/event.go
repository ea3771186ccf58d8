package streaminfer

import (
	"runtime"
	"sync/atomic"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// Event is a mark on a session's stream that other sessions can wait for on the device, without the host. Any
// goroutine may use it.
type Event struct {
	engine  *Engine
	event   backend.Event
	token   uint64
	closed  atomic.Bool
	cleanup runtime.Cleanup
}

// NewEvent creates an event that has not been recorded.
//
// Errors: StatusLimitReached.
func (e *Engine) NewEvent() (*Event, error) {
	raw, err := e.backend.NewEvent()
	if err != nil {
		return nil, failure("new event", ExecutedNo, err)
	}
	event := &Event{engine: e, event: raw}
	err = adopt(e.registry, event, nil, func(token uint64) {
		event.token = token
		event.cleanup = runtime.AddCleanup(event, forgotten.free, forgotten{e.registry, token, raw})
	})
	if err != nil {
		_ = raw.Free()
		return nil, failure("new event", ExecutedNo, err)
	}
	return event, nil
}

// Record puts the mark behind everything submitted to the session so far. Recording again moves the mark.
func (e *Event) Record(s *Session) error {
	return e.on("record", s, e.event.Record)
}

// Wait lets the session's next request start only when the mark, as last recorded, has been passed.
//
// Errors: StatusNotRecorded.
func (e *Event) Wait(s *Session) error {
	return e.on("wait event", s, e.event.Wait)
}

func (e *Event) on(op string, s *Session, call func(backend.Context) error) error {
	if err := s.enter(op); err != nil {
		return err
	}
	defer s.leave()
	err := call(s.context)
	runtime.KeepAlive(e)
	return failure(op, ExecutedNo, err)
}

// Close frees the event. Waits that were submitted before still hold. Closing again does nothing.
func (e *Event) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	e.cleanup.Stop()
	e.engine.forget(e.token)
	return failure("close", ExecutedNo, e.event.Free())
}
