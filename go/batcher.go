package streaminfer

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// BatcherOptions are the choices made when a batcher is made. The zero value is right for a start.
type BatcherOptions struct {
	// Batches is the number of batches that form, run or are read at once; 0 means 2. Together with the largest batch of the
	// model's buckets it bounds the requests in the batcher.
	Batches int
	// Threads is the number of threads the host device computes each batch with; 0 means the engine's.
	Threads int
	// Priority is that of the batches, PriorityNormal unless set.
	Priority Priority
	// QueueMax bounds the requests that wait while all batches are taken; one more gets ErrQueueFull. 0 means 1024, a negative
	// number that none waits. They wait in one order, whatever their shapes: one that finds no room holds up those behind it, those
	// included whose batch has room. Where requests of different lengths come in overload, make a batcher for each.
	QueueMax int
	// Admission says whether requests are refused that cannot be expected to end by their deadline; see [Batcher.Infer].
	Admission Admission
	// Delay is how long a batch waits for more requests after its first; 0 means a millisecond.
	Delay time.Duration
	// Buckets are those of the model's buckets to use; none means all that it has now.
	Buckets []Bucket
}

// BatcherStats are a batcher's figures at one moment.
type BatcherStats struct {
	// Classes are the kinds of requests that are not merged with each other: the model's buckets, without their batch.
	Classes int
	// Slots are parts of batches that requests have, Forming and Running the batches that are at that.
	Slots, Forming, Running int
	// Queued requests wait for a batch that takes them; QueuedMax is the most that did at once.
	Queued, QueuedMax int
	// RefusedDeadline were refused by admission when they found all batches taken: on arrival, or when they came back from a batch that
	// closed before they were copied into it.
	RefusedDeadline uint64
	// Reservations of slots were made; Refusals is how often one was not because every batch was taken: those that then waited are
	// included, and each time that the first of them looked again.
	Reservations, Refusals uint64
	// Completed slots ended well. Abandoned ones were given back unused. Expired ones were not committed in time or would have
	// missed their deadline, refused reservations and requests included that were too late when their turn in the queue came. Cancelled ones were given up. Failed ones had a batch that failed.
	Completed, Abandoned, Expired, Cancelled, Failed uint64
	// Batches have run, with Rows for requests and PaddingRows for nobody.
	Batches, Rows, PaddingRows uint64
	// Spans say where the time of successful Infers went: Queue is the time until the batch closed, the others are as for a pool.
	Spans Spans
}

// batchesDefault and delayDefault are the library's.
const (
	batchesDefault = 2
	delayDefault   = time.Millisecond
)

// Batcher merges requests to one model into batches, so that a device computes several at the price of little more than one.
//
// A request takes rows of a batch that forms, writes its inputs there, and runs with it. A batch closes when it is full, when it
// has waited for [BatcherOptions].Delay, or in time for the earliest deadline of its requests, and runs in the smallest of the
// model's buckets that holds it. Requests are merged whose shapes differ in the batch alone; axes that the model masks are padded
// up to a bucket's. The model must have been loaded with a padding of kind [PaddingBatch] for every input: its rows are then
// proved independent, so a request's result does not depend on its neighbours, but for rounding.
//
// Its methods may be called from any goroutine.
type Batcher struct {
	model   *Model
	options BatcherOptions
	batcher backend.Batcher
	token   uint64
	cleanup runtime.Cleanup
	// outputs are described if a request's rows tell how large they are.
	outputs []TensorInfo
	// closing ends the waiting of requests.
	closing chan struct{}

	mu     sync.Mutex
	idle   sync.Cond
	closed bool
	// active requests are in Infer; free tickets are in none.
	active int
	free   []*ticket
	// requests counts those that have come, vacated how often rows were given back.
	requests, vacated uint64
	// queue has room for all that may wait, up to queueRoomMax; waiting is their weight.
	queue           queue[*ticket]
	waiting         int64
	pace            pace
	queuedMax       int
	refusedDeadline uint64
	// swept were taken out of the queue because they were too late.
	swept uint64
	// kinds of requests, those with the smallest rows first; lanes are the batches, as numbers of rows are.
	kinds []*kind
	lanes int64
	spans Spans
}

