package streaminfer

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// ticket is the memory of one request at a time.
type ticket struct {
	batcher *Batcher
	ticket  backend.Ticket
	token   uint64
	done    chan backend.Completion
	request backend.Bucket
	view    backend.View
	cleanup runtime.Cleanup

	// turn has room for the one that the queue gives; pace is the timer of the first, made when it is needed.
	turn chan struct{}
	pace *time.Timer

	// What follows is of the present request: its place, its kind, and the weight of its rows; when it left the queue for a batch, 0 if
	// it has not waited; whether it has been let in to the queue or a batch, is committed to a batch, and has been taken out of the
	// queue, with its lock, because it is too late; its moments, and its batch if that has run.
	place
	kind                          *kind
	weight                        int64
	left                          time.Duration
	entered, committed, isTooLate bool
	moments                       moments
	batch                         backend.BatchStamps
}

// commitsMax is how often a request is written whose batch closes before it is: goroutines are not always scheduled at once. So many
// are not had by chance: the inputs take longer to copy than the batches wait.
const commitsMax = 64

// run takes a request through a batch.
func (t *ticket) run(ctx context.Context, op string, in, out []Tensor) error {
	t.batcher.model.describe(&t.request, in)
	if t.kind, t.weight = t.batcher.kindOf(in), 1; t.kind != nil {
		t.weight = t.kind.weight * t.batcher.model.rows(t.request)
	}
	t.placed(ctx)
	if err := t.start(ctx, op, in); err != nil {
		return err
	}
	err := t.wait(ctx, op)
	if err == nil {
		t.moments.woke = backend.Now()
		if stamps, err := t.ticket.Timings(); err == nil {
			t.batch, t.moments.acquired, t.moments.device = stamps, stamps.Closed, stamps.Stamps
		}
		err = t.read(op, out)
	}
	released := t.ticket.Release()
	t.batcher.vacate(t, err)
	if err == nil {
		err = failure(op, ExecutedMaybe, released)
	}
	return err
}

// start commits a request to a batch. Whether it can be in time is said when it is reserved, of every attempt anew.
func (t *ticket) start(ctx context.Context, op string, in []Tensor) error {
	for attempt := 1; ; attempt++ {
		err := t.commit(ctx, op, in)
		if err != errOvertaken {
			return err
		}
		if attempt == commitsMax {
			return refusal(op, StatusAgain, "%d batches closed before the request was copied into them: their delay is too short for its inputs",
				commitsMax)
		}
	}
}

// errOvertaken says that a batch has closed before a request was written into its slot. It does not leave start.
var errOvertaken = errors.New("overtaken")

// commit writes a request into a slot of its own.
func (t *ticket) commit(ctx context.Context, op string, in []Tensor) error {
	if err := t.reserve(ctx, op); err != nil {
		return err
	}
	t.entered = true
	err := t.write(in)
	if err == nil {
		t.moments.copied = backend.Now()
		err = t.ticket.Commit(t.token)
	}
	if err == nil {
		t.committed = true
		return nil
	}
	abandoned := t.ticket.Abandon()
	t.batcher.vacate(t, nil)
	if abandoned != nil {
		return failure(op, ExecutedNo, abandoned)
	}
	if err = refused(op, err); errors.Is(err, StatusExpired) {
		return errOvertaken
	}
	return err
}

// write copies the inputs to the slot.
func (t *ticket) write(in []Tensor) error {
	for i := range t.batcher.model.inputs {
		info := &t.batcher.model.inputs[i]
		if info.ShapeInput {
			continue // its values are the slot's already
		}
		if err := t.ticket.Input(i, &t.view); err != nil {
			return err
		}
		copyIn(&t.view, find(in, i, info.Name).Data)
	}
	return nil
}

// refused is the failure of a request that has not run.
func refused(op string, err error) error {
	err = failure(op, ExecutedNo, err)
	if failed, ok := err.(*Error); ok {
		switch failed.Status {
		case StatusAgain:
			failed.cause = ErrQueueFull
		case StatusExpired:
			return late(op, failed.Message)
		}
	}
	return err
}

// wait returns when the request has ended, or has been given up.
func (t *ticket) wait(ctx context.Context, op string) error {
	var why error
	select {
	case completion := <-t.done:
		return told(op, completion)
	case <-ctx.Done():
		why = givenUp(op, ExecutedMaybe, ctx)
	case <-t.batcher.closing:
		why = &Error{Op: op, Status: StatusStaleHandle, Message: "the batcher was closed during the call", Executed: ExecutedMaybe}
	}
	// One that has ended by now counts. Either way its completion comes.
	status, err := t.ticket.Cancel()
	select {
	case completion := <-t.done:
		if err == nil && status == backend.TooLate {
			return told(op, completion)
		}
	case <-t.batcher.model.engine.stopped:
	}
	return why
}

// told is how a request ended.
func told(op string, completion backend.Completion) error {
	switch Status(completion.Status) {
	case Status(backend.OK):
		return nil
	case StatusExpired:
		return late(op, "the batch could not run in time")
	}
	return failure(op, ExecutedMaybe, &backend.Error{Status: completion.Status, Message: "the batch failed"})
}

// read copies the outputs that out names.
func (t *ticket) read(op string, out []Tensor) error {
	for i := range t.batcher.model.outputs {
		name := t.batcher.model.outputs[i].Name
		to := find(out, i, name)
		if to == nil {
			continue
		}
		if err := t.ticket.Output(i, &t.view); err != nil {
			return failure(op, ExecutedMaybe, err)
		}
		if err := to.take(op, name, &t.view); err != nil {
			return err
		}
	}
	return nil
}
