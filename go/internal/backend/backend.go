// Package backend is the seam between package streaminfer and what does the work: the shared library (internal/capi)
// or the pure-Go fake. It speaks the C ABI's vocabulary in plain Go values, so that both sides obey one contract; the
// contract itself is written in include/streaminfer.h.
package backend

import "time"

// Status numbers that this module acts on; package streaminfer documents all of them.
const (
	OK         int32 = 0
	Pending    int32 = 1
	Parked     int32 = 2
	TooLate    int32 = 3
	WrongState int32 = 105
	Draining   int32 = 306
)

// Error is a failure as the library reports it.
type Error struct {
	Status  int32
	Native  int32
	Message string
}

func (e *Error) Error() string { return e.Message }

// LibraryName is the shared library's file name.
const LibraryName = "libstreaminfer.so"

// LibraryError lists where the shared library was looked for and why each place was not taken.
type LibraryError struct {
	Tried []LibraryAttempt
}

// LibraryAttempt is one path that was tried.
type LibraryAttempt struct {
	Path, Reason string
}

func (e *LibraryError) Error() string { return "no usable " + LibraryName }

// Dynamic stands for an extent that a model leaves open.
const Dynamic int64 = -1

// Tensor describes one input or output of a model. DType is the ABI's number.
type Tensor struct {
	Name     string
	DType    uint32
	Shape    []int64
	DimNames []string
	// RankOpen says that the model declares no shape at all.
	RankOpen bool
	// ShapeInput says that the tensor's values, not only its shape, are part of a bucket's key.
	ShapeInput bool
}

// Bucket is one set of input shapes, and values of shape inputs, in the order of the model's inputs. A nil entry of
// Values belongs to an input that is no shape input.
type Bucket struct {
	Shapes [][]int64
	Values [][]int64
}

// View is memory of a context: fixed from Prepare until Free. Strides are in bytes.
type View struct {
	DType   uint32
	Data    []byte
	Shape   []int64
	Strides []int64
}

// Record is a context's completion record as Go reads it: two words that other threads write. Both are hints: a
// request has ended when Poll or a Completion says so.
type Record struct {
	// Done is the sequence of the last request that ended well, Failed of the last one that did not.
	Done, Failed *uint32
}

// Completion announces the end of one parked request.
type Completion struct {
	Token    uint64
	Sequence uint32
	Status   int32
}

// EngineOptions are the choices made when an engine is opened; package streaminfer documents them.
type EngineOptions struct {
	Device         string
	Library        string
	Threads        int
	InFlightMax    int
	SessionsMax    int
	MemoryBytesMax uint64
}

// Device describes a device that can be opened.
type Device struct {
	ID, Name, Kind string
	Processors     int
	MemoryBytes    uint64
}

// Stats are an engine's live objects and what they hold.
type Stats struct {
	DeviceState                        int
	Models, Contexts, Events, Batchers int
	Memories                           int
	Threads, InFlight, Completions     int
	WeightsBytes, RetainedBytes        uint64
	ArenaBytes, PinnedBytes            uint64
	MemoryBytes, RegisteredBytes       uint64
	Requests, Failures                 uint64
}

var epoch = time.Now()

// Now reads the monotonic clock that all stamps of a request are on: the time since the program began to run.
func Now() time.Duration { return time.Since(epoch) }

// Stamps are the moments of a context's last ended request, by the clock of Now: when it was submitted, when the device
// started it, when its inputs were in place, when its outputs were computed, and when the host could see them.
type Stamps struct {
	Submitted, Started, Inputs, Computed, Done time.Duration
}

// BatchStamps say which batch a request ran in, and where the batch's time went.
type BatchStamps struct {
	// Batch counts the batches of a batcher from 1. Rows are those of requests, BucketRows all of the bucket.
	Batch            uint64
	Rows, BucketRows int
	// Service is what the bucket usually took from submit to end when the batch closed.
	Service time.Duration
	// Opened is when the batch's first rows were reserved, Closed when it took no more.
	Opened, Closed time.Duration
	Stamps
}

// ModelOptions are the choices made when a model is loaded.
type ModelOptions struct {
	Precision   uint32
	Paddings    []Padding
	Overridable []string
	// Multiprocessors of the device for this model alone, at least; 0 means all of them, shared.
	Multiprocessors int
}

// Padding declares that an axis of an input may be smaller than its bucket's.
type Padding struct {
	Kind, Dimension uint32
	Input, Axis     int
	Value           float64
}

// ContextOptions are the choices made when a context is created. No buckets means all of the model's.
type ContextOptions struct {
	Threads  int
	Buckets  []Bucket
	Priority uint32
}

// BatcherOptions are the choices made when a batcher is made. No buckets means all of the model's.
type BatcherOptions struct {
	Contexts, Threads int
	Delay             time.Duration
	Buckets           []Bucket
	Priority          uint32
}

// BatcherStats are a batcher's figures; package streaminfer documents them.
type BatcherStats struct {
	Classes, Slots, Forming, Running                       int
	Reservations, Refusals, Completed, Abandoned           uint64
	Expired, Cancelled, Failed, Batches, Rows, PaddingRows uint64
}

