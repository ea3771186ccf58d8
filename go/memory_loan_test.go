package streaminfer

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/streaminfer/streaminfer/go/internal/backend"
)

// lentMemory counts how often it is looked at; so many looks find it in use.
type lentMemory struct {
	backend.Memory
	looks, inUse, freed atomic.Int32
}

func (m *lentMemory) Info() (backend.MemoryInfo, error) {
	m.looks.Add(1)
	return backend.MemoryInfo{Attached: int(max(m.inUse.Add(-1), 0))}, nil
}

func (m *lentMemory) Free() error { m.freed.Add(1); return nil }

// A loan that ends while sessions use it is looked at once the last of them is closed, and no earlier: they may live for long.
func TestLoansAreLookedAtOnceNobodyUsesThem(t *testing.T) {
	m := &lentMemory{}
	m.inUse.Store(4)
	l := &loan{Memory: m}
	for range 2 {
		if err := l.attach(func(backend.Memory) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.attach(func(backend.Memory) error { return ErrUnsupported }); err != ErrUnsupported {
		t.Error(err)
	}
	l.letGo()
	if err := l.Free(); err != nil {
		t.Error(err)
	}
	if looks := m.looks.Load(); looks != 0 || l.hasEnded() {
		t.Errorf("looked at %d times while a session uses it", looks)
	}
	l.letGo()
	for !l.hasEnded() {
		time.Sleep(memoryPauseMin)
	}
	if looks, freed := m.looks.Load(), m.freed.Load(); looks != 4 || freed != 1 {
		t.Errorf("%d looks, freed %d times", looks, freed)
	}
}