// NewBatcher makes a batcher, and measures what batches take. It is a control call. Close the batcher when done with it; closing
// its engine closes it, too.
//
// Errors: StatusUnsupported (the model was loaded without a batch, or an input has none), StatusNoBucket, StatusLimitReached,
// StatusOutOfMemory, StatusInvalidArgument.
func NewBatcher(m *Model, o BatcherOptions) (*Batcher, error) {
	const op = "new batcher"
	if err := checkCounts(op, option{"Batches", o.Batches}, option{"Threads", o.Threads}); err != nil {
		return nil, err
	}
	if err := o.Admission.check(op); err != nil {
		return nil, err
	}
	if o.Delay < 0 {
		return nil, refusal(op, StatusInvalidArgument, "the option Delay cannot be %v", o.Delay)
	}
	if o.Priority > PriorityHigh {
		return nil, refusal(op, StatusInvalidArgument, "the option Priority cannot be %d", o.Priority)
	}
	if o.QueueMax == 0 {
		o.QueueMax = queueDefault
	}
	choices := backend.BatcherOptions{Contexts: o.Batches, Threads: o.Threads, Delay: o.Delay, Priority: uint32(o.Priority)}
	for _, bucket := range o.Buckets {
		ordered, err := m.order(op, bucket)
		if err != nil {
			return nil, err
		}
		choices.Buckets = append(choices.Buckets, ordered)
	}
	raw, err := m.model.NewBatcher(&choices)
	if err != nil {
		return nil, failure(op, ExecutedNo, err)
	}
	b := &Batcher{model: m, options: o, batcher: raw, closing: make(chan struct{}), outputs: m.outputsByRows(),
		queue: make(queue[*ticket], 0, min(max(o.QueueMax, 0), queueRoomMax)), kinds: m.kinds(o.Buckets), lanes: batchesDefault}
	if o.Batches > 0 {
		b.lanes = int64(o.Batches)
	}
	b.idle.L = &b.mu
	m.engine.startReaper()
	err = adopt(m.engine.registry, b, nil, func(token uint64) {
		b.token = token
		b.cleanup = runtime.AddCleanup(b, forgotten.free, forgotten{m.engine.registry, token, raw})
	})
	if err != nil {
		_ = raw.Free()
		return nil, failure(op, ExecutedNo, err)
	}
	return b, nil
}

// Infer runs one request with others: it copies in to a batch, waits for the batch, and copies the outputs that out names. Every
// input must be given, in any order; the outermost extents count rows, of which a request may have several. in and out are the
// caller's again when Infer returns, whatever it returns. While all batches are taken it waits for its turn, the earliest deadline
// first, those without as if due a second after their arrival, and those of all shapes in one order (see [BatcherOptions].QueueMax).
//
// Admission: the batcher knows what requests take from leaving the queue to giving their rows back, without a batch's delay, and how fast the
// queue moves, both measured while requests wait. One with a deadline that finds all batches taken is expected to wait for the batch that becomes free
// first and for those that are due earlier; if that and its own batch, behind others with half as much for what is not as usual, end after its
// deadline, or if one that waits would become late because of it, it is refused at once with [ErrDeadline]. One that turns out to be too
// late for a full batch when its turn comes is refused then, so that batches stay full: an overloaded batcher does as much as it can, and in time.
//
// Errors: [ErrDeadline] (the result cannot be had by the context's deadline; never without one), StatusTimeout (that passed while the
// batch ran; both match context.DeadlineExceeded), [ErrQueueFull], [ErrNoBucket];
// StatusInvalidArgument and StatusShapeMismatch for tensors that are not the model's; StatusStaleHandle once the batcher is closed;
// StatusAgain without ErrQueueFull if batches kept closing before the request was copied into them, which a longer
// [BatcherOptions].Delay ends; ctx's; the failure of the batch. Where Error.Executed is ExecutedNo the request has not run and repeating
// it is safe.
func (b *Batcher) Infer(ctx context.Context, in, out []Tensor) (err error) {
	const op = "infer"
	arrived := backend.Now()
	if err := b.model.checkTensors(op, in, out); err != nil {
		return err
	}
	if err := b.checkRoom(op, in, out); err != nil {
		return err
	}
	t, err := b.enter(op)
	if err != nil {
		return err
	}
	defer func() { b.leave(t, err) }()
	t.moments = moments{arrived: arrived}
	err = t.run(ctx, op, in, out)
	t.moments.ended = backend.Now()
	t.record(ctx, err)
	return err
}

