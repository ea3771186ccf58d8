package fake

import (
	"slices"
	"sync"
	"unsafe"

	streaminfer "github.com/streaminfer/streaminfer/go"
	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// block is a Memory: a slice, the program's own if it is registered.
type block struct {
	engine *engine
	kind   streaminfer.MemoryKind
	data   []byte
	rows   int
	// rowBytes are in use of pitch.
	rowBytes, pitch int

	mu sync.Mutex
	// parts are those of sessions' inputs and outputs.
	parts []*part
	freed bool
}

// part is one input or output of a lane.
type part struct {
	memory     *block
	begin, end int
}

// rowAlignment is that of pitched rows, as on the host device.
const rowAlignment = 64

func (e *engine) NewMemory(o *backend.MemoryOptions) (backend.Memory, error) {
	m := &block{engine: e, kind: streaminfer.MemoryKind(o.Kind), rows: 1}
	var err error
	switch m.kind {
	case streaminfer.MemoryPinned:
		if o.Bytes <= 0 {
			return nil, status(streaminfer.StatusInvalidArgument, "a memory has at least one byte")
		}
		if o.Bytes > memoryBytesMax {
			return nil, tooLarge("a memory", o.Bytes, memoryBytesMax)
		}
		words := make([]uint64, o.Bytes/8+1)
		m.data = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), o.Bytes)
	case streaminfer.MemoryRegistered:
		if m.data = o.Data; len(m.data) == 0 {
			return nil, status(streaminfer.StatusInvalidArgument, "the range to be registered is empty")
		}
		if begin, _ := m.pages(); begin != uintptr(unsafe.Pointer(unsafe.SliceData(m.data))) {
			return nil, status(streaminfer.StatusInvalidArgument, "the range to be registered does not begin with a page")
		}
	default:
		if o.Rows <= 0 || o.RowBytes <= 0 {
			return nil, status(streaminfer.StatusInvalidArgument, "%d rows of %d bytes are no memory", o.Rows, o.RowBytes)
		}
		if o.RowBytes > rowBytesMax {
			return nil, tooLarge("a row", o.RowBytes, rowBytesMax)
		}
		m.rows, m.rowBytes, m.pitch = o.Rows, o.RowBytes, o.RowBytes
		if m.kind == streaminfer.MemoryPitched {
			if !slices.Contains([]int{4, 8, 16}, o.ElementBytes) {
				return nil, status(streaminfer.StatusInvalidArgument, "elements have 4, 8 or 16 bytes, not %d", o.ElementBytes)
			}
			m.pitch = (o.RowBytes + rowAlignment - 1) / rowAlignment * rowAlignment
		}
		if m.rows > memoryBytesMax/m.pitch {
			return nil, status(streaminfer.StatusTooLarge, "%d rows of %d bytes are above %d bytes", m.rows, m.pitch, memoryBytesMax)
		}
		m.data = make([]byte, m.rows*m.pitch)
	}
	if m.pitch == 0 {
		m.rowBytes, m.pitch = len(m.data), len(m.data)
	}
	if err = e.enter(m); err != nil {
		return nil, err
	}
	return m, nil
}

func tooLarge(what string, bytes, bound int) error {
	return status(streaminfer.StatusTooLarge, "%s of %d bytes is above %d", what, bytes, bound)
}

// pages are the addresses that a registered memory's pages reach from and to.
func (m *block) pages() (begin, end uintptr) {
	const page = streaminfer.MemoryPageBytes
	begin = uintptr(unsafe.Pointer(unsafe.SliceData(m.data)))
	end = begin + uintptr(len(m.data))
	return begin / page * page, (end + page - 1) / page * page
}

// enter counts a memory, unless it overlaps one that is registered.
func (e *engine) enter(m *block) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.open(); err != nil {
		return err
	}
	if m.kind == streaminfer.MemoryRegistered {
		begin, end := m.pages()
		for _, other := range e.registered {
			if from, to := other.pages(); begin < to && from < end {
				return status(streaminfer.StatusInvalidArgument, "a part of the range is registered already")
			}
		}
		e.registered = append(e.registered, m)
		e.stats.RegisteredBytes += uint64(len(m.data))
	} else {
		e.stats.MemoryBytes += uint64(len(m.data))
	}
	e.stats.Memories++
	return nil
}

// leave is called with m's lock held, when it is freed and nothing is attached to it any more.
func (e *engine) leave(m *block) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Memories--
	if m.kind == streaminfer.MemoryRegistered {
		e.registered = slices.DeleteFunc(e.registered, func(other *block) bool { return other == m })
		e.stats.RegisteredBytes -= uint64(len(m.data))
	} else {
		e.stats.MemoryBytes -= uint64(len(m.data))
	}
}

func (m *block) isHost() bool {
	return m.kind == streaminfer.MemoryPinned || m.kind == streaminfer.MemoryRegistered
}

func (m *block) Info() (backend.MemoryInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.freed {
		return backend.MemoryInfo{}, status(streaminfer.StatusStaleHandle, "the memory is freed")
	}
	info := backend.MemoryInfo{Bytes: len(m.data), Rows: m.rows, RowBytes: m.rowBytes, PitchBytes: m.pitch, Attached: len(m.parts)}
	if m.isHost() {
		info.Data = m.data
	}
	return info, nil
}

