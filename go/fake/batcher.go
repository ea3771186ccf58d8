package fake

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

const (
	batchesDefault = 2
	delayDefault   = time.Millisecond
	// wakeTime is what a deadline leaves to the goroutines that close a batch for it and run it.
	wakeTime = 20 * time.Millisecond
)

// batcher gathers requests whose shapes differ in the batch alone, the outermost axis, and runs the model once on the rows of
// all. Each request has memory of its own, whose contents are moved; all else is as the library has it.
type batcher struct {
	model   *model
	options backend.BatcherOptions
	// batch has, per input, whether its outermost axis is the batch.
	batch []bool
	sizes []bucket

	mu    sync.Mutex
	open  map[string]*gathering
	taken int
	freed bool
	// usual is the moving average of the time that a batch takes.
	usual time.Duration
	stats backend.BatcherStats
}

// gathering is a batch that forms, runs or is read.
type gathering struct {
	key            string
	capacity, rows int64
	tickets        []*ticket
	// writers are reserved and not committed, holders have not been given back.
	writers, holders int
	closed, running  bool
	due              time.Duration
	timer            *time.Timer
	stamps           backend.BatchStamps
}

type progress uint8

const (
	vacant progress = iota
	reserved
	committed
	ended
)

// ticket is a request's way through the batcher.
type ticket struct {
	batcher         *batcher
	gathering       *gathering
	progress        progress
	promised        bool
	bucket          bucket
	rows            int64
	inputs, outputs [][]byte
	deadline        time.Duration
	token           uint64
	failure         error
}

func (m *model) NewBatcher(options *backend.BatcherOptions) (backend.Batcher, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.alive(); err != nil {
		return nil, err
	}
	b := &batcher{model: m, options: *options, batch: make([]bool, len(m.Model.Inputs)), open: map[string]*gathering{}}
	if b.options.Contexts == 0 {
		b.options.Contexts = batchesDefault
	}
	if b.options.Delay == 0 {
		b.options.Delay = delayDefault
	}
	for _, p := range m.paddings {
		if p.Kind == uint32(streaminfer.PaddingBatch) && p.Axis == 0 {
			b.batch[p.Input] = true
		}
	}
	if b.options.Contexts > batchesMax || options.Threads > threadsMax {
		return nil, status(streaminfer.StatusInvalidArgument, "%d batches are above %d, or %d threads above %d",
			b.options.Contexts, batchesMax, options.Threads, threadsMax)
	}
	for i, info := range m.Model.Inputs {
		if !b.batch[i] && !info.ShapeInput {
			return nil, status(streaminfer.StatusUnsupported, "input %q has no batch axis, so one batch cannot serve requests that differ in it", info.Name)
		}
	}
	b.sizes = slices.Clone(m.buckets)
	if len(options.Buckets) > 0 {
		b.sizes = slices.DeleteFunc(b.sizes, func(known bucket) bool {
			return !slices.ContainsFunc(options.Buckets, known.is)
		})
	}
	if len(b.sizes) == 0 {
		return nil, status(streaminfer.StatusNoBucket, "the model has no bucket")
	}
	m.engine.count(func(s *backend.Stats) { s.Batchers++; s.Contexts += b.options.Contexts })
	return b, nil
}

// key is what requests of one batch have in common.
func (b *batcher) key(shapes, values [][]int64) string {
	rest := slices.Clone(shapes)
	for i := range rest {
		if b.batch[i] && len(rest[i]) > 0 {
			rest[i] = rest[i][1:]
		}
	}
	return fmt.Sprint(rest, values)
}

// rowsOf is the extent that all batched inputs have; 0 if they do not agree.
func (b *batcher) rowsOf(shapes [][]int64) (rows int64) {
	for i, shape := range shapes {
		if !b.batch[i] {
			continue
		}
		if len(shape) == 0 || rows > 0 && shape[0] != rows {
			return 0
		}
		rows = shape[0]
	}
	return rows
}

func (b *batcher) NewTicket() backend.Ticket { return &ticket{batcher: b} }

func (b *batcher) Stats() (backend.BatcherStats, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	stats, classes := b.stats, map[string]bool{}
	for _, size := range b.sizes {
		classes[b.key(size.inputs, size.values)] = true
	}
	stats.Classes, stats.Forming = len(classes), len(b.open)
	return stats, nil
}

func (b *batcher) Free() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.freed = true
	for _, g := range b.open {
		g.timer.Stop()
	}
	b.model.engine.count(func(s *backend.Stats) { s.Batchers--; s.Contexts -= b.options.Contexts })
	return nil
}

