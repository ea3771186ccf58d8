package streaminfer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// ErrUnsupported is what Open returns where the shared library cannot be used: without cgo, or on another platform
// than linux/amd64.
var ErrUnsupported = fmt.Errorf("streaminfer: the library needs linux/amd64 and cgo; package fake works without: %w",
	errors.ErrUnsupported)

// The refusals of a [Pool] or a [Batcher], as targets for errors.Is. A request that was refused has not run: repeating it is safe.
const (
	// ErrDeadline: the request cannot end by its deadline, or has not been started by then. One that was on the device when its deadline
	// passed is StatusTimeout instead, and may have run. Errors of both kinds match context.DeadlineExceeded, too.
	ErrDeadline = StatusExpired
	// ErrNoBucket: nobody prepared the request's shapes.
	ErrNoBucket = StatusNoBucket
)

var (
	// ErrQueueFull: as many requests wait as may. An error that matches it matches StatusAgain, too.
	ErrQueueFull = errors.New("streaminfer: the queue is full")
	// ErrPoolClosed: the pool, its engine or its model is closed, or it drains. An error that matches it matches StatusStaleHandle, too. A closed [Batcher] gives
	// StatusStaleHandle alone.
	ErrPoolClosed = errors.New("streaminfer: the pool is closed")

	errPoolEnded = &Error{Op: "pool", Status: StatusStaleHandle, Message: "the engine or the model is closed", cause: ErrPoolClosed}

	errPoolClosed = &Error{Op: "pool", Status: StatusStaleHandle, Message: "the pool is closed or drains", cause: ErrPoolClosed}
)

// LibraryError says that no usable shared library was found, and where it was looked for.
type LibraryError struct {
	// Tried lists every path, in order.
	Tried []LibraryAttempt
}

// LibraryAttempt is one path that was tried and why it was not taken.
type LibraryAttempt struct {
	Path, Reason string
}

// Error lists every path that was tried, with the reason.
func (e *LibraryError) Error() string {
	var text strings.Builder
	text.WriteString("streaminfer: no usable " + backend.LibraryName + "; tried")
	for _, attempt := range e.Tried {
		fmt.Fprintf(&text, "\n\t%s: %s", attempt.Path, attempt.Reason)
	}
	text.WriteString("\n\tset STREAMINFER_LIBRARY to the library's path")
	return text.String()
}

// Executed says whether a request that failed may have run.
type Executed uint8

const (
	// ExecutedNo means that the request did not start: repeating it is safe.
	ExecutedNo Executed = iota
	// ExecutedMaybe means that the request was started, and its links and device-resident state may have changed.
	ExecutedMaybe
)

// String returns "no" or "maybe".
func (e Executed) String() string {
	if e == ExecutedNo {
		return "no"
	}
	return "maybe"
}

// Error is a failure reported by the library. errors.Is matches it against a [Status].
type Error struct {
	// Op is what was being done: "load", "run", ...
	Op string
	// Status groups failures by what the caller can do about them.
	Status Status
	// Native is the operating system's or driver's own code, 0 if there is none.
	Native int
	// Message is one sentence that names the node, file, argument or symbol at fault.
	Message string
	// Executed says whether the request may have run.
	Executed Executed
	// OnArrival says of ErrDeadline and ErrQueueFull that a [Pool] or a [Batcher] refused the request at once. Otherwise it had waited.
	OnArrival bool

	cause error
}

// Error returns the operation, the message and the status.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("streaminfer: %s: %s", e.Op, e.Status.String())
	}
	return fmt.Sprintf("streaminfer: %s: %s (%s)", e.Op, e.Message, e.Status.String())
}

// Is reports whether target is the error's Status.
func (e *Error) Is(target error) bool {
	status, ok := target.(Status)
	return ok && status == e.Status
}

// Unwrap returns the context's error if its end is what ended the request, before it was started (StatusExpired included)
// or after (StatusTimeout included); [ErrQueueFull] if a [Pool] or a [Batcher] refused it, [ErrPoolClosed] if a Pool did; else nil.
func (e *Error) Unwrap() error { return e.cause }

// ranOut says that a deadline is the cause.
func (e *Error) ranOut() bool { return e.Status == StatusTimeout || e.Status == StatusExpired }

// failure turns a backend's error into ours. Others say all there is to say.
func failure(op string, executed Executed, err error) error {
	if reported, ok := err.(*backend.Error); ok {
		e := &Error{Op: op, Status: Status(reported.Status), Native: int(reported.Native), Message: reported.Message,
			Executed: executed}
		if e.ranOut() {
			e.cause = context.DeadlineExceeded // the only deadline a request has is its context's
		}
		return e
	}
	if missing, ok := err.(*backend.LibraryError); ok {
		tried := make([]LibraryAttempt, len(missing.Tried))
		for i, attempt := range missing.Tried {
			tried[i] = LibraryAttempt(attempt)
		}
		return &LibraryError{Tried: tried}
	}
	return err
}

// refusal is a failure that this package found before anything ran.
func refusal(op string, status Status, format string, args ...any) error {
	return &Error{Op: op, Status: status, Message: fmt.Sprintf(format, args...)}
}

// givenUp is the failure of a request whose context has ended.
func givenUp(op string, executed Executed, ctx context.Context) error {
	cause := ctx.Err()
	status := StatusCancelled
	if errors.Is(cause, context.DeadlineExceeded) {
		status = StatusTimeout
	}
	return &Error{Op: op, Status: status, Message: cause.Error(), Executed: executed, cause: cause}
}

// notStarted is the failure of a request whose context ended before it was started.
func notStarted(op string, ctx context.Context) error {
	err := givenUp(op, ExecutedNo, ctx).(*Error)
	if err.Status == StatusTimeout {
		err.Status = StatusExpired
	}
	return err
}

// late is the refusal of a request that cannot be in time.
func late(op, message string) *Error {
	return &Error{Op: op, Status: StatusExpired, Message: message, cause: context.DeadlineExceeded}
}
