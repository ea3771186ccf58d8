package fake

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// lane is a context: a goroutine that executes its requests in order.
type lane struct {
	engine  *engine
	model   *model
	buckets []bucket
	inputs  [][]byte
	outputs [][]byte
	record  struct{ done, failed uint32 }
	links   []link
	// attached are the tensors that lie in memory of the program's choice.
	attached map[*[]byte]*part
	// targets are the lanes that read this one's outputs, this one itself excepted.
	targets []*lane
	work    chan request
	// submitted is sequence for readers without the lock, ran the bucket of that request.
	submitted atomic.Uint32
	ran       atomic.Int64

	mu    sync.Mutex
	ended sync.Cond
	// sequence is the last request's, finished the last one's that the goroutine is done with.
	sequence, finished uint32
	phase              phase
	parking            parking
	failure            error
	running            request
	// bucket is selected, for requests of these shapes: its own, or smaller ones along paddable axes.
	bucket          int
	shapes          bucket
	waits           []mark
	stamps          backend.Stamps
	owner           int
	prepared, freed bool
}

// phase is what the caller has been told of the last request.
type phase uint8

const (
	// told: how it ended, or there was none.
	told phase = iota
	// inFlight: nothing, though it may have ended: until Poll, Wait or Reap says so.
	inFlight
	// givenUp: that it was cancelled. The goroutine may still be at it.
	givenUp
)

// parking is who waits for the completion of the last request.
type parking uint8

const (
	nobody parking = iota
	// promised: it will come; queued: it is where Reap finds it.
	promised
	queued
)

type request struct {
	sequence            uint32
	token               uint64
	bucket              int
	submitted, deadline time.Duration
	waits               []mark
}

// mark is a place in a lane's order of requests.
type mark struct {
	lane     *lane
	sequence uint32
}

func (m mark) wait() {
	m.lane.mu.Lock()
	for m.lane.finished < m.sequence && !m.lane.freed {
		m.lane.ended.Wait()
	}
	m.lane.mu.Unlock()
}

type link struct {
	input  int
	source *lane
	output int
}

func (m *model) NewContext(options *backend.ContextOptions) (backend.Context, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.alive(); err != nil {
		return nil, err
	}
	if options.Threads > threadsMax {
		return nil, status(streaminfer.StatusInvalidArgument, "%d threads are above %d", options.Threads, threadsMax)
	}
	l := &lane{engine: m.engine, model: m, buckets: slices.Clone(m.buckets), work: make(chan request, 1)}
	if len(options.Buckets) > 0 {
		l.buckets = nil
	}
	for _, wanted := range options.Buckets {
		if err := m.check(wanted); err != nil {
			return nil, err
		}
		index := slices.IndexFunc(m.buckets, func(b bucket) bool { return b.is(wanted) })
		if index < 0 {
			return nil, status(streaminfer.StatusNoBucket, "the model has no bucket of shapes %v", wanted.Shapes)
		}
		l.buckets = append(l.buckets, m.buckets[index])
	}
	if len(l.buckets) == 0 {
		return nil, status(streaminfer.StatusNoBucket, "the model has no bucket")
	}
	l.ended.L = &l.mu
	shapes := func(of func(*bucket) [][]int64) func(int) [][]int64 {
		return func(index int) (all [][]int64) {
			for i := range l.buckets {
				all = append(all, of(&l.buckets[i])[index])
			}
			return all
		}
	}
	l.inputs = memory(m.Model.Inputs, shapes(func(b *bucket) [][]int64 { return b.inputs }))
	l.outputs = memory(m.Model.Outputs, shapes(func(b *bucket) [][]int64 { return b.outputs }))
	m.engine.count(func(s *backend.Stats) { s.Contexts++ })
	return l, nil
}

// memory allocates each tensor for the largest of its shapes, aligned for every element type.
func memory(infos []streaminfer.TensorInfo, shapes func(int) [][]int64) [][]byte {
	all := make([][]byte, len(infos))
	for i, info := range infos {
		var bytes int64
		for _, shape := range shapes(i) {
			bytes = max(bytes, count(shape)*int64(info.DType.Size()))
		}
		words := make([]uint64, bytes/8+1)
		all[i] = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), bytes)
	}
	return all
}