func (t *ticket) Reserve(wanted backend.Bucket, timeout time.Duration) error {
	b := t.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.freed {
		return status(streaminfer.StatusStaleHandle, "the batcher is freed")
	}
	if err := b.model.check(wanted); err != nil {
		return err
	}
	key, rows, capacity := b.key(wanted.Shapes, wanted.Values), b.rowsOf(wanted.Shapes), int64(0)
	for _, size := range b.sizes {
		if b.key(size.inputs, size.values) == key {
			capacity = max(capacity, b.rowsOf(size.inputs))
		}
	}
	if rows < 1 || rows > capacity {
		return status(streaminfer.StatusNoBucket, "no bucket of the batcher holds the shapes %v", wanted.Shapes)
	}
	now := backend.Now()
	if timeout > 0 && timeout <= b.usual {
		b.usual -= b.usual / 16 // or one bad spell would refuse for good
		b.stats.Expired++
		return status(streaminfer.StatusExpired, "the deadline has passed, or a batch that is closed at once would miss it")
	}
	g := b.open[key]
	if g == nil || g.rows+rows > g.capacity {
		if b.taken == b.options.Contexts {
			b.stats.Refusals++
			return status(streaminfer.StatusAgain, "all %d batches are full, running or being read", b.taken)
		}
		if g != nil {
			delete(b.open, key)
			b.closeIfComplete(g)
		}
		g = &gathering{key: key, capacity: capacity, due: now + min(b.options.Delay, math.MaxInt64-now), stamps: backend.BatchStamps{Opened: now}}
		g.timer = time.AfterFunc(b.options.Delay, func() { b.closeLate(g) })
		b.open[key] = g
		b.taken++
	}
	own := b.model.request(wanted)
	*t = ticket{batcher: b, gathering: g, progress: reserved, bucket: own, rows: rows,
		inputs:  memory(b.model.Model.Inputs, func(i int) [][]int64 { return own.inputs[i : i+1] }),
		outputs: memory(b.model.Model.Outputs, func(i int) [][]int64 { return own.outputs[i : i+1] })}
	if timeout > 0 {
		t.deadline = now + min(timeout, math.MaxInt64-now)
		if due := t.deadline - b.usual - min(wakeTime, timeout/2); due < g.due {
			g.due = due
			g.timer.Reset(due - now)
		}
	}
	g.tickets = append(g.tickets, t)
	g.rows += rows
	g.writers++
	g.holders++
	b.stats.Reservations++
	b.stats.Slots++
	if g.rows == g.capacity {
		delete(b.open, key)
	}
	return nil
}

// closeLate closes a batch whose time has come.
func (b *batcher) closeLate(g *gathering) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.freed && !g.closed && g.holders > 0 {
		b.close(g)
	}
}

// closeIfComplete closes a batch that takes no more and that nobody writes to.
func (b *batcher) closeIfComplete(g *gathering) {
	if b.open[g.key] != g && g.writers == 0 && !g.closed {
		b.close(g)
	}
}

// close expires what is not committed, or too late for its deadline, and runs the rest.
func (b *batcher) close(g *gathering) {
	g.closed = true
	g.timer.Stop()
	if b.open[g.key] == g {
		delete(b.open, g.key)
	}
	var live []row
	now := backend.Now()
	for _, t := range g.tickets {
		switch {
		case t.progress == reserved, t.progress == committed && t.deadline > 0 && now > t.deadline:
			t.end(status(streaminfer.StatusExpired, "not committed when its batch closed, or too late for its deadline"))
		case t.progress == committed:
			live = append(live, row{*t, t})
		}
	}
	g.writers = 0
	if len(live) > 0 {
		g.running = true
		b.stats.Running++
		b.stats.Batches++
		g.stamps.Batch, g.stamps.Closed, g.stamps.Service = b.stats.Batches, now, b.usual
		g.stamps.Submitted = now
		go b.run(g, live)
	}
}

// row is a request of a batch that runs: the ticket as it was, since its owner may give the request up and use it again.
type row struct {
	ticket
	owner *ticket
}

// run computes a batch on its own goroutine.
func (b *batcher) run(g *gathering, live []row) {
	started := backend.Now()
	total, whole := int64(0), live[0].bucket
	for _, t := range live {
		total += t.rows
	}
	whole.inputs = clone(whole.inputs)
	for i := range whole.inputs {
		if b.batch[i] {
			whole.inputs[i][0] = total
		}
	}
	whole = b.model.request(backend.Bucket{Shapes: whole.inputs, Values: whole.values})
	l := &lane{engine: b.model.engine, model: b.model,
		inputs:  memory(b.model.Model.Inputs, func(i int) [][]int64 { return whole.inputs[i : i+1] }),
		outputs: memory(b.model.Model.Outputs, func(i int) [][]int64 { return whole.outputs[i : i+1] })}
	for i := range l.inputs {
		at := 0
		for _, t := range live {
			if b.batch[i] || at == 0 {
				at += copy(l.inputs[i][at:], t.inputs[i])
			}
		}
	}
	g.stamps.Started, g.stamps.Inputs = started, backend.Now()
	err := errExited
	defer func() { b.finish(g, live, l.outputs, &whole, err) }()
	err = l.compute(&Call{lane: l, bucket: &whole}, request{})
}

