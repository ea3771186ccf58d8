package streaminfer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"weak"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// Prepare plans buckets as AddBucket does and gives them to the model's pools: it returns when every session of theirs
// knows them. Pools go on serving meanwhile; one session at a time is exchanged for one that knows more. Pools that are closed
// meanwhile are passed over. Between two buckets, while a session is busy, and while another Prepare is at it, ctx is heeded;
// buckets that were planned by then stay planned.
//
// Errors: as for [Model.AddBucket] and [Model.NewSession], or ctx's.
func (m *Model) Prepare(ctx context.Context, buckets ...Bucket) error {
	for _, b := range buckets {
		if ctx.Err() != nil {
			return givenUp("prepare", ExecutedNo, ctx)
		}
		if err := m.addBucket("prepare", b); err != nil {
			return err
		}
	}
	for _, p := range m.livePools() {
		if err := p.renew(ctx); err != nil {
			return err
		}
	}
	return nil
}

// known are the buckets of a model in the order they were planned, and the pools that serve it.
type known struct {
	sync.Mutex
	buckets []backend.Bucket
	pools   []weak.Pointer[Pool]
}

func sameBucket(a, b backend.Bucket) bool {
	return slices.EqualFunc(a.Shapes, b.Shapes, slices.Equal) && slices.EqualFunc(a.Values, b.Values, slices.Equal)
}

// remember notes a bucket that the backend has planned.
func (m *Model) remember(b backend.Bucket) {
	m.known.Lock()
	defer m.known.Unlock()
	if slices.ContainsFunc(m.known.buckets, func(k backend.Bucket) bool { return sameBucket(k, b) }) {
		return
	}
	clone := backend.Bucket{}
	for i := range b.Shapes {
		clone.Shapes = append(clone.Shapes, slices.Clone(b.Shapes[i]))
		clone.Values = append(clone.Values, slices.Clone(b.Values[i]))
	}
	m.known.buckets = append(m.known.buckets, clone)
}

// rememberFixed notes the bucket that a model of fixed shapes has by itself.
func (m *Model) rememberFixed() {
	fixed := backend.Bucket{Values: make([][]int64, len(m.inputs))}
	for _, info := range m.inputs {
		if info.RankOpen || info.ShapeInput || slices.Contains(info.Shape, Dynamic) {
			return
		}
		fixed.Shapes = append(fixed.Shapes, info.Shape)
	}
	m.remember(fixed)
}

func (m *Model) addPool(p *Pool) {
	m.known.Lock()
	m.known.pools = append(m.known.pools, weak.Make(p))
	m.known.Unlock()
}

func (m *Model) removePool(p *Pool) {
	m.known.Lock()
	m.known.pools = slices.DeleteFunc(m.known.pools, func(w weak.Pointer[Pool]) bool {
		live := w.Value()
		return live == nil || live == p
	})
	m.known.Unlock()
}

func (m *Model) livePools() (live []*Pool) {
	m.known.Lock()
	defer m.known.Unlock()
	for _, w := range m.known.pools {
		if p := w.Value(); p != nil {
			live = append(live, p)
		}
	}
	return live
}

// poolBuckets are the buckets that a session has which is made now, with what is known of them in had.
func (m *Model) poolBuckets(only []Bucket, had []*poolBucket) []*poolBucket {
	m.known.Lock()
	wanted := slices.Clone(m.known.buckets)
	m.known.Unlock()
	if len(only) > 0 {
		wanted = nil
		for _, b := range only {
			if ordered, err := m.order("new pool", b); err == nil { // else NewSession tells
				wanted = append(wanted, ordered)
			}
		}
	}
	var buckets []*poolBucket
	for _, b := range wanted {
		at := slices.IndexFunc(had, func(k *poolBucket) bool { return sameBucket(k.Bucket, b) })
		if at >= 0 {
			buckets = append(buckets, had[at])
			continue
		}
		fresh := &poolBucket{Bucket: b}
		for _, shape := range b.Shapes {
			fresh.volume += elementCount(shape)
		}
		buckets = append(buckets, fresh)
	}
	return buckets
}

// renew exchanges the sessions for ones with all of the model's buckets.
func (p *Pool) renew(ctx context.Context) error {
	if len(p.options.Session.Buckets) > 0 {
		return nil // the pool has a choice of its own
	}
	select {
	case p.renewal <- struct{}{}:
		defer func() { <-p.renewal }()
	case <-p.lifetime.Done():
		return nil
	case <-ctx.Done():
		return givenUp("prepare", ExecutedNo, ctx)
	}
	buckets := p.model.poolBuckets(nil, *p.buckets.Load())
	p.mu.Lock()
	lanes := slices.Clone(p.lanes)
	p.mu.Unlock()
	for _, l := range lanes {
		if p.lifetime.Err() != nil {
			return nil
		}
		s, err := p.model.newSession(p.options.Session, trace.CreatePooled, &l.heldBy)
		if err != nil {
			return err
		}
		if err := p.exchange(ctx, l, s); err != nil {
			return err
		}
	}
	p.buckets.Store(&buckets)
	return nil
}

// exchange gives a lane another session as soon as nobody uses it.
func (p *Pool) exchange(ctx context.Context, l *lane, s *Session) error {
	done := make(chan struct{})
	p.mu.Lock()
	if p.refusing != nil || !slices.Contains(p.lanes, l) {
		p.mu.Unlock()
		return s.Close()
	}
	if l.next != nil { // from a Prepare that was given up
		_ = l.next.Close()
	}
	l.next, l.swapped = s, func() { close(done) }
	if slices.Contains(p.idle, l) {
		p.swap(l)
	}
	p.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-p.lifetime.Done():
		return nil
	case <-ctx.Done():
		return givenUp("prepare", ExecutedNo, ctx) // the lane will still exchange it
	}
}

// noBucket is the refusal of shapes that nobody prepared. If the options allow it, they are planned for later requests.
func (p *Pool) noBucket(op string, in []Tensor) error {
	p.mu.Lock()
	p.stats.Requests++
	p.stats.RefusedNoBucket++
	ready := p.refusing == nil
	p.mu.Unlock()
	wanted := Bucket{Shapes: Shapes{}, Values: map[string][]int64{}}
	for i, info := range p.model.inputs {
		t := find(in, i, info.Name)
		if t.Shape != nil {
			wanted.Shapes[info.Name] = slices.Clone(t.Shape)
		}
		if info.ShapeInput {
			values := make([]int64, len(t.Data)/max(t.DType.Size(), 1))
			for k := range values {
				values[k] = element(t, k)
			}
			wanted.Values[info.Name] = values
		}
	}
	if ready && p.options.PlanMax > 0 {
		p.plan(wanted)
	}
	return refusal(op, StatusNoBucket, "no prepared bucket has the shapes %v", wanted.Shapes)
}

// plan prepares a bucket beside the traffic, once, and so many at most.
func (p *Pool) plan(b Bucket) {
	key := fmt.Sprint(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.planned) >= p.options.PlanMax || slices.Contains(p.planned, key) {
		return
	}
	p.planned = append(p.planned, key)
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		_ = p.model.Prepare(p.lifetime, b) // a bucket that the model refuses stays one that nobody prepared
	}()
}