// checkRoom finds outputs that do not fit before rows are spent on them, where that can be known.
func (b *Batcher) checkRoom(op string, in, out []Tensor) error {
	for i := range b.outputs {
		info := &b.outputs[i]
		t := find(out, i, info.Name)
		if t == nil || len(info.Shape) == 0 || info.Shape[0] != Dynamic ||
			slices.Contains(info.Shape[1:], Dynamic) {
			continue
		}
		need := b.model.rowsOf(in) * elementCount(info.Shape[1:]) * int64(t.DType.Size())
		if int64(cap(t.Data)) < need {
			return refusal(op, StatusShapeMismatch, "output %q has %d bytes, there is room for %d", info.Name, need, cap(t.Data))
		}
	}
	return nil
}

// outputsByRows describes the outputs if what is open of them is the batch: if all of the model's buckets differ in that alone, and nothing
// else is padded. Otherwise it has none: a batch itself tells how large its outputs are.
func (m *Model) outputsByRows() []TensorInfo {
	outputs, err := m.Outputs()
	isMasked := slices.ContainsFunc(m.padded, func(p backend.Padding) bool { return p.Kind != uint32(PaddingBatch) })
	if err != nil || isMasked || len(m.kinds(nil)) != 1 || len(m.poolBuckets(nil, nil)) == 1 {
		return nil
	}
	return outputs
}

// enter counts one more request, and gives it memory.
func (b *Batcher) enter(op string) (*ticket, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, refusal(op, StatusStaleHandle, "the batcher is closed")
	}
	b.active++
	b.requests++
	if last := len(b.free) - 1; last >= 0 {
		t := b.free[last]
		b.free = b.free[:last]
		t.number, t.left, t.batch = b.requests, 0, backend.BatchStamps{}
		t.entered, t.committed, t.isTooLate = false, false, false
		return t, nil
	}
	inputs := len(b.model.inputs)
	t := &ticket{batcher: b, ticket: b.batcher.NewTicket(), done: make(chan backend.Completion, 1), turn: make(chan struct{}, 1)}
	t.number = b.requests
	t.token = b.model.engine.expect(t.done)
	t.request = backend.Bucket{Shapes: make([][]int64, inputs), Values: make([][]int64, inputs)}
	t.cleanup = runtime.AddCleanup(t, forgotten.free, forgotten{b.model.engine.registry, t.token, t.ticket})
	return t, nil
}

func (b *Batcher) leave(t *ticket, err error) {
	b.mu.Lock()
	if err == nil {
		b.spans.add(&t.moments)
	}
	b.active--
	b.free = append(b.free, t)
	b.idle.Broadcast()
	b.mu.Unlock()
}

// Stats counts what the batcher is at and has done.
func (b *Batcher) Stats() (BatcherStats, error) {
	raw, err := b.batcher.Stats()
	runtime.KeepAlive(b)
	b.mu.Lock()
	spans, queued, queuedMax, refusedDeadline, swept := b.spans, len(b.queue), b.queuedMax, b.refusedDeadline, b.swept
	b.mu.Unlock()
	return BatcherStats{Classes: raw.Classes, Slots: raw.Slots, Forming: raw.Forming, Running: raw.Running,
		Reservations: raw.Reservations, Refusals: raw.Refusals, Completed: raw.Completed, Abandoned: raw.Abandoned,
		Expired: raw.Expired + swept, Cancelled: raw.Cancelled, Failed: raw.Failed, Batches: raw.Batches, Rows: raw.Rows,
		PaddingRows: raw.PaddingRows, Queued: queued, QueuedMax: queuedMax, RefusedDeadline: refusedDeadline, Spans: spans}, failure("stats", ExecutedNo, err)
}

// Close gives up the requests that wait or run, whose Infers return StatusStaleHandle, returns when all have left, and frees the batcher.
// Who wants none to fail closes it after the last Infer has returned. Closing again does nothing.
func (b *Batcher) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	close(b.closing)
	for b.active > 0 {
		b.idle.Wait()
	}
	b.mu.Unlock()
	b.cleanup.Stop()
	for _, t := range b.free {
		t.cleanup.Stop()
		b.model.engine.forget(t.token)
		_ = t.ticket.Free()
	}
	b.model.engine.forget(b.token)
	return failure("close", ExecutedNo, b.batcher.Free())
}