func (m *block) Write(r backend.Rectangle, from []byte) error {
	return m.each(r, len(from), func(inside, outside int) { copy(m.data[inside:][:r.Bytes], from[outside:]) }, &r)
}

func (m *block) Read(r backend.Rectangle, into []byte) error {
	return m.each(r, len(into), func(inside, outside int) { copy(into[outside:][:r.Bytes], m.data[inside:]) }, &r)
}

// each calls copy for every row of a rectangle, whose defaults it writes to full.
func (m *block) each(r backend.Rectangle, room int, copy func(inside, outside int), full *backend.Rectangle) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.freed:
		return status(streaminfer.StatusStaleHandle, "the memory is freed")
	case m.isHost():
		return status(streaminfer.StatusInvalidArgument, "host memory is read and written in place, not copied")
	case r.Pitch > rowPitchMax:
		return status(streaminfer.StatusInvalidArgument, "the slice's rows begin %d bytes apart, and %d is the most", r.Pitch, rowPitchMax)
	}
	if r.Rows == 0 {
		r.Rows = max(m.rows-r.Row, 0)
	}
	if r.Bytes == 0 {
		r.Bytes = max(m.rowBytes-r.Byte, 0)
	}
	if r.Pitch == 0 {
		r.Pitch = r.Bytes
	}
	if r.Row > m.rows-r.Rows || r.Byte > m.rowBytes-r.Bytes || r.Rows > 1 && r.Pitch < r.Bytes {
		return status(streaminfer.StatusInvalidArgument, "the rectangle %+v is not inside of %d rows of %d bytes", r, m.rows, m.rowBytes)
	}
	if r.Rows > 0 && (r.Bytes > room || r.Pitch > 0 && r.Rows-1 > (room-r.Bytes)/r.Pitch) {
		return status(streaminfer.StatusInvalidArgument, "the rectangle %+v is not inside of %d bytes", r, room)
	}
	*full = r
	for row := range r.Rows {
		copy((r.Row+row)*m.pitch+r.Byte, row*r.Pitch)
	}
	return nil
}

func (m *block) Free() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.freed {
		return status(streaminfer.StatusStaleHandle, "the memory is freed")
	}
	if m.freed = true; len(m.parts) == 0 {
		m.engine.leave(m)
	}
	return nil
}

// claim takes a part for an input or output of so many bytes.
func (m *block) claim(offset, bytes int) (*part, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	needed := max(bytes, 1)
	switch {
	case m.freed:
		return nil, status(streaminfer.StatusStaleHandle, "the memory is freed")
	case !m.isHost():
		return nil, status(streaminfer.StatusInvalidArgument, "device memory cannot be attached")
	case needed > len(m.data) || offset > len(m.data)-needed:
		return nil, status(streaminfer.StatusInvalidArgument, "%d bytes from byte %d on are needed, and the memory has %d", bytes, offset, len(m.data))
	case offset%streaminfer.MemoryAlignment != 0:
		return nil, status(streaminfer.StatusInvalidArgument, "byte %d is no multiple of %d", offset, streaminfer.MemoryAlignment)
	}
	p := &part{m, offset, offset + needed}
	for _, other := range m.parts {
		if p.begin < other.end && other.begin < p.end {
			return nil, status(streaminfer.StatusInvalidArgument, "another input or output lies there")
		}
	}
	m.parts = append(m.parts, p)
	return p, nil
}

func (p *part) release() {
	m := p.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts = slices.DeleteFunc(m.parts, func(other *part) bool { return other == p })
	if m.freed && len(m.parts) == 0 {
		m.engine.leave(m)
	}
}

func (l *lane) AttachInput(index int, m backend.Memory, offset int) error {
	return l.attach(&l.inputs[index], l.isLinked(index), m, offset)
}

func (l *lane) AttachOutput(index int, m backend.Memory, offset int) error {
	return l.attach(&l.outputs[index], false, m, offset)
}

// attach puts a tensor into a memory of the same engine.
func (l *lane) attach(tensor *[]byte, linked bool, to backend.Memory, offset int) error {
	m, ok := to.(*block)
	if !ok || m.engine != l.engine {
		return status(streaminfer.StatusInvalidArgument, "the memory belongs to another engine")
	}
	if err := l.enter(); err != nil {
		return err
	}
	defer l.mu.Unlock()
	if l.prepared {
		return status(streaminfer.StatusWrongState, "the context is prepared")
	}
	if linked || l.attached[tensor] != nil {
		return status(streaminfer.StatusInvalidArgument, "the tensor is linked or attached already")
	}
	p, err := m.claim(offset, len(*tensor))
	if err != nil {
		return err
	}
	if l.attached == nil {
		l.attached = map[*[]byte]*part{}
	}
	l.attached[tensor] = p
	*tensor = m.data[offset:][:len(*tensor)]
	return nil
}

// detach gives the memory back that inputs and outputs lie in. Nothing runs any more.
func (l *lane) detach() {
	for _, p := range l.attached {
		p.release()
	}
}
