package streaminfer

import (
	"slices"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// poolBucket is a bucket as a pool knows it.
type poolBucket struct {
	backend.Bucket
	volume int64

	// With the pool's lock: a moving average of the service time, 0 before the first request, and how often it was taken.
	service time.Duration
	served  uint64
	// told is when requests last had something to say about it: one ended in time or timed out, or was let through to find out.
	told time.Duration
}

// doubtAfter is for how long an estimate counts that keeps a free session idle, at least.
const doubtAfter = 100 * time.Millisecond

// isDoubtful says that nobody has confirmed the estimate for so long that a request may find out what is true now: for longer than its
// own time, so that requests that will be late after all take half of a session's time at most.
func (b *poolBucket) isDoubtful(now, deadline time.Duration) bool {
	return now-b.told >= max(doubtAfter, deadline-now)
}

// observe takes one more service time into account.
func (b *poolBucket) observe(took time.Duration) {
	b.served++
	switch {
	case b.service == 0:
		b.service = took
	case took > 4*b.service: // an outlier says little, but repeated it is the truth
		b.service += b.service / 4
	default:
		b.service += (took - b.service) / 8
	}
}

// lengthen takes into account that a request timed out after so long: how long it would have taken nobody knows. One such
// request may be bad luck; when all do, a few are enough.
func (b *poolBucket) lengthen(took time.Duration) {
	if took > b.service {
		b.service = min(2*took, b.service*3/2+took/32)
	}
}

// forget lets an estimate of a batcher that keeps everything out shrink until a request is let through, whose time then is the truth.
func (b *poolBucket) forget() { b.service -= b.service / 64 }

// admit refuses what the pool does not take; over is by how much the request, or one that waits, would be late. A request that is let
// through although it would be is a probe: a session is free, and the estimate that says so is old. Otherwise one bad spell would keep an
// idle pool idle. It is called with the lock.
func (p *Pool) admit(bucket *poolBucket, now, deadline time.Duration) (isProbe bool, over time.Duration, refused error) {
	if p.refusing != nil {
		p.stats.RefusedClosed++
		return false, 0, p.refusing
	}
	free := p.busy < p.options.Sessions && len(p.idle) > 0
	if deadline > 0 && p.options.Admission == AdmitFeasible && bucket.service > 0 {
		if over := p.lateness(bucket, now, deadline, free); over > 0 {
			if free && bucket.isDoubtful(now, deadline) {
				bucket.told = now
				return true, 0, nil
			}
			p.stats.RefusedDeadline++
			return false, over, ErrDeadline
		}
	}
	if !free && len(p.queue) >= p.options.QueueMax {
		p.stats.RefusedFull++
		return false, 0, ErrQueueFull
	}
	return false, 0, nil
}

// lateness is by how much a request would miss its deadline, or make one miss it that waits, if service times are what
// they were; 0 if all are in time.
func (p *Pool) lateness(bucket *poolBucket, now, deadline time.Duration, free bool) time.Duration {
	if free {
		return max(now+bucket.service-deadline, 0)
	}
	// From the first lane that is free on, what is due earlier shares the lanes, and delays what is due later.
	at := now + p.firstFree(now)
	lanes := time.Duration(p.options.Sessions)
	own := bucket.service / lanes
	ours := false
	for i := len(p.queue) - 1; i >= 0; i-- {
		w := p.queue[i]
		if !ours && w.due > deadline {
			if over := p.over(bucket, at, deadline); over > 0 {
				return over
			}
			ours = true
		}
		end := at + w.bucket.service
		if ours && w.deadline > 0 && end <= w.deadline && end+own > w.deadline {
			return end + own - w.deadline
		}
		at += w.bucket.service / lanes
	}
	if ours {
		return 0
	}
	return p.over(bucket, at, deadline)
}

// over is by how much a request that has to wait until the given time would miss its deadline. Under overload every request
// that is let in is just in time, so estimates that err a little would let in many that turn out to be late: hence a
// margin of half a service time. It costs nothing: the queue is a little shorter.
func (p *Pool) over(bucket *poolBucket, at, deadline time.Duration) time.Duration {
	return max(at+bucket.service*3/2-deadline, 0)
}

// firstFree is how long it will take until a lane is free.
func (p *Pool) firstFree(now time.Duration) time.Duration {
	first := time.Duration(-1)
	for _, l := range p.lanes {
		if by := l.heldBy.Load(); by != 0 && by != byPool {
			if left := max(l.since+l.expected-now, 0); first < 0 || left < first {
				first = left
			}
		}
	}
	return max(first, 0)
}

// bucketOf checks the tensors of a request and returns the smallest bucket that it fits.
func (p *Pool) bucketOf(in, out []Tensor) (*poolBucket, error) {
	const op = "infer"
	if err := p.model.checkTensors(op, in, out); err != nil {
		return nil, err
	}
	var best *poolBucket
	for _, b := range *p.buckets.Load() {
		if (best == nil || b.volume < best.volume) && p.model.fits(in, b) {
			best = b
		}
	}
	if best == nil {
		return nil, p.noBucket(op, in)
	}
	return best, nil
}

// checkTensors finds tensors that are not the model's.
func (m *Model) checkTensors(op string, in, out []Tensor) error {
	inputs, outputs := m.inputs, m.outputs
	for i := range inputs {
		t := find(in, i, inputs[i].Name)
		if t == nil {
			return refusal(op, StatusInvalidArgument, "the input %q is missing", inputs[i].Name)
		}
		if t.DType != inputs[i].DType {
			return refusal(op, StatusShapeMismatch, "input %q holds %v, not %v", inputs[i].Name, inputs[i].DType, t.DType)
		}
		shape := t.Shape
		if shape == nil {
			shape = inputs[i].Shape
		}
		if len(shape) > rankMax || elementCount(shape)*int64(t.DType.Size()) != int64(len(t.Data)) {
			return refusal(op, StatusShapeMismatch, "input %q has %d bytes, which is not the shape %v", inputs[i].Name,
				len(t.Data), slices.Clone(shape))
		}
	}
	if err := checkNames(op, "input", inputs, in); err != nil {
		return err
	}
	if err := checkNames(op, "output", outputs, out); err != nil {
		return err
	}
	for i := range outputs {
		if t := find(out, i, outputs[i].Name); t != nil && t.DType != outputs[i].DType {
			return refusal(op, StatusShapeMismatch, "output %q holds %v, not %v", outputs[i].Name, outputs[i].DType, t.DType)
		}
	}
	return nil
}

// checkNames finds tensors that are not the model's, and such as would be left out because another one is taken.
func checkNames(op, kind string, infos []TensorInfo, tensors []Tensor) error {
	for i := range tensors {
		index := i
		if tensors[i].Name != "" || i >= len(infos) {
			var err error
			if index, err = indexOf(op, infos, kind, tensors[i].Name); err != nil {
				return err
			}
		}
		if find(tensors, index, infos[index].Name) != &tensors[i] {
			return refusal(op, StatusInvalidArgument, "the %s %q is given twice: tensors without a name are those of their position",
				kind, infos[index].Name)
		}
	}
	return nil
}

// fits reports whether a request can be served with a bucket.
func (m *Model) fits(in []Tensor, b *poolBucket) bool {
	for i := range m.inputs {
		info := &m.inputs[i]
		t := find(in, i, info.Name)
		if t.Shape != nil {
			if len(t.Shape) != len(b.Shapes[i]) {
				return false
			}
			for axis, extent := range t.Shape {
				if most := b.Shapes[i][axis]; extent != most && (extent > most || !m.paddable(i, axis)) {
					return false
				}
			}
		}
		if info.ShapeInput {
			if len(b.Values[i]) != len(t.Data)/max(t.DType.Size(), 1) {
				return false
			}
			for k, value := range b.Values[i] {
				if element(t, k) != value {
					return false
				}
			}
		}
	}
	return true
}

func (m *Model) paddable(input, axis int) bool {
	for _, p := range m.padded {
		if p.Input == input && p.Axis == axis {
			return true
		}
	}
	return false
}