// enter locks the lane for one call after the checks that every call makes.
func (l *lane) enter() error {
	l.mu.Lock()
	if err := l.check(); err != nil {
		l.mu.Unlock()
		return err
	}
	return nil
}

func (l *lane) check() error {
	if l.freed {
		return status(streaminfer.StatusStaleHandle, "the context is freed")
	}
	if l.owner != 0 && l.owner != thread() {
		if alive(l.owner) {
			return status(streaminfer.StatusWrongThread, "the context is bound to thread %d", l.owner)
		}
		l.owner = 0
	}
	return nil
}

// quiet is enter for calls that make no sense while the device is at work.
func (l *lane) quiet() error {
	if err := l.enter(); err != nil {
		return err
	}
	err := l.settled()
	switch {
	case l.phase == inFlight:
		err = status(streaminfer.StatusInFlight, "request %d is in flight until Poll, Wait or Reap says its end", l.sequence)
	case err == nil && l.parking == queued:
		err = status(streaminfer.StatusInFlight, "the completion of request %d has not been reaped", l.sequence)
	}
	if err != nil {
		l.mu.Unlock()
	}
	return err
}

// settled is called with the lock. It says no while the goroutine is at a request that was given up.
func (l *lane) settled() error {
	if l.phase == givenUp && !l.hasEnded() {
		return status(streaminfer.StatusDraining, "request %d was given up and is not finished", l.sequence)
	}
	return nil
}

// hasEnded reports whether the goroutine is done with the last request.
func (l *lane) hasEnded() bool { return l.finished == l.sequence }

func (l *lane) Link(input int, source backend.Context, output int) error {
	from, ok := source.(*lane)
	if !ok || from.engine != l.engine {
		return status(streaminfer.StatusInvalidArgument, "the source belongs to another engine")
	}
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.prepared {
		return status(streaminfer.StatusWrongState, "the context is prepared")
	}
	if l.attached[&l.inputs[input]] != nil || l.isLinked(input) {
		return status(streaminfer.StatusInvalidArgument, "the input is linked or attached already")
	}
	if from != l {
		if err := from.enter(); err != nil {
			return err
		}
		defer from.mu.Unlock()
	}
	to, by := l.model.Model.Inputs[input], from.model.Model.Outputs[output]
	matches := func(a, b bucket) bool { return slices.Equal(a.outputs[output], b.inputs[input]) }
	if to.DType != by.DType || !slices.EqualFunc(from.buckets, l.buckets, matches) {
		return status(streaminfer.StatusShapeMismatch, "input %q and output %q differ in type or in the shapes of a bucket", to.Name, by.Name)
	}
	l.links = append(l.links, link{input, from, output})
	return nil
}

func (l *lane) isLinked(input int) bool {
	return slices.ContainsFunc(l.links, func(k link) bool { return k.input == input })
}

func (l *lane) Prepare() error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.prepared {
		return status(streaminfer.StatusWrongState, "the context is prepared")
	}
	for _, link := range l.links {
		if link.source != l {
			l.inputs[link.input] = link.source.outputs[link.output]
			link.source.mu.Lock()
			link.source.targets = append(link.source.targets, l)
			link.source.mu.Unlock()
		}
	}
	l.prepared = true
	first := &l.buckets[0]
	l.choose(0, backend.Bucket{Shapes: first.inputs, Values: first.values})
	go l.execute()
	l.engine.count(func(s *backend.Stats) { s.Threads++ })
	return nil
}

func (l *lane) Bind() error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.owner != 0 {
		return status(streaminfer.StatusWrongState, "the context is bound to this thread already")
	}
	l.owner = thread()
	return nil
}

func (l *lane) Unbind() error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.owner == 0 {
		return status(streaminfer.StatusWrongState, "the context is not bound")
	}
	l.owner = 0
	return nil
}

func (l *lane) Record() backend.Record {
	return backend.Record{Done: &l.record.done, Failed: &l.record.failed}
}

func (l *lane) Free() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.freed {
		return status(streaminfer.StatusStaleHandle, "the context is freed")
	}
	l.freed = true
	if l.prepared {
		close(l.work)
	} else {
		l.detach()
	}
	l.ended.Broadcast()
	l.engine.count(func(s *backend.Stats) { s.Contexts-- })
	return nil
}

// store publishes to goroutines that read the record without a lock.
func store(word *uint32, sequence uint32) { atomic.StoreUint32(word, sequence) }
