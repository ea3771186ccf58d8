package streaminfer

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// lane is a session of a pool. Who it was handed to owns it until release; in the idle list it is the pool's.
type lane struct {
	pool    *Pool
	session *Session
	// heldBy is the number of the loan while the lane is handed out, byPool while the pool itself is at work on it, else 0.
	heldBy atomic.Uint64
	// again paces repeated submits while the device has no permit left.
	again *time.Timer

	// request is the shapes and values of the inputs that are selected, in memory that is reused, if selected says so.
	request         backend.Bucket
	selected        bool
	inputs, outputs []backend.View

	// What follows is written with the pool's lock: bucket and service time expected of the request that holds the lane,
	// since when, whether it is to find out what the service time is now, and a session that replaces the present one when it is given back.
	since, expected time.Duration
	isProbe         bool
	bucket          *poolBucket
	next            *Session
	swapped         func()

	moments moments
}

// byPool is no loan: the pool drains the session.
const byPool = ^uint64(0)

// moments of one request, by the clock of backend.Now.
type moments struct {
	arrived, acquired, copied, woke, ended time.Duration
	device                                 backend.Stamps
}

func newLane(p *Pool) (*lane, error) {
	l := &lane{pool: p, again: time.NewTimer(time.Hour)}
	l.again.Stop()
	s, err := p.model.newSession(p.options.Session, trace.CreatePooled, &l.heldBy)
	if err != nil {
		return nil, err
	}
	l.adopt(s)
	return l, nil
}

// adopt makes s, which was made for the lane, its session.
func (l *lane) adopt(s *Session) {
	inputs, outputs := len(s.model.inputs), len(s.model.outputs)
	l.session, l.selected = s, false
	l.request = backend.Bucket{Shapes: make([][]int64, inputs), Values: make([][]int64, inputs)}
	l.inputs, l.outputs = make([]backend.View, inputs), make([]backend.View, outputs)
}

func (l *lane) close() error {
	l.pool.mu.Lock()
	s, next := l.session, l.next
	l.next = nil
	l.pool.mu.Unlock()
	if next != nil {
		_ = next.Close()
	}
	return s.Close()
}

// infer is one request, from copy to copy.
func (l *lane) infer(ctx context.Context, in, out []Tensor) error {
	const op = "infer"
	s := l.session
	if err := s.enter(op); err != nil {
		return err
	}
	defer s.leave()
	if err := s.drainFirst(ctx, op); err != nil {
		return err
	}
	if err := l.choose(op, in); err != nil {
		return err
	}
	if err := l.checkRoom(op, out); err != nil {
		return err
	}
	for i := range l.inputs {
		copyIn(&l.inputs[i], find(in, i, s.model.inputs[i].Name).Data)
	}
	l.moments.copied = backend.Now()
	if err := l.submit(ctx, op); err != nil {
		return err
	}
	if err := s.wait(ctx, op); err != nil {
		s.abandon()
		_, _ = s.settled(op) // nearly always the device is done with a request that failed by itself
		return err
	}
	l.moments.woke = backend.Now()
	if stamps, err := s.context.Timings(); err == nil {
		l.moments.device = stamps
	}
	if err := l.read(op, out); err != nil {
		return err
	}
	l.moments.ended = backend.Now()
	return nil
}

// choose selects the shapes of in, unless they are selected already, and looks where the tensors lie.
func (l *lane) choose(op string, in []Tensor) error {
	s := l.session
	if s.model.describe(&l.request, in) && l.selected {
		return nil
	}
	l.selected = false
	if err := s.context.Shape(l.request); err != nil {
		return failure(op, ExecutedNo, err)
	}
	for i := range l.inputs {
		if err := s.context.Input(i, &l.inputs[i]); err != nil {
			return failure(op, ExecutedNo, err)
		}
	}
	for i := range l.outputs {
		if err := s.context.Output(i, &l.outputs[i]); err != nil {
			return failure(op, ExecutedNo, err)
		}
	}
	l.selected = true
	return nil
}

