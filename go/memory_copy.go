package streaminfer

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/streaminfer/streaminfer/go/internal/backend"
	"github.com/streaminfer/streaminfer/go/trace"
)

// extent is where memory lies that the device reaches in place, on a GPU page-locked: from begin, bytes long.
type extent struct {
	begin uintptr
	bytes int
}

func extentOf(data []byte) extent {
	return extent{uintptr(unsafe.Pointer(unsafe.SliceData(data))), len(data)}
}

// holds reports whether all of other lies inside.
func (e extent) holds(other extent) bool {
	return other.begin >= e.begin && other.bytes <= e.bytes && other.begin-e.begin <= uintptr(e.bytes-other.bytes)
}

// locker is a child of an engine with memory that is page-locked.
type locker interface{ locks(extent) bool }

func (m *Memory) locks(e extent) bool { return extentOf(m.info.Data).holds(e) }

func (s *Session) locks(e extent) bool {
	for i := range s.seen {
		if s.seen[i].extent().holds(e) {
			return true
		}
	}
	return false
}

// seen is what Input and Output have given out of one tensor, which a trace of copies asks for from elsewhere. Its address never changes;
// it is as long as in the largest bucket that was asked for.
type seen struct {
	begin atomic.Uintptr
	bytes atomic.Int64
}

func (v *seen) note(data []byte) {
	e := extentOf(data)
	if int64(e.bytes) <= v.bytes.Load() {
		return
	}
	v.begin.Store(e.begin)
	v.bytes.Store(int64(e.bytes)) // by the goroutine that is in a call: nobody else writes
}

func (v *seen) extent() extent {
	bytes := int(v.bytes.Load())
	return extent{v.begin.Load(), bytes}
}

// registries are those of the engines that are not closed. What one of them has page-locked is so for all, and cannot be registered again.
var registries sync.Map

// isLocked reports whether memory is page-locked. It looks at all that is: for traces alone.
func isLocked(e extent) bool {
	found := false
	registries.Range(func(each, _ any) bool {
		found = each.(*registry).locks(e)
		return !found
	})
	return found
}

func (r *registry) locks(e extent) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.children {
		if l, ok := c.closer().(locker); ok && l.locks(e) {
			return true
		}
	}
	return false
}

// traced runs a copy, and records it if calls are recorded: which rows were copied when, by which line of code, and whether the slice
// is page-locked. Requests of sessions, pools and batchers need no such record: their inputs and outputs always are.
func (m *Memory) traced(op string, r Rectangle, data []byte, call func(backend.Rectangle, []byte) error) error {
	recorder := m.engine.recording
	on, full := recorder.API()
	if !on {
		return call(backend.Rectangle(r), data)
	}
	at := backend.Now()
	if err := call(backend.Rectangle(r), data); err != nil {
		return err
	}
	event := trace.Event{Kind: trace.CopyPageable, At: at, Took: backend.Now() - at, Session: m.token, Thread: threadID(), Note: op}
	if r.Rows == 0 {
		r.Rows = m.info.Rows - r.Row
	}
	if r.Bytes == 0 {
		r.Bytes = m.info.RowBytes - r.Byte
	}
	if r.Pitch == 0 {
		r.Pitch = r.Bytes
	}
	event.Bytes = int64(r.Rows) * int64(r.Bytes)
	if event.Bytes == 0 || isLocked(extentOf(data[:(r.Rows-1)*r.Pitch+r.Bytes])) {
		event.Kind = trace.Copy
	}
	if full {
		event.Goroutine = goroutineID()
	}
	event.Label = callSite()
	recorder.Event(0, event)
	return nil
}