// Batcher merges requests to one model. Its methods may be called from any goroutine, Free when no other is in progress and
// no ticket has a slot.
type Batcher interface {
	NewTicket() Ticket
	Stats() (BatcherStats, error)
	Free() error
}

// Ticket carries one request at a time through a batcher. One goroutine at a time calls its methods.
type Ticket interface {
	// Reserve takes a slot, which the ticket has until Abandon or Release. A timeout above 0 is the time within which the
	// result is of use.
	Reserve(b Bucket, timeout time.Duration) error
	// Input describes the slot's part of an input, which may be written until Commit; Output that of an output, once the slot
	// has ended with OK.
	Input(index int, view *View) error
	Output(index int, view *View) error
	// Timings tell of the batch of a slot that has ended with OK.
	Timings() (BatchStamps, error)
	// Commit has the request run with its batch, and promises one Completion with the token.
	Commit(token uint64) error
	// Cancel gives a committed request up, or returns TooLate if it has ended.
	Cancel() (int32, error)
	// Abandon gives back a slot that is not committed, Release one that has ended.
	Abandon() error
	Release() error
	// Free releases the ticket's own memory; it has no slot.
	Free() error
}

// MemoryOptions say what memory is to be had; package streaminfer documents the kinds. Data is the program's own, pinned by the
// caller, and lies in no memory of the library's.
type MemoryOptions struct {
	Kind                                uint32
	Data                                []byte
	Bytes, Rows, RowBytes, ElementBytes int
}

// MemoryInfo describes a memory. Data is nil for device memory; Attached counts the inputs and outputs that lie in it.
type MemoryInfo struct {
	Data                              []byte
	Bytes, Rows, RowBytes, PitchBytes int
	Attached                          int
}

// Rectangle is a part of rows; zeros mean everything, without gaps.
type Rectangle struct {
	Row, Rows, Byte, Bytes, Pitch int
}

// Memory is memory beside that of contexts. Its methods may be called from any goroutine.
type Memory interface {
	Info() (MemoryInfo, error)
	Write(r Rectangle, from []byte) error
	Read(r Rectangle, into []byte) error
	// Free releases it once no context uses it any more.
	Free() error
}

// Engine is one opened device. Its methods may be called from any goroutine.
type Engine interface {
	// Device is what was opened, and why "auto" has taken the host; nil if it did not have to.
	Device() (device Device, passedOver, err error)
	Stats() (Stats, error)
	Load(path string, options *ModelOptions) (Model, error)
	LoadBytes(data []byte, options *ModelOptions) (Model, error)
	NewEvent() (Event, error)
	NewMemory(options *MemoryOptions) (Memory, error)
	// Reap blocks until at least one parked request has ended and moves what has into dst. After Close it returns 0.
	// One goroutine calls it.
	Reap(dst []Completion) (int, error)
	// Close releases the engine; a Reap in progress returns 0.
	Close() error
}

// Model is a loaded model. Its methods may be called from any goroutine.
type Model interface {
	Inputs() ([]Tensor, error)
	Outputs() ([]Tensor, error)
	AddBucket(Bucket) error
	// Multiprocessors is the number that contexts of the model run on, 0 if the device has none.
	Multiprocessors() (int, error)
	NewContext(options *ContextOptions) (Context, error)
	NewBatcher(options *BatcherOptions) (Batcher, error)
	Free() error
}

// Context is one lane of execution. One goroutine at a time calls its methods; Cancel and Free may be called meanwhile.
type Context interface {
	Link(input int, source Context, output int) error
	AttachInput(index int, memory Memory, offset int) error
	AttachOutput(index int, memory Memory, offset int) error
	Prepare() error
	Bind() error
	Unbind() error
	// Shape allocates nothing once a shape of each size has been selected.
	Shape(Bucket) error
	// Input and Output describe a tensor of the selected bucket, in the memory of view's slices where it suffices. They fail
	// with Draining while Drained would say false.
	Input(index int, view *View) error
	Output(index int, view *View) error
	// Submit starts a request. A timeout above 0 is the time within which it must have been started.
	Submit(token uint64, timeout time.Duration) (sequence uint32, err error)
	Record() Record
	// Poll returns OK, Pending or Parked, and an error if the request failed.
	Poll(sequence uint32) (int32, error)
	// Wait blocks the calling thread until the request has ended, which Cancel from elsewhere does, too. How it ended Poll
	// tells.
	Wait(sequence uint32)
	Park(sequence uint32) error
	// Unpark returns OK if no completion will come, TooLate if one will.
	Unpark(sequence uint32) (int32, error)
	// Cancel gives the request up, or returns TooLate if it has ended. Until Drained says true the device may use the
	// context's memory.
	Cancel(sequence uint32) (int32, error)
	Drained() (bool, error)
	Timings() (Stamps, error)
	Free() error
}

// Event is a mark on a context's stream.
type Event interface {
	Record(Context) error
	Wait(Context) error
	Free() error
}
