package streaminfer

import (
	"context"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// MemoryKind says what a [Memory] is.
type MemoryKind uint32

// The kinds of memory.
const (
	// MemoryPinned is host memory of the library's, page-locked and mapped on a GPU.
	MemoryPinned MemoryKind = 1
	// MemoryRegistered is a slice of the program's own, page-locked and mapped on a GPU while it is registered.
	MemoryRegistered MemoryKind = 2
	// MemoryPitched are rows of device memory, each of which begins where the device accesses it best.
	MemoryPitched MemoryKind = 3
	// MemoryLinear are rows of device memory without gaps.
	MemoryLinear MemoryKind = 4
)

const (
	// MemoryPageBytes is the size of a page: the address of a slice to be registered is a multiple of it.
	MemoryPageBytes = 4096
	// MemoryAlignment is what the offset of an [Attachment] must be a multiple of.
	MemoryAlignment = 64
)

// Memory is memory beside what sessions have anyway. Inputs and outputs of sessions can be attached to pinned and registered
// memory, so that a program with buffers of its own copies nothing. Pitched and linear memory is the device's, for programs
// that keep data there: copy to and from it. Any goroutine may use a Memory.
type Memory struct {
	engine  *Engine
	memory  backend.Memory
	info    backend.MemoryInfo
	kind    MemoryKind
	token   uint64
	cleanup runtime.Cleanup

	// mu is held while a session attaches to it, while it is closed, and where it must not be closed meanwhile.
	mu     sync.Mutex
	closed bool
}

// NewPinned takes so many bytes of zeroed host memory that the device reads and writes in place: see [Elements].
//
// Errors: StatusInvalidArgument, StatusTooLarge, StatusOutOfMemory, StatusLimitReached.
func (e *Engine) NewPinned(bytes int) (*Memory, error) {
	return e.newMemory("new pinned", &backend.MemoryOptions{Kind: uint32(MemoryPinned), Bytes: bytes})
}

// Register lets the device read and write a slice of the program's own in place, from its first element to its last. The
// slice must begin with a page (a multiple of [MemoryPageBytes]), and no page of it may be registered already: memory from
// mmap does, and so does, as Go's allocator is made, a slice of more than 32 KiB that make has returned. A slice of Go's stays
// where it is (see [runtime.Pinner]) until the Memory is closed and the last session that it is attached to has ended; it is not
// collected before.
//
// What the garbage collector does not know is the caller's to keep: memory from mmap must not be unmapped before the Memory is
// closed and nothing is attached to it any more, which [Memory.Drain] waits for. Sessions are attached until they are closed, their
// device has finished with what was in flight, and the sessions that are linked to them are closed, too.
//
// Errors: StatusInvalidArgument, StatusTooLarge, StatusOutOfMemory, StatusLimitReached.
func Register[T Element](e *Engine, slice []T) (*Memory, error) {
	if len(slice) == 0 {
		return nil, refusal("register", StatusInvalidArgument, "the slice to be registered is empty")
	}
	data := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(slice))), len(slice)*int(unsafe.Sizeof(*new(T))))
	return e.newMemory("register", &backend.MemoryOptions{Kind: uint32(MemoryRegistered), Data: data})
}

// NewPitched takes rows of device memory, each of which begins where the device reads and writes elements of so many bytes (4,
// 8 or 16) best. What they hold is undefined.
//
// Errors: StatusInvalidArgument, StatusTooLarge, StatusOutOfMemory, StatusLimitReached.
func (e *Engine) NewPitched(rows, rowBytes, elementBytes int) (*Memory, error) {
	if elementBytes == 0 { // the library's default is no element size of Go's callers
		return nil, refusal("new pitched", StatusInvalidArgument, "elements have 4, 8 or 16 bytes, not 0")
	}
	return e.newMemory("new pitched",
		&backend.MemoryOptions{Kind: uint32(MemoryPitched), Rows: rows, RowBytes: rowBytes, ElementBytes: elementBytes})
}

// NewLinear takes rows of device memory without gaps between them. What they hold is undefined.
//
// Errors: StatusInvalidArgument, StatusTooLarge, StatusOutOfMemory, StatusLimitReached.
func (e *Engine) NewLinear(rows, rowBytes int) (*Memory, error) {
	return e.newMemory("new linear", &backend.MemoryOptions{Kind: uint32(MemoryLinear), Rows: rows, RowBytes: rowBytes})
}