// describe writes the shapes of in, and the values of shape inputs, into the memory of a bucket that is reused. It reports
// whether they were there already.
func (m *Model) describe(request *backend.Bucket, in []Tensor) (same bool) {
	same = true
	for i := range m.inputs {
		info := &m.inputs[i]
		t := find(in, i, info.Name)
		shape := t.Shape
		if shape == nil {
			shape = info.Shape
		}
		if !same || !slices.Equal(request.Shapes[i], shape) {
			same = false
			request.Shapes[i] = append(request.Shapes[i][:0], shape...)
		}
		if !info.ShapeInput {
			continue
		}
		count := len(t.Data) / max(t.DType.Size(), 1)
		same = same && len(request.Values[i]) == count
		request.Values[i] = slices.Grow(request.Values[i][:0], count)[:count]
		for k := range count {
			value := element(t, k)
			same = same && request.Values[i][k] == value
			request.Values[i][k] = value
		}
	}
	return same
}

// checkRoom finds outputs that do not fit before anything runs.
func (l *lane) checkRoom(op string, out []Tensor) error {
	for i := range l.outputs {
		name, view := l.session.model.outputs[i].Name, &l.outputs[i]
		t := find(out, i, name)
		if t == nil {
			continue
		}
		if t.DType != DType(view.DType) {
			return refusal(op, StatusShapeMismatch, "output %q holds %v, not %v", name, DType(view.DType), t.DType)
		}
		if need := elementCount(view.Shape) * int64(t.DType.Size()); int64(cap(t.Data)) < need {
			return refusal(op, StatusShapeMismatch, "output %q has %d bytes, there is room for %d", name, need, cap(t.Data))
		}
	}
	return nil
}

// submit starts the request. While the device has no permit left, because others use it too, it tries again.
func (l *lane) submit(ctx context.Context, op string) error {
	for pause := againPauseMin; ; pause = min(2*pause, againPauseMax) {
		err := l.session.submit(ctx, op)
		if err == nil || !errors.Is(err, StatusAgain) {
			return err
		}
		l.again.Reset(pause)
		select {
		case <-l.again.C:
		case <-ctx.Done():
			l.again.Stop()
			return notStarted(op, ctx)
		case <-l.session.closing:
			l.again.Stop()
			return &Error{Op: op, Status: StatusStaleHandle, Message: "the session was closed during the call"}
		}
	}
}

// read copies the outputs that out names.
func (l *lane) read(op string, out []Tensor) error {
	for i := range l.outputs {
		name, view := l.session.model.outputs[i].Name, &l.outputs[i]
		t := find(out, i, name)
		if t == nil {
			continue
		}
		// Where an extent depends on data, only now it is known.
		if err := l.session.context.Output(i, view); err != nil {
			return failure(op, ExecutedMaybe, err)
		}
		if err := t.take(op, name, view); err != nil {
			return err
		}
	}
	return nil
}

// take copies an output.
func (t *Tensor) take(op, name string, view *backend.View) error {
	need := int(elementCount(view.Shape)) * t.DType.Size()
	if cap(t.Data) < need || t.DType != DType(view.DType) {
		return &Error{Op: op, Status: StatusShapeMismatch, Message: "the output " + name + " does not fit", Executed: ExecutedMaybe}
	}
	t.Data = t.Data[:need]
	t.Shape = append(t.Shape[:0], view.Shape...)
	copyOut(t.Data, view)
	return nil
}

// tidy makes a session that was lent ready for the next user: called by the goroutine that it was lent to.
func (s *Session) tidy() {
	if s.enter("tidy") != nil {
		return // closed, or still in use by another goroutine: then the next user finds it busy
	}
	defer s.leave()
	if s.bound && s.unbind() != nil {
		s.poisoned = true // bound by a goroutine that has it still
	}
	s.abandon()
}

// abandon leaves nothing in flight. If the library does not let this goroutine do so, the session can serve no more.
func (s *Session) abandon() {
	if s.inFlight {
		if _, err := s.context.Cancel(s.sequence.Load()); err == nil {
			if ended, _ := s.poll("tidy"); !ended {
				s.poisoned = true
			}
		}
		s.inFlight, s.draining = false, true
	}
}
