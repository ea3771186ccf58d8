package streaminfer

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// A deadline that no clock shows is later than all others, not the first of them.
func TestDeadlinesThatAreTooFarOff(t *testing.T) {
	now := backend.Now()
	var places []time.Duration
	for _, timeout := range []time.Duration{time.Hour, math.MaxInt64 - 1, math.MaxInt64} {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		var late ticket
		if late.placed(ctx); late.due != late.deadline {
			t.Errorf("due at %v, not %v", late.due, late.deadline)
		}
		places = append(places, late.deadline)
	}
	if places[0] < now || places[0] > now+2*time.Hour || places[1] <= places[0] || places[2] < places[1] {
		t.Errorf("now %v, due at %v", now, places)
	}
}

// Rows that are given back between a request's attempt and its place in the queue are not missed: nobody would wake it.
func TestRowsGivenBackMeanwhileAreNotMissed(t *testing.T) {
	b := &Batcher{options: BatcherOptions{QueueMax: 2}}
	tickets := [3]*ticket{}
	for i := range tickets {
		tickets[i] = &ticket{batcher: b, place: place{number: uint64(i)}, turn: make(chan struct{}, 1)}
	}
	vacated, isFirst, _ := b.look(tickets[0])
	b.vacate(&ticket{}, nil)
	if queued, _, err := b.enqueue(tickets[0], vacated, isFirst); queued || err != nil || !isFirst {
		t.Errorf("queued %v, %v", queued, err)
	}
	vacated, isFirst, _ = b.look(tickets[0])
	if queued, _, err := b.enqueue(tickets[0], vacated, isFirst); !queued || err != nil {
		t.Errorf("not queued, %v", err)
	}
	// Who is not the first is woken by the first, whatever has been given back.
	vacated, isFirst, _ = b.look(tickets[1])
	b.vacate(&ticket{}, nil)
	if queued, _, err := b.enqueue(tickets[1], vacated, isFirst); !queued || err != nil || isFirst {
		t.Errorf("queued %v, %v", queued, err)
	}
	if queued, _, err := b.enqueue(tickets[2], b.vacated, false); queued || err == nil {
		t.Error("one more than may wait is queued")
	}
	for i, turns := range []int{1, 0} {
		if len(tickets[i].turn) != turns {
			t.Errorf("%d turns for ticket %d", len(tickets[i].turn), i)
		}
	}
	// The first leaves between another's look and its place in the queue: that one has never tried, and is to.
	b.options.QueueMax = 3
	b.leaveQueue(tickets[0], false)
	if len(tickets[0].turn) != 0 || len(tickets[1].turn) != 1 {
		t.Error("the turn has not passed on")
	}
	vacated, isFirst, _ = b.look(tickets[2])
	b.leaveQueue(tickets[1], false)
	if queued, _, err := b.enqueue(tickets[2], vacated, isFirst); queued || err != nil || isFirst {
		t.Errorf("queued %v, %v", queued, err)
	}
	vacated, isFirst, _ = b.look(tickets[2])
	if queued, _, err := b.enqueue(tickets[2], vacated, isFirst); !queued || err != nil || !isFirst {
		t.Errorf("queued %v, %v", queued, err)
	}
}

// overtaken is a ticket whose batch closes so many times before it is committed.
type overtaken struct {
	backend.Ticket
	times, reserved, abandoned int
}

func (o *overtaken) Reserve(backend.Bucket, time.Duration) error { o.reserved++; return nil }
func (o *overtaken) Abandon() error                              { o.abandoned++; return nil }

func (o *overtaken) Commit(uint64) error {
	if o.times--; o.times >= 0 {
		return &backend.Error{Status: int32(StatusExpired), Message: "its batch has closed without it"}
	}
	return nil
}

// Who is overtaken without having a deadline tries again, and is not told of a deadline if that does not help.
func TestWhoIsOvertakenTriesAgain(t *testing.T) {
	for _, times := range []int{0, 20, 1 << 20} {
		b := &Batcher{model: &Model{}, closing: make(chan struct{})}
		raw := &overtaken{times: times}
		slow := &ticket{batcher: b, ticket: raw, turn: make(chan struct{}, 1)}
		err := slow.start(context.Background(), "infer", nil)
		if times < commitsMax {
			if err != nil || raw.reserved != times+1 || raw.abandoned != times || !slow.committed {
				t.Errorf("overtaken %d times: %v, %+v", times, err, raw)
			}
			continue
		}
		failed, ok := errors.AsType[*Error](err)
		if !ok || failed.Status != StatusAgain || failed.OnArrival || failed.Executed != ExecutedNo ||
			raw.reserved != commitsMax || raw.abandoned != commitsMax ||
			errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrDeadline) || errors.Is(err, ErrQueueFull) || slow.committed {
			t.Errorf("always overtaken: %v, %+v", err, raw)
		}
		close(b.closing)
		if err := slow.start(context.Background(), "infer", nil); !errors.Is(err, StatusStaleHandle) || raw.reserved != commitsMax {
			t.Errorf("overtaken in a batcher that is closed: %v", err)
		}
	}
}

// lateTicket cannot be in time from its second reservation on, after a batch that closed without it, or from the first on.
type lateTicket struct {
	overtaken
	first bool
}

func (l *lateTicket) Reserve(backend.Bucket, time.Duration) error {
	if l.first || l.reserved > 0 {
		return &backend.Error{Status: int32(StatusExpired), Message: "the deadline cannot be met"}
	}
	return l.overtaken.Reserve(backend.Bucket{}, 0)
}

// A request is refused on arrival unless it has waited in a batch before.
func TestRefusalsOnArrivalAreSaidToBe(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for _, first := range []bool{true, false} {
		b := &Batcher{model: &Model{}, closing: make(chan struct{})}
		raw := &lateTicket{overtaken{times: 1}, first}
		err := (&ticket{batcher: b, ticket: raw, turn: make(chan struct{}, 1)}).start(ctx, "infer", nil)
		failed, ok := errors.AsType[*Error](err)
		if !ok || failed.Status != ErrDeadline || !errors.Is(err, context.DeadlineExceeded) || failed.OnArrival != first {
			t.Errorf("refused at first: %v: %#v", first, err)
		}
	}
}
