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
	// submitted is sequence for readers without the lock.
	submitted atomic.Uint32

	mu    sync.Mutex
	ended sync.Cond
	// sequence is the last request's, finished the last one's that the goroutine is done with.
	sequence, finished uint32
	phase              phase
	parked             bool
	failure            error
	running            request
	bucket             int
	waits              []mark
	stamps             backend.Stamps
	owner              int
	prepared, freed    bool
}

type phase uint8

const (
	idle phase = iota
	inFlight
	// draining: given up, and the goroutine is still at it.
	draining
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
	l := &lane{engine: m.engine, model: m, buckets: slices.Clone(m.buckets), work: make(chan request, 1)}
	if len(options.Buckets) > 0 {
		l.buckets = nil
	}
	for _, wanted := range options.Buckets {
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
	var err error
	switch {
	case l.phase == inFlight:
		err = status(streaminfer.StatusInFlight, "request %d is in flight", l.sequence)
	case l.phase == draining:
		err = status(streaminfer.StatusDraining, "request %d was given up and is not finished", l.sequence)
	}
	if err != nil {
		l.mu.Unlock()
	}
	return err
}

func (l *lane) Link(input int, source backend.Context, output int) error {
	from, ok := source.(*lane)
	if !ok || from.engine != l.engine {
		return status(streaminfer.StatusInvalidArgument, "the source belongs to another engine")
	}
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.attached[&l.inputs[input]] != nil {
		return status(streaminfer.StatusInvalidArgument, "the input is attached already")
	}
	to, by := l.model.Model.Inputs[input], from.model.Model.Outputs[output]
	if to.DType != by.DType || len(l.inputs[input]) != len(from.outputs[output]) {
		return status(streaminfer.StatusShapeMismatch, "input %q and output %q differ in type or size", to.Name, by.Name)
	}
	l.links = append(l.links, link{input, from, output})
	return nil
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

func (l *lane) Shape(b backend.Bucket) error {
	if err := l.quiet(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	index := slices.IndexFunc(l.buckets, func(known bucket) bool { return known.is(b) })
	if index < 0 {
		return status(streaminfer.StatusNoBucket, "no prepared bucket has the shapes %v", b.Shapes)
	}
	l.bucket = index
	return nil
}

func (l *lane) Input(index int, view *backend.View) error {
	return l.view(l.inputs, l.model.Model.Inputs, func(b *bucket) [][]int64 { return b.inputs }, index, view)
}

func (l *lane) Output(index int, view *backend.View) error {
	return l.view(l.outputs, l.model.Model.Outputs, func(b *bucket) [][]int64 { return b.outputs }, index, view)
}

func (l *lane) view(all [][]byte, infos []streaminfer.TensorInfo, shapes func(*bucket) [][]int64, index int,
	view *backend.View) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.phase == draining {
		return status(streaminfer.StatusDraining, "request %d was given up and is not finished", l.sequence)
	}
	describe(view, &infos[index], shapes(&l.buckets[l.bucket])[index], all[index])
	return nil
}

// describe says where a tensor of that shape lies.
func describe(view *backend.View, info *streaminfer.TensorInfo, shape []int64, memory []byte) {
	view.DType, view.Shape = uint32(info.DType), append(view.Shape[:0], shape...)
	view.Strides = append(view.Strides[:0], shape...)
	step := int64(info.DType.Size())
	for axis := len(shape) - 1; axis >= 0; axis-- {
		view.Strides[axis] = step
		step *= shape[axis]
	}
	view.Data = memory[:step]
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