func (e *Engine) newMemory(op string, options *backend.MemoryOptions) (*Memory, error) {
	if options.Bytes < 0 || options.Rows < 0 || options.RowBytes < 0 || options.ElementBytes < 0 {
		return nil, refusal(op, StatusInvalidArgument, "a size is below zero")
	}
	if err := checkCounts(op, option{"elementBytes", options.ElementBytes}); err != nil {
		return nil, err
	}
	lent := &loan{}
	if options.Data != nil {
		lent.pinner.Pin(unsafe.SliceData(options.Data))
	}
	raw, err := e.backend.NewMemory(options)
	if err != nil {
		lent.pinner.Unpin()
		return nil, failure(op, ExecutedNo, err)
	}
	m := &Memory{engine: e, memory: raw, kind: MemoryKind(options.Kind)}
	if options.Kind == uint32(MemoryRegistered) {
		lent.Memory, m.memory = raw, lent
	}
	if m.info, err = raw.Info(); err == nil {
		err = adopt(e.registry, m, nil, func(token uint64) {
			m.token = token
			m.cleanup = runtime.AddCleanup(m, forgotten.free, forgotten{e.registry, token, m.memory})
		})
	}
	if err != nil {
		_ = m.memory.Free()
		return nil, failure(op, ExecutedNo, err)
	}
	return m, nil
}

// Kind says what it is.
func (m *Memory) Kind() MemoryKind { return m.kind }

// Rows, RowBytes and Pitch describe device memory: its rows, the bytes of a row, and those from the start of a row to that of
// the next. Host memory is one row.
func (m *Memory) Rows() int     { return m.info.Rows }
func (m *Memory) RowBytes() int { return m.info.RowBytes }
func (m *Memory) Pitch() int    { return m.info.PitchBytes }

// Elements returns pinned or registered memory as a slice, to be read and written in place, but not while a request of a
// session that is attached to it is in flight. Its length is that of the memory in elements, rounded down. It must not be touched
// after Close, when the memory is pinned, nor once m is unreachable: keep m as long as the slice.
//
// Errors: StatusInvalidArgument for device memory, StatusStaleHandle after Close.
func Elements[T Element](m *Memory) ([]T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, refusal("elements", StatusStaleHandle, "the memory is closed")
	}
	if m.info.Data == nil {
		return nil, refusal("elements", StatusInvalidArgument, "the host has no access to device memory: copy it")
	}
	size := int(unsafe.Sizeof(*new(T)))
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(m.info.Data))), len(m.info.Data)/size), nil
}

// Rectangle is a part of the rows of device memory, and how it lies in a slice. The zero value is everything, without gaps.
type Rectangle struct {
	// Row is the first row, Rows how many there are; 0 means all from the first on.
	Row, Rows int
	// Byte is the first byte of each row, Bytes how many there are; 0 means all from the first on.
	Byte, Bytes int
	// Pitch is the distance of the rows' starts in the slice; 0 means as many bytes as are copied of each.
	Pitch int
}

// Write copies from a slice to device memory and returns when the bytes are there.
//
// Errors: StatusInvalidArgument for host memory and for a rectangle that is not inside of the memory or of from,
// StatusDeviceLost.
func (m *Memory) Write(r Rectangle, from []byte) error {
	return m.copy("write", r, from, m.memory.Write)
}

// Read copies from device memory to a slice and returns when the bytes are there. Errors as for Write.
func (m *Memory) Read(r Rectangle, into []byte) error {
	return m.copy("read", r, into, m.memory.Read)
}

func (m *Memory) copy(op string, r Rectangle, data []byte, call func(backend.Rectangle, []byte) error) error {
	if r.Row < 0 || r.Rows < 0 || r.Byte < 0 || r.Bytes < 0 || r.Pitch < 0 {
		return refusal(op, StatusInvalidArgument, "the rectangle %+v has a number below zero", r)
	}
	err := m.traced(op, r, data, call)
	runtime.KeepAlive(m)
	return failure(op, ExecutedNo, err)
}

// Drain waits until nothing is attached to the memory any more: sessions that are, and those linked to them, are closed, and their
// device has finished. Of registered memory it can be waited for after Close, too, and then it is the program's alone, so that it
// may be unmapped.
//
// Errors: ctx's, StatusStaleHandle after Close but for registered memory.
func (m *Memory) Drain(ctx context.Context) error {
	const op = "drain"
	for pause := memoryPauseMin; ; pause = min(2*pause, memoryPauseMax) {
		if drained, err := m.isDrained(op); drained || err != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return givenUp(op, ExecutedNo, ctx)
		}
	}
}

func (m *Memory) isDrained(op string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lent, isLent := m.memory.(*loan)
	switch {
	case m.closed && isLent:
		return lent.hasEnded(), nil
	case m.closed:
		return false, refusal(op, StatusStaleHandle, "the memory is closed")
	}
	info, err := m.memory.Info()
	return info.Attached == 0, failure(op, ExecutedNo, err)
}

// Close frees the memory, now or when the last session that it is attached to is closed and its device has finished. It does not
// wait for that, so memory from mmap must not be unmapped before [Memory.Drain] has returned, before or after Close. Closing again
// does nothing.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	m.cleanup.Stop()
	m.engine.forget(m.token)
	return failure("close", ExecutedNo, m.memory.Free())
}

// attach runs a call that attaches to the memory, unless it is closed. The memory is not closed meanwhile.
func (m *Memory) attach(call func(backend.Memory) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return &backend.Error{Status: int32(StatusStaleHandle), Message: "the memory is closed"}
	}
	if lent, ok := m.memory.(*loan); ok {
		return lent.attach(call)
	}
	return call(m.memory)
}