// finish gives each request of a batch that has run its part of the outputs.
func (b *batcher) finish(g *gathering, live []row, outputs [][]byte, whole *bucket, err error) {
	computed := backend.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	total := int64(0)
	for _, t := range live {
		total += t.rows
	}
	if err == nil {
		b.usual += (computed - g.stamps.Started - b.usual) / 8
	}
	b.stats.Running--
	b.stats.Rows += uint64(total)
	g.stamps.Rows, g.stamps.BucketRows = int(total), b.sizeFor(g.key, total)
	g.stamps.Computed = computed
	at := make([]int, len(outputs))
	for _, t := range live {
		for i := range outputs {
			copied := copy(t.outputs[i], outputs[i][at[i]:])
			if len(whole.outputs[i]) > 0 && whole.outputs[i][0] != t.bucket.outputs[i][0] {
				at[i] += copied
			}
		}
	}
	g.stamps.Done = backend.Now() // before anybody is told
	for _, t := range live {
		if t.owner.gathering == g && t.owner.progress == committed {
			t.owner.end(err)
		}
	}
	g.running = false
	b.retire(g)
}

// sizeFor is the batch of the smallest size that holds so many rows. It is called with the lock.
func (b *batcher) sizeFor(key string, rows int64) int {
	smallest := int64(0)
	for _, size := range b.sizes {
		if n := b.rowsOf(size.inputs); n >= rows && b.key(size.inputs, size.values) == key && (smallest == 0 || n < smallest) {
			smallest = n
		}
	}
	return int(smallest)
}

// end tells the owner how the request ended.
func (t *ticket) end(err error) {
	stats := &t.batcher.stats
	t.progress, t.failure = ended, err
	code := backend.OK
	if failed, ok := err.(*backend.Error); ok {
		code = failed.Status
	}
	switch streaminfer.Status(code) {
	case streaminfer.Status(backend.OK):
		stats.Completed++
	case streaminfer.StatusExpired:
		stats.Expired++
	case streaminfer.StatusCancelled:
		stats.Cancelled++
	default:
		stats.Failed++
	}
	if t.promised {
		t.promised = false
		t.batcher.model.engine.announce(delivery{Completion: backend.Completion{Token: t.token, Status: code}})
	}
}

func (t *ticket) Input(index int, view *backend.View) error {
	return t.view(t.inputs, t.batcher.model.Model.Inputs, t.bucket.inputs, reserved, index, view)
}

func (t *ticket) Output(index int, view *backend.View) error {
	return t.view(t.outputs, t.batcher.model.Model.Outputs, t.bucket.outputs, ended, index, view)
}

func (t *ticket) view(all [][]byte, infos []streaminfer.TensorInfo, shapes [][]int64, at progress, index int,
	view *backend.View) error {
	t.batcher.mu.Lock()
	defer t.batcher.mu.Unlock()
	switch {
	case t.progress == ended && t.failure != nil:
		return t.failure
	case t.progress != at:
		return status(streaminfer.StatusWrongState, "the slot is not at that point")
	}
	describe(view, &infos[index], shapes[index], shapes[index], all[index])
	return nil
}

func (t *ticket) Timings() (backend.BatchStamps, error) {
	t.batcher.mu.Lock()
	defer t.batcher.mu.Unlock()
	switch {
	case t.progress == ended && t.failure != nil:
		return backend.BatchStamps{}, t.failure
	case t.progress != ended:
		return backend.BatchStamps{}, status(streaminfer.StatusWrongState, "the slot has not ended")
	}
	return t.gathering.stamps, nil
}

func (t *ticket) Commit(token uint64) error {
	b := t.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.progress != reserved {
		return t.failure
	}
	t.progress, t.token, t.promised = committed, token, true
	t.gathering.writers--
	b.closeIfComplete(t.gathering)
	return nil
}

func (t *ticket) Cancel() (int32, error) {
	t.batcher.mu.Lock()
	defer t.batcher.mu.Unlock()
	if t.progress != committed {
		return backend.TooLate, nil
	}
	t.end(status(streaminfer.StatusCancelled, "the slot was cancelled"))
	return backend.OK, nil
}

// Abandon and Release give the slot back.
func (t *ticket) Abandon() error { return t.giveBack() }
func (t *ticket) Release() error { return t.giveBack() }

func (t *ticket) giveBack() error {
	b := t.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	g := t.gathering
	if g == nil {
		return status(streaminfer.StatusStaleHandle, "the slot has been given back")
	}
	if t.progress == reserved {
		g.writers--
		b.stats.Abandoned++
	}
	if !g.closed {
		g.rows -= t.rows
		g.tickets = slices.DeleteFunc(g.tickets, func(other *ticket) bool { return other == t })
	}
	t.gathering, t.progress = nil, vacant
	g.holders--
	b.stats.Slots--
	b.retire(g)
	return nil
}

// retire forgets a batch that nobody holds, and closes one that has become complete.
func (b *batcher) retire(g *gathering) {
	if g.holders > 0 || g.running {
		b.closeIfComplete(g)
		return
	}
	g.timer.Stop()
	if b.open[g.key] == g {
		delete(b.open, g.key)
	}
	b.taken--
}

// Free does nothing: the memory is Go's.
func (t *ticket) Free() error { return nil }
